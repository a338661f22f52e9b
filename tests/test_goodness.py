"""Goodness of fit of templates, and the compatibility of what is combined, against closed forms."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import milanalysis, write_config
from scipy.special import xlogy
from scipy.stats import chi2, kstest, poisson

from milanalysis.files.records import read_record
from milanalysis.parameters import EFTPolynomial, Parameter
from milanalysis.statistics.inference.fits import FitResult, Status, fit
from milanalysis.statistics.likelihood.models import RateModel
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.observation import Observation, observe
from milanalysis.statistics.templates.contents import Templates
from milanalysis.statistics.templates.goodness import compatibility, goodness_of_fit
from milanalysis.statistics.templates.model import TemplateModel
from milanalysis.statistics.templates.systematics import BackgroundTemplate, TemplateSystematic

PARAMETER = Parameter(name="c")


def gaussian(mean, error, low=-5.0, high=5.0):
    """The likelihood of a measurement of c."""
    return ProfileLikelihood(
        ("c",), ((low, high),), (0.0,), lambda theta: ((theta[:, 0] - mean) / error) ** 2
    )


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.1), (0.0, 0.5), (-0.4, 0.7)])
def test_two_gaussian_measurements_have_the_compatibility_of_their_difference(a, b):
    expected = chi2.sf((a - b) ** 2 / (0.2**2 + 0.3**2), 1)
    assert compatibility(gaussian(a, 0.2), gaussian(b, 0.3)) == pytest.approx(expected, rel=1e-3)


def test_the_compatibility_of_compatible_measurements_is_uniform():
    rng = np.random.default_rng(1)
    found = [compatibility(gaussian(*one), gaussian(*two)) for one, two in zip(
        zip(rng.normal(0, 0.2, 400), np.full(400, 0.2), strict=True),
        zip(rng.normal(0, 0.3, 400), np.full(400, 0.3), strict=True),
        strict=True,
    )]  # fmt: skip
    assert kstest(found, "uniform").pvalue > 1e-3


def test_nothing_in_common_has_no_compatibility():
    other = ProfileLikelihood(("d",), ((-5.0, 5.0),), (0.0,), lambda theta: theta[:, 0] ** 2)
    assert compatibility(gaussian(0, 1), other) is None
    flat = ProfileLikelihood(("c",), ((-5.0, 5.0),), (0.0,), lambda theta: 0 * theta[:, 0])
    assert compatibility(flat, gaussian(0, 1)) is None


@pytest.mark.parametrize(("n", "expected"), [(100, 100.0), (60, 80.0), (1, 80.0), (230, 120.0)])
def test_a_number_of_events_that_nothing_explains_disagrees(n, expected):
    """A shape without information, and 80 to 120 events expected: the whole Poisson deviance is left."""
    nu = EFTPolynomial(np.array([100.0, 20.0]))
    rate = RateModel(nu, Parameter(name="c", low=-1, high=1)).observe(np.zeros(n, dtype=np.int64))
    saturated = -2 * (xlogy(n, n / 100) - (n - 100))
    deviance = 2 * (expected - n + xlogy(n, n / expected))
    found = compatibility(gaussian(0, 1e3, low=-1, high=1), rate, saturated)
    assert found == pytest.approx(chi2.sf(deviance, 1), rel=2e-2, abs=1e-4)


def test_an_uncertain_background_explains_its_own_shift():
    """30 % more background of 30 % uncertainty is one standard deviation, for shape and rate together."""
    background = BackgroundTemplate(  # 200 events
        np.array([60.0, 30, 20, 20, 20, 50]), np.zeros(6), 0.3
    )
    whole = replace(templates(600.0).templates, background=background)
    joint = TemplateModel(whole, np.arange(6), PARAMETER, with_rate=True)
    point = np.zeros((1, 2))
    point[0, 1] = 1.0
    counts = np.round(joint.expected(point)[0]).astype(np.int64)
    rows = np.repeat(np.arange(6), counts)
    observation = observe(
        {"one": ("one", replace(joint, with_rate=False))},
        RateModel(EFTPolynomial(np.array([800.0, 20.0])), PARAMETER).observe(rows),
        rows,
        points=np.linspace(-0.5, 0.5, 5),
        level=0.68,
        n_expected=800.0,
        joint={"one": joint},
    )
    found = observation.methods["one"].compatibility
    assert found is not None
    assert found > 0.2


def templates(total, n_bins=6):
    """Bins with different slopes, without Monte Carlo errors."""
    slopes = np.linspace(-0.4, 0.4, n_bins)
    contents = total / n_bins * np.stack([np.ones(n_bins), slopes], axis=1)
    edges = np.concatenate([[-np.inf], np.arange(n_bins - 1.0), [np.inf]])
    return TemplateModel(
        Templates(edges, contents, np.zeros(n_bins)), np.arange(n_bins), PARAMETER, with_rate=True
    )


def test_the_deviance_is_that_of_poisson_counts():
    counts = np.array([90, 120, 85, 104, 130, 95])
    found = goodness_of_fit(templates(600), counts, np.random.default_rng(0))
    # by hand, over a fine grid of the parameter
    nu = 100 * (1 + np.linspace(-1, 1, 20_001)[:, None] * np.linspace(-0.4, 0.4, 6))
    deviance = 2 * (nu - counts + counts * np.log(counts / nu)).sum(axis=1).min()
    assert found.deviance == pytest.approx(deviance, abs=1e-4)
    assert (found.n_dof, found.source) == (5, "chi-square distribution")
    assert found.p_value == pytest.approx(chi2.sf(deviance, 5), rel=1e-3)
    assert found.p_value < 0.05


def test_few_events_in_a_bin_are_tested_by_repetition():
    counts = np.array([1, 0, 3, 2, 1, 2])
    found = goodness_of_fit(templates(9), counts, np.random.default_rng(3))
    n_fitted = int(found.source.split()[0])
    assert found.source.endswith("pseudo-experiments")
    assert n_fitted >= 995  # without any event there is nothing to fit, P = exp(-9)
    assert found.error == pytest.approx(np.sqrt(found.p_value * (1 - found.p_value) / n_fitted))
    # the same by hand at the best fit, whose fluctuation with each repetition is one degree of freedom of six
    rng = np.random.default_rng(4)
    nu = 1.5 * (1 + np.linspace(-1, 1, 2001)[:, None] * np.linspace(-0.4, 0.4, 6))
    safe = np.where(counts > 0, counts, 1)
    best = (2 * (nu - counts + counts * np.log(safe / nu))).sum(axis=1)
    assert found.deviance == pytest.approx(best.min(), abs=1e-3)
    drawn = poisson.rvs(nu[best.argmin()], size=(1000, 6), random_state=rng)
    logs = np.where(drawn > 0, drawn * np.log(np.where(drawn > 0, drawn, 1)), 0.0).sum(axis=1)
    values = (2 * (nu.sum(axis=1) - drawn.sum(axis=1)[:, None] + logs[:, None] - drawn @ np.log(nu).T)).min(
        axis=1
    )
    # 4 binomial standard deviations of two times 1000
    assert found.p_value == pytest.approx(np.mean(values >= best.min()), abs=4 * np.sqrt(0.5 / 1000))


def test_where_most_repeated_fits_fail_there_is_no_goodness_of_fit(monkeypatch, caplog):
    fits = iter(range(10_000))

    def failing(likelihood):
        return (
            fit(likelihood) if next(fits) == 0 else FitResult(("c",), (None,), (None,), None, Status.FAILED)
        )

    monkeypatch.setattr("milanalysis.statistics.templates.goodness.fit", failing)
    assert goodness_of_fit(templates(9), np.array([1, 0, 3, 2, 1, 2]), np.random.default_rng(3)) is None
    assert "1000 of 1000 fits to counts like the 9 observed ones fail" in caplog.text


def test_auxiliary_measurements_fluctuate_when_a_test_is_repeated(monkeypatch):
    """A 100 % bin and one that shares its parameter: unless each is measured anew p is far too small.

    Counts n of two bins with means m (1 + a)^k for k = 1, 2, where a pull is measured as 0 +- 1. The p-value
    of counts drawn with pulls of their own is uniform: its mean over 60 of them is 0.5 within 4 / sqrt(12 *
    60) = 0.15.
    """
    monkeypatch.setattr("milanalysis.statistics.templates.goodness._REPEATED", 40)
    up, down = np.array([1.6, 2.2]), np.array([0.6, 0.4])
    nominal = np.array([2.0, 2.5])
    systematic = TemplateSystematic.of("jes", nominal, nominal * up, nominal * down)
    contents = np.stack([nominal, np.array([0.1, -0.1])], axis=1)
    model = replace(
        templates(1, 2),
        templates=Templates(np.array([-np.inf, 0.0, np.inf]), contents, np.zeros(2), None, (systematic,)),
    )
    rng = np.random.default_rng(12)
    values = []
    for _ in range(60):
        pull = rng.standard_normal()
        expected = model.expected(np.array([[0.0, pull]]))[0]
        found = goodness_of_fit(model, rng.poisson(expected), rng)
        values += [] if found is None else [found.p_value]
    assert len(values) > 50
    assert np.mean(values) == pytest.approx(0.5, abs=0.2)  # and discrete counts make it a little larger


def test_no_events_have_no_goodness_of_fit():
    assert goodness_of_fit(templates(600), np.zeros(6, dtype=np.int64), np.random.default_rng(0)) is None


@pytest.mark.slow
def test_a_wrong_luminosity_is_noticed(small_run, tmp_path):
    run = small_run[1]
    fine = read_record(run / "results" / "observed.json", Observation)
    assert all(one.compatibility > 1e-3 for one in fine.methods.values() if one.compatibility is not None)
    again = shutil.copytree(run, tmp_path / "run")
    half = write_config(tmp_path / "half.yaml", luminosity_fb=10)  # a tenth of what these data have
    result = milanalysis("run", half, "-o", again)
    assert result.exit_code == 0, result.output
    wrong = read_record(again / "results" / "observed.json", Observation)
    exact = wrong.methods["exact_visible"]
    assert exact.compatibility < 1e-3
    assert exact.combined.status == "incompatible"
    assert not exact.combined.valid
    assert "disagree: p is below 0.001" in result.output
    assert "Goodness of fit of the templates" in result.output
