"""Les Houches text files (``.lhe``, ``.lhe.gz``), read as a stream.

Lines are collected and turned into numbers by the thousand, which is several times faster than reading event
by event, and correctly rounded. Only where that fails is an event looked at by itself, to read it or to say
what is wrong in which line. XML comments are taken out, and CDATA is text, before anything is looked for.

Source:
    hep-ph/0109068 (initialisation and events), hep-ph/0609017 (the file), arXiv:1405.1067 (weights).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

import numpy as np

from milanalysis.errors import InputFileError
from milanalysis.events.lhe.event_lines import event_rows, read_events
from milanalysis.events.lhe.head import Head, MalformedHeadError, find_init, read_head
from milanalysis.events.lhe.weights import AnnouncedWeights, EventWeightReader
from milanalysis.events.lhe.words import (
    ATTRIBUTES,
    MalformedEventError,
    attributes_of,
    decoded,
    numbers,
    rounding,
)
from milanalysis.parameters import FloatArray

__all__ = ["LHEBlock", "LHEFile", "check_text_file"]

_TEXT_BLOCK = 4 << 20
_EVENTS_PER_BLOCK = 20_000
_EVENT = re.compile(rb"<event\b(" + ATTRIBUTES + rb")>")
_EVENT_END = re.compile(rb"</event\s+>")
_ASIDE = re.compile(rb"<!--.*?-->|<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_ASIDE_BEGINS = re.compile(rb"<!--|<!\[CDATA\[")
_ASIDE_MAY_BEGIN = re.compile(rb"<(?:!(?:-|\[(?:C(?:D(?:A(?:T(?:A)?)?)?)?)?)?)?$|\r$")
_FILE_END = re.compile(rb"</LesHouchesEvents\s*>")
_ANOTHER_FILE = re.compile(rb"</?(?:LesHouchesEvents|init)\b[^\n]*")
_NOT_BEFORE_EVENTS = re.compile(_ANOTHER_FILE.pattern + rb"|</?event[^\n]*", re.IGNORECASE)
_NOT_BETWEEN_EVENTS = re.compile(_NOT_BEFORE_EVENTS.pattern + rb"|</?(?:r?wgt|weight)[^\n]*", re.IGNORECASE)
_NUMBER = rb"[+-]?\.?\d[\d.+-]*(?:[eEdDqQ][\d.+-]+)?"
_LINE_OF_EVENT = re.compile(
    rb"^[^\S\n]*(?:-?\d+[^\S\n]+){2}(?:" + _NUMBER + rb"[^\S\n]+){3,}" + _NUMBER + rb"[^\n]*", re.MULTILINE
)
"""A line of numbers, as events have: two whole ones and four or eleven more."""
_OTHER_FORMATS = {
    b"root": (
        "is a ROOT file; text is converted once, and trees of ROOT are read by the samples of an analysis"
    ),
    b"BZh": "is compressed with bzip2; unpack it first (bunzip2)",
    b"\xfd7zXZ": "is compressed with xz; unpack it first (unxz)",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first (unzstd)",
    b"\xff\xfe": "is UTF-16 text; make it UTF-8 first (iconv -f utf-16 -t utf-8)",
    b"\xfe\xff": "is UTF-16 text; make it UTF-8 first (iconv -f utf-16 -t utf-8)",
    b"PK\x03\x04": "is a zip archive; unpack it first (unzip)",
    b"\x89HDF": "is an HDF5 file",
}


@dataclass(frozen=True)
class LHEBlock:
    """Some events, one after the other.

    Attributes:
        info: number of particles, process, weight, scale, alpha_QED, alpha_QCD; shape ``(n_events, 6)``.
        particles: PDG id, status, two mothers, two colours, px, py, pz, E, m [GeV], lifetime, spin of all
            particles; shape ``(n_particles, 13)``.
        weights: weights beside the nominal one, shape ``(n_events, n_weights)``.
    """

    info: FloatArray
    particles: FloatArray
    weights: FloatArray

    def __len__(self) -> int:
        return len(self.info)


@dataclass(frozen=True)
class _Chunk:
    """Texts of some events.

    Attributes:
        pieces: everything up to the ``</event>`` of each event.
        begins: where in these the text after ``<event>`` begins.
        trials: of each event; empty if they are not given.
        first_line: number of the line the first piece begins in, from 1.
    """

    pieces: list[bytes]
    begins: list[int]
    trials: list[float]
    first_line: int

    @property
    def bodies(self) -> list[bytes]:
        """Texts between ``<event>`` and ``</event>``."""
        return [piece[begin:] for piece, begin in zip(self.pieces, self.begins, strict=True)]

    def line(self, event: int, offset: int = 0) -> int:
        """Return the number of the line of a place in the text of an event."""
        before = sum(piece.count(b"\n") for piece in self.pieces[:event])
        return self.first_line + before + self.pieces[event].count(b"\n", 0, self.begins[event] + offset)


def check_text_file(path: Path) -> None:
    """Refuse what cannot be Les Houches text, by its first bytes.

    Raises:
        InputFileError: if the file is missing, empty, a directory, or of another format.
    """
    expected = "expected Les Houches events (.lhe or .lhe.gz)"
    if path.is_dir():
        msg = f"{path} is a directory; {expected}: give the files in it, such as {path}/*.lhe.gz"
        raise InputFileError(msg)
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "does not exist: there is no such file"
        msg = f"{path} {what}; {expected}"
        raise InputFileError(msg)
    try:
        with path.open("rb") as stream:
            magic = stream.read(8)
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); {expected}"
        raise InputFileError(msg) from error
    if not magic:
        msg = f"{path} is not a Les Houches file: it is empty (0 bytes); {expected}. Copy or produce it again"
        raise InputFileError(msg)
    for begin, what in _OTHER_FORMATS.items():
        if magic.startswith(begin):
            msg = f"{path} {what}; {expected}"
            raise InputFileError(msg)


class LHEFile:
    """A Les Houches file that is read once, from the beginning to the end.

    Attributes:
        path: of the file.
        head: what the file says about all of its events.
        weight_names: names of the weights in the order of `LHEBlock.weights`; known after the first block.
        has_trials: whether events say how many attempts they took (Sherpa), of which the cross-section is a
            mean.
        n_events: events read so far.
        n_trials: sum of the trials read so far.
        weight_rounding: half a unit of the last digit of the first event's weight.
    """

    def __init__(
        self,
        path: Path,
        stream: BufferedReader | gzip.GzipFile,
        advance: Callable[..., None] = lambda _: None,
    ) -> None:
        self.path = path
        self._stream = stream
        self._advance = advance
        self._text = b""
        self._held = b""
        self._line = 1
        self._broken: Exception | None = None
        self.has_trials = False
        self.n_events = 0
        self.n_trials = 0.0
        self.weight_rounding = 0.0
        self._head_is_read = False
        self.head = self._read_head()
        self._head_is_read = True
        self._weights = EventWeightReader(self.head.weights)

    @classmethod
    @contextmanager
    def open(cls, path: Path, advance: Callable[..., None] = lambda _: None) -> Iterator[LHEFile]:
        """Open a file and read its header.

        Args:
            path: of the file, compressed or not.
            advance: called with the number of bytes of text each time some have been read.

        Raises:
            InputFileError: if the file is missing, is not a Les Houches file, or ends in its header.
        """
        check_text_file(path)
        with path.open("rb") as raw:
            magic = raw.read(2)
            raw.seek(0)
            if magic != b"\x1f\x8b":
                yield cls(path, raw, advance)
                return
            with gzip.open(raw) as stream:
                yield cls(path, stream, advance)

    @property
    def weight_names(self) -> tuple[str, ...] | None:
        """Names of the weights in the order of `LHEBlock.weights`; None before the first block."""
        return self._weights.names

    @property
    def weights_are_numbered(self) -> bool:
        """Whether some weights have no name in the file, and their place instead."""
        return self._weights.numbered

    @property
    def announced(self) -> AnnouncedWeights:
        """Names and descriptions of the weights in the header; perhaps empty."""
        return self.head.weights

    def blocks(self) -> Iterator[LHEBlock]:
        """Yield the events, about 20,000 at a time.

        Raises:
            InputFileError: if the file ends early or an event is not what it should be, with the number of
                the event, counted from 1, and the line.
        """
        waiting: list[LHEBlock] = []
        for chunk in self._chunks():
            waiting.append(self._parse(chunk))
            if sum(map(len, waiting)) >= _EVENTS_PER_BLOCK:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)

    def count(self) -> None:
        """Go through the file without reading the events, and leave ``n_events`` and ``n_trials``."""
        for chunk in self._chunks():
            self.n_events += len(chunk.pieces)
            self.n_trials += sum(chunk.trials)

    def _read(self) -> bool:
        """Read some more text; False at the end of the file."""
        if self._broken is not None:
            self._fail(f"the compressed text breaks off ({self._broken})", self._broken)
        pieces: list[bytes] = []
        while sum(map(len, pieces)) < _TEXT_BLOCK:
            try:
                pieces.append(self._stream.read1(_TEXT_BLOCK))
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self._broken = error  # what came before it is still to be read
                break
            if not pieces[-1]:
                break
        n_read = sum(map(len, pieces))
        self._advance(n_read)
        if n_read:
            self._text += self._without_asides(self._held + b"".join(pieces))
        elif self._held:
            at_end, self._held = self._held, b""
            if _ASIDE_BEGINS.match(at_end):
                line = self._line + self._text.count(b"\n")
                self._refuse_line(line, "a comment or CDATA section begins here and does not end")
            self._text += at_end
        return n_read > 0 or self._broken is not None

    def _without_asides(self, text: bytes) -> bytes:
        """Return text without comments, with CDATA as escaped text, and hold back what is not complete."""
        if b"\0" in text and not self._is_les_houches(text):
            self._refuse_format(text)
        if b"\0" in text:
            line = self._line + self._text.count(b"\n") + text.count(b"\n", 0, text.index(b"\0"))
            self._refuse_line(
                line,
                "there are bytes of value 0, as a file system leaves them after a crash; copy or produce it "
                "again",
            )
        held = _ASIDE_MAY_BEGIN.search(text, max(len(text) - 9, 0))
        if held is not None:
            text, self._held = text[: held.start()], text[held.start() :]
        else:
            self._held = b""
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"<!" in text:
            text = _ASIDE.sub(_as_text, text)
            unclosed = _ASIDE_BEGINS.search(text)
            if unclosed is not None:
                text, self._held = text[: unclosed.start()], text[unclosed.start() :] + self._held
        return text

    def _fail(self, what: str, cause: Exception | None = None) -> NoReturn:
        msg = (
            f"{self.path} is truncated or damaged in event {self.n_events + 1}: {what}, after "
            f"{self.n_events} complete events; expected </event> and </LesHouchesEvents>. Copy or produce "
            "the file again"
        )
        raise InputFileError(msg) from cause

    def _is_les_houches(self, more: bytes = b"") -> bool:
        """Say whether the text up to here is that of a Les Houches file."""
        return self._head_is_read or b"<LesHouchesEvents" in self._text + more

    def _refuse_format(self, more: bytes = b"") -> NoReturn:
        msg = (
            f"{self.path} is not a Les Houches file: it has no <LesHouchesEvents> and begins with "
            f"{(self._text + more)[:30]!r}; expected .lhe or .lhe.gz of an event generator"
        )
        raise InputFileError(msg)

    def _refuse_line(self, line: int, what: str, cause: Exception | None = None) -> NoReturn:
        msg = f"{self.path} cannot be read in line {line}: {what}"
        raise InputFileError(msg) from cause

    def _refuse(
        self, chunk: _Chunk, event: int, what: str, offset: int = 0, cause: Exception | None = None
    ) -> NoReturn:
        """Raise an error about an event of a chunk, at an offset from its ``<event>``."""
        line = chunk.line(event, offset)
        msg = f"{self.path} cannot be read in event {self.n_events + event + 1}: {what} (line {line})"
        raise InputFileError(msg) from cause

    def _read_head(self) -> Head:
        """Read up to the first event."""
        while (init := find_init(self._text)) is None:
            if not self._read():
                break
        init = init or find_init(self._text, complete=True)
        if not self._is_les_houches():
            self._refuse_format()
        if init is None:
            msg = (
                f"{self.path} is truncated or damaged: it ends before </init>. Copy or produce the file again"
            )
            raise InputFileError(msg)
        while (event := _EVENT.search(self._text, init.end())) is None:
            if not self._read():
                break
        end = len(self._text) if event is None else event.start()
        try:
            head = read_head(self._text[:end], init)
        except MalformedHeadError as error:
            line = self._line + self._text.count(b"\n", 0, error.offset)
            msg = f"{self.path} has an <init> block that cannot be read: {error} (line {line})"
            raise InputFileError(msg) from error
        if event is not None:
            line = self._line + self._text.count(b"\n", 0, init.end())
            self._check_between(self._text[init.end() : end], line, _NOT_BEFORE_EVENTS)
        self.has_trials = event is not None and b"trials" in event[1].lower()
        begin = init.end() if event is None else end
        self._line += self._text.count(b"\n", 0, begin)
        self._text = self._text[begin:]
        return head

    def _chunks(self) -> Iterator[_Chunk]:
        """Yield the texts between <event> and </event>, many at a time."""
        while True:
            n_lines = self._text.count(b"\n")
            *complete, rest = self._text.split(b"</event>")
            if self._text.count(b"</event") > len(complete):
                *complete, rest = _EVENT_END.sub(b"</event>", self._text).split(b"</event>")
            self._text = rest
            if complete:
                chunk = _Chunk(complete, [0] * len(complete), [], self._line)
                for i, piece in enumerate(complete):
                    self._enter(chunk, i, piece)
                self._line += n_lines - rest.count(b"\n")
                yield chunk
            if not self._read():
                break
        ends = _FILE_END.search(self._text)
        if ends is None or _EVENT.search(self._text, 0, ends.start()):
            self._fail("the text ends")
        self._check_between(self._text[: ends.start()], self._line, _NOT_BEFORE_EVENTS)
        line = self._line + self._text.count(b"\n", 0, ends.end())
        self._check_between(self._text[ends.end() :], line)

    def _enter(self, chunk: _Chunk, event: int, piece: bytes) -> None:
        """Find where an event begins, and its trials."""
        start = piece.find(b"<event>")
        begin = start + 7
        attributes = b""
        if start < 0 or piece.find(b"<event", begin) >= 0 or not piece[:start].isspace():
            tags = list(_EVENT.finditer(piece))
            if not tags:
                self._refuse(chunk, event, "there is </event> without <event>")
            start, begin = tags[0].span()
            chunk.begins[event] = begin
            self._check_between(piece[:start], chunk.line(event, -begin))
            if len(tags) > 1:
                msg = (
                    f"event {self.n_events + event + 1} (line {chunk.line(event)}) has no </event>: another "
                    f"<event> begins in line {chunk.line(event, tags[1].start() - begin)}. It was not "
                    "written to its end, or files were joined; produce the file again, or take out what "
                    "there is of it"
                )
                error = InputFileError(msg)
                error.add_note(f"in {self.path}")
                raise error
            attributes = tags[0][1]
        chunk.begins[event] = begin
        if self.has_trials or b"trials" in attributes.lower():
            chunk.trials.append(self._trials(chunk, event, attributes))

    def _trials(self, chunk: _Chunk, event: int, attributes: bytes) -> float:
        """Return the number of trials in a tag."""
        try:
            text = attributes_of(decoded(attributes)).get("trials", "")
            (value,) = numbers(text.encode())
        except ValueError as error:
            self._refuse(chunk, event, f"<event{decoded(attributes)}> does not say its trials", cause=error)
        if not (self.has_trials and 0 <= value < np.inf):
            what = (
                f"trials are {text!r}"
                if self.has_trials
                else "it has trials, and the events before have none"
            )
            self._refuse(chunk, event, f"{what}; expected a number of trials in all events, or in none")
        return float(value)

    def _check_between(self, text: bytes, line: int, what: re.Pattern[bytes] = _NOT_BETWEEN_EVENTS) -> None:
        """Refuse a file where anything of an event, or of another file, is outside of the events."""
        if not text or text.isspace():
            return
        stray = what.search(text)
        lost = _LINE_OF_EVENT.search(text) if stray is None else None
        if lost is not None:
            line += text.count(b"\n", 0, lost.start())
            shown = decoded(lost[0].strip()[:60])
            self._refuse_line(
                line,
                f"{shown!r} is a line of an event, and there is no <event> before it; put it between <event> "
                "and </event>",
            )
        if stray is None:
            return
        line += text.count(b"\n", 0, stray.start())
        shown = decoded(stray[0][:60])
        if _ANOTHER_FILE.match(stray[0]):
            self._refuse_line(
                line,
                f"{shown!r} where the next <event> or the end of the file should be; files that were joined "
                "have different heads, so convert them one by one",
            )
        groups = " (groups of events that belong together are not supported)" if "group" in shown else ""
        self._refuse_line(line, f"{shown!r} is outside of an event; expected <event>{groups}")

    def _parse(self, chunk: _Chunk) -> LHEBlock:
        """Turn the texts of events into numbers."""
        bodies = chunk.bodies
        rests = bodies
        try:
            info, particles, rests = read_events(bodies)
            weights = self._weights.read(rests)
        except MalformedEventError as error:
            before = len(bodies[error.event]) - len(rests[error.event])
            self._refuse(chunk, error.event, str(error), before + error.offset, error)
        if self.n_events == 0:
            self.weight_rounding = rounding(next(event_rows(bodies[0]))[1].split()[2])
        self.n_events += len(bodies)
        self.n_trials += sum(chunk.trials)
        return LHEBlock(info, particles, weights)


def _as_text(aside: re.Match[bytes]) -> bytes:
    """Return what a comment or a CDATA section stands for, with as many lines."""
    if aside[1] is None:
        return b" " + b"\n" * aside[0].count(b"\n")
    return aside[1].replace(b"<", b"&lt;")


def _joined(blocks: list[LHEBlock]) -> LHEBlock:
    """Return several blocks as one."""
    names = [one.name for one in fields(LHEBlock)]
    return LHEBlock(*(np.concatenate([getattr(block, name) for block in blocks]) for name in names))
