"""Generated events against an independent generator, known integrals, and the laws they have to obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kinematic_histograms import REFERENCE, fill, variables
from scipy import stats

from milanalysis.config import CutsConfig, GeneratorConfig, LeptonCutsConfig
from milanalysis.parameters import FloatArray
from milanalysis.randomness import stream
from milanalysis.simulation import amplitudes
from milanalysis.simulation.densities import ClosedFormDensities
from milanalysis.simulation.generator import Events, Generator, generate_sample, pass_lepton_cuts
from milanalysis.simulation.grid import AdaptiveGrid, MixedGrid, adapt
from milanalysis.simulation.phasespace import (
    DecayPhaseSpace,
    ProductionPhaseSpace,
    boost,
    delta_phi,
    rotate,
)

N_EVENTS = 200_000


@pytest.fixture(scope="module")
def standard_model() -> Generator:
    return Generator.adapted(GeneratorConfig(), 0.0, stream(11, "adapt"))


@pytest.fixture(scope="module")
def sample(standard_model: Generator) -> Events:
    return standard_model.unweighted(N_EVENTS, stream(11, "sample"))


@pytest.fixture(scope="module")
def with_lepton_cuts() -> Generator:
    config = GeneratorConfig(cuts=CutsConfig(leptons=LeptonCutsConfig()))
    return Generator.adapted(config, 0.0, stream(12, "adapt"))


def _agrees(found: float, error: float, expected: float, expected_error: float, n_sigma: float = 3.5) -> bool:
    return abs(found - expected) < n_sigma * math.hypot(error, expected_error)


# --- cross-sections ---------------------------------------------------------------------------------------


def test_cross_section_with_quark_cuts(standard_model: Generator) -> None:
    # 2.0413(7) fb with the NNPDF grid; the fit to it is good to a few per mille.
    assert standard_model.cross_section_error_fb < 0.0015 * standard_model.cross_section_fb
    assert standard_model.cross_section_fb == pytest.approx(2.0413, rel=0.005)


def test_cross_section_with_lepton_cuts(with_lepton_cuts: Generator) -> None:
    assert with_lepton_cuts.cross_section_error_fb < 0.0015 * with_lepton_cuts.cross_section_fb
    assert with_lepton_cuts.cross_section_fb == pytest.approx(1.188, rel=0.005)


@pytest.mark.parametrize(
    ("fixture", "expected", "errors"),
    [
        ("standard_model", (-0.1805, 0.1016, -0.00843, 2.60e-4), (3e-4, 2e-4, 1e-5, 1e-6)),
        ("with_lepton_cuts", (-0.1756, 0.0832, -0.00625, 1.93e-4), (3e-4, 2e-4, 1e-5, 1e-6)),
    ],
)
def test_rate_polynomial(
    fixture: str, expected: tuple[float, ...], errors: tuple[float, ...], request: pytest.FixtureRequest
) -> None:
    rate = request.getfixturevalue(fixture).rate
    for power in range(1, 5):
        ratio = rate.coefficients[power] / rate.coefficients[0]
        assert rate.covariance is not None
        gradient = np.zeros(5)
        gradient[0], gradient[power] = -ratio / rate.coefficients[0], 1 / rate.coefficients[0]
        error = math.sqrt(gradient @ rate.covariance @ gradient)
        # Parton densities differ by up to 0.5 % in their shape: 0.1 % of the coefficient.
        allowed = math.hypot(errors[power - 1], 1e-3 * expected[power - 1])
        assert _agrees(ratio, error, expected[power - 1], allowed), power


def test_cross_section_with_the_u_quark_in_the_first_beam_is_half() -> None:
    generator = Generator.adapted(GeneratorConfig(u_beam="first"), 0.0, stream(13, "adapt"))
    events = generator.unweighted(1000, stream(13, "sample"))
    assert _agrees(generator.cross_section_fb, generator.cross_section_error_fb, 2.0413 / 2, 0.0007 / 2, 5)
    assert np.all(events.u_beam == 1)
    assert np.all(events.momenta[:, 0, 3] > 0)
    assert events.weight.sum() == pytest.approx(generator.cross_section_fb)


def test_partial_width_of_the_decay() -> None:
    space, rng = DecayPhaseSpace(), stream(14, "width")
    grid = adapt(lambda unit: _density(space, unit), 5, rng, iterations=5, n_points=50_000)
    unit, jacobian = grid.map(rng.random((5, 400_000)))
    weights = _density(space, unit) * jacobian
    error = weights.std() / math.sqrt(len(weights))
    assert error < 0.001 * weights.mean()
    assert _agrees(weights.mean(), error, 1.0098e-5, 8e-9)


def _density(space: DecayPhaseSpace | ProductionPhaseSpace, unit: FloatArray) -> FloatArray:
    points, inside = space.points(unit)
    density = np.zeros(unit.shape[1])
    density[inside] = points.polynomial[:, 0]
    return density


# --- information ------------------------------------------------------------------------------------------


def test_variance_of_the_score_of_unweighted_events(sample: Events) -> None:
    score = sample.polynomials[:, 1]
    error = np.sqrt(np.var((score - score.mean()) ** 2) / len(score))
    # Heavy-tailed: the estimate of the error is itself uncertain, and both go down together; 292.6 +- 0.4.
    assert abs(score.var() - 0.2926) < 3 * error
    assert error < 0.15 * 0.2926


def test_variance_of_the_score_of_points_adapted_to_it() -> None:
    # The score is a sum of independent parts, of production and of decay: 290.0 and 2.61 of 292.6.
    total, total_error = 0.0, 0.0
    config = GeneratorConfig()
    spaces = (
        (ProductionPhaseSpace(config.beam_energy, config.cuts, ClosedFormDensities()), 290.0),
        (DecayPhaseSpace(), 2.61),
    )
    for number, (space, expected) in enumerate(spaces):
        rng = stream(15, "score", number)

        def importance(unit: FloatArray, space=space) -> FloatArray:
            points, inside = space.points(unit)
            density = np.zeros(unit.shape[1])
            score = points.polynomial[:, 1] / points.polynomial[:, 0]
            density[inside] = points.polynomial[:, 0] * (score**2 + 0.3)
            return density

        grid = adapt(importance, space.n_variables, rng, iterations=8, n_points=60_000)
        sums = np.zeros(3)
        products = np.zeros((3, 3))
        n = 0
        for _ in range(30):
            unit, jacobian = grid.map(rng.random((space.n_variables, 50_000)))
            points, inside = space.points(unit)
            weight = points.polynomial[:, 0] * jacobian[inside]
            score = points.polynomial[:, 1] / points.polynomial[:, 0]
            terms = weight * np.array([np.ones_like(score), score, score**2])
            sums += terms.sum(axis=1)
            products += terms @ terms.T
            n += unit.shape[1]
        mean = sums / n
        covariance = (products / n - np.outer(mean, mean)) / n
        variance = mean[2] / mean[0] - (mean[1] / mean[0]) ** 2
        gradient = (
            np.array(
                [-mean[2] / mean[0] + 2 * (mean[1] / mean[0]) ** 2, -2 * mean[1] / mean[0], 1.0],
            )
            / mean[0]
        )
        error = math.sqrt(gradient @ covariance @ gradient)
        assert _agrees(1000 * variance, 1000 * error, expected, 0.4)
        total, total_error = total + 1000 * variance, math.hypot(total_error, 1000 * error)
    assert total_error < 2.0
    assert _agrees(total, total_error, 292.6, 0.4, 3)


# --- distributions ----------------------------------------------------------------------------------------


def _chi_square(counts: FloatArray, others: FloatArray) -> float:
    """Two-sample chi-square of two histograms with different numbers of events."""
    scale = math.sqrt(others.sum() / counts.sum())
    return float(np.sum((scale * counts - others / scale) ** 2 / (counts + others)))


def test_distributions_agree_with_an_independent_generator(sample: Events) -> None:
    with np.load(REFERENCE) as reference:
        edges = dict(zip(reference["names"].tolist(), reference["edges"], strict=True))
        expected = dict(zip(reference["names"].tolist(), reference["counts"], strict=True))
    for name, counts in fill(sample, edges).items():
        # 22 variables with 20 bins each: a probability below 1e-4 in any of them would be a surprise of 0.2
        # %.
        assert stats.chi2.sf(_chi_square(counts, expected[name]), 19) > 1e-4, name


def test_fraction_within_lepton_cuts_agrees_with_an_independent_generator(sample: Events) -> None:
    with np.load(REFERENCE) as reference:
        expected = int(reference["n_pass_lepton_cuts"]) / 400_000
    found = pass_lepton_cuts(sample.momenta, LeptonCutsConfig()).mean()
    error = math.sqrt(expected * (1 - expected))
    assert _agrees(found, error / math.sqrt(N_EVENTS), expected, error / math.sqrt(400_000))


def test_events_at_another_coupling_agree_with_reweighted_ones(sample: Events) -> None:
    generator = Generator.adapted(GeneratorConfig(), 0.5, stream(16, "adapt"))
    events = generator.unweighted(100_000, stream(16, "sample"))
    assert _agrees(generator.cross_section_fb, generator.cross_section_error_fb, 1.9068, 0.002)
    with np.load(REFERENCE) as reference:
        edges = dict(zip(reference["names"].tolist(), reference["edges"], strict=True))
    weights = amplitudes.evaluate_polynomials(sample.polynomials, 0.5)
    values = variables(sample)
    for name, counts in fill(events, edges).items():
        bins = np.searchsorted(edges[name], values[name])
        sums = np.bincount(bins, weights=weights, minlength=20) / weights.sum()
        variances = np.bincount(bins, weights=weights**2, minlength=20) / weights.sum() ** 2
        total = counts.sum()
        chi_square = np.sum((counts / total - sums) ** 2 / (counts / total**2 + variances))
        # Fractions add up to 1: 19 degrees of freedom; the shared normalisation is a small correction.
        assert stats.chi2.sf(chi_square, 19) > 1e-4, name


def test_weighted_events_add_up_to_the_cross_section(standard_model: Generator) -> None:
    rng = stream(17, "weighted")
    parts = [standard_model.weighted(25_000, rng) for _ in range(8)]
    totals = np.array([part.weight.sum() for part in parts])
    error = totals.std(ddof=1) / math.sqrt(len(totals))
    assert abs(totals.mean() - standard_model.cross_section_fb) < 5 * error
    assert all(len(part) <= 25_000 for part in parts)
    assert all(np.all(np.isfinite(part.polynomials)) for part in parts)


def test_events_are_distributed_over_both_beams_alike(sample: Events) -> None:
    assert abs(np.mean(sample.u_beam == 1) - 0.5) < 4 * 0.5 / math.sqrt(N_EVENTS)
    assert np.all((sample.momenta[:, 0, 3] > 0) == (sample.u_beam == 1))


# --- laws -------------------------------------------------------------------------------------------------


def test_momentum_is_conserved_and_masses_are_right(sample: Events) -> None:
    momenta = sample.momenta
    balance = momenta[:, :2].sum(axis=1) - momenta[:, 2:].sum(axis=1)
    assert np.max(np.abs(balance) / momenta[:, :2, 0].sum(axis=1)[:, None]) < 1e-10
    np.testing.assert_array_equal(momenta[..., 0], np.linalg.norm(momenta[..., 1:], axis=-1))
    higgs = momenta[:, 4:].sum(axis=1)
    np.testing.assert_allclose(np.sqrt(amplitudes.minkowski_dot(higgs, higgs)), amplitudes.MH, rtol=1e-10)


def test_events_are_inside_the_cuts(sample: Events, with_lepton_cuts: Generator) -> None:
    quarks = sample.momenta[:, 2:4]
    pt = np.hypot(quarks[..., 1], quarks[..., 2])
    eta = np.arcsinh(quarks[..., 3] / pt)
    phi = np.arctan2(quarks[..., 2], quarks[..., 1])
    assert pt.min() > 20 * (1 - 1e-12)
    assert np.abs(eta).max() < 5 * (1 + 1e-12)
    assert np.hypot(eta[:, 0] - eta[:, 1], delta_phi(phi[:, 0], phi[:, 1])).min() > 0.4 * (1 - 1e-9)
    events = with_lepton_cuts.unweighted(3000, stream(18, "cuts"))
    assert len(events) == 3000
    assert np.all(pass_lepton_cuts(events.momenta, LeptonCutsConfig()))
    assert events.weight.sum() == pytest.approx(with_lepton_cuts.cross_section_fb)


def test_event_polynomials_are_those_of_the_momenta(sample: Events) -> None:
    momenta = sample.momenta[:20_000]
    quarks, leptons = np.moveaxis(momenta[:, :4], 1, 0), np.moveaxis(momenta[:, 4:], 1, 0)
    expected = amplitudes.event_polynomials(
        amplitudes.production_polynomial(*quarks), amplitudes.decay_polynomial(*leptons)
    )
    # The dot products of momenta lose digits for quarks close to the beam.
    np.testing.assert_allclose(sample.polynomials[:20_000], expected, rtol=1e-6, atol=1e-9)


def test_event_polynomials_are_never_negative(sample: Events) -> None:
    theta = np.concatenate([np.linspace(-100, 100, 81), np.linspace(-3, 3, 61)])
    values = amplitudes.evaluate_polynomials(sample.polynomials[:20_000], theta)
    size = amplitudes.evaluate_polynomials(np.abs(sample.polynomials[:20_000]), np.abs(theta))
    assert np.all(values >= -1e-9 * size)


@pytest.mark.parametrize("fixture", ["standard_model", "with_lepton_cuts"])
def test_little_is_above_the_maximum_weight(fixture: str, request: pytest.FixtureRequest) -> None:
    assert request.getfixturevalue(fixture).overweight < 5e-4


def test_a_sample_does_not_depend_on_the_number_of_workers(standard_model: Generator) -> None:
    seen: list[int] = []
    one = list(generate_sample(standard_model, name="a", n_events=60_000, seed=3))
    two = list(
        generate_sample(standard_model, name="a", n_events=60_000, seed=3, workers=2, progress=seen.append)
    )
    other = next(generate_sample(standard_model, name="b", n_events=1000, seed=3))
    assert [len(block) for block in two] == [25_000, 25_000, 10_000] == seen
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.momenta, second.momenta)
        np.testing.assert_array_equal(first.polynomials, second.polynomials)
        np.testing.assert_array_equal(first.weight, second.weight)
    assert sum(block.weight.sum() for block in one) == pytest.approx(standard_model.cross_section_fb)
    assert not np.any(np.isin(other.momenta[:, 2, 1], one[0].momenta[:, 2, 1]))


def test_adaptation_is_reproducible() -> None:
    config = CutsConfig()
    space = ProductionPhaseSpace(6500.0, config, ClosedFormDensities())
    grids = [
        adapt(lambda unit: _density(space, unit), 6, stream(5, "grid"), iterations=2, n_points=5000)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(grids[0].edges, grids[1].edges)


# --- parts ------------------------------------------------------------------------------------------------


def test_a_mixture_of_grids_integrates_without_bias() -> None:
    # Int x dx dy over the unit square = 1/2, whatever the grids are.
    rng = stream(19, "mixture")
    edges = np.sort(rng.random((4, 9)), axis=1)
    edges = np.concatenate([np.zeros((4, 1)), edges, np.ones((4, 1))], axis=1)
    grid = MixedGrid((AdaptiveGrid(edges[:2]), AdaptiveGrid(edges[2:])), (0.7, 0.3))
    points, inverse_density = grid.draw(200_000, rng)
    values = points[0] * inverse_density
    assert abs(values.mean() - 0.5) < 4 * values.std() / math.sqrt(200_000)
    assert inverse_density.mean() == pytest.approx(1.0, abs=0.05)


def test_boost_takes_vectors_from_the_rest_frame() -> None:
    rng = stream(20, "boost")
    direction = rng.normal(size=(50, 1, 3))
    vectors = np.concatenate([direction, -direction], axis=1)
    vectors = np.concatenate([np.linalg.norm(vectors, axis=-1, keepdims=True), vectors], axis=-1)
    mass = vectors[..., 0].sum(axis=1)
    three = rng.normal(size=(50, 3)) * 10
    frame = np.concatenate([np.sqrt(mass**2 + np.sum(three**2, axis=1))[:, None], three], axis=1)
    np.testing.assert_allclose(boost(vectors, frame).sum(axis=1), frame, rtol=1e-10, atol=1e-10)
    turned = rotate(vectors, rng)
    np.testing.assert_allclose(
        np.sum(turned[:, 0, 1:] ** 2, axis=1), np.sum(vectors[:, 0, 1:] ** 2, axis=1), rtol=1e-12
    )
    np.testing.assert_allclose(turned.sum(axis=1)[:, 1:], 0.0, atol=1e-12)
