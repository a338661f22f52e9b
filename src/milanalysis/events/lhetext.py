"""Les Houches text files (``.lhe``, ``.lhe.gz``), read as a stream.

Lines are collected and turned into numbers by the thousand, which is several times faster than reading event by
event, and correctly rounded. A file that ends before its closing tag is an error that says in which event.

Source:
    hep-ph/0109068 (initialisation and events), hep-ph/0609017 (the file), arXiv:1405.1067 (weights).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

import numpy as np

from milanalysis.errors import InputFileError
from milanalysis.parameters import FloatArray

__all__ = ["LHEBlock", "LHEFile"]

_TEXT_BLOCK = 4 << 20
_EVENTS_PER_BLOCK = 20_000
_INFO_NUMBERS, _PARTICLE_NUMBERS = 6, 13

_EVENT = re.compile(rb"<event\b[^>]*>")
_INIT = re.compile(rb"<init\b[^>]*>(.*?)</init>", re.DOTALL)
_WEIGHT = re.compile(rb"<weight\b[^>]*?\bid\s*=\s*(?:'([^']*)'|\"([^\"]*)\")[^>]*>(.*?)</weight>", re.DOTALL)
_WGT = re.compile(rb"<wgt\b[^>]*?\bid\s*=\s*(?:'([^']*)'|\"([^\"]*)\")[^>]*>\s*(\S+?)\s*</wgt>")
_COMPACT = re.compile(rb"<weights\b[^>]*>(.*?)</weights>", re.DOTALL)


@dataclass(frozen=True)
class LHEBlock:
    """Some events, one after the other.

    Attributes:
        info: number of particles, process, weight, scale, alpha_QED, alpha_QCD; shape ``(n_events, 6)``.
        particles: PDG id, status, two mothers, two colours, px, py, pz, E, m [GeV], lifetime, spin of all particles;
            shape ``(n_particles, 13)``.
        weights: weights beside the nominal one, shape ``(n_events, n_weights)``.
    """

    info: FloatArray
    particles: FloatArray
    weights: FloatArray

    def __len__(self) -> int:
        return len(self.info)


class LHEFile:
    """A Les Houches file that is read once, from the beginning to the end.

    Attributes:
        path: of the file.
        cross_section_pb: of all processes, as the file announces it.
        cross_section_error_pb: its error.
        strategy: IDWTUP, which says what the weights mean.
        announced: names and descriptions of the weights in the header; perhaps empty.
        weight_names: names of the weights in the order of `LHEBlock.weights`; known after the first block.
        n_events: events read so far.
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
        self._broken: Exception | None = None
        self.n_events = 0
        self.weight_names: tuple[str, ...] | None = None
        self._read_header()

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
        if not path.is_file():
            msg = f"{path}: there is no such file; expected Les Houches events (.lhe or .lhe.gz)"
            raise InputFileError(msg)
        with path.open("rb") as raw:
            magic = raw.read(2)
            raw.seek(0)
            if magic != b"\x1f\x8b":
                yield cls(path, raw, advance)
                return
            with gzip.open(raw) as stream:
                yield cls(path, stream, advance)

    def blocks(self) -> Iterator[LHEBlock]:
        """Yield the events, about 20,000 at a time.

        Raises:
            InputFileError: if the file ends early or an event is not what it should be, with the number of the
                event, counted from 1.
        """
        waiting: list[LHEBlock] = []
        for texts in self._events():
            waiting.append(self._parse(texts))
            if sum(map(len, waiting)) >= _EVENTS_PER_BLOCK:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)

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
        self._text += b"".join(pieces)
        self._advance(sum(map(len, pieces)))
        return any(pieces) or self._broken is not None

    def _fail(self, what: str, cause: Exception | None = None) -> NoReturn:
        msg = (
            f"{self.path} is truncated or damaged in event {self.n_events + 1}: {what}, after {self.n_events} complete "
            "events; expected </event> and </LesHouchesEvents>. Copy or produce the file again"
        )
        raise InputFileError(msg) from cause

    def _read_header(self) -> None:
        """Read up to the first event."""
        while b"</init>" not in self._text:
            if not self._read():
                break
        head = _INIT.search(self._text)
        if b"<LesHouchesEvents" not in self._text or head is None:
            msg = (
                f"{self.path} is not a Les Houches file: it has no <LesHouchesEvents> with an <init> block and begins "
                f"with {self._text[:30]!r}; expected .lhe or .lhe.gz of an event generator"
            )
            raise InputFileError(msg)
        lines = [
            line.split() for line in head.group(1).splitlines() if line.strip() and line.strip()[:1] != b"#"
        ]
        try:
            self.strategy = int(lines[0][8])
            n_processes = int(lines[0][9])
            processes = np.array([line[:2] for line in lines[1 : 1 + n_processes]]).astype(np.float64)
            self.cross_section_pb = float(processes[:, 0].sum())
            self.cross_section_error_pb = float(np.sqrt((processes[:, 1] ** 2).sum()))
        except (IndexError, ValueError) as error:
            msg = f"{self.path} has an <init> block that cannot be read ({error}): {head.group(1)[:200]!r}"
            raise InputFileError(msg) from error
        self.announced = {
            (one or other).decode(): " ".join(text.decode().split())
            for one, other, text in _WEIGHT.findall(self._text[: head.start()])
        }
        self._text = self._text[head.end() :]

    def _events(self) -> Iterator[list[bytes]]:
        """Yield the texts between <event> and </event>, many at a time."""
        while True:
            *complete, self._text = self._text.split(b"</event>")
            if complete:
                texts = []
                for piece in complete:
                    tag = _EVENT.search(piece)
                    if tag is None:
                        self._fail("there is </event> without <event>")
                    texts.append(piece[tag.end() :])
                yield texts
            if not self._read():
                break
        if _EVENT.search(self._text) or b"</LesHouchesEvents>" not in self._text:
            self._fail("the text ends")

    def _parse(self, texts: list[bytes]) -> LHEBlock:
        """Turn the texts of events into numbers."""
        infos: list[bytes] = []
        lines: list[bytes] = []
        rests: list[bytes] = []
        for text in texts:
            rows = text.strip().split(b"\n")
            first = rows[0]
            try:
                last = 1 + int(first.split(None, 1)[0])
            except (IndexError, ValueError) as error:
                self.n_events += len(infos)
                self._fail(f"its first line is {first[:60]!r}", error)
            infos.append(first)
            lines.append(b"\n".join(rows[1:last]))
            rests.append(b"\n".join(rows[last:]))
        info = _numbers(infos, _INFO_NUMBERS)
        particles = _numbers(lines, _PARTICLE_NUMBERS)
        if info is None or particles is None or len(info) != len(texts) or len(particles) != info[:, 0].sum():
            self._find_bad_event(infos, lines)
        weights = self._weights(rests)
        self.n_events += len(texts)
        assert info is not None
        assert particles is not None
        return LHEBlock(info, particles, weights)

    def _find_bad_event(self, infos: list[bytes], lines: list[bytes]) -> None:
        """Raise an error that names the first event whose numbers cannot be read."""
        for i, (info, particles) in enumerate(zip(infos, lines, strict=True)):
            numbers, rows = _numbers([info], _INFO_NUMBERS), _numbers([particles], _PARTICLE_NUMBERS)
            if numbers is None or len(numbers) != 1 or rows is None or len(rows) != numbers[0, 0]:
                self.n_events += i
                self._fail("its lines do not hold the numbers they should")

    def _weights(self, rests: list[bytes]) -> FloatArray:
        """Return the weights beside the nominal ones, in the order of the first event."""
        found = [_WGT.findall(rest) for rest in rests]
        compact = [_COMPACT.search(rest) for rest in rests] if not found[0] else []
        if compact and compact[0] is not None:
            values = [[] if one is None else one.group(1).split() for one in compact]
            names = [list(self.announced)] * len(rests)
        else:
            names = [[(one or other).decode() for one, other, _ in event] for event in found]
            values = [[value for _, _, value in event] for event in found]
        if self.weight_names is None:
            self.weight_names = tuple(names[0])
        expected = list(self.weight_names)
        for i, (here, numbers) in enumerate(zip(names, values, strict=True)):
            if here == expected and len(numbers) == len(expected):
                continue
            if sorted(here) != sorted(expected) or len(numbers) != len(expected):
                self.n_events += i
                self._fail(
                    f"it has {len(numbers)} weights ({', '.join(here[:5])}, ...) and the events before have "
                    f"{len(expected)} ({', '.join(expected[:5])}, ...)"
                )
            by_name = dict(zip(here, numbers, strict=True))
            values[i] = [by_name[name] for name in expected]
        try:
            table = np.array(values, dtype="S").astype(np.float64)
        except ValueError as error:
            self._fail(f"one of the weights of this or the next {len(rests) - 1} events: {error}", error)
        return table.reshape(len(rests), len(expected))


def _numbers(texts: list[bytes], per_row: int) -> FloatArray | None:
    """Return rows of numbers; None if the text holds anything else, or the last row is not complete."""
    words = b"\n".join(texts).split()
    if len(words) % per_row:
        return None
    try:
        numbers = np.array(words, dtype="S").astype(np.float64)
    except ValueError:
        try:  # exponents as Fortran writes them
            numbers = np.array([word.replace(b"D", b"E") for word in words], dtype="S").astype(np.float64)
        except ValueError:
            return None
    return numbers.reshape(-1, per_row)


def _joined(blocks: list[LHEBlock]) -> LHEBlock:
    """Return several blocks as one."""
    return LHEBlock(
        *(
            np.concatenate([getattr(block, name) for block in blocks])
            for name in ("info", "particles", "weights")
        )
    )
