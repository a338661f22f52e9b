"""Events of W-boson fusion with ``h > e+ ve e- ve~``, unweighted at any cHW, with exact event weights.

The Higgs boson is a scalar, so the weight of an event is the product of the weights of its production and of
its decay. The two are unweighted separately and joined at random, which is exact; cuts on leptons are then
applied to the joined event. Every event keeps ``|M|^2(c) / |M|^2(0)`` as a quartic polynomial.

The Higgs boson is on its mass shell. Cross-sections count the part of its line within 15 widths of the pole,
as MadGraph's default ``bwcutoff`` does: a factor ``(2/pi) arctan(30) = 0.9788``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from milanalysis.config import GeneratorConfig, LeptonCutsConfig
from milanalysis.parallel import warm_workers
from milanalysis.parameters import EFTPolynomial, EventPolynomials, FloatArray
from milanalysis.randomness import stream
from milanalysis.simulation.amplitudes import GAMMA_H, MH, event_polynomials
from milanalysis.simulation.densities import PartonDensities, make_densities
from milanalysis.simulation.phasespace import (
    DecayPhaseSpace,
    DecayPoints,
    ProductionPhaseSpace,
    ProductionPoints,
    boost,
    delta_phi,
    rotate,
)
from milanalysis.simulation.sampling import CHUNK, Moments, Source

__all__ = [
    "BLOCK_SIZE",
    "PARTICLES",
    "EventSource",
    "Events",
    "Generator",
    "generate_sample",
    "pass_lepton_cuts",
    "with_both_beams",
]

PARTICLES = ("u_in", "d_in", "u_out", "d_out", "e+", "ve", "e-", "ve~")
"""Order of the four-momenta of an event; in the background the neutrinos can be of any flavour."""
BLOCK_SIZE = 25_000
"""Events per block of a sample; each block has a random stream of its own."""

_BW_CUTOFF = 15.0
_LINE_FRACTION = 2.0 / math.pi * math.atan(2.0 * _BW_CUTOFF)
_ITERATIONS = 8
_ADAPTATION_POINTS = 100_000
_PAIR_CHUNKS = 80
"""Chunks of joined events that fix the rate when there are cuts on leptons."""
_TAIL_THETA, _TAIL_FRACTION = 20.0, 0.2
"""Value of cHW, with common hard quarks, to which a second production grid is adapted, and its share."""


@dataclass(frozen=True)
class Events:
    """A block of events.

    Attributes:
        momenta: ``(E, px, py, pz)`` [GeV] in the order of `PARTICLES`, shape ``(n_events, 8, 4)``;
            ``E = |p|``.
        u_beam: 1 if the incoming u moves along +z, 2 if along -z, shape ``(n_events,)``.
        polynomials: ``|M|^2(c) / |M|^2(0)``, ascending powers of cHW, shape ``(n_events, 5)``.
        weight: cross-section each event stands for [fb], shape ``(n_events,)``.
        neutrino: PDG number of the neutrino, shape ``(n_events,)``; None if it is a ve in all events.
    """

    momenta: FloatArray
    u_beam: npt.NDArray[np.int8]
    polynomials: FloatArray
    weight: FloatArray
    neutrino: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, rows: slice | npt.NDArray[np.bool_]) -> Events:
        """Return the selected events."""
        return Events(
            self.momenta[rows],
            self.u_beam[rows],
            self.polynomials[rows],
            self.weight[rows],
            None if self.neutrino is None else self.neutrino[rows],
        )

    @classmethod
    def concatenated(cls, parts: list[Events]) -> Events:
        """Return events one part after the other."""
        flavours = [part.neutrino for part in parts if part.neutrino is not None]
        return cls(
            np.concatenate([part.momenta for part in parts]),
            np.concatenate([part.u_beam for part in parts]),
            np.concatenate([part.polynomials for part in parts]),
            np.concatenate([part.weight for part in parts]),
            np.concatenate(flavours) if len(flavours) == len(parts) else None,
        )


class EventSource(Protocol):
    """A process that is ready to make events: the signal or the background."""

    @property
    def process(self) -> str:
        """Short name of the process, for event files."""

    @property
    def config(self) -> GeneratorConfig:
        """Beams, cuts and parton densities."""

    @property
    def theta(self) -> float:
        """Value of cHW at which events are unweighted."""

    @property
    def densities(self) -> PartonDensities:
        """Of partons in the proton."""

    @property
    def rate(self) -> EFTPolynomial:
        """Cross-section [fb] within the cuts as a polynomial in cHW, with covariance."""

    @property
    def overweight(self) -> float:
        """Part of the cross-section above the maximum weight, which unweighted events miss."""

    def unweighted(self, n_events: int, rng: np.random.Generator) -> Events:
        """Return events distributed like the cross-section at ``theta``, each of weight ``sigma / n``."""


@dataclass(frozen=True)
class Generator:
    """The process at one value of cHW, ready to make events. Made by `Generator.adapted`.

    Attributes:
        config: beams, cuts and parton densities.
        theta: value of cHW at which events are unweighted.
        densities: of partons in the proton.
        production: source of ``u d > u d h``.
        decay: source of ``h > e+ ve e- ve~``.
        rate: cross-section [fb] within the cuts as a polynomial in cHW, with covariance.
    """

    config: GeneratorConfig
    theta: float
    densities: PartonDensities
    production: Source[ProductionPoints]
    decay: Source[DecayPoints]
    rate: EFTPolynomial

    @classmethod
    def adapted(cls, config: GeneratorConfig, theta: float, rng: np.random.Generator) -> Generator:
        """Adapt the generator to one value of cHW, in a few seconds.

        Args:
            config: beams, cuts and parton densities.
            theta: value of cHW.
            rng: random numbers for the adaptation and the integration.

        Raises:
            ConfigError: if the parton densities need a package that is not installed.
            InputFileError: if the grid of the parton densities cannot be read.
        """
        densities = make_densities(config.pdf)
        space = ProductionPhaseSpace(config.beam_energy, config.cuts, densities)
        production, rate_p, covariance_p = Source.adapted(
            space, theta, rng, mixture={theta: 1.0 - _TAIL_FRACTION, _TAIL_THETA: _TAIL_FRACTION}
        )
        decay, rate_d, covariance_d = Source.adapted(DecayPhaseSpace(), theta, rng, mixture={theta: 1.0})
        if config.cuts.leptons is None:
            rate = EFTPolynomial(
                np.convolve(rate_p, rate_d),
                _multiplied(rate_d, covariance_p) + _multiplied(rate_p, covariance_d),
            ).scaled(_joint_factor(config))
            return cls(config, theta, densities, production, decay, rate)
        generator = cls(config, theta, densities, production, decay, EFTPolynomial(np.zeros(5)))
        moments = Moments.empty(5)
        for _ in range(_PAIR_CHUNKS):
            events = generator.weighted(CHUNK, rng)
            joint = (
                events.polynomials
                * (events.weight / EventPolynomials(events.polynomials).at(theta) * CHUNK)[:, None]
            )
            moments = moments.added(joint, CHUNK)
        return replace(generator, rate=EFTPolynomial(moments.mean, moments.covariance))

    @property
    def process(self) -> str:
        """Short name of the process, for event files."""
        return "hww"

    @property
    def cross_section_fb(self) -> float:
        """Cross-section at ``theta`` within the cuts [fb]."""
        return float(self.rate(self.theta))

    @property
    def cross_section_error_fb(self) -> float:
        """Statistical error of the cross-section [fb]."""
        return float(self.rate.error(self.theta))

    @property
    def overweight(self) -> float:
        """Part of the cross-section above the maximum weights, which unweighted events miss."""
        return self.production.overweight + self.decay.overweight

    def unweighted(self, n_events: int, rng: np.random.Generator) -> Events:
        """Return events distributed like the cross-section at ``theta``, of weight ``sigma / n_events`` each.

        Args:
            n_events: how many.
            rng: random numbers.
        """
        weight = self.cross_section_fb / max(n_events, 1)
        parts: list[Events] = []
        missing = n_events
        while missing > 0:
            n = missing if self.config.cuts.leptons is None else 2 * missing + 100
            production, decay = self.production.unweighted(n, rng), self.decay.unweighted(n, rng)
            part = self._joined(production, decay, np.full(n, weight), rng)
            parts.append(part.take(slice(missing)))
            missing -= len(parts[-1])
        return Events.concatenated(parts) if parts else self.weighted(1, rng).take(slice(0))

    def weighted(self, n_points: int, rng: np.random.Generator) -> Events:
        """Return weighted events: all phase-space points inside the cuts.

        Args:
            n_points: points to try; fewer are inside the cuts.
            rng: random numbers.

        Returns:
            Events whose weights add up to an estimate of the cross-section at ``theta`` [fb].
        """
        production = self.production.weighted(n_points, rng)
        decay = self.decay.weighted(len(production), rng)
        production = production.take(slice(len(decay)))
        density = EventPolynomials(production.polynomial).at(self.theta) * EventPolynomials(
            decay.polynomial
        ).at(self.theta)
        return self._joined(production, decay, _joint_factor(self.config) / n_points * density, rng)

    def _joined(
        self, production: ProductionPoints, decay: DecayPoints, weight: FloatArray, rng: np.random.Generator
    ) -> Events:
        """Join productions and decays one to one, and keep the events that pass the cuts on leptons."""
        n = len(production)
        quarks, higgs = production.quarks.momenta(rng.uniform(0.0, 2.0 * np.pi, n), MH)
        leptons = boost(rotate(decay.momenta(), rng), higgs)
        exchanged = rng.random(n) < 0.5  # the first pair comes from the W-
        leptons[exchanged] = leptons[exchanged][:, [2, 3, 0, 1]]
        momenta = np.concatenate([quarks, leptons], axis=1)
        u_beam = np.ones(n, dtype=np.int8)
        if self.config.u_beam == "both":
            u_beam = with_both_beams(momenta, rng)
        events = Events(momenta, u_beam, event_polynomials(production.polynomial, decay.polynomial), weight)
        cuts = self.config.cuts.leptons
        return events if cuts is None else events.take(pass_lepton_cuts(momenta, cuts))


def _joint_factor(config: GeneratorConfig) -> float:
    """Return what turns (cross-section with u in beam 1) x (partial width) into the cross-section."""
    beams = 2.0 if config.u_beam == "both" else 1.0
    return beams * _LINE_FRACTION / GAMMA_H


def _multiplied(polynomial: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the covariance of the product of an exact and an uncertain quadratic, shape ``(5, 5)``."""
    matrix = np.array([np.convolve(row, polynomial) for row in np.eye(3)])
    return np.asarray(matrix.T @ covariance @ matrix)


def with_both_beams(momenta: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Turn half of the events, in place, by pi about the x axis, and return the beam of the u quark.

    Args:
        momenta: of events with the incoming u along +z, shape ``(n_events, n_particles, 4)``.
        rng: random numbers.
    """
    turned = rng.random(len(momenta)) < 0.5
    momenta[turned, :, 2:] *= -1.0
    return np.where(turned, 2, 1).astype(np.int8)


def pass_lepton_cuts(momenta: FloatArray, cuts: LeptonCutsConfig) -> npt.NDArray[np.bool_]:
    """Say which events pass the cuts on the charged leptons.

    Args:
        momenta: shape ``(n_events, 8, 4)`` in the order of `PARTICLES`.
        cuts: smallest transverse momentum, largest |eta|, and smallest distance Delta R between the leptons
            and from each lepton to each outgoing quark.
    """
    px, py, pz = np.moveaxis(momenta[:, [4, 6, 2, 3], 1:], -1, 0)
    pt = np.hypot(px, py)
    eta, phi = np.arcsinh(pz / pt), np.arctan2(py, px)
    passed = np.all((pt[:, :2] > cuts.pt_min) & (np.abs(eta[:, :2]) < cuts.eta_max), axis=1)
    for first, second in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3)):
        distance = np.hypot(eta[:, first] - eta[:, second], delta_phi(phi[:, first], phi[:, second]))
        passed &= distance > cuts.delta_r_min
    return np.asarray(passed)


def generate_sample(
    generator: EventSource,
    *,
    name: str,
    n_events: int,
    seed: int,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Events]:
    """Generate a sample of unweighted events, block by block.

    Args:
        generator: adapted to the value of cHW of the sample.
        name: of the sample; part of the name of its random streams.
        n_events: size of the sample.
        seed: root seed of the analysis.
        workers: processes that generate; 1 means this one. The events do not depend on it.
        progress: called with the number of events of each block.

    Yields:
        Blocks of `BLOCK_SIZE` events, the last one with the rest. Weights add up to the cross-section over
        the whole sample.
    """
    sizes = [min(BLOCK_SIZE, n_events - start) for start in range(0, n_events, BLOCK_SIZE)]
    weight = float(generator.rate(generator.theta)) / max(n_events, 1)
    for events in _blocks(generator, name, sizes, seed, workers):
        yield replace(events, weight=np.full(len(events), weight))
        if progress is not None:
            progress(len(events))


def _blocks(generator: EventSource, name: str, sizes: list[int], seed: int, workers: int) -> Iterator[Events]:
    """Yield blocks in order, at most two per worker ahead of the consumer."""
    if workers == 1:
        for number, size in enumerate(sizes):
            yield _block(generator, name, number, size, seed)
        return
    pool = warm_workers(workers)
    pending: deque[Any] = deque()
    try:
        for number, size in enumerate(sizes):
            if len(pending) == 2 * workers:
                yield pending.popleft().result()
            pending.append(pool.submit(_block, generator, name, number, size, seed))
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _block(generator: EventSource, name: str, number: int, size: int, seed: int) -> Events:
    """Generate one block from its own random stream."""
    return generator.unweighted(size, stream(seed, "simulate", name, number))
