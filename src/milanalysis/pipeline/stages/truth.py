"""The stage that computes the Fisher information available, of all momenta and of what is visible."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from milanalysis.files.records import to_plain, write_record
from milanalysis.pipeline.run_files import Run, truth_is_known
from milanalysis.pipeline.stages.stage import (
    Stage,
)
from milanalysis.terminal import progress_bar

__all__ = ["STAGE", "truth"]

logger = logging.getLogger(__name__)


_EVENTS_OF_TRUTH = 1000  # information is proportional to their number


_AUC_STEPS = (0.1, 0.2)  # from the reference, where the best separation of single events is given


def truth(run: Run) -> Sequence[Path]:
    """Compute the Fisher information available in the events of the generator."""
    from milanalysis.simulation.exact.information import reference_information

    config, reference = run.config, run.config.parameter.reference
    with progress_bar("reference information", config.truth.points) as advance:
        information = reference_information(
            config.generator,
            parameter=config.parameter.name,
            theta=reference,
            auc_at=config.truth.auc_at or tuple(round(reference + step, 12) for step in _AUC_STEPS),
            n_events=_EVENTS_OF_TRUTH,
            n_points=config.truth.points,
            seed=config.seed,
            workers=run.workers,
            progress=advance,
        )
    write_record(run.result("truth"), information)
    return [run.result("truth")]


STAGE = Stage(
    name="truth",
    needs=(),
    settings=lambda config: {
        "seed": config.seed,
        "parameter": to_plain(config.parameter),
        "generator": to_plain(config.generator),
        "truth": to_plain(config.truth),
    },
    inputs=lambda run: [],  # noqa: ARG005
    work=truth,
    summary="integrates the Fisher information over phase space; writes results/truth.json",
    is_wanted=truth_is_known,
)
"""The reference information, where it is about the simulation of the analysis."""
