"""Intervals by construction, against published tables and closed forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import norm, poisson

from milanalysis.errors import FitError
from milanalysis.files.records import from_plain, to_plain
from milanalysis.parameters import Parameter
from milanalysis.simulation.toys import GaussianShift, ToyTerms
from milanalysis.statistics.inference.feldman_cousins import gaussian_interval, poisson_interval
from milanalysis.statistics.inference.fits import Status, measure, measure_at, profile, rise_of_level
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.repetition.belts import FeldmanCousinsBelt, NeymanBelt, crossings
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, PseudoExperiments, run


@pytest.mark.parametrize(
    ("x", "uppers"),
    [
        (-3.0, (0.04, 0.26, 0.42, 0.80)),
        (-1.0, (0.27, 0.81, 1.10, 1.68)),
        (0.0, (1.00, 1.64, 1.96, 2.58)),
        (1.0, (2.00, 2.64, 2.96, 3.58)),
        (3.0, (4.00, 4.64, 4.96, 5.58)),
    ],
)
def test_a_bounded_gaussian_mean_has_the_published_upper_ends(x, uppers):
    # Table X of arXiv:physics/9711021, rounded to 0.01
    found = [gaussian_interval(x, level)[1] for level in (0.6827, 0.90, 0.95, 0.99)]
    np.testing.assert_allclose(found, uppers, atol=0.0051)


@pytest.mark.parametrize(("mean", "level"), [(0.05, 0.6827), (0.4, 0.9), (1.0, 0.95), (2.5, 0.9)])
def test_gaussian_intervals_cover_exactly_at_every_mean(mean, level):
    x = norm.ppf(np.linspace(0, 1, 102)[1:-1], loc=mean)  # equal steps in probability
    covered = [low <= mean <= high for low, high in (gaussian_interval(float(one), level) for one in x)]
    assert np.mean(covered) == pytest.approx(level, abs=2 / 100)


def test_a_bound_elsewhere_moves_everything():
    np.testing.assert_allclose(gaussian_interval(7.5, 0.9, 7.0), np.add(gaussian_interval(0.5, 0.9), 7.0))


@pytest.mark.parametrize(
    ("background", "counts", "ends"),
    [
        (0.0, range(11), [(0, 2.44), (0.11, 4.36), (0.53, 5.91), (1.10, 7.42), (1.47, 8.60), (1.84, 9.99),
                          (2.21, 11.47), (3.56, 12.53), (3.96, 13.99), (4.36, 15.30), (5.50, 16.50)]),
        (3.0, (2, 4, 6, 8, 10), [(0, 3.04), (0, 5.60), (0.15, 8.47), (1.51, 10.99), (2.63, 13.50)]),
    ],
)  # fmt: skip
def test_a_poisson_signal_has_the_published_ends(background, counts, ends):
    # Table IV of arXiv:physics/9711021; its steps in the signal were 0.005 to 0.01
    np.testing.assert_allclose([poisson_interval(n, background) for n in counts], ends, atol=0.0151)


@pytest.mark.parametrize(("signal", "background"), [(0.0, 3.0), (0.7, 1.5), (4.2, 3.0), (9.0, 0.0)])
def test_poisson_intervals_never_cover_too_little(signal, background):
    counts = np.arange(40)
    covered = [low <= signal <= high for low, high in (poisson_interval(int(n), background) for n in counts)]
    total = poisson.pmf(counts, signal + background)[covered].sum()
    assert 0.9 - 1e-9 <= total <= 1


def test_impossible_counts_and_levels_are_refused():
    with pytest.raises(ValueError, match="neither can be negative"):
        poisson_interval(-1, 3.0)
    with pytest.raises(ValueError, match="lies between 0 and 1"):
        gaussian_interval(0.0, 95)


def bounded_experiments(n=4000):
    """A Gaussian mean that cannot be negative, as pseudo-experiments of one event."""
    out = []
    for theta in np.linspace(0, 5, 26):
        x = np.random.default_rng(round(10 * theta)).normal(theta, 1, n)
        rise = (x - theta) ** 2 - np.minimum(x, 0) ** 2
        empty = np.full(n, np.nan)
        status = (Status.VALID,) * n
        fits = MethodFits(np.maximum(x, 0), empty, empty, empty, status, rise)
        out.append(
            PseudoExperiments(float(theta), 0.9, np.ones(n, dtype=np.int64), {"m": fits}, np.arange(n))
        )
    return out


@pytest.mark.parametrize("x", [-1.0, 0.0, 1.0, 2.0])
def test_the_belt_of_pseudo_experiments_is_that_of_the_tables(x):
    belt = FeldmanCousinsBelt.of(bounded_experiments(), "m", 0.9)
    points = np.linspace(0, 5, 501)
    found = belt.interval(points, (x - points) ** 2 - min(x, 0) ** 2, max(x, 0.0))
    low, high = gaussian_interval(x, 0.9)
    # a quantile of 4000 is good to a few percent of the rise, and the end moves by half of that over x
    assert found.high == pytest.approx(high, abs=0.12)
    if low == 0:
        assert (found.low, found.status) == (None, Status.NOT_CROSSED)
    else:
        assert (found.low, found.status) == (pytest.approx(low, abs=0.12), Status.VALID)
    again = from_plain(FeldmanCousinsBelt, json.loads(json.dumps(to_plain(belt))))
    assert again == belt
    # far from the bound Wilks' theorem holds
    assert belt.critical[-1] == pytest.approx(rise_of_level(0.9), abs=4 * belt.errors[-1])


@pytest.fixture(scope="module")
def shifts():
    """Pseudo-experiments of a Gaussian shift, for which every construction gives mean +- z / sqrt(n)."""
    toy, experiments = GaussianShift(), []
    for theta in np.linspace(-0.6, 0.6, 7):
        rng = np.random.default_rng(round(100 * theta) + 100)
        model = ShapeModel(ToyTerms(toy, toy.sample(rng, 30_000, theta)), Parameter())
        rows = np.arange(30_000).reshape(600, 50)
        experiments.append(run({"shift": model}, rows, theta_true=float(theta)))
    model = ShapeModel(ToyTerms(toy, toy.sample(np.random.default_rng(5), 50, 0.1)), Parameter())
    return experiments, model.observe(np.arange(50))


@pytest.mark.parametrize("level", [0.6827, 0.95])
def test_all_constructions_agree_where_wilks_theorem_holds(shifts, level):
    experiments, likelihood = shifts
    fit, expected = measure(likelihood, level)
    points = np.linspace(-1, 1, 401)
    unified = FeldmanCousinsBelt.of(experiments, "shift", level).interval(
        points, profile(likelihood, points), fit.estimate
    )
    central = NeymanBelt.of(experiments, "shift", level).interval(fit.estimate)
    # the quantiles of 600 are good to 6 % of a standard deviation (0.14) at these levels, 10 % at 95 %: 3
    # sigma
    for found in (unified, central):
        assert found.valid
        assert found.low == pytest.approx(expected.low, abs=0.042)
        assert found.high == pytest.approx(expected.high, abs=0.042)
    belt = NeymanBelt.of(experiments, "shift", level)
    assert from_plain(NeymanBelt, json.loads(json.dumps(to_plain(belt)))) == belt


def test_an_interval_that_leaves_the_belt_has_no_end_there(shifts):
    experiments, _ = shifts
    found = NeymanBelt.of(experiments, "shift", 0.6827).interval(0.58)
    assert (found.status, found.high) == (Status.NOT_CROSSED, None)
    assert found.low == pytest.approx(0.58 - 1 / np.sqrt(50), abs=0.05)
    assert NeymanBelt.of(experiments, "shift", 0.6827).interval(None).status is Status.FAILED


def test_a_belt_needs_two_true_values_and_fits_that_work(shifts):
    experiments, _ = shifts
    with pytest.raises(FitError, match="two or more true values and there are 1"):
        FeldmanCousinsBelt.of(experiments[:1], "shift", 0.9)
    nothing = np.full(10, np.nan)
    failed = MethodFits(nothing, nothing, nothing, nothing, (Status.FAILED,) * 10, nothing)
    broken = [
        PseudoExperiments(theta, 0.9, np.ones(10, dtype=np.int64), {"m": failed}, np.arange(10))
        for theta in (0.0, 0.1)
    ]
    with pytest.raises(FitError, match="10 of 10"):
        FeldmanCousinsBelt.of(broken, "m", 0.9)
    with pytest.raises(FitError, match="0 pseudo-experiments"):
        NeymanBelt.of(broken, "m", 0.9)


def test_separate_regions_are_not_an_ordinary_interval():
    points = np.linspace(-2, 2, 401)
    found = crossings(points, 0.25 - (points**2 - 1) ** 2, 1.0, 0.9)
    assert found.status is Status.SECOND_MINIMUM
    assert found.high == pytest.approx(np.sqrt(1.5), abs=1e-4)
    assert found.low == pytest.approx(-np.sqrt(1.5), abs=1e-4)


def means_of(n_events, seed, n=4000):
    """Estimates of a Gaussian shift from datasets of fixed size, in closed form, at five true values."""
    found = []
    for number, theta in enumerate((-0.2, -0.1, 0.0, 0.1, 0.2)):
        estimate = np.random.default_rng([seed, number]).normal(theta, 1 / np.sqrt(n_events), n)
        rise = n_events * (estimate - theta) ** 2
        empty = np.full(n, np.nan)
        fits = MethodFits(estimate, empty, empty, empty, (Status.VALID,) * n, rise)
        found.append(PseudoExperiments(theta, 0.6827, np.full(n, n_events), {"m": fits}, np.arange(n)))
    return found


def test_a_belt_covers_for_the_number_of_events_it_is_made_for():
    observed = means_of(300, 2)[2].methods["m"].estimate

    def coverage(n_events):
        belt = NeymanBelt.of(means_of(n_events, 1), "m", 0.6827)
        return np.mean([belt.interval(float(one)).covers(0.0) for one in observed])

    # 3 binomial standard deviations of 4000 trials, and those of a belt from as many
    assert coverage(300) == pytest.approx(0.6827, abs=3 * np.sqrt(2 * 0.2166 / 4000))
    # made for 1000 events it is too narrow for 300: P(|z| < sqrt(0.3)) = 41.6 %
    assert coverage(1000) == pytest.approx(0.416, abs=3 * np.sqrt(2 * 0.243 / 4000))


@pytest.mark.parametrize("known", [[], [0.7, 0.8]])
def test_a_likelihood_that_is_not_known_where_the_belt_is_gives_no_interval(shifts, known):
    """Of no value of the parameter, or of values beyond the belt, which ends at 0.6."""
    found = FeldmanCousinsBelt.of(shifts[0], "shift", 0.6827).interval(np.array(known), np.array(known), 0.1)
    assert (found.low, found.high, found.status) == (None, None, Status.FAILED)


def test_a_true_value_beyond_the_limits_of_a_likelihood_has_no_rise():
    likelihood = ProfileLikelihood(("c",), ((-1.0, 0.3),), (0.0,), lambda theta: theta[:, 0] ** 2)
    assert np.isnan(measure_at(likelihood, [0.68], 0.5)[2])
    assert measure_at(likelihood, [0.68], 0.3)[2] == pytest.approx(0.09)
