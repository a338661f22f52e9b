"""The closed form against helicity amplitudes computed from the Feynman rules of SMEFTsim 3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milanalysis.parameters import FloatArray
from milanalysis.simulation import amplitudes

REFERENCE = Path(__file__).parent / "data" / "matrix_elements_reference.json"


@pytest.fixture(scope="module")
def reference() -> dict[str, FloatArray]:
    """Squared amplitudes at 200 phase-space points and several values of cHW."""
    points = json.loads(REFERENCE.read_text())["points"]
    theta = [float(value) for value in points[0]["m2"]]
    order = ("u_in", "d_in", "u_out", "d_out", "e+", "ve", "e-", "ve~")
    table = {
        name: np.array([list(point[name].values()) for point in points])
        for name in ("m2", "m2_production", "m2_decay")
    }
    momenta = np.array([[point["momenta"][name] for name in order] for point in points])
    return {"theta": np.array(theta), "momenta": momenta, **table}


def _relative(found: FloatArray, expected: FloatArray) -> float:
    return float(np.max(np.abs(found / expected - 1)))


def test_production_agrees_with_helicity_amplitudes(reference: dict[str, FloatArray]) -> None:
    u_in, d_in, u_out, d_out = np.moveaxis(reference["momenta"], 1, 0)[:4]
    polynomial = amplitudes.production_polynomial(u_in, d_in, u_out, d_out)
    theta = reference["theta"]
    found = amplitudes.evaluate_polynomials(polynomial, theta)
    # Where the amplitude passes through zero (four values) the terms of the polynomial cancel to four
    # digits and the reference itself is rounded: there the error is relative to the terms.
    terms = amplitudes.evaluate_polynomials(np.abs(polynomial), np.abs(theta))
    cancels = reference["m2_production"] < 1e-3 * terms
    assert cancels.sum() <= 4  # of 1400
    assert _relative(found[~cancels], reference["m2_production"][~cancels]) < 1e-10
    assert np.max(np.abs(found - reference["m2_production"]) / terms) < 1e-11


def test_decay_agrees_with_helicity_amplitudes(reference: dict[str, FloatArray]) -> None:
    polynomial = amplitudes.decay_polynomial(*np.moveaxis(reference["momenta"], 1, 0)[4:])
    found = amplitudes.evaluate_polynomials(polynomial, reference["theta"])
    assert _relative(found, reference["m2_decay"]) < 1e-10


def test_whole_process_agrees_with_helicity_amplitudes(reference: dict[str, FloatArray]) -> None:
    # 1e-8: the squared mass of the Higgs boson is rounded at its 4 MeV wide pole.
    found = amplitudes.squared_matrix_element(reference["momenta"], reference["theta"])
    assert _relative(found, reference["m2"]) < 1e-8


def test_event_polynomials_give_the_ratio_to_the_standard_model(reference: dict[str, FloatArray]) -> None:
    u_in, d_in, u_out, d_out, *leptons = np.moveaxis(reference["momenta"], 1, 0)
    polynomials = amplitudes.event_polynomials(
        amplitudes.production_polynomial(u_in, d_in, u_out, d_out), amplitudes.decay_polynomial(*leptons)
    )
    theta = reference["theta"]
    expected = reference["m2"] / reference["m2"][:, theta == 0.0]
    assert polynomials.shape == (200, 5)
    np.testing.assert_array_equal(polynomials[:, 0], 1.0)
    # Coefficients of opposite sign cancel at some points: relative to the largest term, not to the sum.
    size = amplitudes.evaluate_polynomials(np.abs(polynomials), np.abs(theta))
    np.testing.assert_array_less(
        np.abs(amplitudes.evaluate_polynomials(polynomials, theta) - expected) / size, 1e-8
    )


def test_constants_have_the_values_of_the_input_scheme() -> None:
    assert pytest.approx(246.21962, rel=1e-7) == amplitudes.VEV
    assert pytest.approx(0.42636969, rel=1e-7) == amplitudes.W_COUPLING_SQUARED
    assert pytest.approx(1.87630598e-5, rel=1e-8) == amplitudes.KAPPA_PER_CHW


def _massless(rng: np.random.Generator, n: int) -> FloatArray:
    """Massless momenta with energies over four decades."""
    direction = rng.normal(size=(n, 3))
    energy = 10.0 ** rng.uniform(-1, 3, n)
    three = direction / np.linalg.norm(direction, axis=1, keepdims=True) * energy[:, None]
    return np.concatenate([np.linalg.norm(three, axis=1, keepdims=True), three], axis=1)


@given(seed=st.integers(0, 2**32 - 1), theta=st.floats(-1000, 1000))
@settings(deadline=None, max_examples=50)
def test_squared_amplitudes_are_never_negative(seed: int, theta: float) -> None:
    rng = np.random.default_rng(seed)
    momenta = [_massless(rng, 20) for _ in range(4)]
    for polynomial in (
        amplitudes.production_polynomial(*momenta),
        amplitudes.decay_polynomial(*momenta),
    ):
        size = np.abs(polynomial) @ np.abs(theta) ** np.arange(3)
        assert np.all(polynomial @ theta ** np.arange(3) >= -1e-9 * size)


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_decay_is_symmetric_under_charge_conjugation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positron, neutrino, electron, antineutrino = (_massless(rng, 10) for _ in range(4))
    there = amplitudes.decay_polynomial(positron, neutrino, electron, antineutrino)
    back = amplitudes.decay_polynomial(electron, antineutrino, positron, neutrino)
    np.testing.assert_allclose(there, back, rtol=1e-9, atol=1e-9 * np.abs(there).max(axis=0).min())


def test_decay_is_production_crossed() -> None:
    # Incoming u d become outgoing antiparticles: e+ for u_in, ve~ for d_in, ve for d_out, e- for u_out.
    rng = np.random.default_rng(1)
    positron, neutrino, electron, antineutrino = (_massless(rng, 100) for _ in range(4))
    decay = amplitudes.decay_polynomial(positron, neutrino, electron, antineutrino)
    production = amplitudes.production_polynomial(-positron, -antineutrino, electron, neutrino)
    # The ratios do not contain the W propagators, which differ by the width.
    np.testing.assert_allclose(decay[:, 1] / decay[:, 0], production[:, 1] / production[:, 0], rtol=1e-12)
    np.testing.assert_allclose(decay[:, 2] / decay[:, 0], production[:, 2] / production[:, 0], rtol=1e-12)
