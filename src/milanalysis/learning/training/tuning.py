"""Settings of a model, searched by training it many times.

Every trial is a training like any other, of one member, on the same training and the same validation events
and bags, and from the same random streams; it is judged by the lowest loss on the validation bags. Trials
that are worse than the median of the finished ones at the same epoch are given up. The settings of the next
trials come from a tree-structured Parzen estimator, which has seen all that is finished.

Trials are run in rounds of as many as there are workers, and everything random comes from the root seed and
the number of the trial. So the search depends on the number of workers but not on their speed, and one that
was interrupted, even in the middle of a training, goes on as if it had not been.

The settings that are found are the best of many on one set of validation events: their validation loss is too
good by the luck of the best. What they are worth the test events have to say.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from milanalysis.config import (
    AnyModelConfig,
    CosineScheduleConfig,
    LightGBMConfig,
    ModelConfig,
    RangeConfig,
    RangeName,
    TuneConfig,
    XGBoostConfig,
)
from milanalysis.errors import ConfigError, FitError
from milanalysis.files.provenance import read_json
from milanalysis.learning.tracking import read_metrics
from milanalysis.learning.training.following import watch
from milanalysis.learning.training.jobs import TrainingJob, train_member, watched
from milanalysis.learning.training.workers import training_processes
from milanalysis.randomness import stream_seed

__all__ = ["Trial", "Tuning", "require_optuna", "search", "with_settings"]

logger = logging.getLogger(__name__)

_STUDY = "tuning"
_RANDOM_TRIALS = 8
"""Trials with random settings, before the estimator has something to go on; none of them is given up."""


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: from 0.
        settings: values of what is searched.
        state: ``complete``, ``pruned`` (given up) or ``failed`` (diverged).
        validation_loss: lowest of its epochs; None if it failed.
        n_epochs: epochs trained.
    """

    number: int
    settings: dict[str, float]
    state: str
    validation_loss: float | None
    n_epochs: int


@dataclass(frozen=True)
class Tuning:
    """The result of a search.

    Attributes:
        label: name of the model.
        title: of the model.
        ranges: what was searched, by name.
        trials: in the order they were begun.
    """

    label: str
    title: str
    ranges: dict[RangeName, RangeConfig]
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The finished trial with the lowest validation loss.

        Raises:
            FitError: if none has finished.
        """
        finished = [trial for trial in self.trials if trial.state == "complete"]
        if not finished:
            msg = (
                f"none of {len(self.trials)} trials of model {self.label!r} has finished; narrow the ranges "
                "under `tune`"
            )
            raise FitError(msg)
        return min(finished, key=lambda trial: (trial.validation_loss, trial.number))


def with_settings(model: AnyModelConfig, settings: Mapping[str, float]) -> AnyModelConfig:
    """Return a model with other settings.

    Args:
        model: a network or boosted trees.
        settings: by the names of `milanalysis.config.RangeName`; numbers of layers, units and so on are
            rounded.

    Raises:
        ConfigError: if the model has no such setting.
    """
    for name, value in settings.items():
        setters = _SETTERS.get(type(model), {})
        if name not in setters:
            msg = (
                f"tune.ranges.{name}: a model of kind {model.kind} has no such setting; it has "
                f"{', '.join(setters) or 'none'}"
            )
            raise ConfigError(msg)
        model = setters[name](model, value)
    return model


def _with_rate(model: ModelConfig, value: float) -> ModelConfig:
    """Return a network that is trained at another learning rate, in the same proportions."""
    schedule = model.training.schedule
    if isinstance(schedule, CosineScheduleConfig):
        return replace(model, training=replace(model.training, schedule=replace(schedule, peak=value)))
    final = value * schedule.final / schedule.initial
    changed = replace(schedule, initial=value, final=final)
    return replace(model, training=replace(model.training, schedule=changed))


def _with_layers(model: ModelConfig, value: float) -> ModelConfig:
    """Return a model with another number of hidden layers, all as wide as its first."""
    return replace(model, network=replace(model.network, hidden=model.network.hidden[:1] * round(value)))


def _with_units(model: ModelConfig, value: float) -> ModelConfig:
    """Return a model whose hidden layers have another width."""
    return replace(model, network=replace(model.network, hidden=(round(value),) * len(model.network.hidden)))


_SETTERS: dict[type, dict[str, Callable[[Any, float], Any]]] = {
    ModelConfig: {
        "learning_rate": _with_rate,
        "hidden_layers": _with_layers,
        "units": _with_units,
        "dropout": lambda model, value: replace(model, network=replace(model.network, dropout=value)),
        "l2": lambda model, value: replace(model, network=replace(model.network, l2=value)),
        "batch_events": lambda model, value: replace(
            model, training=replace(model.training, batch_events=round(value))
        ),
    },
    XGBoostConfig: {
        "learning_rate": lambda model, value: replace(model, learning_rate=value),
        "l2": lambda model, value: replace(model, l2=value),
        "depth": lambda model, value: replace(model, depth=round(value)),
    },
    LightGBMConfig: {
        "learning_rate": lambda model, value: replace(model, learning_rate=value),
        "l2": lambda model, value: replace(model, l2=value),
        "leaves": lambda model, value: replace(model, leaves=round(value)),
        "events_per_leaf": lambda model, value: replace(model, events_per_leaf=round(value)),
    },
}


def require_optuna() -> Any:
    """Import optuna.

    Raises:
        ConfigError: if it is not installed, with the command that installs it.
    """
    try:
        import optuna
        import optuna.storages.journal  # not imported by the former
    except ImportError as error:
        msg = f"`milanalysis tune` needs a package: pip install 'milanalysis[tune]' ({error})"
        raise ConfigError(msg) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def search(job: TrainingJob, config: TuneConfig, *, workers: int) -> Tuning:
    """Search settings of a model, or go on where an interrupted search stopped.

    Args:
        job: member 0 of the model; its directory is that of the search, in which every trial gets one of its
            own.
        config: ranges and number of trials.
        workers: trials that are run at the same time.

    Raises:
        ConfigError: if optuna is missing, or the model has no such settings.
        FitError: if a process is killed, or no trial finishes.
    """
    optuna = require_optuna()
    with_settings(job.model, {name: one.low for name, one in config.ranges.items()})
    job.directory.mkdir(parents=True, exist_ok=True)
    job.training_files.open(_job_of(job, 0, {}).scratch)
    study = _study(optuna, job.directory)
    states = optuna.trial.TrialState
    with training_processes(max(1, min(workers, config.trials))) as executor:
        while True:
            running = [one for one in study.get_trials(deepcopy=False) if not one.state.is_finished()]
            begun = len(study.get_trials(deepcopy=False))
            end = begun + (-begun % workers if running else workers)  # of this round
            for number in range(begun, min(config.trials, end)):
                study.sampler = optuna.samplers.TPESampler(
                    seed=stream_seed(job.seed, "tune", job.label, number), n_startup_trials=_RANDOM_TRIALS
                )
                trial = study.ask()
                for name, values in config.ranges.items():
                    _suggest(trial, name, values)
                running.append(study.get_trials(deepcopy=False)[number])
            if not running:
                break
            first = min(one.number for one in running) // workers * workers
            finished = study.get_trials(deepcopy=False, states=(states.COMPLETE,))
            medians = _medians(
                [_losses(_job_of(job, one.number, one.params)) for one in finished if one.number < first]
            )
            jobs = {one.number: _job_of(job, one.number, one.params) for one in running}
            futures = {executor.submit(_run_trial, one, medians): number for number, one in jobs.items()}
            watch({future: watched(jobs[number]) for future, number in futures.items()})
            for future, number in futures.items():
                loss = future.result()
                if isinstance(loss, str):
                    study.tell(number, state=states.PRUNED if loss == "pruned" else states.FAIL)
                else:
                    study.tell(number, loss)
    trials = study.get_trials(deepcopy=False)
    shutil.rmtree(_job_of(job, 0, {}).scratch, ignore_errors=True)
    return Tuning(
        job.label, job.model.title, dict(config.ranges), tuple(_trial_of(job, frozen) for frozen in trials)
    )


def _study(optuna: Any, directory: Path) -> Any:
    """Open the record of a search, or begin it."""
    journal = optuna.storages.journal.JournalFileBackend(str(directory / "journal.log"))
    storage = optuna.storages.JournalStorage(journal)
    return optuna.create_study(storage=storage, study_name=_STUDY, load_if_exists=True)


def _suggest(trial: Any, name: RangeName, values: RangeConfig) -> None:
    """Ask for a value in a range: whole numbers where counts are meant, the logarithm where factors count."""
    logarithmic = RangeConfig.is_logarithmic(name)
    if RangeConfig.is_count(name):
        trial.suggest_int(name, round(values.low), round(values.high), log=logarithmic)
    else:
        trial.suggest_float(name, values.low, values.high, log=logarithmic)


def _job_of(job: TrainingJob, number: int, settings: Mapping[str, float]) -> TrainingJob:
    """Return the training of one trial, in a directory of its own."""
    model = with_settings(job.model, settings)
    return replace(job, model=model, directory=job.directory / f"trial-{number:03d}")


def _losses(job: TrainingJob) -> list[float]:
    """Return the lowest validation loss up to each epoch of a trial."""
    losses = [epoch.validation_loss for epoch in read_metrics(job.file(".csv"))]
    return list(itertools.accumulate(losses, min))


def _medians(losses: Sequence[Sequence[float]]) -> list[float]:
    """Return the median of finished trials up to each epoch; none as long as there are few of them.

    A trial that ended early is taken to stay where it was.
    """
    if len(losses) < _RANDOM_TRIALS:
        return []
    return [
        statistics.median(one[min(epoch, len(one) - 1)] for one in losses)
        for epoch in range(max(map(len, losses)))
    ]


class _GivenUpError(Exception):
    """A trial is worse than others."""


def _run_trial(job: TrainingJob, medians: Sequence[float]) -> float | Literal["pruned", "failed"]:
    """Train, and return the lowest validation loss, or how it has ended.

    Args:
        job: the training.
        medians: of the lowest validation loss of finished trials up to each epoch.
    """

    def give_up_if_worse() -> None:
        losses = _losses(job)
        epoch = len(losses) - 1
        if 1 <= epoch < len(medians) and losses[-1] > medians[epoch]:
            raise _GivenUpError

    try:
        give_up_if_worse()  # if this was seen before, and an interruption came between
        train_member(job, lambda _: give_up_if_worse())
    except _GivenUpError:
        return "pruned"
    except FitError as error:
        logger.warning("%s: %s", job.directory, error)
        return "failed"
    return float(read_json(job.file(".json"))["record"]["validation_loss"])


def _trial_of(job: TrainingJob, frozen: Any) -> Trial:
    """Return a trial in our words."""
    losses = _losses(_job_of(job, frozen.number, frozen.params))
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[frozen.state.name]
    settings = {name: float(value) for name, value in frozen.params.items()}
    loss = None if state == "failed" else losses[-1]
    return Trial(frozen.number, settings, state, loss, len(losses))
