"""Progress bars, silent when nobody is looking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from milanalysis.terminal import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ProgressBoard", "progress_bar", "progress_board"]


def _ignore(amount: float = 1, note: str = "") -> None:
    """Take note of progress that nobody watches."""


@contextmanager
def progress_bar(description: str, total: float | None) -> Iterator[Callable[..., None]]:
    """Show how far a long piece of work has come.

    Args:
        description: what is being done, two or three words.
        total: amount of work in any unit; None when it is not known.

    Yields:
        ``advance(amount=1, note="")``, to be called as the work proceeds; ``note`` replaces the text at the
        end of the line. When standard error is not a terminal nothing is shown.
    """
    if not console().is_terminal:
        yield _ignore
        return
    with _bars() as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(amount: float = 1, note: str = "") -> None:
            progress.update(task, advance=amount)
            if note:
                progress.update(task, note=note)

        yield advance


class ProgressBoard:
    """Several pieces of work that go on at the same time, a line for each and one for all; see `progress_board`."""

    def __init__(self, progress: Progress | None, description: str, total: float) -> None:
        self._progress = progress
        self._lines: dict[str, TaskID] = {}
        if progress is not None:
            self._whole = progress.add_task(description, total=total, note="")

    def show(self, name: str, done: float, total: float, note: str) -> None:
        """Show how far a piece of work has come; its line appears with the first call."""
        if self._progress is None:
            return
        if name not in self._lines:
            self._lines[name] = self._progress.add_task(f"  {name}", total=total, note="")
        self._progress.update(self._lines[name], completed=done, note=note, refresh=True)

    def hide(self, name: str) -> None:
        """Remove the line of a piece of work that is done."""
        if self._progress is not None and name in self._lines:
            self._progress.remove_task(self._lines.pop(name))

    def show_total(self, done: float) -> None:
        """Show how far the whole has come."""
        if self._progress is not None:
            self._progress.update(self._whole, completed=done)


@contextmanager
def progress_board(description: str, total: float) -> Iterator[ProgressBoard]:
    """Show how far several pieces of work have come that go on at the same time.

    Args:
        description: what is being done, two or three words.
        total: amount of all work in any unit.

    Yields:
        What the pieces of work are shown on. When standard error is not a terminal nothing is shown.
    """
    if not console().is_terminal:
        yield ProgressBoard(None, description, total)
        return
    with _bars() as progress:
        yield ProgressBoard(progress, description, total)


def _bars() -> Progress:
    """Return empty progress bars: description, bar, amounts, times elapsed and left, note."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console(), transient=True)
