"""Les Houches text -> ``LHEF`` ROOT tree, event by event the same, with what the tree cannot hold in a JSON file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from milanalysis.events.lhef import lists_of, open_lhef_tree, transverse_columns
from milanalysis.events.lhetext import LHEBlock, LHEFile
from milanalysis.provenance import atomic_path, write_json

__all__ = ["convert_lhe", "converted_path"]

_CLOSE = 1e-3
"""Relative distance from the cross-section at which weights are taken to add up to it."""


def converted_path(path: Path, directory: Path | None = None) -> Path:
    """Return where the tree of a text file goes: ``x.lhe.gz`` becomes ``x.lhef.root``, in the same directory."""
    name = path.name.removesuffix(".gz").removesuffix(".lhe")
    return (directory or path.parent) / f"{name}.lhef.root"


def convert_lhe(path: Path, output: Path, advance: Callable[..., None] = lambda _: None) -> dict[str, Any]:
    """Convert a Les Houches file to an ``LHEF`` tree; both output files are complete or absent.

    Args:
        path: of the text, compressed or not.
        output: of the ROOT file; the same name with suffix ``.json`` gets ``weight_names`` (in the order of
            ``Rwgt.Weight``), ``weight_descriptions``, ``cross_section_pb``, ``cross_section_error_pb``, ``strategy``
            (IDWTUP), ``normalisation`` (what the weights do add up to: mean, sum, unit, or null) and ``n_events``.
        advance: called with the number of bytes of text each time some have been read.

    Returns:
        The content of the JSON file.

    Raises:
        InputFileError: if the text cannot be read or ends early, with the number of the event.
    """
    total = largest = smallest = 0.0
    with atomic_path(output) as temporary:
        with LHEFile.open(path, advance) as file, open_lhef_tree(temporary) as append:
            first = 1
            for block in file.blocks():
                append(_columns(block, first))
                weights = block.info[:, 2]
                largest = float(max(largest, weights.max())) if first > 1 else float(weights.max())
                smallest = float(min(smallest, weights.min())) if first > 1 else float(weights.min())
                total += float(weights.sum())
                first += len(block)
        summary: dict[str, Any] = {
            "source": path.name,
            "n_events": file.n_events,
            "cross_section_pb": file.cross_section_pb,
            "cross_section_error_pb": file.cross_section_error_pb,
            "strategy": file.strategy,
            "normalisation": _normalisation(total, file.n_events, file.cross_section_pb, smallest, largest),
            "weight_names": list(file.weight_names or ()),
            "weight_descriptions": file.announced,
        }
        write_json(output.with_suffix(".json"), summary)
    return summary


def _normalisation(
    total: float, n_events: int, cross_section: float, smallest: float, largest: float
) -> str | None:
    """Say what the nominal weights add up to."""
    if n_events == 0:
        return None
    if smallest == largest == 1.0:
        return "unit"
    for name, value in (("mean", total / n_events), ("sum", total)):
        if abs(value - cross_section) <= _CLOSE * abs(cross_section):
            return name
    return None


def _columns(block: LHEBlock, first: int) -> dict[str, ak.Array]:
    """Return the branches of a block of events."""
    n_events, n_weights = block.weights.shape
    counts = block.info[:, 0].astype(np.int64)
    pid, status, mother_1, mother_2, colour_1, colour_2 = block.particles[:, :6].T.astype(np.int32)
    px, py, pz, energy, mass, lifetime, spin = block.particles[:, 6:].T
    event = {
        "Number": np.arange(first, first + n_events),
        "Nparticles": counts.astype(np.int32),
        "ProcessID": block.info[:, 1].astype(np.int32),
        "Weight": block.info[:, 2],
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
        "Rwgt": lists_of({"Weight": block.weights.ravel()}, np.full(n_events, n_weights)),
        "Particle": lists_of(particle, counts),
    }
