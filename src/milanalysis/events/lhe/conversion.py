"""Les Houches text -> ``LHEF`` ROOT tree with the same events, and a JSON file for what trees cannot hold.

Only where events carry trials (Sherpa) are the weights changed: by one factor, so that they average to the
cross-section, which in the text is the sum of weights over the sum of trials.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from milanalysis.errors import InputFileError
from milanalysis.events.files.lhef_tree import lists_of, open_lhef_tree, transverse_columns
from milanalysis.events.lhe.stream import LHEBlock, LHEFile, check_text_file
from milanalysis.files.provenance import atomic_path, read_json, write_json

__all__ = ["conversion_targets", "convert_lhe", "converted_path"]

logger = logging.getLogger(__name__)

_CLOSE = 1e-3
"""Relative distance from the cross-section at which weights are always taken to add up to it."""
_STANDARD_ERRORS = 5.0
"""The same in standard errors of weights and cross-section together."""
_FARTHEST = 0.1
"""Relative distance beyond which they are never taken to, whatever the errors are."""


def converted_path(path: Path, directory: Path | None = None) -> Path:
    """Return the path of the tree of a text file: ``x.lhef.root`` beside ``x.lhe.gz``."""
    name = path.name.removesuffix(".gz").removesuffix(".lhe")
    return (directory or path.parent) / f"{name}.lhef.root"


def conversion_targets(paths: Sequence[Path], directory: Path | None = None) -> list[Path]:
    """Return where the trees of several text files go, and make sure that none takes the place of another.

    Args:
        paths: of the texts.
        directory: for the trees; by default each goes beside its text.

    Raises:
        InputFileError: if a file cannot be Les Houches text, if two files would become the same tree, or if a
            tree that is there was made from another file.
    """
    targets: dict[Path, Path] = {}
    for path in paths:
        check_text_file(path)
        target = converted_path(path, directory)
        other = targets.setdefault(target.parent.resolve() / target.name, path)
        if other is not path:
            what = (
                f"{path} is given twice"
                if other == path
                else f"{other} and {path} would both become {target}"
            )
            msg = f"{what}; give each file once, and files of the same name in commands with different -o"
            raise InputFileError(msg)
        _check_not_of_another(path, target)
    return [converted_path(path, directory) for path in paths]


def _check_not_of_another(path: Path, target: Path) -> None:
    """Refuse to write over the tree of another text."""
    beside = target.with_suffix(".json")
    if not target.exists() or not beside.is_file():
        return
    try:
        source = read_json(beside).get("source_path")
    except InputFileError:
        return
    if isinstance(source, str) and source != str(path.resolve()):
        msg = (
            f"{target} is there already and was made from {source}, not from {path}; choose another "
            "directory with -o, or delete it with its JSON file first"
        )
        raise InputFileError(msg)


@dataclass
class _Sums:
    """Sums over the nominal weights: their number, value and square, and whether all are +-1."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    unit: bool = True
    not_finite: int = 0

    def add(self, block: LHEBlock) -> None:
        """Add the events of a block."""
        weights = block.info[:, 2]
        self.n += len(weights)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # whoever uses the sums looks whether they are finite
            self.total += float(weights.sum())
            self.squares += float(weights @ weights)
        self.unit = self.unit and bool((np.abs(weights) == 1.0).all())
        self.not_finite += int((~np.isfinite(block.weights)).any(axis=1).sum())

    def error_of_sum(self, n_trials: float) -> float:
        """Return the standard error of the sum; trials without an event have weight zero."""
        if not n_trials:
            return 0.0
        return math.sqrt(max(self.squares - self.total / n_trials * self.total, 0.0))


def convert_lhe(path: Path, output: Path, advance: Callable[..., None] = lambda _: None) -> dict[str, Any]:
    """Convert a Les Houches file to an ``LHEF`` tree; both output files are complete or absent.

    Args:
        path: of the text, compressed or not.
        output: of the ROOT file; the same name with suffix ``.json`` gets ``weight_names`` (in the order of
            ``Rwgt.Weight``), ``weight_descriptions``, ``cross_section_pb`` and ``cross_section_error_pb``
            (null if not known), ``strategy`` (IDWTUP), ``normalisation`` (what the weights do add up to:
            mean, sum, unit, or null), ``n_events``, and ``n_trials`` (null if events have none; if they have,
            all weights are multiplied by ``n_events / n_trials``, so that their mean is the cross-section).
        advance: called with the number of bytes of text each time some have been read.

    Returns:
        The content of the JSON file.

    Raises:
        InputFileError: if the text cannot be read or ends early, with the numbers of event and line.
    """
    sums = _Sums()
    with atomic_path(output) as temporary:
        with LHEFile.open(path, advance) as file, open_lhef_tree(temporary) as append:
            scale = _events_per_trial(path) if file.has_trials else 1.0
            for block in file.blocks():
                append(_columns(block, sums.n + 1, scale))
                sums.add(block)
        section, error = file.head.cross_section_pb, file.head.cross_section_error_pb
        if file.has_trials:
            section, error = sums.total / file.n_trials, sums.error_of_sum(file.n_trials) / file.n_trials
            section = section if 0 < section < math.inf else None
            error = error if section is not None and math.isfinite(error) else None
        summary: dict[str, Any] = {
            "source": path.name,
            "source_path": str(path.resolve()),
            "n_events": file.n_events,
            "n_trials": _whole(file.n_trials) if file.has_trials else None,
            "cross_section_pb": section,
            "cross_section_error_pb": error,
            "strategy": file.head.strategy,
            "normalisation": "mean" if file.has_trials else _normalisation(file, sums),
            "weight_names": list(file.weight_names or ()),
            "weight_descriptions": file.announced.descriptions,
        }
        for remark in _remarks(file, sums, summary):
            logger.warning("%s: %s", path, remark)
        write_json(output.with_suffix(".json"), summary)
    return summary


def _whole(value: float) -> float | int:
    """Return a number as an integer if it is one."""
    return int(value) if value == int(value) else value


def _events_per_trial(path: Path) -> float:
    """Return the number of events over the number of trials of a file."""
    with LHEFile.open(path) as file:
        file.count()
    if not file.n_trials > 0:
        msg = (
            f"{path}: the trials of {file.n_events} events add up to {file.n_trials:g}; expected at least one"
        )
        raise InputFileError(msg)
    return file.n_events / file.n_trials


def _remarks(file: LHEFile, sums: _Sums, summary: dict[str, Any]) -> Iterator[str]:
    """Yield what a user should know about a file."""
    if sums.n == 0:
        yield "there are no events"
        return
    yield from _remarks_on_cross_section(file, sums, summary)
    names, announced = set(summary["weight_names"]), set(file.announced.descriptions)
    if file.weights_are_numbered:
        yield "weights without a name are numbered from 0 in the order of the file"
    if announced - names:
        yield f"the header names weights that events do not have: {_listed(announced - names)}"
    if announced and names - announced:
        yield f"events have weights that the header does not name: {_listed(names - announced)}"
    if sums.not_finite:
        yield f"{sums.not_finite} events have weights that are not finite"


def _remarks_on_cross_section(file: LHEFile, sums: _Sums, summary: dict[str, Any]) -> Iterator[str]:
    """Yield what is to be said about the cross-section and what weights add up to."""
    mean, section = sums.total / sums.n, file.head.cross_section_pb
    if file.has_trials:
        yield (
            f"events have trials ({summary['n_trials']} for {sums.n} events), so that the cross-section is "
            f"the sum of weights over the sum of trials, {sums.total / file.n_trials:.6g} pb; <init> gives "
            f"{section}, which is not used. All weights are multiplied by {sums.n / file.n_trials:.6g} to "
            "average to it"
        )
    elif file.head.unknown is not None:
        yield (
            f"the cross-section is not known: {file.head.unknown}; give cross_section_fb for samples of this "
            "file"
        )
    elif summary["normalisation"] is None:
        agree = "both agree" if _agreements(file, sums) else "neither agrees"
        yield (
            f"the weights have the mean {mean:.6g} pb and the sum {sums.total:.6g} pb, and the cross-section "
            f"is {section:.6g} pb: {agree}; give normalisation for samples of this file"
        )


def _listed(names: set[str]) -> str:
    """Return the first names as text."""
    return ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "")


def _agreements(file: LHEFile, sums: _Sums) -> list[str]:
    """Return which of mean and sum of the weights agree with the cross-section, within errors."""
    section, error = file.head.cross_section_pb, file.head.cross_section_error_pb or 0.0
    if section is None or sums.n == 0:
        return []
    statistical = sums.error_of_sum(sums.n)
    found = []
    for name, divisor in (("mean", sums.n), ("sum", 1)):
        tolerance = max(_CLOSE * section, _STANDARD_ERRORS * float(np.hypot(statistical / divisor, error)))
        tolerance += file.head.rounding_pb + file.weight_rounding * sums.n / divisor
        if abs(sums.total / divisor - section) <= min(tolerance, _FARTHEST * section):
            found.append(name)
    return found


def _normalisation(file: LHEFile, sums: _Sums) -> str | None:
    """Say what the nominal weights add up to; None if that is not known or not unique."""
    if sums.n and sums.unit:
        return "unit"
    found = _agreements(file, sums)
    return found[0] if len(found) == 1 else None


def _columns(block: LHEBlock, first: int, scale: float) -> dict[str, ak.Array]:
    """Return the branches of a block of events, with weights multiplied by a number."""
    n_events, n_weights = block.weights.shape
    counts = block.info[:, 0].astype(np.int64)
    pid, status, mother_1, mother_2, colour_1, colour_2 = block.particles[:, :6].T.astype(np.int32)
    px, py, pz, energy, mass, lifetime, spin = block.particles[:, 6:].T
    event = {
        "Number": np.arange(first, first + n_events),
        "Nparticles": counts.astype(np.int32),
        "ProcessID": block.info[:, 1].astype(np.int32),
        "Weight": scale * block.info[:, 2],
        "ScalePDF": block.info[:, 3],
        "CouplingQED": block.info[:, 4],
        "CouplingQCD": block.info[:, 5],
    }
    particle = {
        "PID": pid,
        "Status": status,
        "Mother1": mother_1 - 1,
        "Mother2": mother_2 - 1,
        "ColorLine1": colour_1,
        "ColorLine2": colour_2,
        "Px": px,
        "Py": py,
        "Pz": pz,
        "E": energy,
        "M": mass,
        **transverse_columns(px, py, pz, mass),
        "LifeTime": lifetime,
        "Spin": spin,
    }
    return {
        "Event": lists_of(event, np.ones(n_events, dtype=np.int64)),
        "Rwgt": lists_of({"Weight": scale * block.weights.ravel()}, np.full(n_events, n_weights)),
        "Particle": lists_of(particle, counts),
    }
