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
from milanalysis.events.lhef import lists_of, open_lhef_tree, transverse_columns
from milanalysis.parameters import EFTPolynomial, FloatArray
from milanalysis.provenance import atomic_path, write_json
from milanalysis.simulation.amplitudes import LAMBDA, MH, evaluate_polynomials
from milanalysis.simulation.generator import Events, Generator

__all__ = ["SampleHeader", "write_lhe", "write_lhef_root"]

_PB_PER_FB = 1e-3
_ALPHA_QED, _ALPHA_QCD = 0.007561462, 0.12
"""Couplings that event files state; the matrix element uses none of them."""

# The particles of an event: the two incoming quarks are in the order of the beams.
_PID = np.array([2, 1, 2, 1, 25, -11, 12, 11, -12], dtype=np.int32)
_STATUS = np.array([-1, -1, 1, 1, 2, 1, 1, 1, 1], dtype=np.int32)
_MOTHER_1 = np.array([0, 0, 1, 1, 1, 5, 5, 5, 5], dtype=np.int32)
_MOTHER_2 = np.array([0, 0, 2, 2, 2, 5, 5, 5, 5], dtype=np.int32)
_COLOUR = np.array([501, 502, 502, 501, 0, 0, 0, 0, 0], dtype=np.int32)
_SPIN = np.array([-1, -1, -1, -1, 0, 1, -1, -1, 1], dtype=np.float64)
_MASS = np.array([0, 0, 0, 0, MH, 0, 0, 0, 0], dtype=np.float64)
_N_PARTICLES = len(_PID)


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

    @classmethod
    def of_sample(
        cls, generator: Generator, *, weight_points: Iterable[float], n_events: int, seed: int
    ) -> SampleHeader:
        """Return the header of a sample made by `generate_sample`."""
        densities = generator.densities
        return cls(
            theta=float(generator.theta),
            weight_points=tuple(float(point) for point in weight_points),
            cross_section_pb=generator.cross_section_fb * _PB_PER_FB,
            cross_section_error_pb=generator.cross_section_error_fb * _PB_PER_FB,
            beam_energy=float(generator.config.beam_energy),
            scale=densities.scale,
            lhapdf_id=densities.lhapdf_id,
            seed=seed,
            n_events=n_events,
            rate=generator.rate,
            overweight=generator.overweight,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        return {
            **self.__dict__,
            "weight_points": list(self.weight_points),
            "rate": self.rate.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SampleHeader:
        """Make a header from what `to_dict` returned."""
        changed = {
            "weight_points": tuple(values["weight_points"]),
            "rate": EFTPolynomial.from_dict(values["rate"]),
        }
        return cls(**{**values, **changed})

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
        values = header.to_dict()
        write_json(path.with_suffix(".json"), values)
    return values


def _check_complete(n_written: int, header: SampleHeader) -> None:
    """Refuse a file that holds other than the announced number of events."""
    if n_written != header.n_events:
        msg = (
            f"{n_written} events were given to be written and the header announces {header.n_events}; "
            "make the header with the n_events that generate_sample was called with"
        )
        raise AccountingError(msg)


def _columns(events: Events, header: SampleHeader, first: int) -> dict[str, ak.Array]:
    """Return the branches of a block, jagged as in the tree."""
    n = len(events)
    flavours, colours, vectors = _particles(events)
    energy, px, py, pz = np.moveaxis(vectors, -1, 0)
    particle: dict[str, npt.ArrayLike] = {
        "PID": flavours,
        "Status": _STATUS,
        "Mother1": _MOTHER_1 - 1,
        "Mother2": _MOTHER_2 - 1,
        "ColorLine1": colours,
        "ColorLine2": np.int32(0),
        "Px": px,
        "Py": py,
        "Pz": pz,
        "E": energy,
        "M": _MASS,
        **transverse_columns(px, py, pz, _MASS),
        "LifeTime": 0.0,
        "Spin": _SPIN,
    }
    event: dict[str, npt.ArrayLike] = {
        "Number": np.arange(first + 1, first + n + 1)[:, None],
        "Nparticles": np.int32(_N_PARTICLES),
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
        "Particle": _jagged(particle, (n, _N_PARTICLES)),
    }


def _jagged(fields: Mapping[str, npt.ArrayLike], shape: tuple[int, ...]) -> ak.Array:
    """Return lists of records, all of one length but of a type that allows others."""
    flat = {name: np.broadcast_to(np.asarray(values), shape).reshape(-1) for name, values in fields.items()}
    return lists_of(flat, np.full(shape[0], shape[1]))


def _particles(events: Events) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], FloatArray]:
    """Return PDG ids ``(n, 9)``, colour lines ``(n, 9)`` and four-momenta ``(n, 9, 4)`` in the order of the file."""
    n = len(events)
    leptons = events.momenta[:, 4:]
    higgs = leptons.sum(axis=1, keepdims=True)
    vectors = np.concatenate([events.momenta[:, :4], higgs, leptons], axis=1)
    flavours, colours = np.tile(_PID, (n, 1)), np.tile(_COLOUR, (n, 1))
    swapped = events.u_beam == 2
    for columns in (flavours, colours, vectors):
        columns[swapped, :2] = columns[swapped, 1::-1]
    vectors[:, :2] += 0.0  # no negative zeros, whose azimuth would be pi
    return flavours, colours, vectors


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
    beam = f"2212 2212 {header.beam_energy!r} {header.beam_energy!r} 0 0 {header.lhapdf_id} {header.lhapdf_id} -4 1"
    return f"""<LesHouchesEvents version="3.0">
<header>
<!--
p p > u d h (W-boson fusion), h > e+ ve e- ve~, cHW = {header.theta!r}; made by milanalysis, seed {header.seed}.
The weights of an event average to the cross-section in pb. Part of it above the maximum weight: {header.overweight:.1e}.
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
    flavours, colours, vectors = _particles(events)
    momenta = np.roll(vectors, -1, axis=-1).reshape(len(events), -1)  # px, py, pz, E
    numbers = np.concatenate([momenta, header.weights(events.polynomials)], axis=1).tolist()
    templates = {
        beam: _template(flavours[events.u_beam == beam], colours[events.u_beam == beam], header)
        for beam in (1, 2)
        if np.any(events.u_beam == beam)
    }
    texts = (templates[beam] for beam in events.u_beam.tolist())
    file.write("".join(text % tuple(row) for text, row in zip(texts, numbers, strict=True)))


def _template(flavours: npt.NDArray[np.int32], colours: npt.NDArray[np.int32], header: SampleHeader) -> str:
    """Return the text of an event with ``%r`` for each number: momenta of the particles, then weights."""
    lines = [
        "<event>",
        f"{_N_PARTICLES} 1 {header.cross_section_pb!r} {header.scale!r} {_ALPHA_QED!r} {_ALPHA_QCD!r}",
    ]
    columns = zip(flavours[0], _STATUS, _MOTHER_1, _MOTHER_2, colours[0], _MASS, _SPIN, strict=True)
    lines += [
        f"{pid} {status} {mother_1} {mother_2} {colour} 0 %r %r %r %r {mass:.16g} 0. {spin:g}"
        for pid, status, mother_1, mother_2, colour, mass, spin in columns
    ]
    lines.append("<rwgt>")
    lines += [f'<wgt id="{_weight_id(point)}"> %r </wgt>' for point in header.weight_points]
    lines += ["</rwgt>", "</event>", ""]
    return "\n".join(lines)
