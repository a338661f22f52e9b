"""Event files: Les Houches text (.lhe.gz) and the LHEF trees that ExRootAnalysis makes of it.

Both keep full double precision, cross-sections and weights in pb, and event weights that *average* to the
cross-section. Which one to use when: the ROOT tree is small, fast, and what the processors read; the text
is for parton showers and other programs.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import awkward as ak
import numpy as np
import numpy.typing as npt

from milanalysis.errors import AccountingError
from milanalysis.events.files.lhef_tree import lists_of, open_lhef_tree, transverse_columns
from milanalysis.files.provenance import atomic_path, write_json
from milanalysis.files.records import to_plain
from milanalysis.parameters import EFTPolynomial, FloatArray
from milanalysis.simulation.amplitudes import LAMBDA, MH, evaluate_polynomials
from milanalysis.simulation.generator import Events, EventSource

__all__ = ["SampleHeader", "write_lhe", "write_lhef_root"]

_PB_PER_FB = 1e-3
_ALPHA_QED, _ALPHA_QCD = 0.007561462, 0.12
"""Couplings that event files state; the matrix element uses none of them."""


@dataclass(frozen=True)
class _Layout:
    """The particles of an event in a file, in order; the two incoming quarks are in the order of the beams.

    Attributes:
        title: the process in words.
        members: for each particle the rows of `Events.momenta` whose sum is its momentum.
        pid: PDG numbers; 12 and -12 stand for neutrinos of the event's flavour.
        status: -1 incoming, 1 outgoing, 2 intermediate.
        mother_1: number of the first mother, from 1; 0 if there is none.
        mother_2: number of the last mother.
        colour: lines; exchanged W bosons swap the flavours, not the colours.
        spin: helicities, 9 if not known.
        mass: in GeV; NaN if it is another one in each event.
    """

    title: str
    members: tuple[tuple[int, ...], ...]
    pid: npt.NDArray[np.int32]
    status: npt.NDArray[np.int32]
    mother_1: npt.NDArray[np.int32]
    mother_2: npt.NDArray[np.int32]
    colour: npt.NDArray[np.int32]
    spin: FloatArray
    mass: FloatArray

    @classmethod
    def of(
        cls, title: str, rows: tuple[tuple[tuple[int, ...], int, int, int, int, int, float, float], ...]
    ) -> _Layout:
        """Make a layout from one row per particle: members, then the other attributes in their order."""
        members, *numbers, spin, mass = zip(*rows, strict=True)
        pid, status, mother_1, mother_2, colour = (np.array(column, dtype=np.int32) for column in numbers)
        return cls(
            title,
            members,
            pid,
            status,
            mother_1,
            mother_2,
            colour,
            np.array(spin, float),
            np.array(mass, float),
        )

    def __len__(self) -> int:
        return len(self.pid)


_LAYOUTS = {
    "hww": _Layout.of(
        "p p > u d h (W-boson fusion), h > e+ ve e- ve~",
        (
            ((0,), 2, -1, 0, 0, 501, -1, 0.0),
            ((1,), 1, -1, 0, 0, 502, -1, 0.0),
            ((2,), 2, 1, 1, 2, 502, -1, 0.0),
            ((3,), 1, 1, 1, 2, 501, -1, 0.0),
            ((4, 5, 6, 7), 25, 2, 1, 2, 0, 0, MH),
            ((4,), -11, 1, 5, 5, 0, 1, 0.0),
            ((5,), 12, 1, 5, 5, 0, -1, 0.0),
            ((6,), 11, 1, 5, 5, 0, -1, 0.0),
            ((7,), -12, 1, 5, 5, 0, 1, 0.0),
        ),
    ),
    "zz": _Layout.of(
        "p p > u d z z (electroweak), z > e+ e-, z > nu nu~",
        (
            ((0,), 2, -1, 0, 0, 501, 9, 0.0),
            ((1,), 1, -1, 0, 0, 502, 9, 0.0),
            ((2,), 2, 1, 1, 2, 502, 9, 0.0),
            ((3,), 1, 1, 1, 2, 501, 9, 0.0),
            ((4, 6), 23, 2, 1, 2, 0, 9, np.nan),
            ((5, 7), 23, 2, 1, 2, 0, 9, np.nan),
            ((4,), -11, 1, 5, 5, 0, 9, 0.0),
            ((6,), 11, 1, 5, 5, 0, 9, 0.0),
            ((5,), 12, 1, 6, 6, 0, -1, 0.0),
            ((7,), -12, 1, 6, 6, 0, 1, 0.0),
        ),
    ),
}


@dataclass(frozen=True)
class SampleHeader:
    """What an event file says about itself.

    Attributes:
        theta: value of cHW at which the events were generated.
        weight_points: values of cHW at which event weights are stored, in this order.
        cross_section_pb: within the generator cuts.
        cross_section_error_pb: its statistical error.
        beam_energy: of each proton [GeV].
        scale: factorisation scale [GeV].
        lhapdf_id: number of the parton densities in the LHAPDF collection.
        seed: root seed of the analysis.
        n_events: events in the file.
        rate: cross-section [fb] as a polynomial in cHW.
        overweight: part of the cross-section above the maximum weight, which the events miss.
        process: ``hww``, the signal, or ``zz``, the background.
    """

    theta: float
    weight_points: tuple[float, ...]
    cross_section_pb: float
    cross_section_error_pb: float
    beam_energy: float
    scale: float
    lhapdf_id: int
    seed: int
    n_events: int
    rate: EFTPolynomial
    overweight: float
    process: str = "hww"

    @classmethod
    def of_sample(
        cls, generator: EventSource, *, weight_points: Iterable[float], n_events: int, seed: int
    ) -> SampleHeader:
        """Return the header of a sample made by `generate_sample`."""
        densities = generator.densities
        return cls(
            theta=float(generator.theta),
            weight_points=tuple(float(point) for point in weight_points),
            cross_section_pb=float(generator.rate(generator.theta)) * _PB_PER_FB,
            cross_section_error_pb=float(generator.rate.error(generator.theta)) * _PB_PER_FB,
            beam_energy=float(generator.config.beam_energy),
            scale=densities.scale,
            lhapdf_id=densities.lhapdf_id,
            seed=seed,
            n_events=n_events,
            rate=generator.rate,
            overweight=generator.overweight,
            process=generator.process,
        )

    @property
    def layout(self) -> _Layout:
        """The particles of an event, in the order of the file."""
        return _LAYOUTS[self.process]

    def weights(self, polynomials: FloatArray) -> FloatArray:
        """Return the event weights [pb] at the weight points, shape ``(n_events, n_points)``."""
        nominal = evaluate_polynomials(polynomials, self.theta)
        ratios = evaluate_polynomials(polynomials, np.array(self.weight_points)) / nominal[:, None]
        return np.asarray(self.cross_section_pb * ratios)


def write_lhef_root(path: Path, blocks: Iterable[Events], header: SampleHeader) -> dict[str, Any]:
    """Write events as an ``LHEF`` tree, with the branches of ExRootLHEFConverter, and the header beside it.

    Every event has the weight ``cross_section_pb``; ``Rwgt.Weight`` holds the weights at the weight points.

    Args:
        path: of the ROOT file; the header goes to the same name with suffix ``.json``.
        blocks: of `generate_sample`; each becomes one basket per branch.
        header: of the sample.

    Returns:
        The header as written.

    Raises:
        AccountingError: if the number of events is not that of the header; then no file is written.
    """
    with atomic_path(path) as temporary:
        with open_lhef_tree(temporary) as append:
            n_written = 0
            for events in blocks:
                append(_columns(events, header, n_written))
                n_written += len(events)
        _check_complete(n_written, header)
        values: dict[str, Any] = to_plain(header)
        write_json(path.with_suffix(".json"), values)
    return values


def _check_complete(n_written: int, header: SampleHeader) -> None:
    """Refuse a file that holds other than the announced number of events."""
    if n_written != header.n_events:
        msg = (
            f"{n_written} events were given to be written and the header announces {header.n_events}; make "
            "the header with the n_events that generate_sample was called with"
        )
        raise AccountingError(msg)


def _columns(events: Events, header: SampleHeader, first: int) -> dict[str, ak.Array]:
    """Return the branches of a block, jagged as in the tree."""
    n = len(events)
    layout = header.layout
    flavours, colours, vectors, masses = _particles(events, layout)
    energy, px, py, pz = np.moveaxis(vectors, -1, 0)
    particle: dict[str, npt.ArrayLike] = {
        "PID": flavours,
        "Status": layout.status,
        "Mother1": layout.mother_1 - 1,
        "Mother2": layout.mother_2 - 1,
        "ColorLine1": colours,
        "ColorLine2": np.int32(0),
        "Px": px,
        "Py": py,
        "Pz": pz,
        "E": energy,
        "M": masses,
        **transverse_columns(px, py, pz, masses),
        "LifeTime": 0.0,
        "Spin": layout.spin,
    }
    event: dict[str, npt.ArrayLike] = {
        "Number": np.arange(first + 1, first + n + 1)[:, None],
        "Nparticles": np.int32(len(layout)),
        "ProcessID": np.int32(1),
        "Weight": header.cross_section_pb,
        "ScalePDF": header.scale,
        "CouplingQED": _ALPHA_QED,
        "CouplingQCD": _ALPHA_QCD,
    }
    weights = header.weights(events.polynomials)
    return {
        "Event": _jagged(event, (n, 1)),
        "Rwgt": _jagged({"Weight": weights}, weights.shape),
        "Particle": _jagged(particle, (n, len(layout))),
    }


def _jagged(fields: Mapping[str, npt.ArrayLike], shape: tuple[int, ...]) -> ak.Array:
    """Return lists of records, all of one length but of a type that allows others."""
    flat = {name: np.broadcast_to(np.asarray(values), shape).reshape(-1) for name, values in fields.items()}
    return lists_of(flat, np.full(shape[0], shape[1]))


def _particles(
    events: Events, layout: _Layout
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], FloatArray, FloatArray]:
    """Return PDG ids, colour lines, four-momenta ``(..., 4)`` and masses ``(n_events, n_particles)``."""
    n = len(events)
    vectors = np.stack([events.momenta[:, list(rows)].sum(axis=1) for rows in layout.members], axis=1)
    flavours, colours = np.tile(layout.pid, (n, 1)), np.tile(layout.colour, (n, 1))
    masses = np.tile(layout.mass, (n, 1))
    varying = np.isnan(layout.mass)
    squared = vectors[:, varying, 0] ** 2 - np.sum(vectors[:, varying, 1:] ** 2, axis=-1)
    masses[:, varying] = np.sqrt(np.maximum(squared, 0.0))
    if events.neutrino is not None:
        for sign in (1, -1):
            flavours[:, layout.pid == sign * 12] = sign * events.neutrino[:, None]
    swapped = events.u_beam == 2
    for columns in (flavours, colours, vectors):
        columns[swapped, :2] = columns[swapped, 1::-1]
    vectors[:, :2] += 0.0  # no negative zeros, whose azimuth would be pi
    return flavours, colours, vectors, masses


def write_lhe(path: Path, blocks: Iterable[Events], header: SampleHeader) -> None:
    """Write events in the Les Houches format, version 3, compressed with gzip.

    Numbers are written with as many digits as identify the double. The weights have the ids ``cHW_<value>``.

    Args:
        path: of the file, ending in ``.lhe.gz``. It appears only when all events are written.
        blocks: of `generate_sample`.
        header: of the sample.

    Raises:
        AccountingError: if the number of events is not that of the header; then no file is written.

    Source:
        hep-ph/0109068 (initialisation and events), hep-ph/0609017 (the file), arXiv:1405.1067 (weights).
    """
    with (
        atomic_path(path) as temporary,
        gzip.open(temporary, "wt", compresslevel=2, encoding="ascii", newline="\n") as file,
    ):
        n_written = 0
        file.write(_preamble(header))
        for events in blocks:
            n_written += len(events)
            for start in range(0, len(events), _TEXT_CHUNK):
                _write_events(file, events.take(slice(start, start + _TEXT_CHUNK)), header)
        file.write("</LesHouchesEvents>\n")
        _check_complete(n_written, header)


_TEXT_CHUNK = 1000
"""Events that are turned into text at a time."""


def _preamble(header: SampleHeader) -> str:
    """Return everything that stands before the first event."""
    weights = "\n".join(
        f'<weight id="{_weight_id(point)}"> cHW = {point!r}, Lambda = {LAMBDA / 1000.0:g} TeV </weight>'
        for point in header.weight_points
    )
    sigma, error = header.cross_section_pb, header.cross_section_error_pb
    beam = (
        f"2212 2212 {header.beam_energy!r} {header.beam_energy!r} 0 0 {header.lhapdf_id} {header.lhapdf_id} "
        "-4 1"
    )
    above_maximum = f"Part of it above the maximum weight: {header.overweight:.1e}."
    return f"""<LesHouchesEvents version="3.0">
<header>
<!--
{header.layout.title}, cHW = {header.theta!r}; made by milanalysis, seed {header.seed}.
The weights of an event average to the cross-section in pb. {above_maximum}
-->
<initrwgt>
<weightgroup name="cHW" combine="none">
{weights}
</weightgroup>
</initrwgt>
</header>
<init>
{beam}
{sigma!r} {error!r} {sigma!r} 1
</init>
"""


def _weight_id(point: float) -> str:
    """Return the name of an event weight, for example ``cHW_-0.5``."""
    return f"cHW_{point!r}".removesuffix(".0")


def _write_events(file: TextIO, events: Events, header: SampleHeader) -> None:
    """Write a few events: a template filled with all the numbers at once."""
    layout = header.layout
    flavours, colours, vectors, masses = _particles(events, layout)
    varying = np.isnan(layout.mass)
    momenta = np.concatenate([np.roll(vectors, -1, axis=-1), masses[..., None]], axis=-1)  # px, py, pz, E, m
    written = np.ones((len(layout), 5), dtype=np.bool_)
    written[:, 4] = varying
    numbers = np.concatenate([momenta[:, written], header.weights(events.polynomials)], axis=1).tolist()
    kinds, which = np.unique(np.concatenate([flavours, colours], axis=1), axis=0, return_inverse=True)
    templates = [_template(kind[: len(layout)], kind[len(layout) :], header) for kind in kinds]
    texts = (templates[kind] for kind in which.ravel().tolist())
    file.write("".join(text % tuple(row) for text, row in zip(texts, numbers, strict=True)))


def _template(flavours: npt.NDArray[np.int32], colours: npt.NDArray[np.int32], header: SampleHeader) -> str:
    """Return the text of an event with ``%r`` for each number: momenta of the particles, then weights."""
    layout = header.layout
    lines = [
        "<event>",
        f"{len(layout)} 1 {header.cross_section_pb!r} {header.scale!r} {_ALPHA_QED!r} {_ALPHA_QCD!r}",
    ]
    masses = ["%r" if np.isnan(mass) else f"{mass:.16g}" for mass in layout.mass]
    columns = zip(
        flavours, layout.status, layout.mother_1, layout.mother_2, colours, masses, layout.spin, strict=True
    )
    lines += [
        f"{pid} {status} {mother_1} {mother_2} {colour} 0 %r %r %r %r {mass} 0. {spin:g}"
        for pid, status, mother_1, mother_2, colour, mass, spin in columns
    ]
    lines.append("<rwgt>")
    lines += [f'<wgt id="{_weight_id(point)}"> %r </wgt>' for point in header.weight_points]
    lines += ["</rwgt>", "</event>", ""]
    return "\n".join(lines)
