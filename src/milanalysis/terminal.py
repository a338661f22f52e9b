"""What is printed: two consoles, progress bars, and standard streams that take whatever is written to them.

Results go to standard output, everything else to standard error. A stream may be closed, take ASCII only, or
be a pipe that nobody reads any more; none of this may spoil a run. ``NO_COLOR`` and ``TERM=dumb`` mean plain
text without any escape sequence, ``COLUMNS`` is the width whether or not there is a terminal. Progress bars
are silent when nobody is looking.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = [
    "ProgressBoard",
    "console",
    "html_table",
    "prepare_streams",
    "progress_bar",
    "progress_board",
    "release_streams",
    "result_console",
]

_WIDTH_OF_FILES = 150
"""Characters of a line of results in a file or a pipe, where there is no width."""
_LEAST_WIDTH = 20
_SPELLED = {"±": "+-", "−": "-", "–": "-", "…": ".", "×": "x", "→": "->", "θ": "theta", "µ": "u", "μ": "mu"}
_SPELL = "milanalysis.spell"


class _Console(Console):
    """A console that falls silent when nobody reads it any more, and lets the work go on."""

    def on_broken_pipe(self) -> None:
        """Write no more."""
        self.quiet = True
        _discard(self.file)


@lru_cache(maxsize=1)
def console() -> Console:
    """Return the console of messages and progress bars (standard error)."""
    return _console(stderr=True)


def result_console() -> Console:
    """Return a console of results (standard output)."""
    return _console(stderr=False)


def _console(*, stderr: bool) -> Console:
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in {"dumb", "unknown"}
    return _Console(
        stderr=stderr,
        width=_width(sys.stderr if stderr else sys.stdout),
        # None: rich finds out
        force_terminal=False if plain else None,
        color_system=None if plain else "auto",
        highlight=False,
        emoji=False,
    )


def _width(stream: TextIO) -> int | None:
    """Return the characters in a line of a stream; None where the terminal knows."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return max(int(columns), _LEAST_WIDTH)
    return None if stream.isatty() else _WIDTH_OF_FILES


def prepare_streams() -> None:
    """Let standard streams take everything: what is closed is opened on nothing, what has no ± gets +-."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file that is opened gets this number, and what libraries print ends up in it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # workers write there, too
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (a descriptor, open until the end)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    codecs.register_error(_SPELL, _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SPELL)


def release_streams() -> None:
    """Forget what could not be written, so that the end of the process does not fail on it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _discard(stream)


def _discard(stream: object) -> None:
    """Send what else is written to a stream to nowhere."""
    try:
        descriptor = stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # not a file of the system
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Spell characters that a stream does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SPELLED.get(letter, "?") for letter in text), error.end


def html_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table for notebooks, one heading for each column."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = (f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption><tr>{head}</tr>{''.join(lines)}</table>"


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
    """Several pieces of work at the same time, a line for each and one for all; see `progress_board`."""

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
