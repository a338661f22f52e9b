"""Table 1 of arXiv:2508.07114: what the networks see of an event.

Features are computed in float64 with `vector` and become float32 only when they are stored.
"""

from __future__ import annotations

import awkward as ak
import numpy as np
import numpy.typing as npt
import vector

from milanalysis.parameters import FloatArray

__all__ = ["TABLE1", "finite_momenta", "hardest_first", "missing_momentum", "table1"]

_PARTICLES = ("l0", "l1", "q0", "q1")

TABLE1: tuple[str, ...] = (
    *(f"{particle}_{name}" for particle in _PARTICLES for name in ("pt", "eta", "phi", "e", "m")),
    *("met", "met_phi", "m_ll", "m_qq", "pt_ll", "pt_qq", "dphi_ll", "dphi_qq"),
    *(f"l{i}_{kind}" for i in (0, 1) for kind in ("electron", "positron")),
    *(f"q{i}_{kind}" for i in (0, 1) for kind in ("down", "up")),
)
"""Names of the 36 features, in order."""


def hardest_first(particles: ak.Array) -> ak.Array:
    """Return the particles of each event in descending order of transverse momentum."""
    return particles[ak.argsort(particles.pt, axis=1, ascending=False)]


def finite_momenta(particles: ak.Array) -> npt.NDArray[np.bool_]:
    """Say for each event whether all its particles have finite momenta that do not point along the beam.

    Args:
        particles: Lorentz vectors, shape ``(n_events, any)``.

    Returns:
        Shape ``(n_events,)``. A particle without transverse momentum has no pseudorapidity; it counts as not
        finite.
    """
    transverse = particles.px**2 + particles.py**2
    good = np.isfinite(transverse + particles.pz + particles.energy) & (transverse > 0)
    return np.asarray(ak.to_numpy(ak.all(good, axis=1)), dtype=bool)


def missing_momentum(visible: ak.Array) -> ak.Array:
    """Return the transverse momentum that balances everything visible.

    Args:
        visible: momenta of the visible particles, shape ``(n_events, any)``.

    Returns:
        Transverse momenta in GeV with ``pt`` and ``phi``, shape ``(n_events,)``.
    """
    return vector.zip({"px": -ak.sum(visible.px, axis=1), "py": -ak.sum(visible.py, axis=1)})


def table1(leptons: ak.Array, quarks: ak.Array, missing: ak.Array) -> dict[str, FloatArray]:
    """Compute the features of Table 1.

    Args:
        leptons: charged leptons, hardest first, at least two in each event (others are ignored), Lorentz
            vectors with ``PID`` and ``Mass``, shape ``(n_events, >= 2)``; GeV.
        quarks: final-state quarks in the same form.
        missing: missing transverse momentum, shape ``(n_events,)``.

    Returns:
        The 36 columns by name, in the order of `TABLE1`, each of shape ``(n_events,)``. Transverse momenta,
        energies and masses are in GeV, angles in radians. Single-particle masses are those written in the
        file. ``dphi`` is the azimuth of the particle with the larger pseudorapidity minus that of the
        other, in (-pi, pi]. Flags are 0 or 1; quarks and antiquarks of one type share a flag, and a muon
        has neither of the two lepton flags.

    Source:
        Table 1 of arXiv:2508.07114.
    """
    columns: dict[str, FloatArray] = {"met": _numbers(missing.pt), "met_phi": _numbers(missing.phi)}
    for kind, particles in (("l", leptons), ("q", quarks)):
        first, second = _momentum(particles[:, 0]), _momentum(particles[:, 1])
        for i, momentum in enumerate((first, second)):
            pid = _numbers(particles[:, i].PID)
            columns |= {
                f"{kind}{i}_pt": momentum.pt,
                f"{kind}{i}_eta": momentum.eta,
                f"{kind}{i}_phi": momentum.phi,
                f"{kind}{i}_e": momentum.E,
                f"{kind}{i}_m": _numbers(particles[:, i].Mass),
            }
            if kind == "l":
                columns |= {f"l{i}_electron": 1.0 * (pid == 11), f"l{i}_positron": 1.0 * (pid == -11)}
            else:
                columns |= {f"q{i}_down": 1.0 * (pid % 2 == 1), f"q{i}_up": 1.0 * (pid % 2 == 0)}
        columns |= {
            f"m_{kind}{kind}": _pair_mass(first, second),
            f"pt_{kind}{kind}": (first + second).pt,
            f"dphi_{kind}{kind}": _signed_delta_phi(first, second),
        }
    return {name: columns[name] for name in TABLE1}


def _numbers(values: ak.Array) -> FloatArray:
    """Return a column as plain numbers."""
    return np.asarray(ak.to_numpy(values), dtype=np.float64)


def _momentum(particles: ak.Array) -> vector.MomentumNumpy4D:
    """Return the momenta of one particle per event as a numpy vector array."""
    return vector.array(
        {
            "px": _numbers(particles.px),
            "py": _numbers(particles.py),
            "pz": _numbers(particles.pz),
            "E": _numbers(particles.energy),
        }
    )


def _pair_mass(first: vector.MomentumNumpy4D, second: vector.MomentumNumpy4D) -> FloatArray:
    """Return the invariant mass of a pair; rounding below zero counts as zero."""
    return np.asarray(np.sqrt(np.maximum((first + second).mass2, 0.0)), dtype=np.float64)


def _signed_delta_phi(first: vector.MomentumNumpy4D, second: vector.MomentumNumpy4D) -> FloatArray:
    """Return the azimuth of the particle with the larger eta minus that of the other, in (-pi, pi]."""
    sign = np.where(first.eta > second.eta, 1.0, -1.0)
    difference = sign * first.deltaphi(second)
    return np.where(difference <= -np.pi, np.pi, difference)
