"""Where things are in a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from milanalysis.config import AnalysisConfig, FileSampleConfig

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """An analysis and the directory that holds all it produces."""

    config: AnalysisConfig
    directory: Path

    def event_files(self, sample: str) -> tuple[Path, ...]:
        """Return the ROOT files of a sample: those that were given, or the one that is generated."""
        source = self.config.samples[sample]
        if isinstance(source, FileSampleConfig):
            return source.files
        return (self.directory / "events" / f"{sample}.root",)

    def table(self, sample: str) -> Path:
        """Return the table of features of a sample."""
        return self.directory / "tables" / sample / "events.parquet"

    def model(self, label: str) -> Path:
        """Return the directory of a trained model."""
        return self.directory / "models" / label

    def scores(self, sample: str) -> Path:
        """Return the directory of the per-event scores of a sample."""
        return self.directory / "scores" / sample

    def result(self, name: str) -> Path:
        """Return the file of a result."""
        return self.directory / "results" / f"{name}.json"

    def figure(self, name: str) -> Path:
        """Return the file of a figure, without its ending."""
        return self.directory / "figures" / name

    def stamp(self, stage: str) -> Path:
        """Return the stamp of a stage."""
        return self.directory / "stages" / f"{stage}.json"
