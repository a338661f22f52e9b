"""The head of a Les Houches file: what ``<init>`` says about all events, and the names of their weights.

A cross-section that is not there, or stands for "not known" (zero, -1, NaN, too few numbers), is None.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from milanalysis.events.lhe.weights import AnnouncedWeights
from milanalysis.events.lhe.words import NotANumberError, numbers, rounding
from milanalysis.parameters import FloatArray

__all__ = ["Head", "MalformedHeadError", "find_init", "read_head"]

_INIT = re.compile(rb"<init\b[^>]*>(.*?)</init\s*>", re.DOTALL)
_HEADER = re.compile(rb"<header\b[^>]*>.*?</header\s*>", re.DOTALL)
_HEADER_BEGINS = re.compile(rb"<header\b[^>]*>")
_NO_NUMBERS = re.compile(rb"<([\w:.-]+)\b[^>]*(?:/>|>.*?</\1\s*>)|&lt;[^\n]*|<[^>]*>|#[^\n]*", re.DOTALL)
_BEAM_NUMBERS, _PROCESS_NUMBERS = 10, 4
_UNKNOWN = -1.0
"""What POWHEG writes for a cross-section that it does not know."""


class MalformedHeadError(ValueError):
    """The head of a file is not what it should be.

    Attributes:
        offset: where in the text, in bytes.
    """

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True)
class Head:
    """What a file says about all of its events.

    Attributes:
        strategy: IDWTUP, which says what the weights mean.
        cross_section_pb: of all processes; None if it is not known.
        cross_section_error_pb: its error; None if it is not known.
        rounding_pb: half a unit of the last digit the cross-section is written with.
        unknown: why the cross-section is not known, in words; None if it is.
        weights: names and descriptions of the weights; perhaps empty.
    """

    strategy: int
    cross_section_pb: float | None
    cross_section_error_pb: float | None
    rounding_pb: float
    unknown: str | None
    weights: AnnouncedWeights


def find_init(text: bytes, *, complete: bool = False) -> re.Match[bytes] | None:
    """Find the ``<init>`` block, not in the header.

    Args:
        text: the file from its beginning, without comments.
        complete: whether this is the whole file, so that a header without end is not waited for.
    """
    found = _INIT.search(text)
    begins = _HEADER_BEGINS.search(text)
    if found is None or begins is None or begins.start() > found.start():
        return found
    header = _HEADER.search(text)
    if header is None:
        return found if complete else None
    return _INIT.search(text, header.end())


def read_head(text: bytes, init: re.Match[bytes]) -> Head:
    """Read the head of a file.

    Args:
        text: everything before the first event, without comments.
        init: what `find_init` found in it.

    Raises:
        MalformedHeadError: if ``<init>`` does not hold numbers where it should.
    """
    body = _NO_NUMBERS.sub(lambda match: b"\n" * match[0].count(b"\n"), init[1])
    lines = [line for line in body.split(b"\n") if line.strip()]
    words = body.split()
    if len(words) < _BEAM_NUMBERS:
        msg = (
            f"it has {len(words)} numbers ({init[1][:100]!r}); expected beams, IDWTUP and NPRUP: 10 in the "
            "first line"
        )
        raise MalformedHeadError(init.start(1), msg)
    beams = _read(text, init, words[:_BEAM_NUMBERS])
    strategy, n_processes = beams[8:]
    whole = strategy == np.rint(strategy) and n_processes == np.rint(n_processes)
    if not (whole and abs(strategy) < 1e6 and 0 <= n_processes < 1e6):
        msg = f"IDWTUP = {strategy:g} and NPRUP = {n_processes:g} should be whole numbers"
        raise MalformedHeadError(init.start(1), msg)
    n_processes = int(n_processes)
    processes = [line.split() for line in lines[1:]]
    if len(lines[0].split()) < _BEAM_NUMBERS or len(words) == _BEAM_NUMBERS + _PROCESS_NUMBERS * n_processes:
        rest = words[_BEAM_NUMBERS:]  # lines may be wrapped, as Fortran does
        processes = [rest[i : i + _PROCESS_NUMBERS] for i in range(0, len(rest), _PROCESS_NUMBERS)]
    processes = [line for i, line in enumerate(processes) if i < n_processes or _are_numbers(line)]
    complete = [line for line in processes if len(line) >= _PROCESS_NUMBERS]
    weights = AnnouncedWeights.in_text(text)
    if len(processes) != n_processes or len(complete) != n_processes or not complete:
        unknown = (
            f"<init> announces {n_processes} processes (NPRUP) and has {len(processes)} lines for them, "
            f"{len(complete)} of which have the four numbers XSECUP, XERRUP, XMAXUP and LPRUP"
        )
        return Head(int(strategy), None, None, 0.0, unknown, weights)
    table = np.array([_read(text, init, line[:_PROCESS_NUMBERS]) for line in complete], dtype=np.float64)
    sections, errors = table[:, 0], table[:, 1]
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(sections.sum())
    if not np.isfinite(total) or total <= 0 or (sections == _UNKNOWN).any():
        shown = ", ".join(f"{one:g}" for one in sections[:5])
        return Head(int(strategy), None, None, 0.0, f"<init> gives XSECUP = {shown}", weights)
    error = math.hypot(*errors)
    known = bool(np.isfinite(error) and (errors >= 0).all())
    digits = sum(rounding(line[0]) for line in complete)
    return Head(int(strategy), total, error if known else None, digits, None, weights)


def _read(text: bytes, init: re.Match[bytes], words: list[bytes]) -> FloatArray:
    """Return the numbers of a line of ``<init>``."""
    try:
        return numbers(b" ".join(words))
    except NotANumberError as error:
        raise MalformedHeadError(text.find(error.word, init.start(1)), str(error)) from error


def _are_numbers(words: list[bytes]) -> bool:
    """Say whether all words are numbers."""
    try:
        numbers(b" ".join(words))
    except NotANumberError:
        return False
    return True
