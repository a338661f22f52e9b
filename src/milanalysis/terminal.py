"""What is printed: two consoles, and standard streams that take whatever is written to them.

Results go to standard output, everything else to standard error. A stream may be closed, take ASCII only, or be a pipe
that nobody reads any more; none of this may spoil a run. ``NO_COLOR`` and ``TERM=dumb`` mean plain text without any
escape sequence, ``COLUMNS`` is the width whether or not there is a terminal.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from functools import lru_cache
from typing import TextIO

from rich.console import Console

__all__ = ["console", "prepare_streams", "release_streams", "result_console"]

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
