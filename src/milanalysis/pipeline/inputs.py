"""Inputs shared by several stages: the samples in their files, their tables, and their yields."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from milanalysis.config import (
    AnalysisConfig,
    DaskExecutorConfig,
    FileSampleConfig,
    LHAPDFConfig,
    ModelConfig,
    ParslExecutorConfig,
    WandbTrackingConfig,
)
from milanalysis.errors import ConfigError, EventWeightError, UnreadableEventsError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import read_json
from milanalysis.parameters import EFTPolynomial
from milanalysis.pipeline.run_files import Run

_BAG_POINTS = 21
"""At which the log ratios of bags are evaluated for models that are defined at any point."""

__all__ = [
    "check_given",
    "open_samples",
    "require_event_weights",
    "require_packages",
    "require_positive_weights",
    "run_bag_processor",
    "selected_yield",
]


def check_given(run: Run) -> None:
    """Check before any long work that the files, processors and packages of an analysis can be used.

    Raises:
        InputFileError, EventWeightError: as `milanalysis.events.files.samples.open_sample`.
        ProcessorError: if a processor file does not define a processor.
    """
    from milanalysis.events.processing.processors import load_processor

    for path in (run.config.processing.features, run.config.processing.bag_likelihood):
        load_processor(path)
    if run.config.processing.on_bad_file == "fail":
        open_samples(run, generated=False)


def require_packages(config: AnalysisConfig) -> None:
    """Refuse a configuration that needs a package which is not installed, before any work.

    Raises:
        ConfigError: naming the key, and the command that installs the package.
    """
    from milanalysis.learning.classifiers.trained import require_baseline

    needed = (
        (
            isinstance(config.processing.executor, DaskExecutorConfig),
            "processing.executor: dask",
            "distributed",
            "dask",
        ),
        (
            isinstance(config.processing.executor, ParslExecutorConfig),
            "processing.executor: parsl",
            "parsl",
            "parsl",
        ),
        (isinstance(config.tracking, WandbTrackingConfig), "tracking: wandb", "wandb", "wandb"),
        (isinstance(config.generator.pdf, LHAPDFConfig), "generator.pdf: lhapdf", "parton", "lhapdf"),
    )
    for is_wanted, key, module, extra in needed:
        if is_wanted and find_spec(module) is None:
            msg = f"{key}: the package {module} is not installed: pip install 'milanalysis[{extra}]'"
            raise ConfigError(msg)
    for model in config.models.values():
        if not isinstance(model, ModelConfig):
            require_baseline(model)


def require_positive_weights(run: Run) -> None:
    """Refuse given samples with negative weights, before any work.

    Raises:
        EventWeightError: naming all of them, with how many there are.
    """
    from milanalysis.events.files.nominal_weights import negative_weights

    problems = []
    for name, sample in open_samples(run, generated=False).items():
        try:
            problem = negative_weights(sample)
        except UnreadableEventsError:  # a damaged file is refused, or left out, by who reads its events
            continue
        if problem is not None:
            problems.append(f"sample {name!r}: {problem}")
    if problems:
        raise EventWeightError("\n".join(problems))


def require_event_weights(config: AnalysisConfig) -> None:
    """Refuse simulation without event weights, which other true values and the exact ratio need.

    Raises:
        EventWeightError: naming the samples.
    """
    without = [
        name
        for name in config.samples_with_role("simulation")
        if isinstance(one := config.samples[name], FileSampleConfig) and not one.weight_points
    ]
    if without:
        msg = (
            f"samples {', '.join(without)}: simulation without weight_points. Events of one value of the "
            "parameter alone can be trained on (`milanalysis train`); templates, pseudo-experiments and "
            "intervals need event weights at several values of it. Give weight_points, and leave samples "
            "without them out of what is inferred"
        )
        raise EventWeightError(msg)


def open_samples(run: Run, *, generated: bool = True) -> dict[str, Any]:
    """Open the files of samples; files are numbered consecutively, as the number is part of the event id.

    Args:
        run: the analysis.
        generated: whether to include the samples that it generates.
    """
    from milanalysis.events.files.samples import open_sample

    config = run.config
    opened: dict[str, Any] = {}
    n_files = 0
    for name, sample in config.samples.items():
        if not (generated or isinstance(sample, FileSampleConfig)):
            continue
        files = run.event_files(name)
        of_files: dict[str, Any] = {}
        if isinstance(sample, FileSampleConfig):
            of_files = {
                "source": sample.format,
                "variations": {one: (pair.up, pair.down) for one, pair in sample.weight_variations.items()},
                "weight_names": sample.weight_names,
                "normalisation": sample.normalisation,
                "cross_section_fb": sample.cross_section_fb,
                "degree": sample.degree,
            }
        opened[name] = open_sample(
            name,
            files,
            role=sample.role,
            theta=sample.theta,
            weight_points=sample.weight_points,
            on_bad_file=config.processing.on_bad_file,
            first_file_number=n_files,
            seed=config.seed,
            split=(config.split.train, config.split.validation, config.split.test),
            **of_files,
        )
        n_files += len(files)
    return opened


def selected_yield(run: Run, simulated: EventTable) -> EFTPolynomial:
    """Return the expected number of selected events as a polynomial.

    Args:
        run: the analysis.
        simulated: all simulated events, sample by sample.
    """
    from milanalysis.events.rates import SimulatedSample, expected_events, positive_yield

    samples, start = [], 0
    for name in run.config.samples_with_role("simulation"):
        counts = read_json(run.cutflow(name))
        rows = np.arange(start, start + counts["n_selected"])
        start += counts["n_selected"]
        samples.append(SimulatedSample(name, simulated.take(rows), counts["n_read"]))
    nu = expected_events(samples, run.config.luminosity_fb)
    positive_yield(nu, run.config.parameter.low, run.config.parameter.high)
    return nu


def run_bag_processor(run: Run, name: str, scratch: Path, *, splits: Sequence[Split]) -> dict[str, Any]:
    """Evaluate all models of a run on the events of a sample in some splits, inside the bag processor.

    Args:
        run: the analysis.
        name: of the sample.
        scratch: directory for what each chunk writes.
        splits: which events.
    """
    from milanalysis.events.processing.processors import make_processor, run_processor

    processing = run.config.processing
    sample = open_samples(run)[name]
    for skipped in read_json(run.cutflow(name))["skipped"]:
        if any(str(file.path) == skipped["file"] for file in sample.files):  # its events could not be read
            sample = sample.without(Path(skipped["file"]), skipped["reason"])
    selection = make_processor(processing.features)
    parameter = run.config.parameter
    processor = make_processor(
        processing.bag_likelihood,
        selection,
        {label: run.model(label) for label in run.config.models},
        np.linspace(parameter.low, parameter.high, _BAG_POINTS)[:, None],
        splits=splits,
        one_thread=run.workers > 1,
    )
    return run_processor(
        processor,
        sample,
        executor=processing.executor,
        chunk_size=processing.chunk_size,
        multiple=processing.chunk_multiple,
        scratch=scratch,
        description=f"evaluating {name}",
    )
