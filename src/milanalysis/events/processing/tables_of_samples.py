"""From a sample to its table: every chunk once, nothing lost, the same bytes however the work was done.

`make_tables` runs a feature processor over what is not done yet, and merges the parts in the order of files
and entries. It can be killed at any moment and called again.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from coffea.processor import ProcessorABC

from milanalysis.config import ExecutorConfig
from milanalysis.errors import (
    AccountingError,
    EventWeightError,
    MilAnalysisError,
    ProcessorError,
    UnreadableEventsError,
)
from milanalysis.events.files.nominal_weights import nominal_weights, weight_warnings
from milanalysis.events.files.samples import Sample
from milanalysis.events.processing.chunks import Cutflow, item_name
from milanalysis.events.processing.parts import Merge, PartsDirectory, sample_digest
from milanalysis.events.processing.processors import run_processor, using_output_of
from milanalysis.events.tables import DIGEST_COLUMN
from milanalysis.files.provenance import digest_of, file_digest, read_json, write_json
from milanalysis.files.records import to_plain

__all__ = ["make_tables"]

logger = logging.getLogger(__name__)

_CROSS_SECTION_TOLERANCE = 0.02
"""Relative difference of the weights from a stated cross-section that rounding and truncation may cause."""
_LARGEST_ERROR = 0.1
"""Largest relative error of a cross-section in a JSON file at which it is still a check."""
_EXPECTED = (
    "a feature processor returns {'cutflow': cutflow, 'parts': write_part(table, cutflow, events)} for every "
    "chunk, as processors/features.py does"
)
_SIGMAS = 5.0
"""Standard errors (of the mean of the weights, and of the cross-section) by which they may differ besides."""


def make_tables(
    processor: ProcessorABC,
    sample: Sample,
    directory: Path,
    *,
    executor: ExecutorConfig,
    chunk_size: int,
    multiple: int = 1,
    on_bad_file: Literal["fail", "skip"] = "fail",
    theta_range: tuple[float, float] = (-1.0, 1.0),
    stamp: Path | None = None,
) -> dict[str, Any]:
    """Run a feature processor over a sample and write its table.

    Chunks that an earlier call has finished before it was interrupted are used again if nothing that they
    depend on has changed: the processor's file, the settings, and the size and time of the input files.

    Args:
        processor: returns ``"cutflow"`` and ``"parts"`` as processors/features.py does.
        sample: what to run it on.
        directory: gets ``events.parquet``, in the order of files and entries, and ``cutflow.json``.
        executor: how to run it.
        chunk_size: largest number of events per chunk.
        multiple: chunks begin at multiples of this number of events of a file.
        on_bad_file: whether a file whose events turn out to be unreadable is an error or is left out.
        theta_range: where event weights are expected to be positive; how far they are is reported.
        stamp: file that says what the table was made of; if it says that nothing has changed, nothing is
            done.

    Returns:
        The content of ``cutflow.json``: ``sample``, ``n_read``, ``n_selected``, ``steps`` (cut, events,
        rejected, cross_section_fb), ``files``, ``skipped`` (file, reason, events), ``polynomials`` (how many
        event weights are not positive everywhere in ``theta_range``, and between which values all are) and
        ``warnings``. A sample without selected events gives an empty table and a warning.

    Raises:
        AccountingError: if the parts, the cutflow and the files do not agree event by event and weight by
            weight.
        EventWeightError: if the weights do not add up to the cross-section.
        ProcessorError, InputFileError: as `run_processor`.
    """
    key = digest_of(
        {"table": sample_digest(sample, processor), "range": list(theta_range), "identity": DIGEST_COLUMN}
    )
    outputs = [directory / "events.parquet", directory / "cutflow.json"]
    if stamp is not None and _is_current(stamp, key, outputs):
        logger.info("sample %s: the table is up to date", sample.name)
        return read_json(outputs[1])
    while True:
        parts = PartsDirectory(directory / ".parts", sample_digest(sample, processor))
        chunks = [item_name(item) for item in sample.work_items(chunk_size, None, multiple)]
        finished = parts.finished()
        try:
            with Merge([parts.file(chunk) for chunk in sorted(chunks)], parts.merged, theta_range) as merge:
                cutflow = _run(
                    processor,
                    sample,
                    parts,
                    chunks,
                    finished,
                    executor=executor,
                    chunk_size=chunk_size,
                    multiple=multiple,
                )
            break
        except UnreadableEventsError as error:
            if on_bad_file == "fail":
                raise
            sample = sample.without(error.path, str(error))
    try:
        summary = _summary(sample, cutflow, merge)
    except (AccountingError, EventWeightError):
        outputs[0].unlink(missing_ok=True)
        parts.remove()
        raise
    parts.merged.replace(outputs[0])
    write_json(outputs[1], summary)
    if stamp is not None:
        write_json(stamp, {"key": key, "outputs": [file_digest(path) for path in outputs]})
    parts.remove()
    for warning in summary["warnings"]:
        logger.warning("sample %s: %s", sample.name, warning)
    return summary


def _is_current(stamp: Path, key: str, outputs: list[Path]) -> bool:
    """Return whether a table is there and is what would be made."""
    if not stamp.exists() or not all(path.exists() for path in outputs):
        return False
    made = read_json(stamp)
    return bool(made["key"] == key and made["outputs"] == [file_digest(path) for path in outputs])


def _run(
    processor: ProcessorABC,
    sample: Sample,
    parts: PartsDirectory,
    chunks: list[str],
    finished: dict[str, tuple[int, Cutflow]],
    *,
    executor: ExecutorConfig,
    chunk_size: int,
    multiple: int,
) -> Cutflow:
    """Run what is not finished, check that all chunks are there, and return the cutflow of all."""
    for chunk in set(finished) - set(chunks):  # of another chunk size
        parts.file(chunk).unlink()
        del finished[chunk]
    if finished:
        logger.info("sample %s: %d of %d chunks are there already", sample.name, len(finished), len(chunks))
    try:
        output = run_processor(
            processor,
            sample,
            executor=executor,
            chunk_size=chunk_size,
            scratch=parts.path,
            multiple=multiple,
            finished=finished,
        )
    except MilAnalysisError:
        if not parts.finished():
            parts.remove()
        raise
    try:
        with using_output_of(Path(inspect.getfile(type(processor))), _EXPECTED):
            return _checked(output, finished, parts, sample, chunks)
    except (AccountingError, ProcessorError):
        parts.remove()
        raise


def _checked(
    output: Mapping[str, Any],
    finished: Mapping[str, tuple[int, Cutflow]],
    parts: PartsDirectory,
    sample: Sample,
    chunks: list[str],
) -> Cutflow:
    """Return the sum over the chunks, if what was processed now and what was there before are complete."""
    rows = {chunk: n for chunk, (n, _) in finished.items()}
    cutflows: list[Any] = [cutflow for _, cutflow in finished.values()]
    if len(finished) < len(chunks):
        cutflows.append(output["cutflow"])
        rows |= output["parts"]
    newest: object = cutflows[-1]
    steps: list[tuple[object, object]] = list(newest.steps.values()) if isinstance(newest, Cutflow) else []
    counted = [isinstance(n, int) and isinstance(weight, Fraction) for n, weight in steps]
    numbers: list[object] = list(rows.values())
    if not (
        isinstance(newest, Cutflow) and counted and all(counted) and all(isinstance(n, int) for n in numbers)
    ):
        msg = f"'cutflow' is {newest!r:.80}, and 'parts' are {rows!r:.80}"
        raise TypeError(msg)
    cutflow: Cutflow = newest
    for other in cutflows[:-1]:
        cutflow = cutflow + other
    counts = {
        "chunks": (len(chunks), len(set(rows) & set(chunks))),
        "events read": (sample.n_events, cutflow.n_read),
        "events selected": (cutflow.n_selected, sum(rows.values())),
    }
    for what, (expected, found) in counts.items():
        if expected != found:
            msg = (
                f"sample {sample.name!r}: {expected} {what} expected and {found} found; nothing has been "
                "written"
            )
            raise AccountingError(msg)
    written = parts.finished()
    for chunk in chunks:
        if chunk not in written or written[chunk][0] != rows[chunk]:
            msg = f"sample {sample.name!r}: the part {parts.file(chunk)} is not as its chunk announced it"
            raise AccountingError(msg)
    return cutflow


def _summary(sample: Sample, cutflow: Cutflow, merge: Merge) -> dict[str, Any]:
    """Check that the table is what the cutflow says, and describe it."""
    if (merge.n_events, merge.weight) != (cutflow.n_selected, cutflow.selected_weight):
        msg = (
            f"sample {sample.name!r}: {cutflow.n_selected} events with {float(cutflow.selected_weight):g} fb "
            f"were selected and the table has {merge.n_events} with {float(merge.weight):g} fb"
        )
        raise AccountingError(msg)
    _check_cross_section(sample, cutflow.weight_read)
    warnings = [f"{file.path.name} has no events" for file in sample.files if file.n_events == 0]
    warnings += [f"{file.path.name} is left out: {file.reason}" for file in sample.skipped]
    warnings += weight_warnings(sample)
    if merge.n_events == 0:
        warnings.append("no event is selected")
    positive = merge.positive
    if positive is not None and positive.n_events:
        warnings.append(
            f"the event weights of {positive.n_events} events are not positive everywhere between "
            f"{merge.theta_range[0]:g} and {merge.theta_range[1]:g}; all are between {positive.low:g} and "
            f"{positive.high:g}"
        )
    return {
        "sample": sample.name,
        "n_read": cutflow.n_read,
        "n_selected": cutflow.n_selected,
        "steps": cutflow.to_list(),
        "files": [{"name": file.path.name, "events": file.n_events} for file in sample.files],
        "skipped": [
            {"file": str(file.path), "reason": file.reason, "events": file.n_events}
            for file in sample.skipped
        ],
        "polynomials": None if positive is None else to_plain(positive),
        "warnings": warnings,
    }


def _check_cross_section(sample: Sample, weight: Fraction) -> None:
    """Refuse weights that do not add up to the stated cross-section or to that of the JSON files.

    Raises:
        EventWeightError: naming both, and what would fit.
    """
    if sample.n_events == 0 or sample.role == "observed":
        return
    if sample.cross_section_fb is not None:
        _require_cross_section(sample, float(weight), sample.cross_section_fb, 0.0, "cross_section_fb")
    described = sample.described
    expected = None if described is None else described.expected_cross_section_fb
    if described is None or expected is None:
        return
    is_part = described.n_events < sample.n_events
    if is_part and sample.normalisation == "sum":
        return  # the weights of some files add up to nothing
    found = _sum_of_weights(described) if is_part else float(weight)
    if sample.normalisation == "unit":
        found = sample.cross_section_fb or 0.0
    error = min(sample.described_error_fb, _LARGEST_ERROR * expected)
    origin = f"the JSON files beside {len(described.files)} of its {len(sample.files)} files"
    _require_cross_section(described, found, expected, error, origin)


def _require_cross_section(sample: Sample, found: float, expected: float, error: float, origin: str) -> None:
    """Refuse weights that do not add up to a cross-section and error in fb, and name its source."""
    allowed = _allowed_difference(sample, expected, error)
    if abs(found - expected) <= allowed:
        return
    nominal = [nominal_weights(file) for file in sample.files]
    others = [replace(sample, normalisation=name) for name in ("mean", "sum", "file_sum", "unit")]
    fitting = [
        other.normalisation
        for other in others
        if (other.normalisation != "unit" or sample.cross_section_fb is not None)
        and abs(_sum_of_weights(other) - expected) <= _allowed_difference(other, expected, error)
    ]
    if fitting:
        advice = f"normalisation: {fitting[0]} would fit"
    elif all(one.are_units or one.n_events == 0 for one in nominal):
        advice = f"its weights are 1: normalisation: unit with cross_section_fb: {expected:g} would fit"
    else:
        advice = "check normalisation, cross_section_fb, and that no file is missing or listed twice"
    msg = (
        f"sample {sample.name!r}: with normalisation: {sample.normalisation} the weights of its "
        f"{sample.n_events} events add up to {found:g} fb, and the cross-section is {expected:g} fb by "
        f"{origin} (they may differ by {allowed:.2g} fb); {advice}"
    )
    raise EventWeightError(msg)


def _sum_of_weights(sample: Sample) -> float:
    """Return the cross-section in fb that the nominal weights of a sample add up to."""
    return sum(nominal_weights(file).total * sample.fb_per_weight(file) for file in sample.files)


def _allowed_difference(sample: Sample, expected: float, error: float) -> float:
    """Return how far in fb the weights of a sample may be from a cross-section with an error."""
    variance = sum(
        nominal_weights(file).variance_of_sum * sample.fb_per_weight(file) ** 2 for file in sample.files
    )
    return _CROSS_SECTION_TOLERANCE * expected + _SIGMAS * (math.sqrt(variance) + error)
