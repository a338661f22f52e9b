"""Trainings in other processes, watched: what each says about its last epoch, and when all are done."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milanalysis.learning.tracking import Epoch, read_metrics
from milanalysis.terminal import progress_board

__all__ = ["Watched", "describe", "watch"]

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Watched:
    """One training.

    Attributes:
        name: of the model and the member.
        metrics: the file of `milanalysis.learning.tracking.CSVTracker`.
        max_epochs: it may end before.
        events_per_epoch: events that it looks at in an epoch.
    """

    name: str
    metrics: Path
    max_epochs: int
    events_per_epoch: int


def describe(epoch: Epoch) -> str:
    """Say in one line how a training goes.

    Example:
        >>> describe(Epoch(4, 1e-3, 3.0451, 3.0447, 2.0, 81234.5))
        'loss 3.0451, validation 3.0447, learning rate 0.001, 81,234 events/s'
    """
    return (
        f"loss {epoch.loss:.5g}, validation {epoch.validation_loss:.5g}, learning rate "
        f"{epoch.learning_rate:.2g}, {epoch.events_per_second:,.0f} events/s"
    )


def watch(trainings: Mapping[Future[Any], Watched]) -> None:
    """Show how trainings go, a line for each that runs and one for all, until all are done or one has failed.

    The line of all counts events, so its time left holds whatever the models are.
    """
    total = sum(one.max_epochs * one.events_per_epoch for one in trainings.values())
    with progress_board("training", total) as board:
        pending = set(trainings)
        while pending:
            done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
            events = 0
            for future, one in trainings.items():
                history = read_metrics(one.metrics) if future.running() or future.done() else []
                finished = future in done or future.done()
                events += one.events_per_epoch * (one.max_epochs if finished else len(history))
                if history and not finished:
                    board.show(one.name, len(history), one.max_epochs, describe(history[-1]))
                elif finished:
                    board.hide(one.name)
            board.show_total(events)
            for future in done:
                future.result()
