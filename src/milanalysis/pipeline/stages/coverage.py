"""The stage that repeats the measurement on pseudo-experiments: coverage, and how the methods compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from milanalysis.files.records import to_plain, write_record
from milanalysis.pipeline.background_study import repeat_with_background
from milanalysis.pipeline.comparison import compare_methods
from milanalysis.pipeline.repetition import read_observation, repeat
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.stages.stage import (
    Stage,
    background_log_ratios,
    background_of,
    background_table,
    exact_of,
    log_ratios,
    tables_of,
    truth_of,
)
from milanalysis.statistics.coverage import CoverageReport
from milanalysis.statistics.information.comparison import Comparison

__all__ = ["STAGE", "coverage"]


def coverage(run: Run) -> Sequence[Path]:
    """Repeat the measurement on pseudo-experiments, with every method on the same events."""
    repeated = repeat(run, run.config.coverage)
    first = repeated.experiments[0]
    comparison = compare_methods(
        run,
        first,
        repeated.methods,
        datasets=repeated.datasets,
        weights=repeated.weights,
        scored=repeated.scored,
        observation=read_observation(run),
    )
    write_record(run.result("pseudo_experiments"), first)
    write_record(run.result("coverage"), repeated.report)
    names = ["pseudo_experiments", "comparison", "coverage"]
    if run.config.background is not None:
        with_background = repeat_with_background(run, run.config.coverage)
        write_record(run.result("background"), with_background)
        names.append("background")
        comparison = _judged_with(comparison, with_background, run)
    write_record(run.result("comparison"), comparison)
    return [run.result(name) for name in names]


def _judged_with(comparison: Comparison, found: CoverageReport, run: Run) -> Comparison:
    """Return the comparison with coverage and width of intervals on data with background."""
    level = run.config.inference.level
    place = found.levels.index(level) if level in found.levels else None
    judged = {
        one.method: (one.coverage[place] if one.coverage and place is not None else None, one.width)
        for one in found.methods
        if one.theta_true == comparison.theta_true
    }
    observed = {
        name: (method.title, method.shape)
        for name, method in read_observation(run).methods.items()
        if name in judged
    }
    return comparison.with_coverage(judged, found.background, observed)


STAGE = Stage(
    name="coverage",
    needs=("truth", "process", "exact", "infer", "calibrate"),
    settings=lambda config: {
        "seed": config.seed,
        "parameter": to_plain(config.parameter),
        "templates": to_plain(config.templates),
        "inference": to_plain(config.inference),
        "coverage": to_plain(config.coverage),
        "luminosity_uncertainty": config.luminosity_uncertainty,
        "background": background_of(config),
    },
    inputs=lambda run: [
        *truth_of(run),
        *tables_of(run, "simulation"),
        *log_ratios(run, "simulation"),
        *background_table(run),
        *background_log_ratios(run),
        *exact_of(run, "simulation"),
        run.result("observed"),
        run.result("templates"),
        run.result("expected_events"),
        run.result("calibration"),
    ],
    work=coverage,
    summary="repeats the measurement on pseudo-experiments; writes results/comparison.json, coverage.json",
)
