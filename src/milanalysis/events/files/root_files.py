"""ROOT files, inspected before any work starts: their content, and that of the JSON files beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uproot

from milanalysis.config import DelphesFormatConfig, LHEFFormatConfig
from milanalysis.errors import EventWeightError, InputFileError, MilAnalysisError
from milanalysis.files.paths import beside, problem_with_file

__all__ = ["FB_PER_PB", "LOCAL", "UNCACHED", "InputFile", "SkippedFile", "open_root_file", "read_description"]

LOCAL: dict[str, Any] = {"handler": uproot.MultithreadedFileSource}
"""Options of uproot for files on local disks, whose names may have colons (fsspec interprets them).

There is no memory map, which ends the program if a file becomes shorter meanwhile.
"""
UNCACHED: dict[str, Any] = {"array_cache": None, "object_cache": None}
FB_PER_PB = 1000.0


@dataclass(frozen=True)
class InputFile:
    """A ROOT file that has been looked into.

    Attributes:
        path: of the file.
        tree: name of its tree.
        number: of the file within the analysis; part of the event ids.
        n_events: entries of the tree.
        uuid: ROOT's identification of the file, which a copy of it has, too.
        state: size in bytes and time of the last change in ns.
        place: device and inode; links to one file have the same.
        cross_section_fb: as the JSON file beside it says; None if there is none, or it is not known there.
        cross_section_error_fb: its standard error, 0 if it is not known.
        unknown_cross_section: what the JSON file says instead of a cross-section, in words; empty if it says
            one, or does not speak of it.
        description: what the JSON file beside it says.
    """

    path: Path
    tree: str
    number: int
    n_events: int
    uuid: bytes
    state: tuple[int, int] = (0, 0)
    place: tuple[int, int] = (0, 0)
    cross_section_fb: float | None = None
    cross_section_error_fb: float = 0.0
    unknown_cross_section: str = ""
    description: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class SkippedFile:
    """A file that is left out because it cannot be read.

    Attributes:
        path: of the file.
        reason: why.
        n_events: events that are missing because of that; None if the file does not even say that.
    """

    path: Path
    reason: str
    n_events: int | None


def read_description(path: Path) -> dict[str, Any]:
    """Return the content of the JSON file beside a ROOT file or beside its link target; else empty.

    Raises:
        EventWeightError: naming the JSON file, if it cannot be read.
    """
    place = beside(path)
    if place is None:
        return {}
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = (
            f"{place}, which says what the weights in {path} mean, is no readable JSON file ({error}); run "
            "`milanalysis convert` again, or take it away if it does not belong to the events"
        )
        raise EventWeightError(msg) from error
    return found if isinstance(found, dict) else {}


def open_root_file(
    path: Path, source: LHEFFormatConfig | DelphesFormatConfig, branches: Sequence[str], number: int
) -> InputFile:
    """Look into a ROOT file.

    Args:
        path: of the file.
        source: its format.
        branches: that it has to have, such as ``Event.Weight``.
        number: of the file within the analysis.

    Raises:
        InputFileError: naming the file, if it is missing, empty, truncated, was not closed, is not a ROOT
            file, or does not have the tree or the branches.
        EventWeightError: if the JSON file beside it cannot be read, or is about another number of events.
    """
    expected = f"expected a ROOT file with a tree {source.tree!r}"
    problem = problem_with_file(path)
    if problem is not None:
        msg = f"{problem}; {expected}. Check the path, relative ones start at the configuration"
        raise InputFileError(msg)
    with path.open("rb") as stream:
        magic = stream.read(4)
    if not magic:
        msg = f"{path} has no content: it is empty (0 bytes); {expected}. Copy or produce it again"
        raise InputFileError(msg)
    if magic != b"root":
        msg = (
            f"{path} is not a ROOT file (it starts with {magic!r}); {expected}. `milanalysis convert` makes "
            "one of LHE text"
        )
        raise InputFileError(msg)
    try:
        with uproot.open({str(path): None}, **UNCACHED, **LOCAL) as file:
            return _inspect(path, file, source, branches, number)
    except MilAnalysisError:
        raise
    except Exception as error:  # uproot raises whatever the damaged bytes happen to cause
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        msg = (
            f"{path} cannot be read: it is truncated or damaged ({reason:.150}); {expected}. Copy or produce "
            "it again"
        )
        raise InputFileError(msg) from error


def _inspect(
    path: Path,
    file: Any,
    source: LHEFFormatConfig | DelphesFormatConfig,
    branches: Sequence[str],
    number: int,
) -> InputFile:
    """Check that a file is complete and has the tree and the branches."""
    status = path.stat()
    tree = source.tree
    if status.st_size < file.file.fEND:
        msg = (
            f"{path} is truncated: it has {status.st_size} bytes and should have {file.file.fEND}; "
            f"expected a ROOT file with a tree {tree!r}. Copy or produce it again"
        )
        raise InputFileError(msg)
    classes = file.classnames(cycle=False)
    trees = [name for name, kind in classes.items() if kind == "TTree"]
    if not classes:
        msg = (
            f"{path} has no content: the program that wrote it was stopped before it closed the file; "
            f"expected a tree {tree!r}. Produce the file again"
        )
        raise InputFileError(msg)
    if tree not in trees:
        others = ", ".join(f"{name} ({kind})" for name, kind in classes.items() if kind != "TTree")
        msg = (
            f"{path} has no tree {tree!r}; its trees are: "
            f"{', '.join(trees) or 'none'}{f' (it holds {others:.200})' if others and not trees else ''}. "
            "Give format and name of the tree in the configuration (format: {kind: delphes} for Delphes), "
            "or another file"
        )
        raise InputFileError(msg)
    leaves = {name.split("/")[-1] for name in file[tree].keys()}  # noqa: SIM118 (not a dictionary)
    needed = {*branches, *(f"{branch.split('.')[0]}_size" for branch in branches)}
    absent = sorted(needed - leaves)
    if absent:
        collections = sorted(leaf.removesuffix("_size") for leaf in leaves if leaf.endswith("_size"))
        msg = (
            f"{path}: the tree {tree!r} has no branch {', '.join(absent)}; this selection reads "
            f"{', '.join(branches)}. Its collections are {', '.join(collections) or 'none'}; the "
            "configuration names those to be read under format"
        )
        raise InputFileError(msg)
    description = read_description(path)
    cross_section, error, unknown = _cross_section(path, description)
    n_events, announced = int(file[tree].num_entries), description.get("n_events", None)
    if announced is not None and announced != n_events:
        msg = (
            f"{beside(path)} says that {path} has {announced!r:.40} events, and it has {n_events}: one of "
            "the two is from another time; copy or produce both again"
        )
        raise EventWeightError(msg)
    return InputFile(
        path,
        tree,
        number,
        n_events,
        file.file.uuid.bytes,
        (status.st_size, status.st_mtime_ns),
        (status.st_dev, status.st_ino),
        cross_section,
        error,
        unknown,
        description,
    )


def _cross_section(path: Path, description: Mapping[str, Any]) -> tuple[float | None, float, str]:
    """Return cross-section and error in fb from a JSON file, and the invalid entry if there is none."""
    if "cross_section_pb" not in description:
        return None, 0.0, ""
    value, error = (_in_fb(description.get(f"cross_section_{one}")) for one in ("pb", "error_pb"))
    if value is None or value <= 0:
        return None, 0.0, f"{beside(path)} says {json.dumps(description['cross_section_pb']):.40}"
    return value, max(error or 0.0, 0.0), ""


def _in_fb(value: Any) -> float | None:
    """Return a finite number of pb in fb; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        in_fb = FB_PER_PB * value
    except OverflowError:
        return None
    return in_fb if math.isfinite(in_fb) else None
