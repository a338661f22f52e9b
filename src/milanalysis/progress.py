"""Progress bars: one rich console for the whole package, silent when nobody is looking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from rich.console import Console

__all__ = ["console", "progress_bar"]


@lru_cache(maxsize=1)
def console() -> Console:
    """Return the console every room writes to (standard error)."""
    return Console(stderr=True)


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
    with Progress(*columns, console=console(), transient=True) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(amount: float = 1, note: str = "") -> None:
            progress.update(task, advance=amount)
            if note:
                progress.update(task, note=note)

        yield advance
