"""Where things are in a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from milanalysis.errors import InputFileError

__all__ = ["RunDirectory"]


@dataclass(frozen=True)
class RunDirectory:
    """The directory that holds all that an analysis produces.

    Attributes:
        directory: its path.
    """

    directory: Path

    def require_run(self) -> None:
        """Refuse a directory that no run has made.

        Raises:
            InputFileError: naming it.
        """
        if not self.config_file.is_file():
            msg = (
                f"{self.directory} is not a run directory: it has no config.yaml; give the directory "
                "`milanalysis run` has made"
            )
            raise InputFileError(msg)

    @property
    def config_file(self) -> Path:
        """The configuration with all its defaults."""
        return self.directory / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, seeds and digests of all inputs and outputs."""
        return self.directory / "manifest.json"

    def generated_file(self, sample: str) -> Path:
        """Return the ROOT file of a generated sample."""
        return self.directory / "events" / f"{sample}.root"

    def table(self, sample: str) -> Path:
        """Return the table of features of a sample."""
        return self.directory / "tables" / sample / "events.parquet"

    def cutflow(self, sample: str) -> Path:
        """Return the file that accounts for every event of a sample."""
        return self.table(sample).with_name("cutflow.json")

    def model(self, label: str) -> Path:
        """Return the directory of a trained model."""
        return self.directory / "models" / label

    def log_ratios(self, sample: str, label: str) -> Path:
        """Return the file with the log-ratio terms of the events of a sample, from one model."""
        return self.directory / "log_ratios" / sample / f"{label}.npz"

    def exact_file(self, sample: str) -> Path:
        """Return the path of the exact visible log ratios of a sample; absent where they are not defined."""
        return self.directory / "exact" / f"{sample}.npz"

    def result(self, name: str) -> Path:
        """Return the file of a result."""
        return self.directory / "results" / f"{name}.json"

    def figure(self, name: str) -> Path:
        """Return a figure, without the ending."""
        return self.directory / "figures" / name

    def stamp(self, stage: str) -> Path:
        """Return what a finished stage has left."""
        return self.directory / "stages" / f"{stage}.json"
