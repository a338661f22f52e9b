"""The stage that draws all figures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from milanalysis.files.records import to_plain
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.stages.stage import (
    Stage,
    tables_of,
)
from milanalysis.terminal import progress_bar

__all__ = ["STAGE", "plot"]

logger = logging.getLogger(__name__)


def plot(run: Run) -> Sequence[Path]:
    """Draw all figures."""
    from milanalysis.reporting.gallery import FIGURES, draw

    with progress_bar("drawing", len(FIGURES)) as advance:
        written = []
        for name in FIGURES:
            written += draw(run.directory, name)
            advance(1, name)
    return written


STAGE = Stage(
    name="plot",
    needs=("process", "infer", "calibrate", "coverage"),
    settings=lambda config: {"parameter": to_plain(config.parameter)},
    inputs=lambda run: [
        *tables_of(run, "simulation"),
        run.result("observed"),
        run.result("templates"),
        run.result("calibration"),
        run.result("pseudo_experiments"),
        run.result("comparison"),
    ],
    work=plot,
    summary="reads results/ and tables/; writes figures/",
)
