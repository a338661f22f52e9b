"""How many events a pseudo-experiment of a run has, and which."""

from __future__ import annotations

import math

import numpy as np

from milanalysis.config import CoverageConfig
from milanalysis.files.records import read_record
from milanalysis.parameters import EFTPolynomial, FloatArray
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.template_analysis import ExpectedEvents
from milanalysis.randomness import stream
from milanalysis.statistics.repetition.datasets import Datasets, draw_datasets

__all__ = ["draw_combined", "draw_shape", "events_per_experiment", "expected_signal"]


def expected_signal(run: Run) -> EFTPolynomial:
    """Return the expected number of signal events as a polynomial in the coefficient."""
    return read_record(run.result("expected_events"), ExpectedEvents).signal


def events_per_experiment(run: Run, settings: CoverageConfig, *, with_background: bool = False) -> int:
    """Return the number of events of a pseudo-experiment: the configured or the expected one.

    Args:
        run: the analysis.
        settings: of the pseudo-experiments.
        with_background: whether background is a part of them.
    """
    if settings.events is not None:
        return settings.events
    nu = expected_signal(run)
    if with_background:
        nu = read_record(run.result("expected_events"), ExpectedEvents).total
    bags = math.lcm(*(one.bag_size for one in run.config.models.values() if not one.is_additive))
    return max(round(float(nu(run.config.parameter.reference)) / bags), 1) * bags


def draw_shape(
    run: Run, settings: CoverageConfig, weights: FloatArray, *names: str | int, with_background: bool = False
) -> Datasets:
    """Draw pseudo-experiments for the shape, of a fixed or a Poisson number of events.

    Args:
        run: the analysis.
        settings: of the pseudo-experiments.
        weights: of the events to draw from, at the true value, shape ``(n_events,)``.
        names: of the random stream.
        with_background: whether background is a part of them.
    """
    rng = stream(run.config.seed, *names)
    n_events = events_per_experiment(run, settings, with_background=with_background)
    sizes = np.full(settings.pseudo_experiments, n_events)
    if settings.number == "poisson":
        sizes = rng.poisson(n_events, settings.pseudo_experiments)
    return draw_datasets(weights, sizes, rng)


def draw_combined(
    run: Run,
    settings: CoverageConfig,
    weights: FloatArray,
    nu: EFTPolynomial,
    theta: float,
    *names: str | int,
) -> Datasets:
    """Draw pseudo-experiments for shape and rate: of a Poisson number of events with mean ``nu(theta)``.

    An uncertain luminosity is drawn anew for each of them, with the distribution that its auxiliary
    measurement allows.

    Args:
        run: the analysis.
        settings: of the pseudo-experiments.
        weights: of the events to draw from, at the true value, shape ``(n_events,)``.
        nu: expected number of events.
        theta: true value of the parameter.
        names: of the random stream.
    """
    rng = stream(run.config.seed, *names)
    mean = np.full(settings.pseudo_experiments, float(nu(theta)))
    uncertainty = run.config.luminosity_uncertainty
    if uncertainty is not None:
        mean *= (1 + uncertainty) ** rng.standard_normal(settings.pseudo_experiments)
    return draw_datasets(weights, rng.poisson(mean), rng)
