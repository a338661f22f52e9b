"""Who is told how a training goes, epoch by epoch.

Which one to use when:

- `CSVTracker`: always there, one file of metrics for each member; the live display reads it, and so does any
  plotting program.
- `WandbTracker`: Weights & Biases, in addition, to compare many trainings in a browser. It works without a
  network: in offline mode the runs are kept on disk, and ``wandb sync`` uploads them later, or never.

Anything else with these three methods will do.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from milanalysis.config import TrackingConfig, WandbTrackingConfig
from milanalysis.errors import ConfigError
from milanalysis.files.provenance import writing

__all__ = [
    "CSVTracker",
    "Epoch",
    "Tracker",
    "WandbTracker",
    "make_trackers",
    "read_metrics",
    "require_tracking",
    "tracking",
]


@dataclass(frozen=True)
class Epoch:
    """What is known about one epoch of training.

    Attributes:
        epoch: its number, from 0.
        learning_rate: in its last step.
        loss: mean over the steps, regularisation included.
        validation_loss: on the validation bags, regularisation not included.
        seconds: wall time.
        events_per_second: events that training looked at, over the wall time without validation.
    """

    epoch: int
    learning_rate: float
    loss: float
    validation_loss: float
    seconds: float
    events_per_second: float


class Tracker(Protocol):
    """Is told about every epoch of one training."""

    def start(self, history: Sequence[Epoch]) -> None:
        """Begin, with the epochs known from before if an interrupted training goes on."""

    def log(self, epoch: Epoch) -> None:
        """Take note of one more epoch."""

    def finish(self) -> None:
        """End; called once, also if the training fails."""


@dataclass(frozen=True)
class CSVTracker:
    """Writes one line for each epoch.

    Attributes:
        path: of the file; its directory is made.
    """

    path: Path

    def start(self, history: Sequence[Epoch]) -> None:
        """Begin the file with its header and the epochs known from before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.path), self.path.open("w", newline="") as stream:
            csv.writer(stream).writerow([field.name for field in fields(Epoch)])
        for epoch in history:
            self.log(epoch)

    def log(self, epoch: Epoch) -> None:
        """Add a line; it is on disk when this returns."""
        with writing(self.path), self.path.open("a", newline="") as stream:
            csv.writer(stream).writerow(asdict(epoch).values())

    def finish(self) -> None:
        """Do nothing: every line is written already."""


def read_metrics(path: Path) -> list[Epoch]:
    """Read the complete lines that `CSVTracker` has written; nothing if the file is missing or another's."""
    try:
        lines = path.read_text().splitlines(keepends=True)
    except OSError:
        return []
    names, *rows = csv.reader(line for line in lines if line.endswith("\n")) if lines else ([],)
    if names != [field.name for field in fields(Epoch)]:
        return []
    return [Epoch(int(row[0]), *map(float, row[1:])) for row in rows]


class WandbTracker:
    """Writes to Weights & Biases.

    A training that was interrupted goes on under the same identifier.

    Source:
        ``wandb.init`` with ``mode="offline"``, https://docs.wandb.ai/ref/python/init.
    """

    def __init__(
        self,
        config: WandbTrackingConfig,
        *,
        name: str,
        group: str,
        identifier: str,
        settings: Mapping[str, Any],
        directory: Path,
    ) -> None:
        """Describe the run; it begins with `start`.

        Args:
            config: project and mode.
            name: of the run.
            group: of the runs that belong together.
            identifier: of this very training, the same when it is taken up again.
            settings: to be shown beside the metrics.
            directory: where wandb keeps its files.

        Raises:
            ConfigError: if wandb is not installed.
        """
        self._wandb = _wandb()
        self._about = {
            "project": config.project,
            "mode": config.mode,
            "name": name,
            "group": group,
            "id": identifier,
            "resume": "allow",
            "config": dict(settings),
            "dir": str(directory),
            "settings": {"silent": True},  # several trainings would talk into the live display
        }
        self._directory = directory
        self._run: Any = None

    def start(self, history: Sequence[Epoch]) -> None:
        """Begin the run, with the epochs known from before."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(**self._about)
        for epoch in history:
            self.log(epoch)

    def log(self, epoch: Epoch) -> None:
        """Write the numbers of an epoch at the step of its number."""
        values = {name: value for name, value in asdict(epoch).items() if name != "epoch"}
        self._run.log(values, step=epoch.epoch)

    def finish(self) -> None:
        """End the run, if it has begun."""
        if self._run is not None:
            self._run.finish()


@contextmanager
def tracking(trackers: Sequence[Tracker], history: Sequence[Epoch]) -> Iterator[Callable[[Epoch], None]]:
    """Follow one training with several trackers.

    Args:
        trackers: any number.
        history: epochs known from before.

    Yields:
        A function to be called with every epoch. All trackers are finished at the end, also after an error.
    """
    with ExitStack() as stack:
        for tracker in trackers:
            stack.callback(tracker.finish)
            tracker.start(history)

        def log(epoch: Epoch) -> None:
            for tracker in trackers:
                tracker.log(epoch)

        yield log


def make_trackers(
    config: TrackingConfig, path: Path, *, label: str, member: int, digest: str, settings: Mapping[str, Any]
) -> list[Tracker]:
    """Make the trackers of one training: the file of metrics, and what the configuration adds.

    Args:
        config: the choice.
        path: of the file of metrics.
        label: name of the model.
        member: its number.
        digest: of everything the training depends on.
        settings: of the model, in plain form.

    Raises:
        ConfigError: if a package is missing.
    """
    trackers: list[Tracker] = [CSVTracker(path)]
    if isinstance(config, WandbTrackingConfig):
        trackers.append(
            WandbTracker(
                config,
                name=f"{label}-{member:02d}",
                group=label,
                identifier=digest[:16],
                settings=settings,
                directory=path.parent,
            )
        )
    return trackers


def require_tracking(config: TrackingConfig) -> None:
    """Say at once, and not in another process, if a package is missing.

    Raises:
        ConfigError: with the command that installs it.
    """
    if isinstance(config, WandbTrackingConfig):
        _wandb()


def _wandb() -> Any:
    """Import wandb."""
    try:
        import wandb
    except ImportError as error:
        msg = (
            f"tracking: wandb needs a package: pip install 'milanalysis[wandb]' ({error}); with `tracking: "
            "{kind: csv}` the metrics are in models/<label>/member-*.csv"
        )
        raise ConfigError(msg) from error
    return wandb
