"""What a stage is, and which files several of them read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milanalysis.config import AnalysisConfig, FileSampleConfig
from milanalysis.files.paths import beside
from milanalysis.files.records import to_plain
from milanalysis.learning.exact_labels import uses_exact_labels
from milanalysis.pipeline.run_files import Run, truth_is_known

__all__ = [
    "Stage",
    "background_log_ratios",
    "background_of",
    "background_table",
    "event_files",
    "exact_of",
    "log_ratios",
    "models_of",
    "tables_of",
    "training_inputs",
    "truth_of",
]


@dataclass(frozen=True)
class Stage:
    """One step from events to figures.

    Attributes:
        name: as it is called on the command line.
        needs: the stages that write what it reads.
        settings: the part of the configuration it depends on.
        inputs: the files it reads.
        work: does it, and returns the files it has written.
        summary: what it reads and writes, in words.
        is_wanted: whether an analysis has this stage.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[AnalysisConfig], Any]
    inputs: Callable[[Run], Sequence[Path]]
    work: Callable[[Run], Sequence[Path]]
    summary: str
    is_wanted: Callable[[AnalysisConfig], bool] = lambda config: True  # noqa: ARG005


def event_files(run: Run) -> list[Path]:
    """Return the ROOT files of all samples, generated or given, and the JSON files that describe them."""
    files: list[Path] = []
    for name, sample in run.config.samples.items():
        for path in run.event_files(name):
            # A file that is missing is an error, unless such files are skipped.
            if run.config.processing.on_bad_file == "fail" or path.is_file():
                files.append(path)
            description = beside(path)
            if description is not None:
                files.append(description)
        if isinstance(sample, FileSampleConfig) and sample.weight_names is not None:
            files.append(sample.weight_names)
    return files


def tables_of(run: Run, role: str) -> list[Path]:
    """Return the tables of the samples with a role."""
    return [run.table(name) for name in run.config.samples_with_role(role)]


def models_of(run: Run) -> list[Path]:
    """Return the manifests of the models, which hold the digests of the networks."""
    return [run.model(label) / "manifest.json" for label in run.config.models]


def log_ratios(run: Run, role: str) -> list[Path]:
    """Return the per-event terms of the samples with a role; for models without any, their metadata."""
    models = run.config.models
    names = run.config.samples_with_role(role)
    terms = [
        run.log_ratios(name, label) for name in names for label, one in models.items() if one.is_additive
    ]
    return terms + [
        run.model(label) / "manifest.json" for label, one in models.items() if not one.is_additive
    ]


def learns_exact(run: Run) -> bool:
    """Say whether a model learns from exact labels."""
    return any(uses_exact_labels(model) for model in run.config.models.values())


def background_of(config: AnalysisConfig) -> Any:
    """Return the settings of the background in the data; None if there is none."""
    return None if config.background is None else to_plain(config.background)


def background_table(run: Run) -> list[Path]:
    """Return the table of the background in the data, if there is one."""
    return [] if run.config.background is None else [run.table(run.config.background.sample)]


def background_log_ratios(run: Run) -> list[Path]:
    """Return the per-event terms of the background in the data, if there is one."""
    background, models = run.config.background, run.config.models
    additive = [label for label, one in models.items() if one.is_additive]
    return [] if background is None else [run.log_ratios(background.sample, label) for label in additive]


def exact_of(run: Run, role: str) -> list[Path]:
    """Return the exact visible terms of the samples with a role, and the file that explains absences."""
    files = [run.exact_file(name) for name in run.config.samples_with_role(role)]
    return [run.result("exact"), *(path for path in files if path.exists())]


def truth_of(run: Run) -> list[Path]:
    """Return the reference information, if there is some about the simulation."""
    return [run.result("truth")] if truth_is_known(run.config) else []


def training_inputs(run: Run) -> list[Path]:
    """Return the files that networks learn from."""
    return [
        *tables_of(run, "simulation"),
        *(tables_of(run, "background") if any(one.background for one in run.config.models.values()) else []),
        *(exact_of(run, "simulation") if learns_exact(run) else []),
    ]
