"""Nominal weights of whole files: their mean and its error, and what they cannot mean.

They are read once, one column of the tree, before any event is selected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, reduce

import awkward as ak
import numpy as np
import uproot

from milanalysis.errors import EventWeightError, UnreadableEventsError
from milanalysis.events.files.root_files import FB_PER_PB, LOCAL, UNCACHED, InputFile
from milanalysis.events.files.samples import Sample

__all__ = ["NominalWeights", "negative_weights", "nominal_weights", "weight_problem", "weight_warnings"]

_EVENTS_AT_A_TIME = 1_000_000
_EQUAL = 1e-5
"""Relative spread below which weights are equal but for rounding."""
_ROUNDING, _SIGMAS = 0.02, 5.0
"""Relative difference and standard errors by which cross-sections of files of one sample may differ."""
_EXACTLY = 1e-6
"""Relative distance below which a cross-section counts as exactly 1 pb; none in nature is."""


@dataclass(frozen=True)
class NominalWeights:
    """Summary of the finite nominal weights of some events, as they are in the file.

    Attributes:
        n_events: number of events.
        n_finite: those of them with a finite weight.
        total: sum of the weights.
        squares: sum of their squares.
        smallest: of the weights.
        largest: of the weights.
        closest_to_zero: smallest absolute weight.
        n_negative: events with a negative weight.
    """

    n_events: int = 0
    n_finite: int = 0
    total: float = 0.0
    squares: float = 0.0
    smallest: float = math.inf
    largest: float = -math.inf
    closest_to_zero: float = math.inf
    n_negative: int = 0

    def __add__(self, other: NominalWeights) -> NominalWeights:
        return NominalWeights(
            self.n_events + other.n_events,
            self.n_finite + other.n_finite,
            self.total + other.total,
            self.squares + other.squares,
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
            min(self.closest_to_zero, other.closest_to_zero),
            self.n_negative + other.n_negative,
        )

    @property
    def variance_of_sum(self) -> float:
        """Variance of the sum, the number of events being given: ``n (<w^2> - <w>^2)``."""
        if self.n_finite == 0:
            return 0.0
        return max(self.squares - self.total**2 / self.n_finite, 0.0)

    @property
    def largest_absolute(self) -> float:
        """Largest absolute weight."""
        return max(abs(self.smallest), abs(self.largest)) if self.n_finite else 0.0

    @property
    def are_equal(self) -> bool:
        """Whether all weights are the same but for rounding."""
        return self.n_finite == 0 or self.largest - self.smallest <= _EQUAL * self.largest_absolute

    @property
    def are_units(self) -> bool:
        """Whether all weights are 1, or 1 and -1."""
        return self.n_finite > 0 and self.largest_absolute == 1.0 == self.closest_to_zero


@lru_cache(maxsize=4096)
def nominal_weights(file: InputFile) -> NominalWeights:
    """Read the nominal weights of a file.

    Raises:
        EventWeightError: if an event has no weight, or several.
        UnreadableEventsError: if they cannot be read.
    """
    found = NominalWeights()
    n_odd = 0
    try:
        with uproot.open({str(file.path): file.tree}, **UNCACHED, **LOCAL) as tree:
            names = [name for name in tree.keys() if name.split("/")[-1] == "Event.Weight"]  # noqa: SIM118
            for start in range(0, file.n_events, _EVENTS_AT_A_TIME):
                column = tree[names[0]].array(entry_start=start, entry_stop=start + _EVENTS_AT_A_TIME)
                if column.ndim > 1:
                    n_odd += int(ak.sum(ak.num(column) != 1))
                    column = ak.flatten(column)
                found += _of_column(np.asarray(ak.to_numpy(column), dtype=np.float64))
    except Exception as error:  # uproot raises whatever the damaged bytes happen to cause
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        msg = (
            f"{file.path}: Event.Weight cannot be read: the file is damaged ({reason:.150}). Copy or produce "
            "it again"
        )
        raise UnreadableEventsError(file.path, msg) from error
    if n_odd:
        msg = (
            f"{file.path}: {n_odd} of {file.n_events} events do not have exactly one Event record, so that "
            "they have no weight of their own; produce the file again, with one Event (and one "
            "Event.Weight) for each entry"
        )
        raise EventWeightError(msg)
    return found


def _of_column(weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> NominalWeights:
    """Return what is known of weights, shape ``(n_events,)``."""
    finite = weights[np.isfinite(weights)]
    if len(finite) == 0:
        return NominalWeights(len(weights))
    return NominalWeights(
        len(weights),
        len(finite),
        float(finite.sum()),
        float(finite @ finite),
        float(finite.min()),
        float(finite.max()),
        float(np.abs(finite).min()),
        int((finite < 0).sum()),
    )


def weight_problem(sample: Sample) -> str | None:
    """Say what the nominal weights of a sample cannot mean; None if there is nothing.

    The events of an observed sample count as one each, so their weights have to be equal within a file.
    Weights of simulation that are all 1, or that add up to exactly 1 pb, are counts or normalised to one,
    unless somebody says that this is the cross-section.

    Raises:
        EventWeightError, UnreadableEventsError: as `nominal_weights`.
    """
    by_file = [nominal_weights(file) for file in sample.files]
    every = reduce(NominalWeights.__add__, by_file, NominalWeights())
    if every.n_events == 0:
        return None
    if sample.role == "observed":
        for file, found in zip(sample.files, by_file, strict=True):
            if not found.are_equal:
                return (
                    f"sample {sample.name!r}: role: observed, and the nominal weights of {file.path} go from "
                    f"{found.smallest:g} to {found.largest:g} (their sum is that of {_effective(found):.3g} "
                    f"events of equal weight, and {found.n_finite} would be counted); observed events count "
                    "as one each, weights of theirs are not used. Give real or unweighted events, or "
                    "generate a dataset from the weights first"
                )
        return None
    if every.n_finite == 0:
        return (
            f"sample {sample.name!r}: none of its {every.n_events} nominal weights is a finite number; "
            "produce it again"
        )
    units = [file.path for file, found in zip(sample.files, by_file, strict=True) if found.are_units]
    others = [
        file.path
        for file, found in zip(sample.files, by_file, strict=True)
        if found.n_finite and not found.are_units
    ]
    if units and others:
        return (
            f"sample {sample.name!r}: the nominal weights of {units[0]} are all 1 and those of {others[0]} "
            "are not, so that they do not mean the same; make a sample of each kind"
        )
    if every.largest_absolute == 0.0:
        return (
            f"sample {sample.name!r}: all nominal weights are 0, so that its events stand for nothing; "
            "produce it again"
        )
    if sample.normalisation == "unit" or sample.expected_cross_section_fb is not None:
        return None
    total = sum(
        found.total * sample.fb_per_weight(file) for file, found in zip(sample.files, by_file, strict=True)
    )
    if every.are_units:
        what = f"all weights of sample {sample.name!r} are {'1' if every.smallest > 0 else '1 or -1'}"
    elif abs(total - FB_PER_PB) <= _EXACTLY * FB_PER_PB:
        what = f"the weights of sample {sample.name!r} are normalised to 1"
    else:
        return None
    return (
        f"{what} and no cross-section is known, and normalisation: {sample.normalisation} would take them "
        f"for {total:g} fb; give normalisation: unit and cross_section_fb under samples.{sample.name} (if "
        f"the cross-section really is {total:g} fb, give it as cross_section_fb)"
    )


def negative_weights(sample: Sample) -> str | None:
    """Describe the negative nominal weights of a simulated sample and their effect; None without any.

    Tables, cutflows and yields keep their signs. Bags and pseudo-experiments are drawn with probabilities in
    proportion to the weights, so nothing can be trained on such events or tested with them.

    Raises:
        EventWeightError, UnreadableEventsError: as `nominal_weights`.
    """
    every = reduce(NominalWeights.__add__, map(nominal_weights, sample.files), NominalWeights())
    if sample.role == "observed" or not every.n_negative:
        return None
    return (
        f"{every.n_negative} of {every.n_finite} nominal weights are negative "
        f"({every.n_negative / every.n_finite:.2%}). The cutflow and the expected yield keep their signs; "
        "networks cannot be trained on them and pseudo-experiments cannot be drawn from them, since a "
        "probability is not negative. For these give leading-order events, or events whose weights have "
        "been resampled to positive ones"
    )


def _effective(weights: NominalWeights) -> float:
    """Return the sum of the weights in units of the largest one."""
    return weights.total / weights.largest_absolute


def weight_warnings(sample: Sample) -> list[str]:
    """Say what cannot be checked about the weights of a sample."""
    warnings = []
    if sample.order is not None:
        warnings.append(
            f"the order of weight_points cannot be checked: {sample.order}. Give them by name "
            "(weight_points: {name: value}, with the names in the JSON file beside the ROOT file or under "
            "weight_names)"
        )
    if sample.role == "observed":
        means = [
            found.total / found.n_finite for found in map(nominal_weights, sample.files) if found.n_finite
        ]
        if means and max(means) - min(means) > _EQUAL * max(map(abs, means)):
            warnings.append(
                f"the nominal weights of its files differ (from {min(means):g} to {max(means):g}); weights "
                "of observed events are not used, each event counts as one"
            )
    elif sample.normalisation in ("mean", "file_sum"):
        warnings += _disagreement(sample)
    unknown = [file.unknown_cross_section for file in sample.files if file.unknown_cross_section]
    if unknown and sample.cross_section_fb is None and sample.role != "observed":
        others = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        warnings.append(
            f"the cross-section is not known ({unknown[0]}{others}), so the weights are not checked against "
            "it; cross_section_fb states it"
        )
    negative = negative_weights(sample)
    return warnings if negative is None else [*warnings, negative]


def _disagreement(sample: Sample) -> list[str]:
    """Name the file whose weights give a cross-section inconsistent with that of all files."""
    by_file = [(file, nominal_weights(file)) for file in sample.files if file.n_events]
    if len(by_file) < 2:
        return []
    sections, errors = np.array(
        [
            (found.total, math.sqrt(found.variance_of_sum))
            if sample.normalisation == "file_sum"
            else (found.total / file.n_events, math.sqrt(found.variance_of_sum) / file.n_events)
            for file, found in by_file
        ]
    ).T
    share = np.array([file.n_events for file, _ in by_file]) / sample.n_events
    mean, error = float(share @ sections), float(np.linalg.norm(share * errors))
    off = np.abs(sections - mean) > _ROUNDING * abs(mean) + _SIGMAS * (errors + error)
    if not off.any():
        return []
    first = int(np.argmax(off))
    text = (
        f"the weights of {by_file[first][0].path} alone give {FB_PER_PB * sections[first]:g} fb and those of "
        f"all files {FB_PER_PB * mean:g} fb; files of one sample should be of one process with one "
        "normalisation"
    )
    return [text]
