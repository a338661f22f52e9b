"""``LHEF`` trees as ExRootLHEFConverter writes them: their branches, and a writer in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from milanalysis.parameters import FloatArray, IntArray

__all__ = ["BEAM_ETA", "lists_of", "open_lhef_tree", "transverse_columns"]

BEAM_ETA = 999.9
"""What ExRootAnalysis writes for the (pseudo)rapidity of a particle along the beam."""

_BRANCHES = {
    "Event": "var * {Number: int64, Nparticles: int32, ProcessID: int32, Weight: float64, ScalePDF: float64, "
    "CouplingQED: float64, CouplingQCD: float64}",
    "Rwgt": "var * {Weight: float64}",
    "Particle": "var * {PID: int32, Status: int32, Mother1: int32, Mother2: int32, ColorLine1: int32, "
    "ColorLine2: int32, Px: float64, Py: float64, Pz: float64, E: float64, M: float64, PT: float64, Eta: "
    "float64, Phi: float64, Rapidity: float64, LifeTime: float64, Spin: float64}",
}


@contextmanager
def open_lhef_tree(path: Path) -> Iterator[Callable[[Mapping[str, ak.Array]], None]]:
    """Write an ``LHEF`` tree with the branches of ExRootLHEFConverter.

    Args:
        path: of the ROOT file.

    Yields:
        A function that appends events, given the lists ``Event``, ``Rwgt`` and ``Particle`` of `lists_of`.
        Each call makes one basket per branch.
    """
    # Opened here, since uproot takes :: in a name for a chain of file systems.
    with path.open("w+b") as stream, uproot.recreate(stream, compression=uproot.ZSTD(1)) as file:
        tree = file.mktree(
            "LHEF",
            _BRANCHES,
            title="Analysis tree",
            counter_name=lambda counted: counted + "_size",
            field_name=lambda outer, inner: f"{outer}/{outer}.{inner}" if outer else inner,
        )
        yield lambda columns: tree.extend(dict(columns))


def lists_of(fields: Mapping[str, npt.NDArray[np.generic]], counts: IntArray) -> ak.Array:
    """Return lists of records, of a type that allows any lengths.

    Args:
        fields: values of all events one after the other, each of shape ``(counts.sum(),)``.
        counts: length of the list of each event, shape ``(n_events,)``.
    """
    contents = [ak.contents.NumpyArray(np.ascontiguousarray(values)) for values in fields.values()]
    offsets = ak.index.Index64(np.concatenate([[0], np.cumsum(counts)]))
    records = ak.contents.RecordArray(contents, list(fields))
    return ak.Array(ak.contents.ListOffsetArray(offsets, records))


def transverse_columns(
    px: FloatArray, py: FloatArray, pz: FloatArray, mass: FloatArray
) -> dict[str, FloatArray]:
    """Return the members of a particle that follow from its momentum: ``PT``, ``Eta``, ``Phi``, ``Rapidity``.

    Args:
        px: components of the momentum in GeV, of any one shape.
        py: as above.
        pz: as above.
        mass: of the particle in GeV.
    """
    pt = np.hypot(px, py)
    beam = np.copysign(BEAM_ETA, pz)
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.where(pt > 0.0, np.arcsinh(pz / pt), beam)
        rapidity = np.where(pt > 0.0, np.arcsinh(pz / np.hypot(pt, mass)), beam)
    return {"PT": pt, "Eta": eta, "Phi": np.arctan2(py, px), "Rapidity": rapidity}
