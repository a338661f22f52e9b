"""The squared matrix element of W-boson fusion ``u d > u d h``, ``h > e+ ve e- ve~`` as a quartic in cHW.

One operator of the Warsaw basis, ``O_HW = H^dag H W^I_{mu nu} W^{I mu nu}`` with coefficient cHW at
Lambda = 1 TeV, enters through the h W+ W- vertex alone (SMEFTsim, arXiv:2012.11343, in the {MW, MZ, GF} input
scheme, where the shift of the W kinetic term is absorbed in the coupling). With both W momenta q1, q2 flowing
into the vertex it reads ::

    i (g^2 v / 2) [ (1 - kappa q1.q2) g^{mu nu} + kappa q1^nu q2^mu ],   kappa = 8 cHW / (g^2 Lambda^2).

There is one diagram, for production and for decay, and massless left-handed fermions leave one helicity
configuration. Each amplitude is linear in kappa and is squared in full. The Higgs boson is a scalar, so the
square of the whole is the product of the squares: a polynomial of fourth degree in cHW.

Four-vectors are ``(E, px, py, pz)`` in the last axis, in GeV. "Polynomials" hold ascending coefficients in
the last axis. Everything is a function of dot products of momenta; no spinors are needed.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from milanalysis.parameters import FloatArray

__all__ = [
    "GAMMA_H",
    "GAMMA_W",
    "GF",
    "KAPPA_PER_CHW",
    "LAMBDA",
    "MH",
    "MW",
    "VEV",
    "W_COUPLING_SQUARED",
    "decay_dot_polynomial",
    "decay_polynomial",
    "evaluate_polynomials",
    "event_polynomials",
    "minkowski_dot",
    "production_dot_polynomial",
    "production_polynomial",
    "squared_matrix_element",
    "vertex_polynomial",
]

GF = 1.166379e-5
"""Fermi constant [GeV^-2]."""
MW = 80.387
"""Mass of the W boson [GeV]."""
MH = 125.09
"""Mass of the Higgs boson [GeV]."""
GAMMA_W = 2.085
"""Width of the W boson [GeV], fixed, in time-like propagators only."""
GAMMA_H = 4.07e-3
"""Total width of the Higgs boson [GeV]; it does not depend on cHW."""
LAMBDA = 1000.0
"""Scale of the operator [GeV]."""
VEV = (math.sqrt(2.0) * GF) ** -0.5
"""Vacuum expectation value of the Higgs field [GeV]."""
W_COUPLING_SQUARED = 4.0 * MW**2 / VEV**2
"""``g^2`` of the weak interaction."""
KAPPA_PER_CHW = 8.0 / (W_COUPLING_SQUARED * LAMBDA**2)
"""``kappa / cHW`` [GeV^-2], the strength of the anomalous h W W vertex."""

_KAPPA_POWERS = KAPPA_PER_CHW ** np.arange(3)
_COUPLINGS = (W_COUPLING_SQUARED / 2.0) ** 2 * (W_COUPLING_SQUARED * VEV / 2.0) ** 2


def minkowski_dot(p: FloatArray, q: FloatArray) -> FloatArray:
    """Return ``p.q`` of four-vectors ``(..., 4)`` with metric (+, -, -, -), shape ``(...)``."""
    product = p * q
    return np.asarray(product[..., 0] - product[..., 1] - product[..., 2] - product[..., 3])


def vertex_polynomial(
    ab: npt.ArrayLike,
    a1: npt.ArrayLike,
    a2: npt.ArrayLike,
    b1: npt.ArrayLike,
    b2: npt.ArrayLike,
    l12: npt.ArrayLike,
) -> FloatArray:
    """Return the squared h W W vertex between two left-handed massless currents, as a polynomial in kappa.

    The currents are ``J1 = <2|gamma|a]`` and ``J2 = <1|gamma|b]``: fermion a turns into 2 on line 1, b into 1
    on line 2, and the W momenta are ``q1 = a - 2``, ``q2 = b - 1``. With ``(ij) = p_i.p_j`` and
    ``G = (ab)(12) + (a2)(b1) - (a1)(b2)`` the square is ::

        T(kappa) = 16 { [(ab) - kappa G] [(12) - kappa G] + kappa^2 (a2)(b1) [(ab) - (12)]^2 }.

    It is never negative: its discriminant in kappa is ``-[(ab) - (12)]^2`` times the square of the
    Levi-Civita tensor contracted with a, b, 1 and 2 (Gram determinant). Crossing a particle to the other side
    changes the sign of its momentum, hence of its dot products.

    Args:
        ab: ``p_a . p_b`` [GeV^2], any shape; the others alike (broadcast against each other).
        a1: ``p_a . p_1``.
        a2: ``p_a . p_2``.
        b1: ``p_b . p_1``.
        b2: ``p_b . p_2``.
        l12: ``p_1 . p_2``.

    Returns:
        Coefficients of kappa^0, kappa^1, kappa^2 in GeV^4, GeV^6, GeV^8, shape ``(..., 3)``.

    Example:
        >>> vertex_polynomial(2.0, 1.0, 0.5, 0.25, 1.0, 0.75)[0]
        np.float64(24.0)
    """
    ab, a1, a2, b1, b2, l12 = np.broadcast_arrays(ab, a1, a2, b1, b2, l12)
    lines = a2 * b1
    g = ab * l12 + lines - a1 * b2
    polynomial = np.empty((*g.shape, 3))
    polynomial[..., 0] = 16.0 * ab * l12
    polynomial[..., 1] = -16.0 * (ab + l12) * g
    polynomial[..., 2] = 16.0 * (g**2 + lines * (ab - l12) ** 2)
    return polynomial


def production_dot_polynomial(
    ab: npt.ArrayLike,
    a1: npt.ArrayLike,
    a2: npt.ArrayLike,
    b1: npt.ArrayLike,
    b2: npt.ArrayLike,
    l12: npt.ArrayLike,
) -> FloatArray:
    """Return `production_polynomial` from dot products: a = u_in, 2 = d_out, b = d_in, 1 = u_out."""
    mass_squared = MW**2
    propagators = ((2.0 * np.asarray(a2) + mass_squared) * (2.0 * np.asarray(b1) + mass_squared)) ** 2
    vertex = vertex_polynomial(ab, a1, a2, b1, b2, l12)
    vertex *= _KAPPA_POWERS
    vertex *= (0.25 * _COUPLINGS / propagators)[..., None]
    return vertex


def production_polynomial(
    u_in: FloatArray, d_in: FloatArray, u_out: FloatArray, d_out: FloatArray
) -> FloatArray:
    """Return ``mean |M(u d > u d h)|^2`` as a polynomial in cHW.

    The incoming u emits a W+ and turns into the outgoing d, the incoming d turns into the outgoing u.
    Averaged over incoming, summed over outgoing spins and colours. No width in the space-like propagators.

    Args:
        u_in: incoming u quark, shape ``(..., 4)``; all momenta point forward in time.
        d_in: incoming d quark.
        u_out: outgoing u quark.
        d_out: outgoing d quark.

    Returns:
        Coefficients of cHW^0, cHW^1, cHW^2 in GeV^-2, shape ``(..., 3)``.
    """
    return production_dot_polynomial(
        minkowski_dot(u_in, d_in),
        minkowski_dot(u_in, u_out),
        minkowski_dot(u_in, d_out),
        minkowski_dot(d_in, u_out),
        minkowski_dot(d_in, d_out),
        minkowski_dot(u_out, d_out),
    )


def decay_dot_polynomial(
    ab: npt.ArrayLike,
    a1: npt.ArrayLike,
    a2: npt.ArrayLike,
    b1: npt.ArrayLike,
    b2: npt.ArrayLike,
    l12: npt.ArrayLike,
) -> FloatArray:
    """Return `decay_polynomial` from dot products: a = e+, 2 = ve, b = ve~, 1 = e- (outgoing momenta)."""
    a1, a2, b1, b2 = (np.asarray(dot) for dot in (a1, a2, b1, b2))
    mass_squared = MW**2
    width_squared = mass_squared * GAMMA_W**2
    propagators = ((2.0 * a2 - mass_squared) ** 2 + width_squared) * (
        (2.0 * b1 - mass_squared) ** 2 + width_squared
    )
    vertex = vertex_polynomial(ab, -a1, -a2, -b1, -b2, l12)
    vertex *= _KAPPA_POWERS
    vertex *= (_COUPLINGS / propagators)[..., None]
    return vertex


def decay_polynomial(
    positron: FloatArray, neutrino: FloatArray, electron: FloatArray, antineutrino: FloatArray
) -> FloatArray:
    """Return ``|M(h > e+ ve e- ve~)|^2``, summed over spins, as a polynomial in cHW.

    Args:
        positron: e+, shape ``(..., 4)``.
        neutrino: ve, from the same W+ as the positron.
        electron: e-.
        antineutrino: ve~, from the same W- as the electron.

    Returns:
        Coefficients of cHW^0, cHW^1, cHW^2 in GeV^-2, shape ``(..., 3)``.
    """
    return decay_dot_polynomial(
        minkowski_dot(positron, antineutrino),
        minkowski_dot(positron, electron),
        minkowski_dot(positron, neutrino),
        minkowski_dot(antineutrino, electron),
        minkowski_dot(antineutrino, neutrino),
        minkowski_dot(electron, neutrino),
    )


def event_polynomials(production: FloatArray, decay: FloatArray) -> FloatArray:
    """Return ``|M|^2(c) / |M|^2(0)`` of production and decay together, a quartic in cHW.

    Args:
        production: of `production_polynomial`, shape ``(..., 3)``, with a positive value at 0.
        decay: of `decay_polynomial`, shape ``(..., 3)``, with a positive value at 0.

    Returns:
        Coefficients of cHW^0 .. cHW^4, shape ``(..., 5)``; the first is exactly 1, the second is the joint
        score at 0.
    """
    p = production[..., 1:] / production[..., :1]
    d = decay[..., 1:] / decay[..., :1]
    polynomial = np.ones((*np.broadcast_shapes(p.shape[:-1], d.shape[:-1]), 5))
    polynomial[..., 1] = p[..., 0] + d[..., 0]
    polynomial[..., 2] = p[..., 1] + p[..., 0] * d[..., 0] + d[..., 1]
    polynomial[..., 3] = p[..., 1] * d[..., 0] + p[..., 0] * d[..., 1]
    polynomial[..., 4] = p[..., 1] * d[..., 1]
    return polynomial


def evaluate_polynomials(polynomials: FloatArray, theta: npt.ArrayLike) -> FloatArray:
    """Return polynomials ``(..., degree + 1)`` at values ``theta`` of any shape: ``(..., *theta.shape)``."""
    return np.asarray(
        np.polynomial.polynomial.polyval(np.asarray(theta, np.float64), np.moveaxis(polynomials, -1, 0)),
        dtype=np.float64,
    )


def squared_matrix_element(momenta: FloatArray, theta: npt.ArrayLike) -> FloatArray:
    """Return ``mean |M|^2`` of the whole process, with the propagator of the Higgs boson.

    Args:
        momenta: shape ``(..., 8, 4)`` in the order u_in, d_in, u_out, d_out, e+, ve, e-, ve~.
        theta: values of cHW, any shape.

    Returns:
        In GeV^-8, shape ``(..., *theta.shape)``.
    """
    u_in, d_in, u_out, d_out, *leptons = np.moveaxis(momenta, -2, 0)
    production = evaluate_polynomials(production_polynomial(u_in, d_in, u_out, d_out), theta)
    decay = evaluate_polynomials(decay_polynomial(*leptons), theta)
    higgs = sum(leptons[1:], start=leptons[0])
    propagator = (minkowski_dot(higgs, higgs) - MH**2) ** 2 + (MH * GAMMA_H) ** 2
    return production * decay / propagator.reshape(propagator.shape + (1,) * np.ndim(theta))
