"""Table 1 of arXiv:2508.07114: what the networks see of an event.

Features are computed in float64 and become float32 only when they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import awkward as ak
import numpy as np

from milanalysis.parameters import FloatArray

__all__ = ["TABLE1", "table1"]

_PARTICLES = ("l0", "l1", "q0", "q1")

TABLE1: tuple[str, ...] = (
    *(f"{particle}_{name}" for particle in _PARTICLES for name in ("pt", "eta", "phi", "e", "m")),
    *("met", "met_phi", "m_ll", "m_qq", "pt_ll", "pt_qq", "dphi_ll", "dphi_qq"),
    *(f"l{i}_{kind}" for i in (0, 1) for kind in ("electron", "positron")),
    *(f"q{i}_{kind}" for i in (0, 1) for kind in ("down", "up")),
)
"""Names of the 36 features, in order."""


def table1(leptons: ak.Array, jets: ak.Array, missing: ak.Array) -> dict[str, FloatArray]:
    """Compute the features of Table 1.

    Args:
        leptons: charged leptons, hardest first, at least two in each event (others are ignored), Lorentz
            vectors with ``PID`` and ``Mass``, shape ``(n_events, >= 2)``; GeV.
        jets: final-state quarks in the same form, or jets, which have no ``PID``.
        missing: missing transverse momentum, shape ``(n_events,)``.

    Returns:
        The 36 columns by name, in the order of `TABLE1`, each of shape ``(n_events,)``; the 32 without the
        flags of quark types if the jets have no ``PID``. Transverse momenta, energies and masses are in GeV, angles
        in radians. Single-particle masses are those written in the file. ``dphi`` is the azimuth of the
        particle with the larger pseudorapidity minus that of the other, in (-pi, pi]. Flags are 0 or 1; quarks
        and antiquarks of one type share a flag, and a muon has neither of the two lepton flags.

    Source:
        Table 1 of arXiv:2508.07114.
    """
    columns: dict[str, FloatArray] = {
        "met": np.asarray(ak.to_numpy(missing.pt), dtype=np.float64),
        "met_phi": np.asarray(ak.to_numpy(missing.phi), dtype=np.float64),
    }
    for kind, particles in (("l", leptons), ("q", jets)):
        pair = particles[:, :2]
        first, second = _Kinematics.of(pair, 0), _Kinematics.of(pair, 1)
        for i, one in enumerate((first, second)):
            columns |= {
                f"{kind}{i}_pt": one.pt,
                f"{kind}{i}_eta": one.eta,
                f"{kind}{i}_phi": one.phi,
                f"{kind}{i}_e": one.energy,
                f"{kind}{i}_m": _numbers(pair.Mass, i),
            }
            if "PID" in particles.fields:
                pid = _numbers(pair.PID, i)
                if kind == "l":
                    columns |= {f"l{i}_electron": 1.0 * (pid == 11), f"l{i}_positron": 1.0 * (pid == -11)}
                else:
                    columns |= {f"q{i}_down": 1.0 * (pid % 2 == 1), f"q{i}_up": 1.0 * (pid % 2 == 0)}
        columns |= {
            f"m_{kind}{kind}": _pair_mass(first, second),
            f"pt_{kind}{kind}": np.sqrt((first.px + second.px) ** 2 + (first.py + second.py) ** 2),
            f"dphi_{kind}{kind}": _signed_delta_phi(first, second),
        }
    return {name: columns[name] for name in TABLE1 if name in columns}


@dataclass(frozen=True)
class _Kinematics:
    """Momenta of one particle per event in all coordinates, each computed once; shapes ``(n_events,)``."""

    pt: FloatArray
    eta: FloatArray
    phi: FloatArray
    px: FloatArray
    py: FloatArray
    pz: FloatArray
    energy: FloatArray

    @classmethod
    def of(cls, particles: ak.Array, i: int) -> _Kinematics:
        """Take the coordinates that the i-th vector of each event has, and compute the others."""
        px, py, pz = _numbers(particles.px, i), _numbers(particles.py, i), _numbers(particles.pz, i)
        if {"pt", "eta", "phi"} <= set(particles.fields):
            pt, eta, phi = (_numbers(particles[name], i) for name in ("pt", "eta", "phi"))
        else:
            pt, phi = np.sqrt(px**2 + py**2), np.arctan2(py, px)
            eta = np.arcsinh(pz / pt)
        return cls(pt, eta, phi, px, py, pz, _numbers(particles.energy, i))


def _numbers(values: ak.Array, i: int) -> FloatArray:
    """Return a column of the i-th particle of each pair as plain numbers."""
    numbers = np.asarray(ak.to_numpy(ak.flatten(values, axis=1)), dtype=np.float64)
    return np.ascontiguousarray(numbers.reshape(-1, 2)[:, i])


def _pair_mass(first: _Kinematics, second: _Kinematics) -> FloatArray:
    """Return the invariant mass of a pair; rounding below zero counts as zero."""
    energy = first.energy + second.energy
    px, py, pz = first.px + second.px, first.py + second.py, first.pz + second.pz
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))


def _signed_delta_phi(first: _Kinematics, second: _Kinematics) -> FloatArray:
    """Return the azimuth of the particle with the larger eta minus that of the other, in (-pi, pi]."""
    difference = np.where(first.eta > second.eta, first.phi - second.phi, second.phi - first.phi)
    difference = np.where(difference > np.pi, difference - 2 * np.pi, difference)
    return np.where(difference <= -np.pi, difference + 2 * np.pi, difference)
