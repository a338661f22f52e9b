"""The decay ``h > e+ ve e- ve~`` integrated over the neutrinos at a given momentum of the Higgs boson.

With both leptons and the Higgs boson fixed, ``Q = ve + ve~`` is fixed as well, and what is hidden is the
direction n of ve in the rest frame of Q. The integral over n needs only invariants: ``alpha = e+.Q``,
``beta = e-.Q`` and ``e+.e-``. The masses of both W bosons are ``s1 = alpha (1 - n.a)`` and
``s2 = beta (1 + n.b)`` (a, b: directions of e+ and e-), and ``1/D1``, ``1/D2`` their squared propagators,
``D = (s - MW^2)^2 + MW^2 Gamma^2``. The identity ::

    1 / (D1 D2) = (1/D1 + 1/D2) / (D1 + D2)

splits it in two channels with one peak each: ``D1 + D2`` is never small because
``sqrt(s1) + sqrt(s2) <= MH < 2 MW``. In the channel of 1/D1 the polar axis is a, and
``s1 = MW^2 + MW Gamma tan(theta)`` absorbs the peak; the other one is its mirror image. Theta takes
Gauss-Legendre points; in azimuth the integrand is even and periodic, so that few midpoints are enough.
"""

from __future__ import annotations

import numpy as np

from milanalysis.parameters import FloatArray
from milanalysis.simulation.amplitudes import GAMMA_W, KAPPA_PER_CHW, MH, MW

__all__ = ["decay_integral", "unit_gauss"]

_MASS_SQUARED = MW**2
_MASS_WIDTH = MW * GAMMA_W


def unit_gauss(order: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of Gauss-Legendre integration over (0, 1), shape ``(order,)`` each."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return np.asarray(0.5 * (nodes + 1.0)), np.asarray(0.5 * weights)


def decay_integral(
    alpha: FloatArray, beta: FloatArray, leptons: FloatArray, *, n_theta: int, n_phi: int
) -> FloatArray:
    """Return the squared decay amplitude integrated over the direction of the neutrino.

    Args:
        alpha: ``e+.Q`` [GeV^2], positive, shape ``(n_points,)``.
        beta: ``e-.Q`` likewise.
        leptons: ``e+.e-``.
        n_theta: points in the mass of each W boson.
        n_phi: points in azimuth, on half of the circle.

    Returns:
        ``int dOmega_n T(c) / (D1 D2)`` as coefficients of c^0, c^1, c^2, shape ``(3, n_points)`` [GeV^-4], c
        = cHW, with T as in `milanalysis.simulation.amplitudes.vertex_polynomial`.
    """
    neutrinos = np.maximum(0.5 * MH**2 - leptons - alpha - beta, 0.0)
    product = neutrinos * leptons
    channels = _channel(
        np.concatenate([alpha, beta]),
        np.concatenate([beta, alpha]),
        np.concatenate([product, product]),
        n_theta,
        n_phi,
    )
    return np.asarray(channels[:, : len(alpha)] + channels[:, len(alpha) :])


def _channel(
    alpha: FloatArray, beta: FloatArray, product: FloatArray, n_theta: int, n_phi: int
) -> FloatArray:
    """Return the part of `decay_integral` that has the peak of one W boson.

    With ``u = e+.ve``, ``v = e-.ve~``, ``P = e+.ve~ = alpha - u``, ``R = e-.ve = beta - v`` and the product
    ``G = (e+.e-)(ve.ve~)``, `milanalysis.simulation.amplitudes.vertex_polynomial` multiplied out is ::

        T / 16 = P R + kappa (P + R)(G - P R - u v) + kappa^2 [(G + P R - u v)^2 - 4 G P R + (P + R)^2 u v],

    a cubic in v at fixed u. So the loop over azimuth adds up four moments of v, and the coefficients are put
    together once for each u.

    Args:
        alpha: ``e.Q`` of the lepton from this W boson, along the polar axis, shape ``(n_points,)``.
        beta: ``e.Q`` of the other lepton.
        product: G.
        n_theta: points in the mass of this W boson.
        n_phi: points in azimuth.
    """
    cos_ab = np.clip(1.0 - 2.0 * product / (alpha * beta), -1.0, 1.0)  # between the leptons, Q at rest
    along = beta * cos_ab / alpha
    across = beta * np.sqrt(1.0 - cos_ab**2) / alpha
    alpha_squared = alpha * alpha
    low = np.arctan(-MW / GAMMA_W)
    span = np.arctan((2.0 * alpha - _MASS_SQUARED) / _MASS_WIDTH) - low
    azimuths = np.cos(np.pi * (np.arange(n_phi) + 0.5) / n_phi)
    sums = np.zeros((3, len(alpha)))
    moments = np.empty((4, len(alpha)))
    v, term = np.empty_like(alpha), np.empty_like(alpha)
    for node, weight in zip(*unit_gauss(n_theta), strict=True):
        tangent = np.tan(low + node * span)
        u = np.clip(0.5 * (_MASS_SQUARED + _MASS_WIDTH * tangent), 0.0, alpha)
        floor = _MASS_WIDTH**2 * (2.0 + tangent * tangent)  # D1, and the constant part of D2
        p = alpha - u
        middle = along * (0.5 * alpha - u) + 0.5 * beta
        swing = across * np.sqrt(u * p)
        moments[:] = 0.0
        for azimuth in azimuths:
            np.multiply(swing, azimuth, out=v)
            v += middle
            np.multiply(v, 2.0, out=term)
            term -= _MASS_SQUARED
            term *= term
            term += floor
            np.divide(weight, term, out=term)
            for moment in moments[:3]:
                moment += term
                term *= v
            moments[3] += term
        p_beta = p * beta
        total = p + beta
        total_u = total * u
        excess = product - p_beta
        difference = p - u
        sums[0] += p_beta * moments[0] - p * moments[1]
        sums[1] += (
            total * excess * moments[0] + (total * difference - excess) * moments[1] - difference * moments[2]
        )
        sums[2] += (
            excess * excess * moments[0]
            + (total * total_u + 4.0 * product * p - 2.0 * alpha * (product + p_beta)) * moments[1]
            + (alpha_squared - 2.0 * total_u) * moments[2]
            + u * moments[3]
        )
    # d cos = ds1 / alpha and ds1 / D1 = dtheta / (MW Gamma); half of the azimuths were summed.
    sums *= 16.0 * 2.0 * np.pi / (n_phi * _MASS_WIDTH) * span / alpha
    sums *= (KAPPA_PER_CHW ** np.arange(3))[:, None]
    return sums
