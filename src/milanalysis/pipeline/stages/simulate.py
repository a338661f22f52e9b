"""The stage that generates the samples which the configuration does not take from files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from milanalysis.config import FileSampleConfig, GenerateBackgroundConfig, GenerateSampleConfig
from milanalysis.files.records import to_plain
from milanalysis.pipeline.inputs import (
    check_given,
)
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.stages.stage import (
    Stage,
)
from milanalysis.randomness import stream
from milanalysis.simulation.generator import EventSource
from milanalysis.terminal import progress_bar

__all__ = ["STAGE", "simulate"]

logger = logging.getLogger(__name__)


def simulate(run: Run) -> Sequence[Path]:
    """Generate the samples that the configuration does not take from files."""
    from milanalysis.simulation.generator import generate_sample
    from milanalysis.simulation.lhe import SampleHeader, write_lhef_root

    written = []
    check_given(run)
    for name, sample in run.config.samples.items():
        if isinstance(sample, FileSampleConfig):
            continue
        seed = run.config.seed
        generator = _generator(run, sample, stream(seed, "simulate", name, "adaptation"))
        header = SampleHeader.of_sample(
            generator, weight_points=sample.weight_points, n_events=sample.events, seed=seed
        )
        with progress_bar(f"generating {name}", sample.events) as advance:
            blocks = generate_sample(
                generator,
                name=name,
                n_events=sample.events,
                seed=seed,
                workers=run.workers,
                progress=advance,
            )
            (path,) = run.event_files(name)
            write_lhef_root(path, blocks, header)
        written += [path, path.with_suffix(".json")]
    return written


def _generator(
    run: Run, sample: GenerateSampleConfig | GenerateBackgroundConfig, rng: np.random.Generator
) -> EventSource:
    """Return the generator of a sample, adapted to it."""
    from milanalysis.simulation.background.generator import BackgroundGenerator
    from milanalysis.simulation.generator import Generator

    if isinstance(sample, GenerateBackgroundConfig):
        return BackgroundGenerator.adapted(run.config.generator, rng)
    return Generator.adapted(run.config.generator, sample.theta, rng)


STAGE = Stage(
    name="simulate",
    needs=(),
    settings=lambda config: {
        "seed": config.seed,
        "generator": to_plain(config.generator),
        "samples": {
            name: to_plain(sample)
            for name, sample in config.samples.items()
            if not isinstance(sample, FileSampleConfig)
        },
    },
    inputs=lambda run: [],  # noqa: ARG005
    work=simulate,
    summary="generates the samples; writes events/<sample>.root",
)
