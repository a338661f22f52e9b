"""Distributions of generated events, as counts in the bins of tests/data/kinematics_reference.npz.

The reference was filled by `fill` from 400,000 events at cHW = 0 of an independent generator with the same
constants, cuts and parton densities (NNPDF2.3 LO grid instead of its fit); bins hold 1/20 of these events
each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from milanalysis.parameters import FloatArray
from milanalysis.simulation.generator import Events

REFERENCE = Path(__file__).parent / "data" / "kinematics_reference.npz"


def variables(events: Events) -> dict[str, FloatArray]:
    """Return one number per event and variable [GeV, rad]."""
    u_in, d_in, u, d, positron, neutrino, electron, antineutrino = np.moveaxis(events.momenta, 1, 0)
    side = np.where(
        events.u_beam == 1, 1.0, -1.0
    )  # rapidities are positive in the direction of the incoming u
    quarks, leptons = u + d, positron + electron
    higgs = leptons + neutrino + antineutrino
    return {
        "energy_u_in": u_in[:, 0],
        "energy_d_in": d_in[:, 0],
        "pt_u": _pt(u),
        "pt_d": _pt(d),
        "eta_u": side * np.arcsinh(u[:, 3] / _pt(u)),
        "eta_d": side * np.arcsinh(d[:, 3] / _pt(d)),
        "phi_u": np.arctan2(u[:, 2], u[:, 1]),
        "dphi_ud": _dphi(u, d),
        "m_qq": _mass(quarks),
        "pt_h": _pt(higgs),
        "y_h": side * np.arctanh(higgs[:, 3] / higgs[:, 0]),
        "pt_positron": _pt(positron),
        "pt_electron": _pt(electron),
        "eta_positron": np.arcsinh(positron[:, 3] / _pt(positron)),
        "m_ll": _mass(leptons),
        "dphi_ll": _dphi(positron, electron),
        "m_w_plus": _mass(positron + neutrino),
        "m_w_minus": _mass(electron + antineutrino),
        "met": _pt(neutrino + antineutrino),
        "dphi_u_positron": _dphi(u, positron),
        "w_1": events.polynomials[:, 1],
        "w_2": events.polynomials[:, 2],
    }


def fill(events: Events, edges: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the number of events between inner edges, for each variable."""
    values = variables(events)
    return {
        name: np.bincount(np.searchsorted(edges[name], values[name]), minlength=len(edges[name]) + 1).astype(
            float
        )
        for name in edges
    }


def _pt(p: FloatArray) -> FloatArray:
    return np.hypot(p[:, 1], p[:, 2])


def _mass(p: FloatArray) -> FloatArray:
    return np.sqrt(np.maximum(p[:, 0] ** 2 - np.sum(p[:, 1:] ** 2, axis=1), 0.0))


def _dphi(p: FloatArray, q: FloatArray) -> FloatArray:
    difference = np.arctan2(p[:, 2], p[:, 1]) - np.arctan2(q[:, 2], q[:, 1])
    return np.mod(difference + np.pi, 2 * np.pi) - np.pi
