"""Where things are in a run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from milanalysis.config import (
    AnalysisConfig,
    FileSampleConfig,
    GenerateSampleConfig,
    IterativeExecutorConfig,
    load_config,
)
from milanalysis.errors import InputFileError, TooFewEventsError
from milanalysis.events.tables import EventTable, Split, concatenate
from milanalysis.files.provenance import read_json
from milanalysis.files.records import read_record
from milanalysis.files.run_directory import RunDirectory
from milanalysis.ratios.scored_events import ScoredEvents
from milanalysis.ratios.terms import GridTerms, PolynomialTerms, load_terms_of
from milanalysis.simulation.exact.information import ReferenceInformation

__all__ = ["SCORED", "ExactRatios", "Run", "truth_is_known", "truth_of_run"]

SCORED = (Split.VALIDATION, Split.TEST)
"""The splits of the simulation whose events have log-ratio terms: training events have none."""


@dataclass(frozen=True)
class ExactRatios:
    """Whether the exact visible ratio is known for the events of an analysis.

    Attributes:
        available: whether it is.
        reason: why not; empty if it is.
        accuracy: preset of the integral.
        u_beam: what is known about the beam of the u quark.
        rate: ``sigma(c)/sigma(reference)`` of the selected events, ascending; None if it is not known.
    """

    available: bool
    reason: str
    accuracy: str
    u_beam: str
    rate: tuple[float, ...] | None


@dataclass(frozen=True)
class Run(RunDirectory):
    """An analysis and the directory that holds all it produces."""

    config: AnalysisConfig

    @classmethod
    def of(cls, directory: Path) -> Run:
        """Return the analysis of a run directory.

        Raises:
            InputFileError: if no run has made it.
        """
        RunDirectory(directory).require_run()
        return cls(directory, load_config(RunDirectory(directory).config_file))

    def event_files(self, sample: str) -> tuple[Path, ...]:
        """Return the ROOT files of a sample: those that were given, or the one that is generated."""
        return self.given_files(sample) or (self.generated_file(sample),)

    def given_files(self, sample: str) -> tuple[Path, ...]:
        """Return the files that the configuration names for a sample; none if it is generated."""
        source = self.config.samples[sample]
        return source.paths() if isinstance(source, FileSampleConfig) else ()

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
                    f"{path} has other features than {paths[0]}, or in another order; run `milanalysis "
                    "process` to make both with the same processor"
                )
                raise InputFileError(msg)
        return names[0]

    def require_events(self, role: str) -> None:
        """Refuse samples of which no event is selected.

        Raises:
            TooFewEventsError: naming them.
        """
        names = self.config.samples_with_role(role)
        if not any(read_json(self.cutflow(name))["n_selected"] for name in names):
            msg = (
                f"no event of the samples with role {role} ({', '.join(names)}) is selected, so there is "
                f"nothing to go on with; tables/<sample>/cutflow.json in {self.directory} says which cut "
                "rejects them"
            )
            raise TooFewEventsError(msg)

    @property
    def workers(self) -> int:
        """How many processes may work at the same time."""
        executor = self.config.processing.executor
        return 1 if isinstance(executor, IterativeExecutorConfig) else executor.workers

    def scored(self, role: str, table: EventTable | None = None) -> ScoredEvents:
        """Return the events of one role that have log-ratio terms: not the training events of simulation.

        Args:
            role: of the samples.
            table: of all their events, if it has been read already.

        Raises:
            TooFewEventsError: if the samples have no events.
        """
        every = self.load_table(role) if table is None else table
        return self._scored(self.config.samples_with_role(role), role, every)

    def scored_sample(self, name: str) -> ScoredEvents:
        """Return the events of one sample that have log-ratio terms."""
        return self._scored([name], self.config.samples[name].role, EventTable.read(self.table(name)))

    def _scored(self, names: Sequence[str], role: str, every: EventTable) -> ScoredEvents:
        """Return those of all events of some samples that have log-ratio terms."""
        rows = every.rows(*(tuple(Split) if role == "observed" else SCORED))
        scored = every.take(rows)

        def terms(label: str) -> PolynomialTerms | GridTerms:
            return load_terms_of([self.log_ratios(name, label) for name in names], scored.event_id)

        def visible() -> PolynomialTerms | None:
            if not read_record(self.result("exact"), ExactRatios).available:
                return None
            exact = load_terms_of([self.exact_file(name) for name in names], every.event_id)
            assert isinstance(exact, PolynomialTerms)
            return exact.take(rows)

        return ScoredEvents(scored, terms, visible)


def truth_of_run(run: Run) -> ReferenceInformation | None:
    """Read the reference information of a run; None where the selection makes it one of other events."""
    if not truth_is_known(run.config):
        return None
    cutflows = [read_json(run.cutflow(name)) for name in run.config.samples_with_role("simulation")]
    if any(one["n_selected"] != one["n_read"] for one in cutflows):
        return None
    return read_record(run.result("truth"), ReferenceInformation)


def truth_is_known(config: AnalysisConfig) -> bool:
    """Say whether the reference information is about the simulation of an analysis.

    It is that of `milanalysis.simulation.exact.information`.

    It is if all of it is generated here. Whether the selection removes events is seen later, from the
    cutflow.
    """
    samples = [config.samples[name] for name in config.samples_with_role("simulation")]
    generated = all(isinstance(sample, GenerateSampleConfig) for sample in samples)
    return config.truth.in_run == "automatic" and generated
