"""Every event once: files that are the same file, and different files with the same events.

A file is known by the place it is kept at, however many names and links lead there, and by the identification
that ROOT gave it, which its copies have, too. Events are known by a digest of their momenta, which survives
whatever is done to the file around them: written anew, merged with others, put in another order. Events that
are there twice stand on two sides of a split, or are the data that they are compared with: both make an
interval look better than it is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations_with_replacement, groupby
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from milanalysis.errors import DataLeakError
from milanalysis.events.files.samples import InputFile, Sample
from milanalysis.events.tables import DIGEST_COLUMN, ENTRY_BITS

__all__ = ["momenta_digests", "require_different_events", "same_file_problems"]

logger = logging.getLogger(__name__)

Digests = npt.NDArray[np.uint64]

_MULTIPLIERS = tuple(np.uint64(m) for m in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_TOLERATED_REPEATS = 0.01
"""Fraction of repeated events in a file that only causes a warning.

Generators write an event of too large a weight several times.
"""
_SHOWN = 5


def momenta_digests(events: Any) -> Digests:
    """Return an identifier of each event of a chunk: a digest of its momenta in single precision.

    The order of the objects in the event does not count. Events without any object that moves have no
    identity.

    Args:
        events: the chunk, with ``events.metadata`` of `Sample.work_items`.

    Returns:
        Shape ``(n_events,)``; 0 for events without identity.

    Source:
        Words of three coordinates are mixed as in SplitMix64 (Steele, Lea and Flood 2014) and summed modulo
        2^64, so that two of a million different events agree with a probability of 3e-8.
    """
    source = events.metadata["format"]
    if source["kind"] == "lhef":
        particles = events.Particle
        return _sum_by_event(particles, ("x", "y", "z"))
    total = np.zeros(len(events), dtype=np.uint64)
    for name in (source["electrons"], source["muons"], source["jets"]):
        if name is not None:
            total += _sum_by_event(events[name], ("PT", "Eta", "Phi"))
    missing = _sum_by_event(events[source["missing"]], ("MET", "Phi"))
    return np.where(total == 0, total, total + missing)


def _sum_by_event(collection: ak.Array, members: Sequence[str]) -> Digests:
    """Return the sum of the digests of the objects of each event."""
    counts = np.asarray(ak.to_numpy(ak.num(collection)))
    words = np.zeros(int(counts.sum()), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for member, multiplier in zip(members, _MULTIPLIERS, strict=False):
            column = np.asarray(ak.to_numpy(ak.flatten(collection[member], axis=1)))
            single = column.astype(np.float32) + np.float32(0)  # minus zero becomes zero
            words += single.view(np.uint32) * multiplier
        words ^= words >> np.uint64(29)
        words *= np.uint64(0xBF58476D1CE4E5B9)
        words ^= words >> np.uint64(32)
        words *= np.uint64(0x94D049BB133111EB)
        total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(words)])
        ends = np.cumsum(counts)
        digests: Digests = total[ends] - total[ends - counts]
    return digests


def same_file_problems(samples: Sequence[Sample]) -> list[str]:
    """Say which files are there twice, in one sample or in two, under whatever names."""
    found: list[str] = []
    reported: set[int] = set()
    files = [(sample, file) for sample in samples for file in sample.files]
    for same, key in (
        ("the same file", _place),
        ("copies of the same file (they have one UUID)", _identification),
    ):
        known: dict[Any, tuple[Sample, InputFile]] = {}
        for sample, file in files:
            if key(file) is None:
                continue
            first, one = known.setdefault(key(file), (sample, file))
            if one is file or file.number in reported:
                continue
            reported.add(file.number)
            names = (
                f"{one.path} is"
                if one.path == file.path
                else f"{one.path} and {file.path} are {same}, which is"
            )
            found.append(f"{names} there twice, in {_where(first, sample)}{_consequence(first, sample)}")
    return _shortened(found)


def _place(file: InputFile) -> tuple[int, int] | None:
    """Return where a file is kept; None without events, none of which is there twice."""
    return file.place if any(file.place) and file.n_events else None


def _identification(file: InputFile) -> tuple[bytes, int] | None:
    """Return ROOT's UUID of a file with its number of events, as growing files keep the UUID; else None."""
    return (file.uuid, file.n_events) if any(file.uuid) and file.n_events else None


def _shortened(problems: Sequence[str]) -> list[str]:
    """Return the first few of many problems, and how many there are more."""
    more = [f"and {len(problems) - _SHOWN} more of this kind"] if len(problems) > _SHOWN else []
    return [*problems[:_SHOWN], *more]


def _where(first: Sample, second: Sample) -> str:
    """Say in which samples something is."""
    if first.name == second.name:
        return f"sample {first.name!r}"
    roles = [f" ({sample.role})" if sample.role else "" for sample in (first, second)]
    return f"the samples {first.name!r}{roles[0]} and {second.name!r}{roles[1]}"


def _consequence(first: Sample, second: Sample) -> str:
    """Say what comes of events that are there twice."""
    if first.name == second.name:
        return "; its events would be on several sides of the split. Name it once"
    if "observed" in {first.role, second.role} and first.role != second.role:
        return (
            "; the same events as data and as simulation make an interval look better than it is. Take it "
            "from one of them"
        )
    return "; its events would be counted twice. Take it from one of them"


def require_different_events(samples: Sequence[Sample], tables: Mapping[str, Path]) -> list[str]:
    """Refuse selected events that are there twice, in different files or in one.

    Args:
        samples: of the analysis.
        tables: their tables, by name; those without digests are left out.

    Returns:
        Warnings about files in which few events are repeated.

    Raises:
        DataLeakError: naming the files and how many events they share.
    """
    every = _all_digests([tables[sample.name] for sample in samples])
    every.sort()
    repeated = np.unique(every[1:][every[1:] == every[:-1]])
    repeated = repeated[repeated != 0]
    del every
    if len(repeated) == 0:
        return []
    places = []
    for sample in samples:
        digests = _all_digests([tables[sample.name]])
        rows = np.flatnonzero(np.isin(digests, repeated))
        if len(rows):
            ids = pq.read_table(tables[sample.name], columns=["event_id"])["event_id"].to_numpy()[rows]
            places += list(zip(digests[rows].tolist(), ids.tolist(), strict=True))
    return _report(samples, sorted(places))


def _all_digests(tables: Sequence[Path]) -> Digests:
    """Return the concatenated digests of the events of some tables; tables without digests add none."""
    with ExitStack() as files:
        opened = [files.enter_context(pq.ParquetFile(path)) for path in tables]
        opened = [file for file in opened if DIGEST_COLUMN in file.schema_arrow.names]
        digests = np.empty(sum(file.metadata.num_rows for file in opened), dtype=np.uint64)
        n_read = 0
        for file in opened:
            for batch in file.iter_batches(columns=[DIGEST_COLUMN]):
                digests[n_read : n_read + len(batch)] = batch.column(0).to_numpy()
                n_read += len(batch)
    return digests


def _report(samples: Sequence[Sample], places: Sequence[tuple[int, int]]) -> list[str]:
    """Raise an error or return warnings about duplicate events; each place is a digest and an event id."""
    owners = {file.number: (sample, file) for sample in samples for file in sample.files}
    shared: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], tuple[int, int]] = {}
    for _, group in groupby(places, key=lambda place: place[0]):
        ids = [event_id for _, event_id in group]
        of_file = Counter(event_id >> ENTRY_BITS for event_id in ids)
        entry = {event_id >> ENTRY_BITS: event_id & (1 << ENTRY_BITS) - 1 for event_id in reversed(ids)}
        for one, other in combinations_with_replacement(sorted(of_file), 2):
            if one != other or of_file[one] > 1:
                shared[one, other] += of_file[one] - 1 if one == other else 1
                last = max(i for i in ids if i >> ENTRY_BITS == one) if one == other else entry[other]
                first.setdefault((one, other), (entry[one], last & (1 << ENTRY_BITS) - 1))
    problems, warnings = [], []
    for (one, other), n in shared.most_common():
        (sample, file), (another, second) = owners[one], owners[other]
        example = f"entries {first[one, other][0]} and {first[one, other][1]}, for example"
        if one == other:
            text = (
                f"{n} selected events of {file.path} (sample {sample.name!r}) repeat other events of it "
                f"({example})"
            )
            if n <= _TOLERATED_REPEATS * file.n_events:
                warnings.append(text)
                continue
            problems.append(
                f"{text}: they are there twice or more often; write the file again, each event once"
            )
        else:
            problems.append(
                f"{n} events are there twice: {second.path} has the same selected events as {file.path} "
                f"({example}), in {_where(sample, another)}{_consequence(sample, another)}"
            )
    if problems:
        raise DataLeakError("\n".join(["the same events are used twice:", *_shortened(problems)]))
    return warnings
