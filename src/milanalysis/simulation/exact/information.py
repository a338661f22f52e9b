"""The information that is there: what no method of inference can exceed, for given cuts, beams and densities.

Computed from weighted phase-space points, whose density follows the cross-section times the square of the
score: the information sits in rare events with hard quarks, of which a sample like the data has few (its
    variance of the score
is uncertain by percents at a million events). Nothing is unweighted and nothing is clipped.

Three levels are compared: all that is in the event (``joint``: neutrinos and beams too), what is visible, and
what would be visible if the beam of the u quark were known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from milanalysis.config import GeneratorConfig
from milanalysis.parallel import warm_workers
from milanalysis.parameters import EFTPolynomial, EventPolynomials, FloatArray
from milanalysis.randomness import stream
from milanalysis.simulation.amplitudes import evaluate_polynomials
from milanalysis.simulation.densities import make_densities
from milanalysis.simulation.exact.visible_ratio import FAST, VisibleRatio
from milanalysis.simulation.generator import Events, Generator
from milanalysis.simulation.grid import MixedGrid, adapt
from milanalysis.simulation.phasespace import DecayPhaseSpace, ProductionPhaseSpace
from milanalysis.simulation.sampling import Source

__all__ = ["LevelInformation", "ReferenceInformation", "reference_information"]

_BLOCK = 25_000
"""Largest number of phase-space points per block; each block has a random stream of its own."""
_GROUPS = 40
"""Groups of blocks, from whose differences the errors follow."""
_BINS = 4000
"""Bins in the log ratio, from which the areas under the curves follow."""
_ITERATIONS, _ADAPTATION_POINTS = 10, 150_000
_SCORE_FLOOR = 0.1
"""What is added to the squared score, so that points without a score are visited too."""
_SCORED_FRACTION = 0.6
"""Points that follow the squared score; the others follow the cross-section, which normalises everything."""
_LEVELS = {
    "joint": "all momenta known",
    "visible": "visible",
    "beam_known": "visible, beam of the u known",
}


@dataclass(frozen=True)
class LevelInformation:
    """The information of single events at one level of knowledge.

    Attributes:
        name: ``joint``, ``visible`` or ``beam_known``.
        title: name for tables.
        shape: Fisher information of one event on the parameter, from what it looks like: the variance of the
            score.
        shape_error: its standard error.
        rate_and_shape: the same per expected event when the number of events counts, too: the mean squared
            score.
        rate_and_shape_error: its standard error.
        auc: for each value of the parameter asked for, the largest area under the curve by which single
            events at this value can be told from those at the reference.
        auc_error: their standard errors.
    """

    name: str
    title: str
    shape: float
    shape_error: float
    rate_and_shape: float
    rate_and_shape_error: float
    auc: tuple[float, ...]
    auc_error: tuple[float, ...]


@dataclass(frozen=True)
class ReferenceInformation:
    """What there is to know, as ``results/truth.json`` holds it.

    Attributes:
        parameter: name of the parameter.
        theta: its value.
        n_events: events in a dataset, for the widths of intervals.
        n_points: phase-space points the numbers were computed from.
        cross_section_fb: within the cuts, at ``theta``.
        cross_section_error_fb: its standard error.
        auc_at: values of the parameter of the areas under the curves.
        levels: from most to least knowledge.
        rate: ``sigma(c)/sigma(0)`` within the cuts, ascending powers, the same at all levels.
        rate_error: standard errors of its coefficients.
    """

    parameter: str
    theta: float
    n_events: int
    n_points: int
    cross_section_fb: float
    cross_section_error_fb: float
    auc_at: tuple[float, ...]
    levels: tuple[LevelInformation, ...]
    rate: tuple[float, ...]
    rate_error: tuple[float, ...]

    def __getitem__(self, name: str) -> LevelInformation:
        """Return one of the levels."""
        return {level.name: level for level in self.levels}[name]

    def half_width(self, information: float, n_sigma: float = 1.0) -> float:
        """Return the expected half width of an interval, ``n_sigma / sqrt(n_events * information)``."""
        return n_sigma / math.sqrt(self.n_events * information)


def reference_information(
    config: GeneratorConfig,
    *,
    parameter: str,
    theta: float,
    auc_at: Sequence[float],
    n_events: int,
    n_points: int,
    seed: int,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> ReferenceInformation:
    """Compute the reference information.

    Args:
        config: beams, cuts and parton densities. With ``u_beam: first`` the beam is known, and there is no
            level that does not know it.
        parameter: name of the parameter.
        theta: value of cHW at which the information is wanted, the reference of the areas under the curves.
        auc_at: values of cHW to be told from it.
        n_events: events in a dataset.
        n_points: phase-space points; five million give the variance of the score to about 0.15 %.
        seed: root seed of the analysis.
        workers: processes that share the work; the result does not depend on it.
        progress: called with the number of points of each block.
    """
    generator = _adapted(config, theta, stream(seed, "truth", "adaptation"))
    ratio = VisibleRatio(config.beam_energy, generator.densities, FAST)
    n_blocks = max(_GROUPS, math.ceil(n_points / _BLOCK))
    size = math.ceil(n_points / n_blocks)
    work = partial(_block, generator, ratio, np.array(auc_at, dtype=np.float64), seed, size)
    sums: list[_Sums | None] = [None] * _GROUPS
    for number, block in enumerate(_mapped(work, n_blocks, workers)):
        known = sums[number % _GROUPS]
        sums[number % _GROUPS] = block if known is None else known.plus(block)
        if progress is not None:
            progress(size)
    groups = [one for one in sums if one is not None]
    total = _Sums.of(groups)
    without = [_Sums.of([*groups[:number], *groups[number + 1 :]]) for number in range(_GROUPS)]
    names = [name for name in _LEVELS if name != "visible" or config.u_beam == "both"]
    levels = []
    for row, name in enumerate(names):
        values = total.results(row)
        replicas = np.array([one.results(row) for one in without])
        errors = np.sqrt((_GROUPS - 1) / _GROUPS * np.sum((replicas - replicas.mean(axis=0)) ** 2, axis=0))
        levels.append(
            LevelInformation(
                name,
                _LEVELS[name],
                float(values[0]),
                float(errors[0]),
                float(values[1]),
                float(errors[1]),
                tuple(values[2:].tolist()),
                tuple(errors[2:].tolist()),
            )
        )
    sigma = np.array([one.moments[0, 0] / one.n_blocks for one in groups])
    rates = np.array([one.rates / one.rates[0] for one in without])
    rate_error = np.sqrt((_GROUPS - 1) / _GROUPS * np.sum((rates - rates.mean(axis=0)) ** 2, axis=0))
    return ReferenceInformation(
        parameter=parameter,
        theta=theta,
        n_events=n_events,
        n_points=n_blocks * size,
        cross_section_fb=float(total.moments[0, 0] / total.n_blocks),
        cross_section_error_fb=float(sigma.std(ddof=1) / math.sqrt(_GROUPS)),
        auc_at=tuple(float(value) for value in auc_at),
        levels=tuple(levels),
        rate=tuple((total.rates / total.rates[0]).tolist()),
        rate_error=tuple(rate_error.tolist()),
    )


def _adapted(config: GeneratorConfig, theta: float, rng: np.random.Generator) -> Generator:
    """Return a generator whose points follow the cross-section times the squared score."""
    densities = make_densities(config.pdf)
    space = ProductionPhaseSpace(config.beam_energy, config.cuts, densities)

    def density(unit: FloatArray, *, scored: bool) -> FloatArray:
        points, inside = space.points(unit)
        values = np.zeros(unit.shape[1])
        values[inside] = EventPolynomials(points.polynomial).at(theta)
        if scored:
            score = EventPolynomials(points.polynomial).log_derivative(theta)
            values[inside] *= score**2 + _SCORE_FLOOR
        return values

    grids = tuple(
        adapt(
            partial(density, scored=scored),
            space.n_variables,
            rng,
            iterations=_ITERATIONS,
            n_points=_ADAPTATION_POINTS,
        )
        for scored in (True, False)
    )
    production = Source(space, MixedGrid(grids, (_SCORED_FRACTION, 1.0 - _SCORED_FRACTION)), theta)
    decay, _, _ = Source.adapted(DecayPhaseSpace(), theta, rng, mixture={theta: 1.0})
    return Generator(config, theta, densities, production, decay, EFTPolynomial(np.zeros(5)))


@dataclass(frozen=True)
class _Sums:
    """Sums over points from which everything follows.

    Attributes:
        n_blocks: how many blocks of points.
        moments: of weight times (1, s, s^2) with the score s, shape ``(n_levels, 3)``.
        contents: weights at the reference and at each value, binned in the log ratio, shape
            ``(n_levels, n_values, 2, n_bins)``.
        rates: cross-section as a polynomial, up to a factor, shape ``(5,)``.
    """

    n_blocks: int
    moments: FloatArray
    contents: FloatArray
    rates: FloatArray

    def plus(self, other: _Sums) -> _Sums:
        """Return the sums over the points of both."""
        return _Sums(
            self.n_blocks + other.n_blocks,
            self.moments + other.moments,
            self.contents + other.contents,
            self.rates + other.rates,
        )

    @classmethod
    def of(cls, parts: Sequence[_Sums]) -> _Sums:
        """Return the sums over the points of all parts."""
        return cls(
            sum(part.n_blocks for part in parts),
            np.asarray(sum(part.moments for part in parts)),
            np.asarray(sum(part.contents for part in parts)),
            np.asarray(sum(part.rates for part in parts)),
        )

    def results(self, level: int) -> FloatArray:
        """Return the variance of the score, its mean square, and the areas under the curves of one level."""
        one, score, square = self.moments[level]
        mean_square = square / one
        areas = []
        for reference, other in self.contents[level]:
            below = np.cumsum(reference) - 0.5 * reference
            areas.append(other @ below / (reference.sum() * other.sum()))
        return np.array([mean_square - (score / one) ** 2, mean_square, *areas])


def _block(
    generator: Generator, ratio: VisibleRatio, auc_at: FloatArray, seed: int, size: int, number: int
) -> _Sums:
    """Return the sums over one block of points."""
    events = generator.weighted(size, stream(seed, "truth", number))
    theta = generator.theta
    levels = _levels(events, ratio, both=generator.config.u_beam == "both")
    moments = np.zeros((len(levels), 3))
    contents = np.zeros((len(levels), len(auc_at), 2, _BINS))
    for row, polynomials in enumerate(levels):
        here = evaluate_polynomials(polynomials, theta)
        score = evaluate_polynomials(polynomials[:, 1:] * np.arange(1, 5), theta) / here
        moments[row] = [events.weight.sum(), events.weight @ score, events.weight @ score**2]
        for column, value in enumerate(auc_at):
            r = evaluate_polynomials(polynomials, value) / here
            # Bins are narrow where events are: the log ratio is of the order of the distance of the values.
            place = np.arctan(np.log(r) / (0.2 * abs(value - theta))) / math.pi + 0.5
            bins = np.minimum((place * _BINS).astype(np.intp), _BINS - 1)
            for which, weight in enumerate((events.weight, events.weight * r)):
                contents[row, column, which] = np.bincount(bins, weights=weight, minlength=_BINS)
    visible = levels[1]  # of less variance than all momenta, and of the same mean
    rates = (events.weight / evaluate_polynomials(visible, theta)) @ visible
    return _Sums(1, moments, contents, rates)


def _levels(events: Events, ratio: VisibleRatio, *, both: bool) -> list[FloatArray]:
    """Return the polynomials of the events at each level, in the order of `_LEVELS`."""
    g = ratio.hypotheses(events.momenta[:, [2, 3, 4, 6]])[:, :, 0]
    known = g[np.arange(len(events)), events.u_beam - 1]
    densities = [g.sum(axis=1), known] if both else [known]
    return [events.polynomials, *(density / density[:, :1] for density in densities)]


def _mapped(work: Callable[[int], _Sums], n_blocks: int, workers: int) -> Iterator[_Sums]:
    """Yield the sums of all blocks, in order."""
    if workers == 1:
        yield from map(work, range(n_blocks))
        return
    yield from warm_workers(workers).map(work, range(n_blocks))
