"""How errors and information of the models of a run scale with bag size, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from milanalysis.errors import InputFileError
from milanalysis.events.tables import Split
from milanalysis.files.records import read_record, write_record
from milanalysis.parameters import FloatArray, IntArray, Parameter
from milanalysis.pipeline.methods import where_trained
from milanalysis.pipeline.run_files import Run
from milanalysis.randomness import stream
from milanalysis.ratios.exact import ExactRatio
from milanalysis.ratios.terms import EventTerms
from milanalysis.statistics.calibration.bartlett import BartlettTest, bartlett_test
from milanalysis.statistics.information.bag_size_scaling import (
    ErrorVariance,
    ScalingReport,
    bag_log_ratios,
    error_variance,
    fit_error_variance,
    fit_information,
)
from milanalysis.statistics.information.comparison import Comparison
from milanalysis.statistics.information.exact_score import event_score
from milanalysis.statistics.repetition.datasets import draw

__all__ = ["information_of_run", "scaling_of_run"]

_SIZES = (1, 3, 10, 30, 100, 300, 1000)
_LEAST_BAGS = 50  # a variance is then known to 20 %
_DISTANCE = 0.2  # of the two points whose log ratio is looked at from the reference


@dataclass(frozen=True)
class ScalingResult:
    """Content of ``results/scaling.json``: reports by subject, and Bartlett tests by title of the model."""

    scaling: dict[str, ScalingReport]
    bartlett: dict[str, BartlettTest]


def scaling_of_run(directory: Path) -> tuple[dict[str, ScalingReport], dict[str, BartlettTest]]:
    """Measure every model's error variance on bags of test events, and fit the information by bag size.

    Beside that, the second Bartlett identity of every model is tested event by event. All is written to
    ``results/scaling.json``.

    Args:
        directory: a run directory in which `coverage` has been run.

    Returns:
        Reports by what they are about: one of ``sigma_eps^2`` for each model with log ratios of events, and
        one of the information for each task that has been trained at three or more bag sizes; and the tests
        of the identity by title of the model.

    Raises:
        InputFileError: if the analysis has not come that far, saying what is missing.
    """
    run = Run.of(directory)
    if not run.result("comparison").is_file():
        msg = f"{run.result('comparison')} does not exist; run `milanalysis run` on the configuration first"
        raise InputFileError(msg)
    errors, tests = _errors(run)
    found = {**errors, **information_of_run(run)}
    write_record(run.result("scaling"), ScalingResult(found, tests))
    return found, tests


def _errors(run: Run) -> tuple[dict[str, ScalingReport], dict[str, BartlettTest]]:
    """Return the error-variance scaling of each model with log ratios of events, and its Bartlett test."""
    config = run.config
    reference = config.parameter.reference
    simulated = run.load_table("simulation", with_features=False)
    every = run.scored("simulation", simulated)
    scored, visible = every.table, every.visible()
    exact: EventTerms = (
        ExactRatio.of(simulated, np.arange(len(simulated))).terms(scored) if visible is None else visible
    )
    weights = np.where(scored.split == Split.TEST, scored.weights_at(reference)[:, 0], 0.0)
    rows = draw(weights, 1, int((weights > 0).sum()), stream(config.seed, "scaling"))[0]
    sizes = [size for size in _SIZES if len(rows) // size >= _LEAST_BAGS]
    if len(sizes) < 3:
        msg = (
            f"{len(rows)} test events make {_LEAST_BAGS} bags of no more than {len(sizes)} sizes, and a "
            "scaling needs three; simulate more events"
        )
        raise InputFileError(msg)
    found, tests = {}, {}
    for label, model in config.models.items():
        terms = every.terms(label) if model.is_additive else None
        if terms is None or (terms.grid is not None and len(terms.grid) < 3):
            continue
        parameter = where_trained(config.parameter, model.task)
        points = _two_points(terms.grid, parameter)
        found[f"sigma_eps^2 of {model.title}"] = fit_error_variance(
            [_measured(terms, exact, rows, size, points) for size in sizes]
        )
        tests[model.title] = bartlett_test(
            terms.take(rows),
            parameter,
            np.ones(len(rows)),
            exact_score=event_score(exact.take(rows), reference),
        )
    return found, tests


def _measured(
    terms: EventTerms, exact: EventTerms, rows: IntArray, size: int, points: tuple[float, float]
) -> ErrorVariance:
    """Return the error variance at one bag size."""
    estimated, true = (bag_log_ratios(one, rows, size, points) for one in (terms, exact))
    return error_variance(size, estimated, true)


def _two_points(grid: FloatArray | None, parameter: Parameter) -> tuple[float, float]:
    """Return a point within the range above the reference and one below, of the grid if there is one."""
    reference = parameter.reference
    high, low = min(reference + _DISTANCE, parameter.high), max(reference - _DISTANCE, parameter.low)
    if grid is None:
        return high, low

    def nearest(side: FloatArray, value: float) -> float:
        return float(side[np.abs(side - value).argmin()]) if len(side) else reference

    return nearest(grid[grid > reference + 1e-9], high), nearest(grid[grid < reference - 1e-9], low)


def information_of_run(run: Run) -> dict[str, ScalingReport]:
    """Return the scaling of the information with training bag size, for tasks with at least three sizes.

    Methods are compared on the same pseudo-experiments, whose common fluctuations are in the covariance.
    """
    comparison = read_record(run.result("comparison"), Comparison)
    by_task: dict[str, dict[int, int]] = {}  # number of the method by bag size
    for number, method in enumerate(comparison.methods):
        model = run.config.models.get(method.name)
        if (
            model is not None
            and method.information is not None
            and comparison.information_covariance[number][number]
        ):
            by_task.setdefault(model.task.kind, {})[model.bag_size] = number
    found = {}
    for kind, by_size in by_task.items():
        if len(by_size) < 3:
            continue
        sizes = sorted(by_size)
        numbers = [by_size[size] for size in sizes]
        methods = [comparison.methods[number] for number in numbers]
        covariance = np.array(comparison.information_covariance, dtype=np.float64)[np.ix_(numbers, numbers)]
        found[f"information of {kind}"] = fit_information(
            np.array(sizes),
            np.array([method.information for method in methods], dtype=np.float64),
            np.sqrt(np.diag(covariance)),
            information_true=methods[0].information_exact,
            covariance=covariance,
        )
    return found
