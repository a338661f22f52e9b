"""The exact information of the built-in process with quark cuts, and that of a parabola."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from milanalysis.config import GeneratorConfig
from milanalysis.parameters import EFTPolynomial, Parameter, parameter_points
from milanalysis.ratios.terms import GridTerms, PolynomialTerms, RestrictedTerms
from milanalysis.simulation.exact.visible_ratio import FAST, VisibleRatio
from milanalysis.simulation.generator import Generator, generate_sample
from milanalysis.statistics.calibration.bartlett import jackknife
from milanalysis.statistics.information.exact_score import (
    ExactScore,
    event_score,
    exact_score,
    rate_information,
)
from milanalysis.statistics.information.resampling import measured_numbers
from milanalysis.statistics.likelihood.interpolation import ParabolaWindow
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.repetition.datasets import draw
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, run

logger = logging.getLogger(__name__)
N_EVENTS = 1000


@pytest.fixture(scope="module")
def exact():
    """Weighted events with quark cuts: exact terms, weights, and the rate for 1000 events."""
    rng = np.random.default_rng(300)
    events = Generator.adapted(GeneratorConfig(), 0.0, rng).weighted(600_000, rng)
    rate = events.weight @ events.polynomials / events.weight.sum()
    return PolynomialTerms(events.polynomials[None], rate[None]), events.weight, rate


def test_the_exact_row_has_the_information_of_shape_and_of_shape_with_rate(exact):
    terms, weights, rate = exact

    def statistic(weight, score, *powers):
        weight = weight / weight.sum()
        variance = weight @ (score - weight @ score) ** 2
        return N_EVENTS * np.array([variance, variance + (weight @ powers[0]) ** 2])

    columns = [weights, event_score(terms, 0.0), terms.polynomials[0, :, 1]]
    shape, both = jackknife(statistic, columns)
    rows = draw(weights, 20, N_EVENTS, np.random.default_rng(301))
    nu = EFTPolynomial(N_EVENTS * rate)
    truth = exact_score(terms, rows, theta_true=0.0, weights=weights)
    assert truth.information == pytest.approx(shape.value)
    assert truth.information_error == pytest.approx(shape.error, rel=0.4)  # fifty groups know it to 10 %
    nu = EFTPolynomial(N_EVENTS * rate)
    assert rate_information(nu, 0.0, N_EVENTS) == pytest.approx(both.value - shape.value)
    found = exact_score(terms, rows, theta_true=0.0, weights=weights, nu=nu).information
    assert found == pytest.approx(both.value)
    # another program found 292.6 +- 0.4 and 325.2 +- 0.5; half a million weighted events know it to 2
    assert abs(shape.value - 292.6) < 4 * np.hypot(shape.error, 0.4)
    assert abs(both.value - 325.2) < 4 * np.hypot(both.error, 0.5)
    assert max(shape.error, both.error) < 3


def test_a_parabola_reads_a_few_percent_less_even_from_the_exact_likelihood(exact):
    terms, weights, _ = exact
    grid = parameter_points(np.linspace(-1, 1, 21).round(12))
    kept = draw(weights, 1, 40_000, np.random.default_rng(302))[0]  # unweighted by drawing
    terms = terms.take(kept)
    rows = draw(np.ones(len(kept)), 60, N_EVENTS, np.random.default_rng(303))
    models = {
        "exact": ShapeModel(terms, Parameter()),
        "parabola": ShapeModel(GridTerms(grid, terms.per_event(grid)), Parameter(), ParabolaWindow(0.4)),
    }
    fits = run(models, rows, theta_true=0.0).methods
    read = np.nanmean(fits["parabola"].curvature) / np.nanmean(fits["exact"].curvature)
    # the same datasets: the ratio fluctuates by half a percent
    assert 0.86 < read < 0.97


@pytest.mark.long
def test_exact_likelihoods_on_six_thousand_independent_pseudo_experiments():
    """Each event is used once: the documentation's exact rows, about three minutes on two cores."""
    n_blocks, per_block = 6, 1000
    generator = Generator.adapted(GeneratorConfig(), 0.0, np.random.default_rng(310))
    ratio = VisibleRatio(accuracy=FAST)
    grid = parameter_points(np.linspace(-1, 1, 21).round(12))
    rate = generator.rate.coefficients / generator.rate.coefficients[0]
    parts: dict[str, list[MethodFits]] = {"exact": [], "visible": [], "grid": []}
    terms = []
    for number in range(n_blocks):
        events = generate_sample(
            generator, name=f"part {number}", n_events=per_block * N_EVENTS, seed=311, workers=2
        )
        polynomials, visible = (
            np.concatenate(some)
            for some in zip(
                *((one.polynomials, ratio.polynomials(one.momenta[:, [2, 3, 4, 6]])) for one in events),
                strict=True,
            )
        )
        joint = PolynomialTerms(polynomials[None], rate[None])
        seen = PolynomialTerms(visible[None], rate[None])
        models = {
            "exact": ShapeModel(joint, Parameter()),
            "visible": ShapeModel(seen, Parameter()),
            "grid": ShapeModel(RestrictedTerms(seen, grid), Parameter(), ParabolaWindow(0.4)),
        }
        rows = np.arange(per_block * N_EVENTS).reshape(per_block, N_EVENTS)
        for name, fits in run(models, rows, theta_true=0.0, workers=2).methods.items():
            parts[name].append(fits)
        terms.append(event_score(joint, 0.0)[rows].sum(axis=1))
    every = {name: MethodFits.merged(some) for name, some in parts.items()}
    truth = ExactScore(np.concatenate(terms), 291.8)  # +- 0.4, from five million phase-space points
    found = {
        name: measured_numbers(
            fits, truth, theta_true=0.0, best_fits=every["visible"], rng=np.random.default_rng(312)
        )
        for name, fits in every.items()
    }
    for name, numbers in found.items():
        logger.info("%s: %s", name, {key: f"{one[0]:.4f}({one[1]:.4f})" for key, one in numbers.items()})

    def agrees(name, key, value, error=0.0, n_sigma=4):
        mine, its = found[name][key]
        assert abs(mine - value) < n_sigma * np.hypot(its, error), (name, key, mine, its)

    # another program, on 6000 pseudo-experiments of its own
    agrees("exact", "calibration_ratio", 0.969, 0.019)
    agrees("visible", "calibration_ratio", 0.975, 0.018)
    assert found["visible"]["calibration_ratio"][1] == pytest.approx(0.018, abs=0.005)
    # the covariance identity: the exact likelihoods respond fully, without a second sample
    agrees("exact", "slope", 1.0)
    agrees("visible", "slope", 1.0)
    for name in ("exact", "visible"):
        agrees(name, "coverage", 0.6827)
    assert found["grid"]["variance_ratio"][0] < 1
