"""Samples: the files that belong together, looked into before any work starts, and what their events mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from coffea.processor.executor import WorkItem

from milanalysis.config import DelphesFormatConfig, LHEFFormatConfig, Normalisation
from milanalysis.errors import EventWeightError, InputFileError
from milanalysis.events.event_weights import HIGHEST_DEGREE
from milanalysis.events.files.root_files import (
    FB_PER_PB,
    InputFile,
    SkippedFile,
    open_root_file,
    read_description,
)
from milanalysis.events.files.weight_names import (
    names_of_weights,
    places_of_weights,
    points_in_order,
    unchecked_order,
)
from milanalysis.events.objects import object_branches

__all__ = ["InputFile", "Role", "Sample", "SkippedFile", "open_sample", "weight_branch"]

Role = Literal["simulation", "observed", "background"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Files that belong together, and what their events mean.

    Attributes:
        name: of the sample.
        files: in order; the table has the events in this order.
        source: format of the files.
        theta: parameter point of the nominal weight; None if it is not known.
        weight_points: value of the coefficient for each weight beside the nominal one, in the order of the
            file; None for weights that are to be ignored; empty to ignore all of them.
        variations: for each uncertainty the places of its weights up and down in that order, counting from 0.
        normalisation: what the nominal weights add up to.
        cross_section_fb: cross-section that the user states; None if it is not stated.
        seed: root seed of the analysis, for the split.
        split: fractions of train, validation and test.
        skipped: files that are left out.
        role: of the sample in the analysis; None if there is none.
        order: why a wrong order of the weight points would not be noticed; None if it would.
        degree: of the polynomial in the coefficient that event weights lie on.
    """

    name: str
    files: tuple[InputFile, ...]
    source: LHEFFormatConfig | DelphesFormatConfig
    theta: tuple[float, ...] | None
    weight_points: tuple[float | None, ...]
    variations: Mapping[str, tuple[int, int]]
    normalisation: Normalisation
    cross_section_fb: float | None
    seed: int
    split: tuple[float, float, float]
    skipped: tuple[SkippedFile, ...] = ()
    role: Role | None = None
    order: str | None = None
    degree: int = HIGHEST_DEGREE

    @property
    def n_events(self) -> int:
        """Number of events in all files."""
        return sum(file.n_events for file in self.files)

    @property
    def expected_cross_section_fb(self) -> float | None:
        """Cross-section that the weights should give, from the user or the JSON files; None if unknown."""
        if self.cross_section_fb is not None:
            return self.cross_section_fb
        known = [(file.cross_section_fb, file.n_events) for file in self.files if file.n_events]
        n_events = sum(n for _, n in known)
        if not known or any(value is None for value, _ in known):
            return None
        return sum((value or 0.0) * n for value, n in known) / n_events

    @property
    def described(self) -> Sample | None:
        """The files whose JSON files give the expected cross-section; None if there are none."""
        files = tuple(file for file in self.files if file.n_events and file.cross_section_fb is not None)
        return replace(self, files=files, cross_section_fb=None) if files else None

    @property
    def described_error_fb(self) -> float:
        """Standard error of the cross-section of `described`, as the JSON files say it; 0 if they do not."""
        known = [file for file in self.files if file.n_events and file.cross_section_fb is not None]
        n_events = sum(file.n_events for file in known)
        return sum(file.cross_section_error_fb * file.n_events for file in known) / max(n_events, 1)

    def fb_per_weight(self, file: InputFile) -> float:
        """Return what turns a nominal weight of a file into the cross-section in fb the event stands for."""
        total = max(self.n_events, 1)
        if self.normalisation == "sum":
            return FB_PER_PB
        if self.normalisation == "file_sum":
            return FB_PER_PB * file.n_events / total
        if self.normalisation == "unit":
            return (self.cross_section_fb or 0.0) / total
        return FB_PER_PB / total

    def metadata(self, file: InputFile, scratch: Path | None) -> dict[str, Any]:
        """Return what a processor finds in ``events.metadata`` beside coffea's own keys."""
        return {
            "sample": self.name,
            "file_number": file.number,
            "format": asdict(self.source),
            "theta": None if self.theta is None else list(self.theta),
            "weight_points": list(self.weight_points),
            "degree": self.degree,
            "variations": {name: list(pair) for name, pair in self.variations.items()},
            "fb_per_weight": self.fb_per_weight(file),
            "seed": self.seed,
            "split": list(self.split),
            "scratch": None if scratch is None else str(scratch),
        }

    def work_items(self, chunk_size: int, scratch: Path | None, multiple: int = 1) -> list[WorkItem]:
        """Cut the files into chunks ``[0, size), [size, 2 size), ...``.

        A file without events is one chunk without events, so that its table has its columns.

        Args:
            chunk_size: largest number of events per chunk.
            scratch: directory for parts, or None.
            multiple: chunks begin at multiples of this number of events of a file.

        Raises:
            ValueError: if a chunk is too small for ``multiple``.
        """
        size = chunk_size // multiple * multiple
        if size == 0:
            msg = f"chunks of {chunk_size} events cannot begin at multiples of {multiple}; enlarge chunk_size"
            raise ValueError(msg)
        return [
            WorkItem(
                self.name,
                str(file.path),
                file.tree,
                start,
                min(start + size, file.n_events),
                file.uuid,
                self.metadata(file, scratch),
            )
            for file in self.files
            for start in range(0, max(file.n_events, 1), size)
        ]

    def without(self, path: Path, reason: str) -> Sample:
        """Return the sample without a file that turned out to be unreadable.

        Raises:
            InputFileError: if no file is left, or the weights of those left add up to an unknown
                cross-section.
        """
        gone = [SkippedFile(file.path, reason, file.n_events) for file in self.files if file.path == path]
        kept = tuple(file for file in self.files if file.path != path)
        sample = replace(self, files=kept, skipped=(*self.skipped, *gone))
        sample.check_skipped()
        return sample

    def check_skipped(self) -> None:
        """Refuse a sample that means nothing without the files left out."""
        if not self.files:
            names = ", ".join(str(file.path) for file in self.skipped)
            msg = f"sample {self.name!r}: none of its files can be read ({names}): {self.skipped[0].reason}"
            raise InputFileError(msg)
        if self.skipped and self.normalisation == "sum":
            msg = (
                f"sample {self.name!r}: {self.skipped[0].path} cannot be read ({self.skipped[0].reason}), "
                "and with normalisation: sum the other files do not add up to the cross-section; repair the "
                "file, or take it from the list and correct the weights"
            )
            raise InputFileError(msg)


def open_sample(
    name: str,
    files: Sequence[Path],
    *,
    source: LHEFFormatConfig | DelphesFormatConfig | None = None,
    theta: float | None = None,
    weight_points: Sequence[float | None] | Mapping[str, float] = (),
    variations: Mapping[str, tuple[int | str, int | str]] | None = None,
    weight_names: Path | None = None,
    normalisation: Normalisation = "mean",
    cross_section_fb: float | None = None,
    on_bad_file: Literal["fail", "skip"] = "fail",
    first_file_number: int = 0,
    seed: int = 0,
    split: tuple[float, float, float] = (0.64, 0.16, 0.20),
    role: Role | None = None,
    degree: int = HIGHEST_DEGREE,
) -> Sample:
    """Look into the files of a sample and say what their events mean.

    Args:
        name: of the sample.
        files: ROOT files, in the order the table shall have.
        source: their format; LHEF if it is not given.
        theta: value of the coefficient the nominal weight belongs to; None if it is not known.
        weight_points: values of the coefficient in the order of the weights in the file, None for a weight
            that belongs to no value; or values by the names of the weights; empty to ignore the weights.
        variations: for each uncertainty the names of its weights up and down, or their places in the file.
        weight_names: JSON file with ``weight_names`` in the order of the file; by default the one beside each
            file.
        normalisation: what the nominal weights add up to.
        cross_section_fb: cross-section in fb, to be checked (or, with ``unit``, to be used).
        on_bad_file: whether an unreadable file is an error, or is left out and named in the report.
        first_file_number: number of the first file; no two files of an analysis may have the same.
        seed: root seed of the analysis.
        split: fractions of train, validation and test.
        role: of the sample in the analysis.
        degree: of the polynomial that event weights lie on.

    Raises:
        InputFileError: naming the first file that is missing, empty, truncated, was not closed, is not a ROOT
            file, or does not have the tree or the branches.
        EventWeightError: if weights are given by names that the file does not have.
    """
    source = source or LHEFFormatConfig()
    branches = object_branches(source)
    if weight_points or variations:
        branches = (*branches, weight_branch(source))
    opened: list[InputFile] = []
    skipped: list[SkippedFile] = []
    for number, path in enumerate(map(Path, files), first_file_number):
        try:
            opened.append(open_root_file(path, source, branches, number))
        except InputFileError as error:
            if on_bad_file == "fail":
                raise
            announced = _announced_events(path)
            skipped.append(SkippedFile(path, str(error), announced))
    points = points_in_order(name, opened, weight_points, weight_names)
    named = isinstance(weight_points, Mapping)
    pairs = (variations or {}).values()
    if not points and any(isinstance(one, str) for pair in pairs for one in pair):
        # The files have to have as many weights as there are names, or the places would be others.
        points = (None,) * len(names_of_weights(name, "weight_variations", opened, (), weight_names))
    sample = Sample(
        name=name,
        files=tuple(opened),
        source=source,
        theta=None if theta is None else (float(theta),),
        weight_points=points,
        variations={
            one: places_of_weights(name, opened, pair, weight_names)
            for one, pair in (variations or {}).items()
        },
        normalisation=normalisation,
        cross_section_fb=cross_section_fb,
        seed=seed,
        split=split,
        skipped=tuple(skipped),
        role=role,
        degree=degree,
        order=None if named else unchecked_order(opened, points, theta, degree=degree),
    )
    sample.check_skipped()
    return sample


def _announced_events(path: Path) -> int | None:
    """Return how many events a file that cannot be read should have, as the JSON file beside it says."""
    try:
        announced = read_description(path).get("n_events")
    except EventWeightError:
        return None
    return announced if isinstance(announced, int) else None


def weight_branch(source: LHEFFormatConfig | DelphesFormatConfig) -> str:
    """Return the branch of the weights beside the nominal one."""
    return "Rwgt.Weight" if isinstance(source, LHEFFormatConfig) else f"{source.weights}.Weight"
