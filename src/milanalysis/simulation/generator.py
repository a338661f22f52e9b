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
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from milanalysis.config import GeneratorConfig, LeptonCutsConfig
from milanalysis.parameters import EFTPolynomial, FloatArray
from milanalysis.randomness import stream
from milanalysis.simulation.amplitudes import GAMMA_H, event_polynomials
from milanalysis.simulation.densities import PartonDensities, make_densities
from milanalysis.simulation.grid import AdaptiveGrid, MixedGrid, adapt
from milanalysis.simulation.phasespace import (
    DecayPhaseSpace,
    DecayPoints,
    PhaseSpace,
    PointsT,
    ProductionPhaseSpace,
    ProductionPoints,
    boost,
    delta_phi,
    production_momenta,
    rotate,
)

__all__ = ["BLOCK_SIZE", "PARTICLES", "Events", "Generator", "generate_sample", "pass_lepton_cuts"]

PARTICLES = ("u_in", "d_in", "u_out", "d_out", "e+", "ve", "e-", "ve~")
"""Order of the four-momenta of an event."""
BLOCK_SIZE = 25_000
"""Events per block of a sample; each block has a random stream of its own."""

_BW_CUTOFF = 15.0
_LINE_FRACTION = 2.0 / math.pi * math.atan(2.0 * _BW_CUTOFF)
_CHUNK = 25_000
"""Phase-space points that are handled at a time; they fit into the cache."""
_ITERATIONS = 8
_ADAPTATION_POINTS = 100_000
_PILOT_CHUNKS = 80
"""Chunks of points that fix the rate and, the first half of them, the maximum weight."""
_PAIR_CHUNKS = 80
"""Chunks of joined events that fix the rate when there are cuts on leptons."""
_TAIL_THETA, _TAIL_FRACTION = 20.0, 0.2
"""Value of cHW to which a second grid for production is adapted, where hard quarks are common, and its share."""
_OVERWEIGHT = 2e-5
"""Part of the cross-section that may lie above the maximum weight."""


@dataclass(frozen=True)
class Events:
    """A block of events.

    Attributes:
        momenta: ``(E, px, py, pz)`` [GeV] in the order of `PARTICLES`, shape ``(n_events, 8, 4)``; ``E = |p|``.
        u_beam: 1 if the incoming u moves along +z, 2 if along -z, shape ``(n_events,)``.
        polynomials: ``|M|^2(c) / |M|^2(0)``, ascending powers of cHW, shape ``(n_events, 5)``.
        weight: cross-section each event stands for [fb], shape ``(n_events,)``.
    """

    momenta: FloatArray
    u_beam: npt.NDArray[np.int8]
    polynomials: FloatArray
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, rows: slice | npt.NDArray[np.bool_]) -> Events:
        """Return the selected events."""
        return Events(self.momenta[rows], self.u_beam[rows], self.polynomials[rows], self.weight[rows])

    @classmethod
    def concatenated(cls, parts: list[Events]) -> Events:
        """Return events one part after the other."""
        return cls(
            np.concatenate([part.momenta for part in parts]),
            np.concatenate([part.u_beam for part in parts]),
            np.concatenate([part.polynomials for part in parts]),
            np.concatenate([part.weight for part in parts]),
        )


@dataclass(frozen=True)
class _Source(Generic[PointsT]):
    """Points of one phase space, weighted or unweighted at one value of cHW.

    Attributes:
        space: the phase space.
        grid: adapted to the density at ``theta``, and perhaps others.
        theta: value of cHW.
        maximum: weight that is accepted with certainty.
        overweight: part of the integral above the maximum, which unweighted points miss.
    """

    space: PhaseSpace[PointsT]
    grid: MixedGrid
    theta: float
    maximum: float = math.inf
    overweight: float = 0.0

    @classmethod
    def adapted(
        cls,
        space: PhaseSpace[PointsT],
        theta: float,
        rng: np.random.Generator,
        *,
        mixture: dict[float, float],
    ) -> tuple[_Source[PointsT], FloatArray, FloatArray]:
        """Adapt the grids, find the maximum weight, and integrate.

        Args:
            space: the phase space.
            theta: value of cHW.
            rng: random numbers.
            mixture: values of cHW to which a grid is adapted, and the fraction of points from each.

        Returns:
            The source, the integral as a polynomial in cHW, shape ``(3,)``, and its covariance.
        """

        def adapted_to(target: float) -> AdaptiveGrid:
            def density(unit: FloatArray) -> FloatArray:
                points, inside = space.points(unit)
                values = np.zeros(unit.shape[1])
                values[inside] = _at(points.polynomial, target)
                return values

            return adapt(density, space.n_variables, rng, iterations=_ITERATIONS, n_points=_ADAPTATION_POINTS)

        grid = MixedGrid(tuple(adapted_to(target) for target in mixture), tuple(mixture.values()))
        source = cls(space, grid, theta)
        moments = _Moments.empty(3)
        weights = []
        for _ in range(_PILOT_CHUNKS):
            polynomials = source.weighted(_CHUNK, rng).polynomial
            moments = moments.added(polynomials, _CHUNK)
            weights.append(_at(polynomials, theta))
        half = _PILOT_CHUNKS // 2
        maximum = _maximum_weight(np.concatenate(weights[:half]))
        rest = np.concatenate(weights[half:])
        overweight = float(np.sum(np.maximum(rest - maximum, 0.0)) / np.sum(rest))
        return replace(source, maximum=maximum, overweight=overweight), moments.mean, moments.covariance

    def weighted(self, n_trials: int, rng: np.random.Generator) -> PointsT:
        """Return the points inside the cuts; their polynomials, over ``n_trials``, add up to the integral."""
        unit, inverse_density = self.grid.draw(n_trials, rng)
        points, inside = self.space.points(unit)
        return points.scaled(inverse_density[inside])

    def unweighted(self, n_points: int, rng: np.random.Generator) -> PointsT:
        """Return points distributed like the density at ``theta``."""
        parts: list[PointsT] = []
        found = 0
        while found < n_points:
            points = self.weighted(_CHUNK, rng)
            chance = _at(points.polynomial, self.theta) / self.maximum
            kept = points.take(np.flatnonzero(rng.random(len(points)) < chance))
            parts.append(kept)
            found += len(kept)
        return type(parts[0]).concatenated(parts).take(np.arange(n_points))


def _maximum_weight(weights: FloatArray) -> float:
    """Return the weight above which `_OVERWEIGHT` of the sum of weights lies."""
    descending = np.sort(weights)[::-1]
    above = np.cumsum(descending) - descending * np.arange(1, len(descending) + 1)
    return float(descending[max(np.searchsorted(above, _OVERWEIGHT * weights.sum()) - 1, 0)])


@dataclass(frozen=True)
class _Moments:
    """Sums from which the mean of polynomials and its covariance follow."""

    n: int
    first: FloatArray
    second: FloatArray

    @classmethod
    def empty(cls, size: int) -> _Moments:
        return cls(0, np.zeros(size), np.zeros((size, size)))

    def added(self, polynomials: FloatArray, n_trials: int) -> _Moments:
        """Return the sums with more polynomials; those of trials outside the cuts are zero and left out."""
        return _Moments(
            self.n + n_trials,
            self.first + polynomials.sum(axis=0),
            self.second + polynomials.T @ polynomials,
        )

    @property
    def mean(self) -> FloatArray:
        return self.first / self.n

    @property
    def covariance(self) -> FloatArray:
        return (self.second / self.n - np.outer(self.mean, self.mean)) / self.n


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
    production: _Source[ProductionPoints]
    decay: _Source[DecayPoints]
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
        production, rate_p, covariance_p = _Source.adapted(
            space, theta, rng, mixture={theta: 1.0 - _TAIL_FRACTION, _TAIL_THETA: _TAIL_FRACTION}
        )
        decay, rate_d, covariance_d = _Source.adapted(DecayPhaseSpace(), theta, rng, mixture={theta: 1.0})
        if config.cuts.leptons is None:
            rate = EFTPolynomial(
                np.convolve(rate_p, rate_d),
                _multiplied(rate_d, covariance_p) + _multiplied(rate_p, covariance_d),
            ).scaled(_joint_factor(config))
            return cls(config, theta, densities, production, decay, rate)
        generator = cls(config, theta, densities, production, decay, EFTPolynomial(np.zeros(5)))
        moments = _Moments.empty(5)
        for _ in range(_PAIR_CHUNKS):
            events = generator.weighted(_CHUNK, rng)
            joint = events.polynomials * (events.weight / _at(events.polynomials, theta) * _CHUNK)[:, None]
            moments = moments.added(joint, _CHUNK)
        return replace(generator, rate=EFTPolynomial(moments.mean, moments.covariance))

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
        density = _at(production.polynomial, self.theta) * _at(decay.polynomial, self.theta)
        return self._joined(production, decay, _joint_factor(self.config) / n_points * density, rng)

    def _joined(
        self, production: ProductionPoints, decay: DecayPoints, weight: FloatArray, rng: np.random.Generator
    ) -> Events:
        """Join productions and decays one to one, and keep the events that pass the cuts on leptons."""
        n = len(production)
        quarks, higgs = production_momenta(production, rng.uniform(0.0, 2.0 * np.pi, n))
        leptons = boost(rotate(decay.momenta(), rng), higgs)
        exchanged = rng.random(n) < 0.5  # the first pair comes from the W-
        leptons[exchanged] = leptons[exchanged][:, [2, 3, 0, 1]]
        momenta = np.concatenate([quarks, leptons], axis=1)
        u_beam = np.ones(n, dtype=np.int8)
        if self.config.u_beam == "both":
            turned = rng.random(n) < 0.5  # by pi about the x axis
            u_beam[turned] = 2
            momenta[turned, :, 2:] *= -1.0
        events = Events(momenta, u_beam, event_polynomials(production.polynomial, decay.polynomial), weight)
        cuts = self.config.cuts.leptons
        return events if cuts is None else events.take(pass_lepton_cuts(momenta, cuts))


def _at(polynomials: FloatArray, theta: float) -> FloatArray:
    """Return the value of each polynomial."""
    values: FloatArray = polynomials @ theta ** np.arange(polynomials.shape[1])
    return values


def _joint_factor(config: GeneratorConfig) -> float:
    """Return what turns (cross-section with u in beam 1) x (partial width) into the cross-section."""
    beams = 2.0 if config.u_beam == "both" else 1.0
    return beams * _LINE_FRACTION / GAMMA_H


def _multiplied(polynomial: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the covariance of the product of an exact and an uncertain quadratic, shape ``(5, 5)``."""
    matrix = np.array([np.convolve(row, polynomial) for row in np.eye(3)])
    return np.asarray(matrix.T @ covariance @ matrix)


def pass_lepton_cuts(momenta: FloatArray, cuts: LeptonCutsConfig) -> npt.NDArray[np.bool_]:
    """Say which events pass the cuts on the charged leptons.

    Args:
        momenta: shape ``(n_events, 8, 4)`` in the order of `PARTICLES`.
        cuts: smallest transverse momentum, largest |eta|, and smallest distance Delta R between the leptons and
            from each lepton to each outgoing quark.
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
    generator: Generator,
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
        Blocks of `BLOCK_SIZE` events, the last one with the rest. Weights add up to the cross-section over the
        whole sample.
    """
    sizes = [min(BLOCK_SIZE, n_events - start) for start in range(0, n_events, BLOCK_SIZE)]
    weight = generator.cross_section_fb / max(n_events, 1)
    for events in _blocks(generator, name, sizes, seed, workers):
        yield replace(events, weight=np.full(len(events), weight))
        if progress is not None:
            progress(len(events))


def _blocks(generator: Generator, name: str, sizes: list[int], seed: int, workers: int) -> Iterator[Events]:
    """Yield blocks in order, at most two per worker ahead of the consumer."""
    if workers == 1:
        for number, size in enumerate(sizes):
            yield _block(generator, name, number, size, seed)
        return
    import loky

    pool = loky.get_reusable_executor(max_workers=workers)
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


def _block(generator: Generator, name: str, number: int, size: int, seed: int) -> Events:
    """Generate one block from its own random stream."""
    return generator.unweighted(size, stream(seed, "simulate", name, number))
