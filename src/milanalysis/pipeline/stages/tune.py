"""The stage that searches the settings of a model, which no other stage needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from milanalysis.errors import ConfigError
from milanalysis.files.provenance import atomic_path, digest_of, file_digest
from milanalysis.files.records import to_plain, write_record
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.stages.stage import (
    Stage,
    training_inputs,
)
from milanalysis.pipeline.stages.train import training_jobs_of

__all__ = ["STAGE", "tune"]


def tune(run: Run) -> Sequence[Path]:
    """Search the settings of a model.

    Raises:
        ConfigError: if the configuration does not say what to search, or a package is missing.
        ProcessMismatchError: if the model learns from exact labels and these are not known, saying why.
    """
    from milanalysis.learning.training.tuning import search, with_settings
    from milanalysis.reporting import plotting
    from milanalysis.reporting.tuning import tuning_figure

    config = run.config
    if config.tune is None:
        msg = (
            "the configuration does not say what to search; add, for example, `tune: {model: "
            f"{next(iter(config.models))}, trials: 30, ranges: {{learning_rate: {{low: 1.0e-4, high: "
            "1.0e-2}}}`"
        )
        raise ConfigError(msg)
    label = config.tune.model
    model = config.models[label]
    table_digests = [file_digest(run.table(name)) for name in config.samples_with_role("simulation")]
    of_search = [to_plain(model), to_plain(config.tune)["ranges"], config.seed, table_digests]
    directory = run.directory / "tuning" / f"{label}-{digest_of(of_search)[:8]}"
    first, *_ = training_jobs_of(run, {label: model}, directory)
    tuning = search(replace(first, directory=directory), config.tune, workers=run.workers)
    write_record(run.result("tuning"), tuning)
    best = to_plain(with_settings(model, tuning.best.settings))
    tuned = run.directory / "results" / "tuned.yaml"
    with atomic_path(tuned) as temporary:
        temporary.write_text(yaml.safe_dump({"models": {label: best}}, sort_keys=False))
    figures = plotting.save(tuning_figure(tuning), run.figure("tuning"))
    return [run.result("tuning"), tuned, *figures]


STAGE = Stage(
    name="tune",
    needs=("process", "exact"),
    settings=lambda config: {
        "seed": config.seed,
        "parameter": to_plain(config.parameter),
        "model": None if config.tune is None else to_plain(config.models[config.tune.model]),
        "tune": None if config.tune is None else to_plain(config.tune),
    },
    inputs=training_inputs,
    work=tune,
    summary=(
        "trains a model with many settings; writes tuning/<label>-*/, results/tuning.json, results/tuned.yaml"
    ),
)
"""The search of settings, which no other stage needs."""
