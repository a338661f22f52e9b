"""Distributions of background events, as counts in the bins of tests/data/zz_reference.npz.

The reference was filled by `fill` from 200,000 unweighted events of an independent generator (another program
for the amplitude, the phase space and the parton densities, NNPDF2.3 LO; 0.27 % of the cross-section is above
its maximum weight); bins hold 1/20 of these events each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from kinematic_histograms import _dphi, _mass, _pt

from milanalysis.parameters import FloatArray

REFERENCE = Path(__file__).parent / "data" / "zz_reference.npz"


def variables(momenta: FloatArray, u_beam: np.ndarray) -> dict[str, FloatArray]:
    """Return one number per event and variable [GeV, rad], from momenta ``(n_events, 8, 4)``."""
    u_in, d_in, u, d, positron, neutrino, electron, antineutrino = np.moveaxis(momenta, 1, 0)
    side = np.where(u_beam == 1, 1.0, -1.0)
    charged, neutral = positron + electron, neutrino + antineutrino
    pair = charged + neutral
    return {
        "energy_u_in": u_in[:, 0],
        "energy_d_in": d_in[:, 0],
        "pt_u": _pt(u),
        "pt_d": _pt(d),
        "eta_u": side * np.arcsinh(u[:, 3] / _pt(u)),
        "eta_d": side * np.arcsinh(d[:, 3] / _pt(d)),
        "dphi_ud": _dphi(u, d),
        "m_qq": _mass(u + d),
        "m_zz": _mass(pair),
        "pt_zz": _pt(pair),
        "y_zz": side * np.arctanh(pair[:, 3] / pair[:, 0]),
        "m_ll": _mass(charged),
        "m_nn": _mass(neutral),
        "pt_ll": _pt(charged),
        "met": _pt(neutral),
        "pt_positron": _pt(positron),
        "pt_electron": _pt(electron),
        "eta_electron": side * np.arcsinh(electron[:, 3] / _pt(electron)),
        "dphi_ll": _dphi(positron, electron),
        "cos_electron": _cosine(electron, charged, pair),
        "cos_neutrino": _cosine(neutrino, neutral, pair),
        "m_lq": _mass(charged + u),
    }


def fill(momenta: FloatArray, u_beam: np.ndarray, edges: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the number of events between inner edges, for each variable."""
    values = variables(momenta, u_beam)
    return {
        name: np.bincount(np.searchsorted(edges[name], values[name]), minlength=len(edges[name]) + 1).astype(
            float
        )
        for name in edges
    }


def _cosine(lepton: FloatArray, boson: FloatArray, pair: FloatArray) -> FloatArray:
    """Return the cosine of a lepton's angle in its boson's rest frame, from the boson's flight direction."""

    def dot(a: FloatArray, b: FloatArray) -> FloatArray:
        return a[:, 0] * b[:, 0] - np.sum(a[:, 1:] * b[:, 1:], axis=1)

    s, m2 = dot(boson, boson), dot(pair, pair)
    momentum = np.sqrt(np.maximum(dot(boson, pair) ** 2 / m2 - s, 1e-12))  # of the boson, pair at rest
    energy = dot(boson, pair) / np.sqrt(m2)
    return (2.0 * dot(lepton, pair) / np.sqrt(m2) - energy) / momentum
