"""The lines of an event in a Les Houches file -> numbers: usual spellings all at once, others singly.

Source:
    hep-ph/0109068, whose common block HEPEUP the lines are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from milanalysis.events.lhe.words import MalformedEventError, NotANumberError, decoded, numbers
from milanalysis.parameters import FloatArray

__all__ = ["event_rows", "read_events"]

_EVENT_WORDS = "number of particles, process, weight, scale, alpha_QED, alpha_QCD"
_PARTICLE_WORDS = "PDG id, status, two mothers, two colours, px, py, pz, E, m, lifetime, spin"
_EVENT_NUMBERS, _PARTICLE_NUMBERS = 6, 13
_WHOLE_EVENT_NUMBERS, _WHOLE_PARTICLE_NUMBERS = 2, 6
_LARGEST_WHOLE = 2**31 - 1
_BAD_LINE = "its lines do not hold the numbers they should"
_END_OF_LINE = b" 1e22\n"
"""A number put at the end of each line, by which lines with a number too few or too many are noticed."""


def read_events(bodies: Sequence[bytes]) -> tuple[FloatArray, FloatArray, list[bytes]]:
    """Turn the lines of events into numbers.

    Args:
        bodies: text of each event between ``<event>`` and ``</event>``.

    Returns:
        The first lines, shape ``(n_events, 6)``, the lines of all particles, shape ``(n_particles, 13)``, and
        the text of each event after its particles.

    Raises:
        MalformedEventError: naming the first event and line that do not hold the numbers they should.
    """
    parsed = _all_at_once(bodies)
    info, particles, rests = _one_by_one(bodies) if parsed is None else parsed
    _check_values(bodies, info, particles)
    return info, particles, rests


def event_rows(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of an event that are neither empty nor comments, with their offsets."""
    offset = 0
    for line in body.split(b"\n"):
        row = line.strip()
        if row and not row.startswith(b"#"):
            yield offset + line.index(row), row
        offset += len(line) + 1


def _all_at_once(bodies: Sequence[bytes]) -> tuple[FloatArray, FloatArray, list[bytes]] | None:
    """Read events that are written as usual; None if they are not."""
    infos: list[bytes] = []
    lines: list[bytes] = []
    rests: list[bytes] = []
    for body in bodies:
        first, _, others = body.lstrip().partition(b"\n")
        try:
            count = int(first.split(None, 1)[0])
        except (IndexError, ValueError):
            return None
        rows = others.split(b"\n", count) if 0 <= count < len(body) else []
        if len(rows) != count + 1:
            return None
        infos.append(first)
        rests.append(rows.pop())
        lines += rows
    info, particles = _table(infos, _EVENT_NUMBERS), _table(lines, _PARTICLE_NUMBERS)
    return None if info is None or particles is None else (info, particles, rests)


def _table(lines: list[bytes], n_columns: int) -> FloatArray | None:
    """Return the numbers of lines that have equally many; None if they have not, or it is not numbers."""
    if not lines:
        return np.empty((0, n_columns))
    try:
        table = numbers(_END_OF_LINE.join([*lines, b""]))
    except NotANumberError:
        return None
    if len(table) != len(lines) * (n_columns + 1):
        return None
    table = table.reshape(-1, n_columns + 1)
    return table[:, :-1] if (table[:, -1] == float(_END_OF_LINE)).all() else None


def _one_by_one(bodies: Sequence[bytes]) -> tuple[FloatArray, FloatArray, list[bytes]]:
    """Read events that are written in an unusual way, or refuse the first that cannot be read."""
    infos: list[FloatArray] = []
    particles: list[FloatArray] = []
    rests: list[bytes] = []
    for i, body in enumerate(bodies):
        rows = event_rows(body)
        offset, first = next(rows, (0, b""))
        if not first:
            raise MalformedEventError(i, 0, f"its first line is {first!r}; expected {_EVENT_WORDS}")
        info = _line_of_numbers(i, offset, first, _EVENT_NUMBERS, _EVENT_WORDS)
        count = int(info[0]) if 0 <= info[0] < len(body) and info[0] == np.rint(info[0]) else -1
        if count < 0:
            raise MalformedEventError(i, offset, f"{_BAD_LINE}: {info[0]:g} is no number of particles")
        end = offset + len(first)
        for k in range(count):
            offset, row = next(rows, (end, b""))
            if not row or row.startswith(b"<"):
                raise MalformedEventError(
                    i, offset, f"its first line announces {count} particles and there are {k}"
                )
            particles.append(_line_of_numbers(i, offset, row, _PARTICLE_NUMBERS, _PARTICLE_WORDS))
            end = offset + len(row)
        infos.append(info)
        rests.append(body[end:])
    return np.stack(infos), np.reshape(particles, (-1, _PARTICLE_NUMBERS)), rests


def _line_of_numbers(event: int, offset: int, row: bytes, expected: int, meaning: str) -> FloatArray:
    """Return the numbers of a line of an event, as many as there should be."""
    try:
        found = numbers(row.partition(b"#")[0])
    except NotANumberError as error:
        msg = f"{_BAD_LINE}: number {error.position + 1}, {error}"
        raise MalformedEventError(event, offset, msg) from error
    if len(found) != expected:
        msg = f"{_BAD_LINE}: {decoded(row[:60])!r} has {len(found)}; expected {expected}: {meaning}"
        raise MalformedEventError(event, offset, msg)
    return found


def _check_values(bodies: Sequence[bytes], info: FloatArray, particles: FloatArray) -> None:
    """Refuse values that are not finite, and fractions where there should be whole numbers."""
    bad = _first_bad(info, _WHOLE_EVENT_NUMBERS)
    if bad is not None:
        _refuse_values(bodies, bad, 0, _EVENT_WORDS)
    bad = _first_bad(particles, _WHOLE_PARTICLE_NUMBERS)
    if bad is not None:
        ends = np.cumsum(info[:, 0]).astype(np.int64)
        event = int(np.searchsorted(ends, bad, side="right"))
        _refuse_values(bodies, event, 1 + bad - int(ends[event] - info[event, 0]), _PARTICLE_WORDS)


def _first_bad(table: FloatArray, n_whole: int) -> int | None:
    """Return the first row with a number that is not finite, or no whole number in the first columns."""
    whole = table[:, :n_whole]
    good = np.isfinite(table).all(axis=1)
    good &= ((whole == np.rint(whole)) & (np.abs(whole) <= _LARGEST_WHOLE)).all(axis=1)
    return None if good.all() else int(np.argmin(good))


def _refuse_values(bodies: Sequence[bytes], event: int, row: int, meaning: str) -> None:
    """Raise an error about a line of an event."""
    offset, text = list(event_rows(bodies[event]))[row]
    msg = (
        f"{_BAD_LINE}: one is not finite, or is a fraction where a whole number belongs, in "
        f"{decoded(text[:80])!r}; expected {meaning}"
    )
    raise MalformedEventError(event, offset, msg)
