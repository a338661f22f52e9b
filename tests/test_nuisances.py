"""Background, luminosity and constraints as parameters of a fit; limits and contours."""

from __future__ import annotations

import numpy as np
import pyhf
import pytest
from scipy.stats import norm

from milanalysis.errors import ContradictionError, EventWeightError, FitError
from milanalysis.parameters import EFTPolynomial, Parameter, parameter_points
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.toys import GaussianShift, QuadraticEFT, ToyTerms
from milanalysis.statistics.inference.fits import Status, contour, fit, limit, measure, profile
from milanalysis.statistics.likelihood.interpolation import NaturalSpline
from milanalysis.statistics.likelihood.models import RateModel, ShapeModel
from milanalysis.statistics.likelihood.nuisances import (
    ConstraintModel,
    ExtendedMixtureModel,
    GaussianConstraint,
    LogNormalConstraint,
    LuminosityRateModel,
    MixtureModel,
    Nuisance,
)
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.repetition.datasets import draw, draw_datasets
from milanalysis.statistics.repetition.pseudo_experiments import run
from milanalysis.statistics.templates.model import pyhf_backend

PARAMETER = Parameter(name="c")
FRACTION = Nuisance("fraction", 0.0, 0.9, 0.1)
NU = EFTPolynomial(np.array([800.0, 160.0, 70.0]))


@pytest.fixture(scope="module")
def mixed():
    """Signal of the strong benchmark and a background 1 + 0.7 (t - mean t) times the reference density.

    Returns the terms of all events, signal first, their background ratios, and the number of signal events.
    """
    toy, rng = QuadraticEFT(0.3), np.random.default_rng(70)
    signal, candidates = toy.sample(rng, 40_000), toy.sample(rng, 40_000)
    background = candidates[rng.random(40_000) * 4 < 1 + 0.7 * (candidates[:, 3] - 0.96608)]
    events = np.concatenate([signal, background])
    terms = PolynomialTerms(toy.polynomials(events)[None], toy.rate.coefficients[None])
    return terms, np.log(1 + 0.7 * (events[:, 3] - 0.96608)), len(signal)


def weights_of(mixed, theta, fraction):
    terms, _, n_signal = mixed
    signal = terms.polynomials[0, :n_signal] @ theta ** np.arange(5)
    n_background = len(terms) - n_signal
    return np.concatenate(
        [(1 - fraction) * signal / signal.sum(), np.full(n_background, fraction / n_background)]
    )


def test_without_background_a_mixture_is_the_signal(mixed):
    terms, background, _ = mixed
    rows, points = np.arange(500), np.linspace(-0.5, 0.5, 5)[:, None]
    pure = ShapeModel(terms, PARAMETER).observe(rows).evaluate(points)
    known = MixtureModel(terms, background, PARAMETER, 0.0).observe(rows)
    np.testing.assert_allclose(known.evaluate(points), pure, rtol=1e-12, atol=1e-9)
    assert known.parameters == ("c",)
    free = MixtureModel(terms, background, PARAMETER, FRACTION).observe(rows)
    assert free.parameters == ("c", "fraction")
    f = np.array([[0.3, 0.25]])
    expected = -2 * np.sum(
        np.log(0.75 * np.exp(terms.take(rows).per_event([0.3])[:, 0]) + 0.25 * np.exp(background[rows]))
    )
    assert free.evaluate(f)[0] == pytest.approx(expected, rel=1e-12)


def test_an_unknown_background_of_a_fifth_is_fitted_and_the_interval_covers(mixed):
    terms, background, _ = mixed
    n, theta = 150, 0.1
    rows = draw(weights_of(mixed, theta, 0.2), n, 1000, np.random.default_rng(71))
    models = {
        "ignored": ShapeModel(terms, PARAMETER),
        "known": MixtureModel(terms, background, PARAMETER, 0.2),
        "unknown": MixtureModel(terms, background, PARAMETER, FRACTION),
    }
    methods = run(models, rows, theta_true=theta).methods
    for name in ("known", "unknown"):
        assert methods[name].valid.all()
        # 3 binomial standard deviations of 150 trials
        assert methods[name].covers(theta).mean() == pytest.approx(0.6827, abs=3 * np.sqrt(0.2166 / n))
        bias = methods[name].estimate.mean() - theta
        # one dataset is 2 % of the events there are: their fluctuation is common to all
        assert abs(bias) < 4 * methods[name].estimate.std() * np.sqrt(1 / n + 1000 / 40_000)
    width = {name: np.mean(one.high - one.low) for name, one in methods.items()}
    # what is not known about the background, which looks a bit like the effect of the coefficient, costs
    # width
    assert 1.02 < width["unknown"] / width["known"] < 1.6
    # ignored, it is taken for the coefficient
    assert methods["ignored"].estimate.mean() > theta + methods["ignored"].estimate.std()


def test_the_fraction_itself_is_found(mixed):
    terms, background, _ = mixed
    rows = draw(weights_of(mixed, 0.1, 0.2), 1, 4000, np.random.default_rng(72))[0]
    result = fit(MixtureModel(terms, background, PARAMETER, FRACTION).observe(rows))
    assert result.estimates[1] == pytest.approx(0.2, abs=4 * result.errors[1])
    assert result.errors[1] < 0.06
    border = contour(MixtureModel(terms, background, PARAMETER, FRACTION).observe(rows), "fraction")
    np.testing.assert_array_equal(border[0], border[-1])
    # the region of 68 % in two dimensions reaches sqrt(2.30) errors to either side
    for axis in (0, 1):
        half = np.ptp(border[:, axis]) / 2
        assert half == pytest.approx(np.sqrt(2.296) * result.errors[axis], rel=0.05)


def test_a_constraint_narrows_what_the_data_say(mixed):
    terms, background, _ = mixed
    rows = draw(weights_of(mixed, 0.1, 0.2), 1, 1000, np.random.default_rng(73))[0]
    model = MixtureModel(terms, background, PARAMETER, FRACTION)
    free, narrow = (
        fit(one.observe(rows))
        for one in (model, model + ConstraintModel(FRACTION, GaussianConstraint(0.2, 0.001)))
    )
    assert narrow.estimates[1] == pytest.approx(0.2, abs=0.002)
    assert narrow.errors[1] == pytest.approx(0.001, rel=0.05)
    assert narrow.errors[0] < free.errors[0]


def test_grids_are_mixed_where_they_are_known(mixed):
    terms, background, _ = mixed
    grid = parameter_points(np.linspace(-1, 1, 21).round(12))
    on_grid = GridTerms(grid, terms.per_event(grid))
    rows, points = np.arange(39_000, 41_000), np.array([[0.0, 0.1], [0.1, 0.1], [0.1, 0.3], [-0.3, 0.3]])
    exact = MixtureModel(terms, background, PARAMETER, FRACTION).observe(rows).evaluate(points)
    found = MixtureModel(on_grid, background, PARAMETER, FRACTION, NaturalSpline()).observe(rows)
    np.testing.assert_allclose(found.evaluate(points), exact, rtol=1e-9)
    with pytest.raises(ValueError, match="how to interpolate"):
        MixtureModel(on_grid, background, PARAMETER, FRACTION)


def test_yields_tie_the_number_of_events_to_their_shape(mixed):
    terms, background, _ = mixed
    theta, n = 0.1, 60
    nu = float(NU(theta))
    rng = np.random.default_rng(74)
    rows = draw_datasets(weights_of(mixed, theta, 200 / (nu + 200)), rng.poisson(nu + 200, n), rng)
    scale, luminosity = Nuisance("B", 0.0, 5.0, 1.0), Nuisance("L", 0.5, 2.0, 1.0)

    def model(**options):
        return ExtendedMixtureModel(terms, background, NU, 200.0, PARAMETER, **options)

    models = {
        "known": model(),
        "uncertain": model(normalisation=scale, luminosity=luminosity)
        + ConstraintModel(scale, LogNormalConstraint(1.0, 1.1))
        + ConstraintModel(luminosity, GaussianConstraint(1.0, 0.02)),
    }
    methods = run(models, rows, theta_true=theta).methods
    width = {name: np.mean(one.high - one.low) for name, one in methods.items()}
    for one in methods.values():
        assert one.valid.all()
        assert one.covers(theta).mean() == pytest.approx(0.6827, abs=3 * np.sqrt(0.2166 / n))
    assert 1.001 < width["uncertain"] / width["known"] < 1.2
    result = fit(models["uncertain"].observe(rows.rows[0]))
    assert result.parameters == ("c", "B", "L")
    # 1000 events alone would know the luminosity to 0.03 if all else were known
    assert 1 / np.sqrt(1 / 0.02**2 + 1000) < result.errors[2] < 0.02


def test_an_uncertain_luminosity_widens_what_the_number_of_events_says():
    rows, nu = np.arange(1000), EFTPolynomial(np.array([1000.0, 400.0]))
    likelihood = LuminosityRateModel(nu, PARAMETER, 0.05).observe(rows)
    assert likelihood.parameters == ("c", "luminosity")
    result = fit(likelihood)
    # variance of the count, and of a luminosity whose logarithm is known to ln 1.05
    sigma = np.sqrt(1 / 1000 + np.log(1.05) ** 2) / 0.4
    assert result.estimates == pytest.approx((0.0, 0.0), abs=2e-3)
    assert result.errors[0] == pytest.approx(sigma, rel=0.01)
    narrow = fit(LuminosityRateModel(nu, PARAMETER, 1e-4).observe(rows))
    assert narrow.errors[0] == pytest.approx(fit(RateModel(nu, PARAMETER).observe(rows)).errors[0], rel=0.01)
    with pytest.raises(EventWeightError, match="expected number of events is -9 at c = -1"):
        LuminosityRateModel(EFTPolynomial(np.array([1.0, 10.0])), PARAMETER, 0.05)


def test_without_background_yields_are_shape_and_rate(mixed):
    terms, background, _ = mixed
    rows, points = np.arange(700), np.linspace(-0.4, 0.4, 5)[:, None]
    both = (ShapeModel(terms, PARAMETER) + RateModel(NU, PARAMETER)).observe(rows).evaluate(points)
    found = ExtendedMixtureModel(terms, background, NU, 0.0, PARAMETER).observe(rows).evaluate(points)
    np.testing.assert_allclose(found - found[2], both - both[2], rtol=0, atol=1e-8)


def test_what_does_not_fit_together_is_refused(mixed):
    terms, background, _ = mixed
    with pytest.raises(ValueError, match="as many background ratios"):
        MixtureModel(terms, background[:-1], PARAMETER, 0.2)
    with pytest.raises(ValueError, match="lies between 0 and 1"):
        MixtureModel(terms, background, PARAMETER, 1.2)
    with pytest.raises(ValueError, match="has to start between"):
        Nuisance("f", 0.0, 1.0, 2.0)
    with pytest.raises(ValueError, match="cannot be negative"):
        ExtendedMixtureModel(
            terms, background, NU, 10.0, PARAMETER, normalisation=Nuisance("B", -1.0, 3.0, 1.0)
        )


def test_one_sided_limits_of_a_gaussian_mean():
    toy = GaussianShift()
    terms = ToyTerms(toy, toy.sample(np.random.default_rng(75), 100, 0.1))
    likelihood = ShapeModel(terms, PARAMETER).observe(np.arange(100))
    mean = terms.events.mean()
    for level in (0.9, 0.95):
        upper, lower = limit(likelihood, level), limit(likelihood, level, upper=False)
        assert (upper.low, lower.high) == (-1.0, 1.0)
        # MIGRAD stops within 1e-3 of the rise by 1: 3 % of the error of 0.1
        assert upper.high == pytest.approx(mean + 0.1 * norm.ppf(level), abs=1e-4)
        assert lower.low == pytest.approx(mean - 0.1 * norm.ppf(level), abs=1e-4)
    # two-sided at 90 % is one-sided at 95 % twice
    assert measure(likelihood, 0.9)[1].high == pytest.approx(limit(likelihood, 0.95).high, abs=2e-4)


def test_a_limit_exists_where_the_minimum_is_at_the_edge_and_not_where_nothing_is_excluded():
    at_edge = ProfileLikelihood(("c",), ((0.0, 1.0),), (0.5,), lambda theta: 100 * (theta[:, 0] + 0.05) ** 2)
    found = limit(at_edge, 0.95)
    assert found.status is Status.VALID
    # relative to the best allowed value, 0
    assert 100 * ((found.high + 0.05) ** 2 - 0.05**2) == pytest.approx(norm.ppf(0.95) ** 2, rel=1e-2)
    flat = ProfileLikelihood(("c",), ((-1.0, 1.0),), (0.0,), lambda theta: 0.1 * theta[:, 0] ** 2)
    assert limit(flat, 0.95).status is Status.NOT_CROSSED
    endless = ProfileLikelihood(("c",), ((-np.inf, np.inf),), (0.0,), lambda theta: theta[:, 0] ** 2)
    assert limit(endless, 0.95).high == pytest.approx(norm.ppf(0.95), rel=1e-2)


def test_a_contour_of_a_plane_is_an_ellipse():
    def bowl(theta):
        x, y = theta[:, 0] - 0.1, theta[:, 1] - 2.0
        return (x**2 - 1.2 * x * y + y**2) / 0.64

    likelihood = ProfileLikelihood(("x", "y"), ((-20.0, 20.0), (-20.0, 20.0)), (0.0, 0.0), bowl)
    border = contour(likelihood, "y", 0.95)
    np.testing.assert_allclose(bowl(border), 5.991, rtol=0.02)
    np.testing.assert_allclose(profile(likelihood, np.array([0.1, 1.1])), [0, 1], atol=1e-3)
    with pytest.raises(ValueError, match="'z' is not a second parameter"):
        contour(likelihood, "z")
    with pytest.raises(FitError, match="ordinary minimum"):
        contour(ProfileLikelihood(("x", "y"), ((-1, 1), (-1, 1)), (0, 0), lambda t: t[:, 0] * np.nan), "y")


# --- constraints
# ---------------------------------------------------------------------------------------------


def two_channels(uncertainty=0.1):
    """Two counting channels with one luminosity, ``L (background + signal mu)``, as one likelihood."""
    parameter = Parameter(name="mu", reference=0.0, low=-0.4, high=4.0)
    channels = [
        LuminosityRateModel(EFTPolynomial(np.array([background, signal])), parameter, uncertainty).observe(
            np.arange(n)
        )
        for background, signal, n in ((50.0, 30.0, 84), (20.0, 40.0, 55))
    ]
    return channels[0] + channels[1]


def test_a_shared_luminosity_is_constrained_once():
    both = two_channels()
    assert both.parameters == ("mu", "luminosity")

    def by_hand(mu, alpha):
        """Twice the negative logarithm of two Poisson probabilities and one normal density."""
        scale = 1.1**alpha
        counts = ((84, scale * (50 + 30 * mu)), (55, scale * (20 + 40 * mu)))
        return 2 * sum(nu - n * np.log(nu) for n, nu in counts) + alpha**2

    offset = both(0.0, 0.0) - by_hand(0.0, 0.0)
    for point in ((0.5, 1.0), (1.2, -2.0), (0.9, 0.3)):
        assert both(*point) - by_hand(*point) == pytest.approx(offset, abs=1e-9)


def test_two_channels_with_one_luminosity_agree_with_pyhf():
    sample = {"type": "normsys", "name": "luminosity", "data": {"hi": 1.1, "lo": 1 / 1.1}}
    channels = [
        {
            "name": name,
            "samples": [
                {
                    "name": "signal",
                    "data": [signal],
                    "modifiers": [{"name": "mu", "type": "normfactor", "data": None}, sample],
                },
                {"name": "background", "data": [background], "modifiers": [sample]},
            ],
        }
        for name, background, signal in (("a", 50.0, 30.0), ("b", 20.0, 40.0))
    ]
    with pyhf_backend():
        model = pyhf.Model({"channels": channels, "parameters": []}, poi_name="mu", validate=False)
        best, _ = pyhf.infer.mle.fit(
            [84, 55, *model.config.auxdata],
            model,
            par_bounds=[(-0.4, 4.0), (-5.0, 5.0)],
            return_uncertainties=True,
            return_result_obj=True,
        )
    ours = fit(two_channels())
    order = [model.config.par_order.index(name) for name in ("mu", "luminosity")]
    # pyhf's factor between one standard deviation down and up is a polynomial that differs from 1.1^alpha by
    # 1e-6
    assert ours.estimates == pytest.approx(best[order, 0], abs=2e-3)
    assert ours.errors == pytest.approx(best[order, 1], rel=1e-2)


def test_adding_the_same_data_again_does_not_add_what_is_known_of_the_luminosity():
    one = LuminosityRateModel(EFTPolynomial(np.array([1000.0, 400.0])), PARAMETER, 0.05).observe(
        np.arange(1000)
    )
    twice = fit(one + one)
    # twice the counts, and the luminosity known to ln 1.05 as before
    assert twice.errors[0] == pytest.approx(np.sqrt(1 / 2000 + np.log(1.05) ** 2) / 0.4, rel=0.01)


def test_contradicting_knowledge_of_a_parameter_is_refused():
    nuisance = Nuisance("b", 0.0, 5.0, 1.0)
    first, second = (
        ConstraintModel(nuisance, GaussianConstraint(1.0, error)).observe(np.arange(0))
        for error in (0.1, 0.2)
    )
    assert (first + first).constraints == first.constraints
    with pytest.raises(
        ContradictionError, match=r"parameter 'b' is constrained by .*0.1.* in one term and by .*0.2"
    ):
        first + second
    shift = ConstraintModel(Nuisance("b", -5.0, 5.0, 0.0), GaussianConstraint(0.0, 1.0)).observe(np.arange(0))
    free = ProfileLikelihood(("c", "b"), ((-1, 1), (0, 5)), (0.0, 1.0), lambda theta: theta[:, 0] ** 2)
    with pytest.raises(ContradictionError, match="a shift in standard deviations and a factor"):
        free + shift


# --- several valleys
# -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [3.0, -3.0], ids=["second", "first"])
def test_a_valley_at_other_values_of_the_nuisance_parameters_is_found(depth):
    # one valley at (0.4, 0), one at (-0.5, 3), which is not seen from nuisance parameters at their start
    def two_valleys(theta):
        c, a = theta.T
        near = 100 * (c - 0.4) ** 2 + a**2
        far = 100 * (c + 0.5) ** 2 + 4 * (a - 3) ** 2 + depth
        return -2 * np.logaddexp(-near / 2, -far / 2)

    likelihood = ProfileLikelihood(("c", "a"), ((-1.0, 1.0), (-5.0, 5.0)), (0.0, 0.0), two_valleys)
    result, found = measure(likelihood, 0.6827)
    expected = -0.5 if depth < 0 else 0.4
    assert result.estimate == pytest.approx(expected, abs=0.01)
    assert found.estimate == pytest.approx(expected, abs=0.01)
    assert result.second_minimum == pytest.approx((-0.5 if depth > 0 else 0.4, 3.0), abs=0.02)
    wide = measure(likelihood, 0.95)[1]  # 3.84 above the minimum, the other valley is allowed too
    assert wide.status is Status.SECOND_MINIMUM
    curve = profile(likelihood, np.array([-0.5, 0.4]))
    np.testing.assert_allclose(curve, [0.0, 3.0] if depth < 0 else [3.0, 0.0], atol=0.02)


def test_a_limit_is_not_asked_at_even_odds():
    likelihood = ProfileLikelihood(("c",), ((-1.0, 1.0),), (0.0,), lambda theta: 100 * theta[:, 0] ** 2)
    for level in (0.5, 0.3):
        with pytest.raises(ValueError, match=r"above 0\.5"):
            limit(likelihood, level)
    assert limit(likelihood, 0.95).high == pytest.approx(0.1 * 1.6449, abs=1e-3)
