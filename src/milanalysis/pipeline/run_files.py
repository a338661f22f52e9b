"""Where things are in a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from milanalysis.config import (
    AnalysisConfig,
    FileSampleConfig,
    GenerateSampleConfig,
    IterativeExecutorConfig,
)
from milanalysis.errors import InputFileError, TooFewEventsError
from milanalysis.events.tables import EventTable, Split, concatenate
from milanalysis.files.provenance import read_json, read_result
from milanalysis.ratios.terms import GridScores, PolynomialScores, concatenate_scores, load_scores
from milanalysis.simulation.exact.information import ReferenceInformation

__all__ = ["SCORED", "Run", "require_run_directory", "truth_is_known", "truth_of_run"]

SCORED = (Split.VALIDATION, Split.TEST)
"""The splits of the simulation whose events have scores."""


def require_run_directory(directory: Path) -> None:
    """Refuse a directory that no run has made.

    Raises:
        InputFileError: naming it.
    """
    if not (directory / "config.yaml").is_file():
        msg = f"{directory} is not a run directory: it has no config.yaml; give the directory `milanalysis run` has made"
        raise InputFileError(msg)


@dataclass(frozen=True)
class Run:
    """An analysis and the directory that holds all it produces."""

    config: AnalysisConfig
    directory: Path

    def event_files(self, sample: str) -> tuple[Path, ...]:
        """Return the ROOT files of a sample: those that were given, or the one that is generated."""
        return self.given_files(sample) or (self.directory / "events" / f"{sample}.root",)

    def given_files(self, sample: str) -> tuple[Path, ...]:
        """Return the files that the configuration names for a sample; none if it is generated."""
        source = self.config.samples[sample]
        return source.paths() if isinstance(source, FileSampleConfig) else ()

    def table(self, sample: str) -> Path:
        """Return the table of features of a sample."""
        return self.directory / "tables" / sample / "events.parquet"

    def load_table(self, role: str, *, with_features: bool = True) -> EventTable:
        """Read the tables of all samples with a role, in their order.

        Args:
            role: of the samples.
            with_features: whether the features are read.

        Raises:
            TooFewEventsError: if they have no events.
        """
        self.require_events(role)
        return concatenate(
            [
                EventTable.read(self.table(name), with_features=with_features)
                for name in self.config.samples_with_role(role)
            ]
        )

    def feature_names(self, role: str) -> tuple[str, ...]:
        """Return the names of the features of the samples with a role, in their order.

        Raises:
            InputFileError: if two tables have different ones.
        """
        paths = [self.table(name) for name in self.config.samples_with_role(role)]
        names = [EventTable.names_in(path) for path in paths]
        for path, other in zip(paths, names, strict=True):
            if other != names[0]:
                msg = (
                    f"{path} has other features than {paths[0]}, or in another order; run `milanalysis process` to make both with "
                    "the same processor"
                )
                raise InputFileError(msg)
        return names[0]

    def require_events(self, role: str) -> None:
        """Refuse samples of which no event is selected.

        Raises:
            TooFewEventsError: naming them.
        """
        names = self.config.samples_with_role(role)
        if not any(read_json(self.table(name).parent / "cutflow.json")["n_selected"] for name in names):
            msg = (
                f"no event of the samples with role {role} ({', '.join(names)}) is selected, so there is nothing to go "
                f"on with; tables/<sample>/cutflow.json in {self.directory} says which cut rejects them"
            )
            raise TooFewEventsError(msg)

    @property
    def workers(self) -> int:
        """How many processes may work at the same time."""
        executor = self.config.processing.executor
        return 1 if isinstance(executor, IterativeExecutorConfig) else executor.workers

    def model(self, label: str) -> Path:
        """Return the directory of a trained model."""
        return self.directory / "models" / label

    def scores(self, sample: str) -> Path:
        """Return the directory of the per-event scores of a sample."""
        return self.directory / "scores" / sample

    def score_file(self, sample: str, label: str) -> Path:
        """Return the per-event scores of one model on a sample."""
        return self.scores(sample) / f"{label}.npz"

    def load_scores(self, role: str, label: str) -> PolynomialScores | GridScores:
        """Read the scores of one model on all samples with a role, in their order."""
        files = [self.score_file(name, label) for name in self.config.samples_with_role(role)]
        return concatenate_scores([load_scores(path) for path in files])

    def exact_file(self, sample: str) -> Path:
        """Return the exact visible scores of all events of a sample; not there if they cannot be known."""
        return self.directory / "exact" / f"{sample}.npz"

    def load_exact(self, role: str) -> PolynomialScores | None:
        """Read the exact visible scores of all events of the samples with a role, in their order.

        Returns:
            None if they cannot be known for the events of this analysis, or are not wanted.
        """
        if not read_json(self.result("exact"))["available"]:
            return None
        files = [self.exact_file(name) for name in self.config.samples_with_role(role)]
        scores = concatenate_scores([load_scores(path) for path in files])
        return scores if isinstance(scores, PolynomialScores) else None

    def result(self, name: str) -> Path:
        """Return the file of a result."""
        return self.directory / "results" / f"{name}.json"

    def stamp(self, stage: str) -> Path:
        """Return the stamp of a stage."""
        return self.directory / "stages" / f"{stage}.json"


def truth_of_run(run: Run) -> ReferenceInformation | None:
    """Read the reference information of a run; None where it is not about its events, because some are not selected."""
    if not truth_is_known(run.config):
        return None
    cutflows = [
        read_json(run.table(name).parent / "cutflow.json")
        for name in run.config.samples_with_role("simulation")
    ]
    if any(one["n_selected"] != one["n_read"] for one in cutflows):
        return None
    return read_result(run.result("truth"), ReferenceInformation.from_dict)


def truth_is_known(config: AnalysisConfig) -> bool:
    """Say whether the reference information of `milanalysis.simulation.exact.information` is about the simulation of an analysis.

    It is if all of it is generated here. Whether the selection removes events is seen later, from the cutflow.
    """
    samples = [config.samples[name] for name in config.samples_with_role("simulation")]
    generated = all(isinstance(sample, GenerateSampleConfig) for sample in samples)
    return config.truth.in_run == "automatic" and generated
