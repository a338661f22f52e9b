"""The tree-level squared matrix element of ``u d > u d Z Z``, ``Z > e+ e-``, ``Z > nu nu~``, no gluons.

All diagrams with two resonant Z bosons are there: exchange of a photon, Z or W between the quark lines, with
both Z bosons radiated from quarks, from the exchanged W (three- and four-boson vertices), or from a Higgs
boson. Each Z is replaced by the current of its leptons times its propagator, so that all spin correlations
are kept.

Massless quarks have a chirality, and a current of two-component spinors for each ::

    J^mu[S] = sum over A + B = S  < out; A | sigma^mu | in; B >,

where S is the set of Z bosons radiated from the line and ``| in; B >`` the spinor of the incoming quark after
it has radiated those in B. Neutral currents go u to u and d to d; charged ones u to d and d to u and are
left-handed. With vertices ``+i g gamma^mu`` of the fermions and all bosons incoming, the vertex of W+, W- and
a neutral boson V is ::

    i G_V [ (W+.W-) (k+ - k-).V + (W-.V) (k- - k_V).W+ + (V.W+) (k_V - k+).W- ],   G_V = g_V(d) - g_V(u),

which is what makes the amplitude vanish when V is a photon and its polarisation is replaced by its momentum.

Functions here are compiled with numba, for one event at a time: four-vectors are tuples ``(E, px, py, pz)``,
spinors tuples of two. ``h`` is -1 for left-handed and +1 for right-handed fermions. The first call compiles
(some seconds); the result is kept on disk.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from milanalysis.parameters import FloatArray
from milanalysis.simulation.amplitudes import GAMMA_H, MH, MW, VEV, W_COUPLING_SQUARED

__all__ = ["GAMMA_Z", "MZ", "squared_amplitudes"]

MZ = 91.1876
"""Mass of the Z boson [GeV]."""
GAMMA_Z = 2.4952
"""Width of the Z boson [GeV], fixed, in the propagators of those that decay."""

_SIN2 = 1.0 - (MW / MZ) ** 2
_G = math.sqrt(W_COUPLING_SQUARED)
_E = _G * math.sqrt(_SIN2)
_GZ = _G / math.sqrt(1.0 - _SIN2)
_GW = _G / math.sqrt(2.0)
_H_W = 2.0 * MW**2 / VEV
_H_Z = 2.0 * MZ**2 / VEV
_FLAVOURS_OF_NEUTRINOS = 3


def _z_couplings(isospin: float, charge: float) -> tuple[float, float]:
    """Return the couplings of left- and right-handed fermions to the Z boson."""
    return _GZ * (isospin - charge * _SIN2), -_GZ * charge * _SIN2


_Z_UP = _z_couplings(0.5, 2.0 / 3.0)
_Z_DOWN = _z_couplings(-0.5, -1.0 / 3.0)
_Z_ELECTRON = _z_couplings(-0.5, -1.0)
_Z_NEUTRINO = _z_couplings(0.5, 0.0)
_PHOTON_UP, _PHOTON_DOWN = 2.0 / 3.0 * _E, -1.0 / 3.0 * _E

# Of a neutral boson that is radiated: to left- and right-handed u, left- and right-handed d.
Z_COUPLINGS = (*_Z_UP, *_Z_DOWN)
PHOTON_COUPLINGS = (_PHOTON_UP, _PHOTON_UP, _PHOTON_DOWN, _PHOTON_DOWN)


def _compiled(function: Any) -> Any:
    """Compile a function, and keep the result on disk where there is a place for it."""
    options = {"error_model": "numpy", "fastmath": True}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the installation nor a home directory can be written to
        return numba.njit(**options)(function)


@_compiled
def _dot(a, b):  # type: ignore[no-untyped-def]
    """Return the product of four-vectors, metric (+, -, -, -)."""
    return a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3]


@_compiled
def _plus(a, b):  # type: ignore[no-untyped-def]
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


@_compiled
def _minus(a, b):  # type: ignore[no-untyped-def]
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3])


@_compiled
def _times(a, factor):  # type: ignore[no-untyped-def]
    return (a[0] * factor, a[1] * factor, a[2] * factor, a[3] * factor)


@_compiled
def _conjugate(a):  # type: ignore[no-untyped-def]
    return (a[0].conjugate(), a[1].conjugate(), a[2].conjugate(), a[3].conjugate())


@_compiled
def _spinor(p, h):  # type: ignore[no-untyped-def]
    """Return the spinor of a massless fermion, a solution of ``(E - h p.sigma) psi = 0`` of norm 2 E."""
    pt2 = p[1] * p[1] + p[2] * p[2]
    large = p[0] + abs(p[3])
    small = pt2 / large
    plus, minus = (large, small) if p[3] > 0.0 else (small, large)
    root_plus, root_minus = math.sqrt(plus), math.sqrt(minus)
    phase = complex(p[1], p[2]) / math.sqrt(pt2) if pt2 > 0.0 else complex(1.0, 0.0)
    if h > 0:
        return (root_plus + 0.0j, root_minus * phase)
    return (-root_minus * phase.conjugate(), root_plus + 0.0j)


@_compiled
def _slash(v, psi, sign):  # type: ignore[no-untyped-def]
    """Return ``(v0 + sign v.sigma) psi``."""
    return (
        (v[0] + sign * v[3]) * psi[0] + sign * (v[1] - 1j * v[2]) * psi[1],
        sign * (v[1] + 1j * v[2]) * psi[0] + (v[0] - sign * v[3]) * psi[1],
    )


@_compiled
def _radiate(psi, polarisation, p, h):  # type: ignore[no-untyped-def]
    """Return the spinor after a vertex with a boson, propagated with momentum p."""
    after = _slash(p, _slash(polarisation, psi, -h), h)
    p2 = _dot(p, p)
    return (after[0] / p2, after[1] / p2)


@_compiled
def _add(a, b):  # type: ignore[no-untyped-def]
    return (a[0] + b[0], a[1] + b[1])


@_compiled
def _dressed(p, h, sign, e1, k1, e2, k2):  # type: ignore[no-untyped-def]
    """Return the spinors of a quark that has radiated no boson, the first, the second, both.

    For an incoming quark ``sign`` is -1. An outgoing one (+1) is handled as its conjugate: give the conjugate
    polarisations.
    """
    psi = _spinor(p, h)
    p1, p2 = _plus(p, _times(k1, sign)), _plus(p, _times(k2, sign))
    p12 = _plus(p1, _times(k2, sign))
    psi1, psi2 = _radiate(psi, e1, p1, h), _radiate(psi, e2, p2, h)
    both = _add(_radiate(psi1, e2, p12, h), _radiate(psi2, e1, p12, h))
    return (psi, psi1, psi2, both)


@_compiled
def _chiralities(p, sign, e1, k1, e2, k2):  # type: ignore[no-untyped-def]
    """Return `_dressed` for a left- and a right-handed quark."""
    return (_dressed(p, -1, sign, e1, k1, e2, k2), _dressed(p, 1, sign, e1, k1, e2, k2))


@_compiled
def _sandwich(left, psi, h):  # type: ignore[no-untyped-def]
    """Return the current ``< left | (1, h sigma) | psi >``."""
    a, b = left[0].conjugate(), left[1].conjugate()
    ax, bx = a * psi[0], b * psi[1]
    ay, by = a * psi[1], b * psi[0]
    return (ax + bx, h * (ay + by), h * 1j * (by - ay), h * (ax - bx))


@_compiled
def _currents(outgoing, incoming, h, out1, in1, out2, in2):  # type: ignore[no-untyped-def]
    """Return the currents of a line that has radiated no boson, the first, the second, both.

    ``out1`` is the coupling of the first boson to the outgoing quark, and so on.
    """
    none = _sandwich(outgoing[0], incoming[0], h)
    first = _plus(
        _times(_sandwich(outgoing[1], incoming[0], h), out1),
        _times(_sandwich(outgoing[0], incoming[1], h), in1),
    )
    second = _plus(
        _times(_sandwich(outgoing[2], incoming[0], h), out2),
        _times(_sandwich(outgoing[0], incoming[2], h), in2),
    )
    ends = _plus(
        _times(_sandwich(outgoing[3], incoming[0], h), out1 * out2),
        _times(_sandwich(outgoing[0], incoming[3], h), in1 * in2),
    )
    across = _plus(
        _times(_sandwich(outgoing[1], incoming[2], h), out1 * in2),
        _times(_sandwich(outgoing[2], incoming[1], h), out2 * in1),
    )
    return (none, first, second, _plus(ends, across))


@_compiled
def _w_boson(current, q):  # type: ignore[no-untyped-def]
    """Return a current with the propagator of a space-like W boson, in unitary gauge."""
    along = _dot(q, current) / MW**2
    return _times(_minus(current, _times(q, along)), 1.0 / (_dot(q, q) - MW**2))


@_compiled
def _three_bosons(a, ka, b, kb, c, kc):  # type: ignore[no-untyped-def]
    """Return the vertex of W+, W- and a neutral boson, all incoming."""
    return (
        _dot(a, b) * _dot(_minus(ka, kb), c)
        + _dot(b, c) * _dot(_minus(kb, kc), a)
        + _dot(c, a) * _dot(_minus(kc, ka), b)
    )


@_compiled
def _after_radiation(a, ka, c, kc):  # type: ignore[no-untyped-def]
    """Return the W boson that goes on after a W+ has met a neutral boson (both incoming)."""
    q = _plus(ka, kc)
    kb = _times(q, -1.0)
    joined = _plus(
        _plus(_times(a, _dot(_minus(ka, kb), c)), _times(c, _dot(_minus(kb, kc), a))),
        _times(_minus(kc, ka), _dot(c, a)),
    )
    return _w_boson(joined, q)


@_compiled
def _charged(plus, q_plus, minus, q_minus, e1, k1, g1, e2, k2, g2, higgs):  # type: ignore[no-untyped-def]
    """Return the amplitude with W bosons between the lines.

    Args:
        plus: currents u to d, which emit a W+ (see `_currents`).
        q_plus: momenta of the W+, one for each of these currents.
        minus: currents d to u.
        q_minus: momenta of the W-.
        e1: polarisation of the first boson.
        k1: its momentum.
        g1: its coupling to W bosons.
        e2: polarisation of the second boson.
        k2: its momentum.
        g2: its coupling to W bosons.
        higgs: product of the couplings and the propagator of the Higgs boson.
    """
    in1, in2 = _times(k1, -1.0), _times(k2, -1.0)
    a0, a1, a2, a12 = (
        _w_boson(plus[0], q_plus[0]),
        _w_boson(plus[1], q_plus[1]),
        _w_boson(plus[2], q_plus[2]),
        _w_boson(plus[3], q_plus[3]),
    )
    b0, b1, b2 = (
        _w_boson(minus[0], q_minus[0]),
        _w_boson(minus[1], q_minus[1]),
        _w_boson(minus[2], q_minus[2]),
    )
    # both radiated from quarks
    total = _dot(a0, minus[3]) + _dot(a1, minus[2]) + _dot(a2, minus[1]) + _dot(a12, minus[0])
    # one from a quark, one from the W boson
    total -= g1 * (
        _three_bosons(a2, q_plus[2], b0, q_minus[0], e1, in1)
        + _three_bosons(a0, q_plus[0], b2, q_minus[2], e1, in1)
    )
    total -= g2 * (
        _three_bosons(a1, q_plus[1], b0, q_minus[0], e2, in2)
        + _three_bosons(a0, q_plus[0], b1, q_minus[1], e2, in2)
    )
    # both from the W boson
    then = _after_radiation(a0, q_plus[0], e1, in1)
    total += g1 * g2 * _three_bosons(then, _minus(q_plus[0], k1), b0, q_minus[0], e2, in2)
    then = _after_radiation(a0, q_plus[0], e2, in2)
    total += g1 * g2 * _three_bosons(then, _minus(q_plus[0], k2), b0, q_minus[0], e1, in1)
    ww, zz = _dot(a0, b0), _dot(e1, e2)
    total -= g1 * g2 * (2.0 * ww * zz - _dot(a0, e1) * _dot(b0, e2) - _dot(a0, e2) * _dot(b0, e1))
    # from a Higgs boson
    return _GW**2 * (total - higgs * ww * zz)


@_compiled
def _neutral(up, down, zs, exchange, e1, k1, e2):  # type: ignore[no-untyped-def]
    """Return the amplitude with photons and Z bosons between the lines, for one chirality of each.

    Args:
        up: currents u to u (see `_currents`).
        down: currents d to d.
        zs: product of the couplings of the exchanged Z boson to both lines.
        exchange: momenta that leave the u line, one for each of its currents; momentum that leaves the d line
            without radiation; propagator of a Higgs boson that decays into both bosons; 1, or 0 without Higgs
            bosons.
        e1: polarisation of the first boson.
        k1: its momentum.
        e2: polarisation of the second boson.
    """
    q_up, q_down, s_channel, higgs = exchange
    total = 0.0j
    for number in range(4):
        q2 = _dot(q_up[number], q_up[number])
        total += (_PHOTON_UP * _PHOTON_DOWN / q2 + zs / (q2 - MZ**2)) * _dot(up[number], down[3 - number])
    # two Z bosons and a Higgs boson
    direct, crossed = q_up[1], _minus(q_down, k1)
    from_higgs = (
        s_channel * _dot(up[0], down[0]) * _dot(e1, e2)
        + higgs * _dot(up[0], e1) * _dot(down[0], e2) / (_dot(direct, direct) - MH**2)
        + higgs * _dot(up[0], e2) * _dot(down[0], e1) / (_dot(crossed, crossed) - MH**2)
    )
    propagators = (_dot(q_up[0], q_up[0]) - MZ**2) * (_dot(q_down, q_down) - MZ**2)
    return total - zs * _H_Z**2 * from_higgs / propagators


@_compiled
def _four_momenta(base, k1, k2):  # type: ignore[no-untyped-def]
    """Return the momenta that leave a line after it has radiated no boson, the first, the second, both."""
    first, second = _minus(base, k1), _minus(base, k2)
    return (base, first, second, _minus(first, k2))


@_compiled
def _amplitudes(u_in, d_in, u_out, d_out, e1, k1, c1, e2, k2, c2, higgs):  # type: ignore[no-untyped-def]
    """Return the amplitudes of all chiralities of the quarks.

    Args:
        u_in: momentum of the incoming u; the other quarks alike.
        d_in: incoming d.
        u_out: outgoing u.
        d_out: outgoing d.
        e1: polarisation of the first neutral boson (conjugate of an incoming one), complex.
        k1: its momentum.
        c1: its couplings, as `Z_COUPLINGS`.
        e2: polarisation of the second boson; the others alike.
        k2: its momentum.
        c2: its couplings.
        higgs: 1, or 0 to leave the Higgs boson out, as if the bosons were photons.

    Returns:
        Neutral current for (u, d) = LL, LR, RL, RR, then the charged current, which is LL.
    """
    pair = _plus(k1, k2)
    s_channel = 1.0 / (_dot(pair, pair) - MH**2 + 1j * MH * GAMMA_H)
    conjugate1, conjugate2 = _conjugate(e1), _conjugate(e2)
    out_u = _chiralities(u_out, 1.0, conjugate1, k1, conjugate2, k2)
    out_d = _chiralities(d_out, 1.0, conjugate1, k1, conjugate2, k2)
    in_u = _chiralities(u_in, -1.0, e1, k1, e2, k2)
    in_d = _chiralities(d_in, -1.0, e1, k1, e2, k2)
    up = (
        _currents(out_u[0], in_u[0], -1, c1[0], c1[0], c2[0], c2[0]),
        _currents(out_u[1], in_u[1], 1, c1[1], c1[1], c2[1], c2[1]),
    )
    down = (
        _currents(out_d[0], in_d[0], -1, c1[2], c1[2], c2[2], c2[2]),
        _currents(out_d[1], in_d[1], 1, c1[3], c1[3], c2[3], c2[3]),
    )
    q_up, q_down = _minus(u_in, u_out), _minus(d_in, d_out)
    exchange = (_four_momenta(q_up, k1, k2), q_down, higgs * s_channel, higgs)
    ll = _neutral(up[0], down[0], _Z_UP[0] * _Z_DOWN[0], exchange, e1, k1, e2)
    lr = _neutral(up[0], down[1], _Z_UP[0] * _Z_DOWN[1], exchange, e1, k1, e2)
    rl = _neutral(up[1], down[0], _Z_UP[1] * _Z_DOWN[0], exchange, e1, k1, e2)
    rr = _neutral(up[1], down[1], _Z_UP[1] * _Z_DOWN[1], exchange, e1, k1, e2)
    plus = _currents(out_d[0], in_u[0], -1, c1[2], c1[0], c2[2], c2[0])
    minus = _currents(out_u[0], in_d[0], -1, c1[0], c1[2], c2[0], c2[2])
    charged = _charged(
        plus, _four_momenta(_minus(u_in, d_out), k1, k2),
        minus, _four_momenta(_minus(d_in, u_out), k1, k2),
        e1, k1, c1[2] - c1[0], e2, k2, c2[2] - c2[0],
        higgs * _H_W * _H_Z * s_channel,
    )  # fmt: skip
    return (ll, lr, rl, rr, charged)


@_compiled
def _lepton_current(fermion, antifermion, h, coupling):  # type: ignore[no-untyped-def]
    """Return the current of two leptons with the propagator of the Z boson they come from."""
    k = _plus(fermion, antifermion)
    propagator = coupling / (_dot(k, k) - MZ**2 + 1j * MZ * GAMMA_Z)
    return _times(_sandwich(_spinor(fermion, h), _spinor(antifermion, h), h), propagator)


@_compiled
def _vector(row):  # type: ignore[no-untyped-def]
    return (row[0], row[1], row[2], row[3])


@_compiled
def _squared_amplitudes(momenta, squares):  # type: ignore[no-untyped-def]
    """Fill ``squares`` with what `squared_amplitudes` returns."""
    for number in range(len(momenta)):
        p = momenta[number]
        u_in, d_in, u_out, d_out = _vector(p[0]), _vector(p[1]), _vector(p[2]), _vector(p[3])
        positron, neutrino, electron, antineutrino = (
            _vector(p[4]),
            _vector(p[5]),
            _vector(p[6]),
            _vector(p[7]),
        )
        k1, k2 = _plus(positron, electron), _plus(neutrino, antineutrino)
        e2 = _lepton_current(neutrino, antineutrino, -1, _Z_NEUTRINO[0])
        total = 0.0
        for h in (-1, 1):
            e1 = _lepton_current(electron, positron, h, _Z_ELECTRON[(h + 1) // 2])
            ll, lr, rl, rr, charged = _amplitudes(
                u_in, d_in, u_out, d_out, e1, k1, Z_COUPLINGS, e2, k2, Z_COUPLINGS, 1.0
            )
            # Colour: 9 for each square; 3 for the interference, and a minus sign for the exchange of
            # fermions.
            for one in (ll, lr, rl, rr, charged):
                total += 9.0 * (one.real**2 + one.imag**2)
            total -= 6.0 * (ll * charged.conjugate()).real
        squares[number] = _FLAVOURS_OF_NEUTRINOS * total / 36.0


def squared_amplitudes(momenta: FloatArray) -> FloatArray:
    """Return ``mean |M|^2`` of events, summed over three flavours of neutrinos.

    Args:
        momenta: shape ``(n_events, 8, 4)`` in the order u_in, d_in, u_out, d_out, e+, nu, e-, nu~ [GeV].

    Returns:
        Averaged over incoming and summed over outgoing spins and colours, shape ``(n_events,)`` [GeV^-8].
    """
    squares = np.empty(len(momenta))
    _squared_amplitudes(np.ascontiguousarray(momenta), squares)
    return squares
