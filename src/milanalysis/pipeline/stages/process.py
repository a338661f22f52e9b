"""The stage that turns the events of every sample into a table of features."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from milanalysis.files.records import to_plain
from milanalysis.pipeline.inputs import (
    open_samples,
)
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.stages.stage import (
    Stage,
    event_files,
)
from milanalysis.terminal import console

__all__ = ["STAGE", "process"]

logger = logging.getLogger(__name__)


def process(run: Run) -> Sequence[Path]:
    """Turn the events of every sample into a table of features.

    Raises:
        InputFileError, EventWeightError: as `milanalysis.events.files.admission.admit`.
        DataLeakError: if different files have the same events.
    """
    from milanalysis.events.files.admission import admit
    from milanalysis.events.files.identity import require_different_events
    from milanalysis.events.processing.processors import make_processor
    from milanalysis.events.processing.tables_of_samples import make_tables
    from milanalysis.reporting.cutflow import cutflow_table

    processing = run.config.processing
    features = make_processor(processing.features)
    written = []
    samples = open_samples(run)
    admit(list(samples.values()))
    summaries = {}
    for name, sample in samples.items():
        directory = run.table(name).parent
        summaries[name] = make_tables(
            features,
            sample,
            directory,
            executor=processing.executor,
            chunk_size=processing.chunk_size,
            multiple=processing.chunk_multiple,
            on_bad_file=processing.on_bad_file,
            theta_range=(run.config.parameter.low, run.config.parameter.high),
            stamp=run.stamp(f"process-{name}"),
        )
        written += [run.table(name), directory / "cutflow.json"]
    console().print(cutflow_table(summaries, {name: one.role for name, one in run.config.samples.items()}))
    for warning in require_different_events(
        list(samples.values()), {name: run.table(name) for name in samples}
    ):
        logger.warning("%s", warning)
    return written


STAGE = Stage(
    name="process",
    needs=("simulate",),
    settings=lambda config: {
        "seed": config.seed,
        "split": to_plain(config.split),
        "parameter": to_plain(config.parameter),
        "on_bad_file": config.processing.on_bad_file,
        "samples": {
            name: {key: value for key, value in to_plain(sample).items() if key != "files"}
            for name, sample in config.samples.items()
        },
    },
    inputs=lambda run: [*event_files(run), run.config.processing.features],
    work=process,
    summary="reads events/*.root with coffea; writes tables/<sample>/events.parquet and cutflow.json",
)
