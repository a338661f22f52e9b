"""Leptons, jets and missing momentum in one form, whatever file they come from.

At parton level (``LHEF`` trees) the jets are the final-state quarks and nothing is lost; at detector level
(Delphes) they are what was reconstructed. A processor asks for `read_objects` and goes on with vectors that
have ``pt``, ``eta``, ``phi``, ``px``, ``energy``, ``deltaR``, sums and so on, in GeV and radians and in
double precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import awkward as ak
import numpy as np
import numpy.typing as npt
import vector

from milanalysis.config import DelphesFormatConfig, LHEFFormatConfig
from milanalysis.errors import InputFileError
from milanalysis.parameters import FloatArray, IntArray

__all__ = ["Objects", "hardest_first", "isolated_from", "object_branches", "read_objects"]

BoolArray = npt.NDArray[np.bool_]

_LEPTON, _QUARK, _OTHER = 1, 2, 3
_LARGEST_PID = 64
_READING_THREADS = 2


@dataclass(frozen=True, eq=False)
class Objects:
    """What is known of each event of a chunk.

    Attributes:
        level: ``"parton"`` (matrix element) or ``"detector"`` (reconstructed).
        leptons: electrons and muons, shape ``(n_events, any)``: vectors with ``PID`` (11, -11, 13, -13) and
            ``Mass`` as in the file; at detector level with ``isolation``, the transverse momentum around a
            lepton relative to its own.
        jets: in the same form; the quarks with their ``PID`` at parton level; with ``btag`` (0 or 1) and
            without ``PID`` at detector level.
        missing: missing transverse momentum, ``pt`` and ``phi``, shape ``(n_events,)``.
        finite: whether all momenta of an event are finite numbers and no object points along the beam, shape
            ``(n_events,)``.
    """

    level: Literal["parton", "detector"]
    leptons: ak.Array
    jets: ak.Array
    missing: ak.Array
    finite: BoolArray


def read_objects(events: Any) -> Objects:
    """Return the objects of a chunk, from the collections that ``events.metadata["format"]`` names.

    Raises:
        InputFileError: if a Delphes event does not have exactly one missing momentum.
    """
    source = dict(events.metadata["format"])
    if source["kind"] == "lhef":
        return _partons(events)
    return _reconstructed(events, source)


def object_branches(source: LHEFFormatConfig | DelphesFormatConfig) -> tuple[str, ...]:
    """Return the branches that `read_objects` and the nominal weight need."""
    if isinstance(source, LHEFFormatConfig):
        return (
            "Event.Weight",
            *(f"Particle.{name}" for name in ("PID", "Status", "Px", "Py", "Pz", "E", "M")),
        )
    leptons = [
        f"{collection}.{name}"
        for collection in (source.electrons, source.muons)
        if collection is not None
        for name in ("PT", "Eta", "Phi", "Charge", "IsolationVar")
    ]
    jets = [f"{source.jets}.{name}" for name in ("PT", "Eta", "Phi", "Mass", "BTag")]
    return ("Event.Weight", *leptons, *jets, f"{source.missing}.MET", f"{source.missing}.Phi")


def hardest_first(particles: ak.Array) -> ak.Array:
    """Return the particles of each event in descending order of transverse momentum."""
    return particles[ak.argsort(particles.pt, axis=1, ascending=False)]


def isolated_from(particles: ak.Array, others: ak.Array, delta_r: float) -> ak.Array:
    """Say of each particle whether all others of its event are at least ``delta_r`` away in eta and phi.

    Args:
        particles: vectors, shape ``(n_events, any)``.
        others: vectors in the same events, such as leptons that jets must not overlap with.
        delta_r: distance.

    Returns:
        Booleans of the shape of ``particles``.
    """
    one, other = ak.unzip(ak.cartesian([particles, others], axis=1, nested=True))
    return ak.all(one.deltaR(other) >= delta_r, axis=2)


def _partons(events: Any) -> Objects:
    """Return the charged leptons and quarks of the final state; their momentum imbalance is missing."""
    particles = events.Particle
    n_events = len(particles)
    names = {"PID": "PID", "px": "x", "py": "y", "pz": "z", "energy": "t", "Mass": "Mass", "Status": "Status"}
    weights = [events.Rwgt.Weight] if events.metadata.get("weight_points") and "Rwgt" in events.fields else []
    flat = dict(zip(names, _read([particles[name] for name in names.values()], weights), strict=True))
    kind = _kinds(flat["PID"]) * (flat.pop("Status") == 1)
    event = _events_of(particles)
    finite = np.ones(n_events, dtype=bool)
    missing = {name: np.zeros(n_events) for name in ("px", "py")}
    vectors = {}
    for which in (_LEPTON, _QUARK, _OTHER):
        rows = np.flatnonzero(kind == which)
        columns = {name: values[rows] for name, values in flat.items()}
        place = event[rows]
        vectors[which] = _vectors(columns, place, n_events)
        for name in missing:
            missing[name] -= _sum_by_event(columns[name], place, n_events)
        transverse = columns["px"] ** 2 + columns["py"] ** 2
        good = np.isfinite(transverse + columns["pz"] + columns["energy"]) & (transverse > 0)
        finite &= _none_of(~good, place, n_events)
    return Objects("parton", vectors[_LEPTON], vectors[_QUARK], _named(missing, "Momentum2D"), finite)


def _kinds(pid: IntArray) -> npt.NDArray[np.int8]:
    """Say of each particle what an experiment would call it: lepton, quark, other, invisible (0)."""
    table = np.full(_LARGEST_PID + 1, _OTHER, dtype=np.int8)
    table[[11, 13]] = _LEPTON
    table[1:7] = _QUARK
    table[[12, 14, 16]] = 0
    table = np.concatenate([table[:0:-1], table])
    return np.take(table, pid + _LARGEST_PID, mode="clip")


def _reconstructed(events: Any, source: Mapping[str, Any]) -> Objects:
    """Return electrons and muons, jets, and missing momentum of a Delphes tree."""
    n_events = len(events)
    lepton_columns = []
    for name, pid in ((source["electrons"], 11), (source["muons"], 13)):
        if name is not None:
            collection = events[name]
            columns = _polar(collection)
            columns["PID"] = -pid * _flat(collection.Charge).astype(np.int64)
            columns["Mass"] = np.zeros(len(columns["PID"]))  # Delphes stores none
            columns["isolation"] = _flat(collection.IsolationVar).astype(np.float64)
            lepton_columns.append((columns, _events_of(collection)))
    event = np.concatenate([event for _, event in lepton_columns])
    in_order = np.argsort(event, kind="stable")
    leptons = {
        name: np.concatenate([columns[name] for columns, _ in lepton_columns])[in_order]
        for name in lepton_columns[0][0]
    }
    leptons["mass"] = leptons["Mass"]
    collection = events[source["jets"]]
    jets = _polar(collection)
    jets["mass"] = jets["Mass"] = _flat(collection.Mass).astype(np.float64)
    jets["btag"] = _flat(collection.BTag) & 1
    met = events[source["missing"]]
    if not ak.all(ak.num(met) == 1):
        msg = (
            f"{events.metadata['filename']} has events without exactly one {source['missing']}; name the "
            "collection of the missing momentum under format: missing"
        )
        raise InputFileError(msg)
    missing = {"pt": _flat(met.MET).astype(np.float64), "phi": _flat(met.Phi).astype(np.float64)}
    finite = np.isfinite(missing["pt"] + missing["phi"])
    for columns, place in ((leptons, event[in_order]), (jets, _events_of(collection))):
        total = columns["pt"] + columns["eta"] + columns["phi"] + columns["mass"]
        finite &= _none_of(~(np.isfinite(total) & (columns["pt"] > 0)), place, n_events)
    return Objects(
        "detector",
        _vectors(leptons, event[in_order], n_events),
        _vectors(jets, _events_of(collection), n_events),
        _named(missing, "Momentum2D"),
        finite,
    )


def _polar(collection: ak.Array) -> dict[str, npt.NDArray[Any]]:
    """Return transverse momentum and direction of the objects of a Delphes collection."""
    members = {"pt": "PT", "eta": "Eta", "phi": "Phi"}
    return {name: _flat(collection[member]).astype(np.float64) for name, member in members.items()}


def _read(columns: Sequence[ak.Array], ahead: Sequence[ak.Array] = ()) -> list[npt.NDArray[Any]]:
    """Return the numbers of columns; those not read yet are decompressed two at a time.

    Args:
        columns: lists of one collection.
        ahead: columns that somebody will ask for soon.
    """
    first, *others = columns
    numbers = [_flat(first)]  # alone, since it also reads what all columns share
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        numbers += pool.map(_flat, [*others, *ahead])
    return numbers[: len(columns)]


def _flat(values: ak.Array) -> npt.NDArray[Any]:
    """Return the numbers of all events one after the other."""
    return np.asarray(ak.to_numpy(ak.flatten(values, axis=1)))


def _events_of(collection: ak.Array) -> IntArray:
    """Return the row of the event that each object belongs to."""
    return np.repeat(np.arange(len(collection)), ak.to_numpy(ak.num(collection)))


def _sum_by_event(values: FloatArray, event: IntArray, n_events: int) -> FloatArray:
    """Return the sum of each event, added up in the order of the file."""
    total: FloatArray = np.bincount(event, weights=values, minlength=n_events).astype(np.float64, copy=False)
    return total


def _none_of(flags: BoolArray, event: IntArray, n_events: int) -> BoolArray:
    """Say of each event whether it has no flagged object."""
    none = np.ones(n_events, dtype=bool)
    none[event[flags]] = False
    return none


def _vectors(columns: Mapping[str, npt.NDArray[Any]], event: IntArray, n_events: int) -> ak.Array:
    """Return lists of momenta per event."""
    return ak.unflatten(_named(columns, "Momentum4D"), np.bincount(event, minlength=n_events))


def _named(columns: Mapping[str, npt.NDArray[Any]], name: str) -> ak.Array:
    """Return an array of vectors."""
    return ak.zip(dict(columns), with_name=name, behavior=vector.backends.awkward.behavior)
