"""Events of the background: ``u d > u d Z Z`` by electroweak exchange, ``Z > e+ e-``, ``Z > nu nu~``.

It looks like the signal in the detector and does not depend on cHW. The Z bosons are off their mass shell
within 15 widths, with all spin correlations. Pairs within 1 GeV of the Higgs boson are left out: there stands
a peak 4 MeV wide, the decay ``h > Z Z`` with both of them at the very end of their line, which no sample of
this size resolves.

The matrix element is in `milanalysis.simulation.background.zz_amplitude`, which needs some seconds to be
compiled once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from milanalysis.config import GeneratorConfig
from milanalysis.parameters import EFTPolynomial, FloatArray
from milanalysis.simulation.amplitudes import MH
from milanalysis.simulation.densities import PartonDensities, make_densities
from milanalysis.simulation.generator import Events, pass_lepton_cuts, with_both_beams
from milanalysis.simulation.phasespace import Points, QuarkPhaseSpace, boost
from milanalysis.simulation.sampling import Source

__all__ = ["BackgroundGenerator", "BackgroundPhaseSpace", "BackgroundPoints"]

_WIDTHS = 15.0
"""How far from its pole a Z boson may be, in widths, as MadGraph's default ``bwcutoff``."""
_HIGGS_GAP = 1.0
"""Distance of the mass of the pair from that of the Higgs boson [GeV] below which events are left out."""
_MASS_SCALE = 150.0
"""How fast the mass of the pair falls above its threshold [GeV]."""
_OVERWEIGHT = 1e-3
"""Part of the cross-section that may lie above the maximum weight."""


@dataclass(frozen=True)
class BackgroundPoints(Points):
    """Points of the phase space; the polynomial is the cross-section density [fb], shape ``(n_points, 1)``.

    Attributes:
        momenta: of u_in, d_in, u_out, d_out, e+, nu, e-, nu~ [GeV], shape ``(n_points, 8, 4)``, with u along
            +z and the outgoing u in the half plane x > 0, y = 0.
    """

    momenta: FloatArray


@dataclass(frozen=True)
class BackgroundPhaseSpace:
    """Cross-section of ``p p > u d (Z > e+ e-) (Z > nu nu~)``, u from the first beam, within the cuts.

    ::

        d sigma = d sigma(u d X)  dM^2/(2 pi)  2 k/(M 8 pi) dOmega/(4 pi)  prod_2 [ds/(2 pi) dOmega/(8 pi 4
        pi)]

    with M the mass of the pair X of Z bosons, k their momentum in its rest frame, and s their squared masses.

    Attributes:
        config: beam energy and cuts; those on leptons are applied here, too.
        densities: of partons in the proton.
    """

    config: GeneratorConfig
    densities: PartonDensities

    @property
    def n_variables(self) -> int:
        """Dimension of the hypercube."""
        return 15

    def points(self, unit: FloatArray) -> tuple[BackgroundPoints, npt.NDArray[np.bool_]]:
        """Map the hypercube to events.

        Args:
            unit: numbers in [0, 1), shape ``(15, n)``: six of `QuarkPhaseSpace`, the masses of both Z bosons
                and of the pair, and two angles each for the pair, the charged leptons and the neutrinos.

        Returns:
            The points inside the cuts, in order, and which of the ``n`` they are.
        """
        from milanalysis.simulation.background.zz_amplitude import GAMMA_Z, MZ, squared_amplitudes

        width = MZ * GAMMA_Z
        first, last = (
            math.atan(((MZ + sign * _WIDTHS * GAMMA_Z) ** 2 - MZ**2) / width) for sign in (-1.0, 1.0)
        )
        s_1, s_2 = (MZ**2 + width * np.tan(first + (last - first) * row) for row in unit[6:8])
        jacobian = (
            ((last - first) / width) ** 2 * ((s_1 - MZ**2) ** 2 + width**2) * ((s_2 - MZ**2) ** 2 + width**2)
        )

        low = np.sqrt(s_1) + np.sqrt(s_2)
        mass = low + _MASS_SCALE * unit[8] / (1.0 - unit[8])
        jacobian *= _MASS_SCALE / (1.0 - unit[8]) ** 2
        inside = (np.abs(mass - MH) > _HIGGS_GAP) & (mass < 2.0 * self.config.beam_energy)
        kept = np.flatnonzero(inside)
        space = QuarkPhaseSpace(self.config.beam_energy, self.config.cuts, self.densities)
        quarks, among = space.points(unit[:6, kept], mass[kept])
        kept = kept[among]
        inside[:] = False
        inside[kept] = True
        s_1, s_2, mass, jacobian, unit = s_1[kept], s_2[kept], mass[kept], jacobian[kept], unit[:, kept]

        incoming, pair = quarks.momenta(np.zeros(len(kept)), mass)
        energy_1 = 0.5 * (mass**2 + s_1 - s_2) / mass
        k = np.sqrt(np.maximum(energy_1**2 - s_1, 0.0))
        flight = k[:, None] * _directions(unit[9:11])
        z_1 = np.concatenate([energy_1[:, None], flight], axis=1)
        z_2 = np.concatenate([(mass - energy_1)[:, None], -flight], axis=1)
        charged = boost(_back_to_back(s_1, unit[11:13]), z_1)
        neutral = boost(_back_to_back(s_2, unit[13:15]), z_2)
        leptons = boost(np.stack([charged[:, 0], neutral[:, 0], charged[:, 1], neutral[:, 1]], axis=1), pair)
        momenta = np.concatenate([incoming, leptons], axis=1)

        jacobian *= (
            2.0 * mass / (2.0 * np.pi) * 2.0 * k / (8.0 * np.pi * mass) / (2.0 * np.pi * 8.0 * np.pi) ** 2
        )
        density = quarks.density * jacobian
        if self.config.cuts.leptons is not None:
            passed = pass_lepton_cuts(momenta, self.config.cuts.leptons)
            inside[kept] = passed
            momenta, density = momenta[passed], density[passed]
        return BackgroundPoints((density * squared_amplitudes(momenta))[:, None], momenta), inside


def _directions(unit: FloatArray) -> FloatArray:
    """Map two rows of numbers in [0, 1) to unit vectors distributed evenly, shape ``(n, 3)``."""
    cos, phi = 2.0 * unit[0] - 1.0, 2.0 * np.pi * unit[1]
    sin = np.sqrt(1.0 - cos**2)
    return np.stack([sin * np.cos(phi), sin * np.sin(phi), cos], axis=1)


def _back_to_back(mass_squared: FloatArray, unit: FloatArray) -> FloatArray:
    """Return two massless particles in the rest frame of what they come from, shape ``(n, 2, 4)``."""
    vectors = np.empty((len(mass_squared), 2, 4))
    energy = 0.5 * np.sqrt(mass_squared)
    vectors[..., 0] = energy[:, None]
    vectors[:, 0, 1:] = energy[:, None] * _directions(unit)
    vectors[:, 1, 1:] = -vectors[:, 0, 1:]
    return vectors


@dataclass(frozen=True)
class BackgroundGenerator:
    """The background, ready to make events. Made by `BackgroundGenerator.adapted`.

    Attributes:
        config: beams, cuts and parton densities.
        densities: of partons in the proton.
        source: of points with u along +z.
        rate: cross-section [fb] within the cuts, a polynomial in cHW that is constant, with covariance.
    """

    config: GeneratorConfig
    densities: PartonDensities
    source: Source[BackgroundPoints]
    rate: EFTPolynomial

    @classmethod
    def adapted(cls, config: GeneratorConfig, rng: np.random.Generator) -> BackgroundGenerator:
        """Adapt the generator, in half a minute.

        Args:
            config: beams, cuts and parton densities.
            rng: random numbers for the adaptation and the integration.

        Raises:
            ConfigError: if the parton densities need a package that is not installed.
            InputFileError: if the grid of the parton densities cannot be read.
        """
        densities = make_densities(config.pdf)
        space = BackgroundPhaseSpace(config, densities)
        source, integral, covariance = Source.adapted(
            space, 0.0, rng, mixture={0.0: 1.0}, overweight=_OVERWEIGHT
        )
        beams = 2.0 if config.u_beam == "both" else 1.0
        coefficients, errors = np.zeros(5), np.zeros((5, 5))
        coefficients[0], errors[0, 0] = beams * integral[0], beams**2 * covariance[0, 0]
        return cls(config, densities, source, EFTPolynomial(coefficients, errors))

    @property
    def process(self) -> str:
        """Short name of the process, for event files."""
        return "zz"

    @property
    def theta(self) -> float:
        """Value of cHW, on which nothing here depends."""
        return 0.0

    @property
    def cross_section_fb(self) -> float:
        """Cross-section within the cuts [fb]."""
        return float(self.rate(0.0))

    @property
    def cross_section_error_fb(self) -> float:
        """Statistical error of the cross-section [fb]."""
        return float(self.rate.error(0.0))

    @property
    def overweight(self) -> float:
        """Part of the cross-section above the maximum weight, which unweighted events miss."""
        return self.source.overweight

    def unweighted(self, n_events: int, rng: np.random.Generator) -> Events:
        """Return events distributed like the cross-section, of weight ``sigma / n_events`` each.

        Args:
            n_events: how many.
            rng: random numbers.
        """
        points = self.source.unweighted(n_events, rng)
        return self._events(points, np.full(n_events, self.cross_section_fb / max(n_events, 1)), rng)

    def weighted(self, n_points: int, rng: np.random.Generator) -> Events:
        """Return weighted events: all phase-space points inside the cuts.

        Args:
            n_points: points to try; fewer are inside the cuts.
            rng: random numbers.

        Returns:
            Events whose weights add up to an estimate of the cross-section [fb].
        """
        points = self.source.weighted(n_points, rng)
        beams = 2.0 if self.config.u_beam == "both" else 1.0
        return self._events(points, beams / n_points * points.polynomial[:, 0], rng)

    def _events(self, points: BackgroundPoints, weight: FloatArray, rng: np.random.Generator) -> Events:
        """Rotate points by a random azimuth, swap the beams of half of them, choose neutrino flavours."""
        azimuth = rng.uniform(0.0, 2.0 * np.pi, len(points))[:, None]
        momenta = points.momenta.copy()
        x, y = points.momenta[..., 1], points.momenta[..., 2]
        momenta[..., 1] = np.cos(azimuth) * x - np.sin(azimuth) * y
        momenta[..., 2] = np.sin(azimuth) * x + np.cos(azimuth) * y
        u_beam = np.ones(len(points), dtype=np.int8)
        if self.config.u_beam == "both":
            u_beam = with_both_beams(momenta, rng)
        polynomials = np.zeros((len(points), 5))
        polynomials[:, 0] = 1.0
        neutrino = rng.choice(np.array([12, 14, 16], dtype=np.int32), len(points))
        return Events(momenta, u_beam, polynomials, weight, neutrino)
