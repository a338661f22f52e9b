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
        flags of quark types if the jets have no ``PID``. Transverse momenta, energies and masses are in GeV,
        angles in radians. Single-particle masses are those written in the file. ``dphi`` is the azimuth of
        the particle with the larger pseudorapidity minus that of the other, in (-pi, pi]. Flags are 0 or 1;
        quarks and antiquarks of one type share a flag, and a muon has neither of the two lepton flags.

    Source:
        Table 1 of arXiv:2508.07114.
    """
    columns: dict[str, FloatArray] = {
        "met": np.asarray(ak.to_numpy(missing.pt), dtype=np.float64),
        "met_phi": np.asarray(ak.to_numpy(missing.phi), dtype=np.float64),
    }
    for kind, particles in (("l", leptons), ("q", jets)):
        pair = particles[:, :2]
        one = _Kinematics.of(pair)
        mass = _numbers(pair.Mass)
        for i in (0, 1):
            columns |= {
                f"{kind}{i}_pt": one.pt[i],
                f"{kind}{i}_eta": one.eta[i],
                f"{kind}{i}_phi": one.phi[i],
                f"{kind}{i}_e": one.energy[i],
                f"{kind}{i}_m": mass[i],
            }
        if "PID" in particles.fields:
            for i, pid in enumerate(_numbers(pair.PID)):
                if kind == "l":
                    columns |= {f"l{i}_electron": 1.0 * (pid == 11), f"l{i}_positron": 1.0 * (pid == -11)}
                else:
                    columns |= {f"q{i}_down": 1.0 * (pid % 2 == 1), f"q{i}_up": 1.0 * (pid % 2 == 0)}
        columns |= {
            f"m_{kind}{kind}": one.pair_mass(),
            f"pt_{kind}{kind}": np.sqrt(one.px.sum(axis=0) ** 2 + one.py.sum(axis=0) ** 2),
            f"dphi_{kind}{kind}": one.signed_delta_phi(),
        }
    return {name: columns[name] for name in TABLE1 if name in columns}


@dataclass(frozen=True)
class _Kinematics:
    """Momenta of two particles per event in all coordinates, each computed once; shapes ``(2, n_events)``."""

    pt: FloatArray
    eta: FloatArray
    phi: FloatArray
    px: FloatArray
    py: FloatArray
    pz: FloatArray
    energy: FloatArray

    @classmethod
    def of(cls, pair: ak.Array) -> _Kinematics:
        """Take the coordinates that the vectors have, and compute the others."""
        px, py, pz, energy = map(_numbers, (pair.px, pair.py, pair.pz, pair.energy))
        if {"pt", "eta", "phi"} <= set(pair.fields):
            pt, eta, phi = (_numbers(pair[name]) for name in ("pt", "eta", "phi"))
        else:
            pt, phi = np.sqrt(px**2 + py**2), np.arctan2(py, px)
            eta = np.arcsinh(pz / pt)
        return cls(pt, eta, phi, px, py, pz, energy)

    def pair_mass(self) -> FloatArray:
        """Return the invariant mass of each pair; rounding below zero counts as zero."""
        energy, px, py, pz = (each.sum(axis=0) for each in (self.energy, self.px, self.py, self.pz))
        return np.asarray(np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0)), dtype=np.float64)

    def signed_delta_phi(self) -> FloatArray:
        """Return the azimuth of the particle with the larger eta minus that of the other, in (-pi, pi]."""
        difference = self.phi[0] - self.phi[1]
        difference = np.where(self.eta[0] > self.eta[1], difference, -difference)
        difference = np.where(difference > np.pi, difference - 2 * np.pi, difference)
        wrapped: FloatArray = np.where(difference <= -np.pi, difference + 2 * np.pi, difference)
        return wrapped


def _numbers(values: ak.Array) -> FloatArray:
    """Return a column of pairs as plain numbers, shape ``(2, n_events)``."""
    numbers = np.asarray(ak.to_numpy(ak.flatten(values, axis=1)), dtype=np.float64)
    return np.ascontiguousarray(numbers.reshape(-1, 2).T)
