"""The stages of an analysis, one module each: its work, what it reads, and the settings it depends on."""

from milanalysis.pipeline.stages import (
    calibrate,
    coverage,
    exact,
    infer,
    plot,
    process,
    simulate,
    train,
    truth,
    tune,
)

__all__ = ["STAGES", "TRUTH", "TUNE"]

TRUTH = truth.STAGE
"""The reference information, where it is about the simulation of the analysis."""

TUNE = tune.STAGE
"""The search of settings, which no other stage needs."""

STAGES = tuple(one.STAGE for one in (simulate, process, exact, train, infer, calibrate, coverage, plot))
"""The stages of ``milanalysis run`` in their order, after `TRUTH`."""
