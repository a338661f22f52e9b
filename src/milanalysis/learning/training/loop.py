"""One training loop for every task and bag size.

An epoch is a fixed number of steps on bags drawn anew. What is random in it comes from the stream named after
the model, the member and the epoch, and after every epoch the whole state is written to a checkpoint. So an
interrupted training continues where it stopped, and ends with the same weights, bit by bit, as one that was
never interrupted (in processes with the same number of threads).
"""

from __future__ import annotations

import json
import logging
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from milanalysis.config import (
    AnyModelConfig,
    CosineScheduleConfig,
    ModelConfig,
    PlateauScheduleConfig,
    TrainingConfig,
)
from milanalysis.errors import FitError, InputFileError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import atomic_path, digest_of, source_digest
from milanalysis.files.records import to_plain
from milanalysis.learning.models.network_ratio import evaluator
from milanalysis.learning.sampling import Sampler, make_sampler
from milanalysis.learning.tasks.losses import Targets
from milanalysis.learning.tasks.task import Task, make_task, normalisation
from milanalysis.learning.tracking import Epoch, Tracker, tracking
from milanalysis.parameters import FloatArray, IntArray
from milanalysis.randomness import stream, stream_seed
from milanalysis.ratios.bags import ROWS_PER_BLOCK, Bags

__all__ = ["Trained", "learning_rates", "train", "training_digest"]

logger = logging.getLogger(__name__)

_EVENTS_PER_CALL = 65_536


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained member of a model.

    Attributes:
        network: the ``keras.Model`` with the weights of the best epoch.
        normalisation: constants of the task, from training and validation events at the reference.
        history: all epochs.
        best_epoch: the one with the lowest validation loss.
    """

    network: Any
    normalisation: FloatArray
    history: tuple[Epoch, ...]
    best_epoch: int

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return int(sum(np.prod(weights.shape) for weights in self.network.trainable_variables))

    def write(self, path: Path) -> None:
        """Write the network as a ``.keras`` file, complete or not at all."""
        from milanalysis.learning.networks.network import write_network

        write_network(self.network, path)


def learning_rates(training: TrainingConfig, validation_losses: Sequence[float]) -> FloatArray | None:
    """Return the learning rate of each step of the next epoch, or None if the training is over.

    A function of the past alone: nothing else has to be remembered when a training is interrupted.

    Args:
        training: schedule, steps per epoch and largest number of epochs.
        validation_losses: of the epochs so far.

    Source:
        Plateau: appendix B.2.2 of arXiv:2508.07114, first a reduction after ``patience`` epochs without
        improvement, then the end after ``2 patience``.

    Example:
        >>> training = TrainingConfig(steps_per_epoch=2, schedule=PlateauScheduleConfig(patience=2))
        >>> learning_rates(training, [1.0, 0.9, 0.95, 0.95])
        array([0.0001, 0.0001])
    """
    epoch, schedule = len(validation_losses), training.schedule
    if epoch >= training.max_epochs:
        return None
    if isinstance(schedule, PlateauScheduleConfig):
        rate = _plateau_rate(schedule, validation_losses)
        return None if rate is None else np.full(training.steps_per_epoch, rate)
    return _cosine_rates(schedule, training, epoch)


def _plateau_rate(schedule: PlateauScheduleConfig, validation_losses: Sequence[float]) -> float | None:
    """Replay the epochs so far: learning rate and early stopping.

    Without improvement the learning rate is divided by ten, and after twice the patience training stops.
    """
    rate, best, waited = schedule.initial, np.inf, 0
    for loss in validation_losses:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if rate > schedule.final and waited >= schedule.patience:
            rate, waited = max(rate / 10, schedule.final), 0
        elif waited >= 2 * schedule.patience:
            return None
    return rate


def _cosine_rates(schedule: CosineScheduleConfig, training: TrainingConfig, epoch: int) -> FloatArray:
    """Return linear warm-up times the cosine over all epochs."""
    step = epoch * training.steps_per_epoch + np.arange(training.steps_per_epoch)
    fraction = step / (training.max_epochs * training.steps_per_epoch)
    cosine = schedule.final_fraction + (1 - schedule.final_fraction) * (1 + np.cos(np.pi * fraction)) / 2
    warm_up = np.minimum(1.0, (step + 1) / (schedule.warmup_steps + 1))
    return np.asarray(schedule.peak * warm_up * cosine)


def train(
    table: EventTable,
    model: ModelConfig,
    reference: FloatArray,
    *,
    label: str,
    member: int,
    seed: int,
    directory: Path,
    trackers: Sequence[Tracker] = (),
    after_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Trained:
    """Train one member of a model, or go on where an interrupted training stopped.

    Args:
        table: events; those of the training split are learned from, those of the validation split decide
            which epoch is best.
        model: task, bag size, network and training.
        reference: point the ratios are taken against, shape ``(n_parameters,)``.
        label: name of the model; with ``member`` it names the random streams and the files.
        member: number of the member, from 0; of the network, if a member has several.
        seed: root seed of the analysis.
        directory: where the checkpoint ``member-00.checkpoint.npz`` is until the training is over.
        trackers: are told about every epoch, those of the checkpoint included.
        after_epoch: called after every epoch, when its checkpoint is written.

    Raises:
        FitError: if the features or the loss are not finite, or a feature is the same in all events.
        TooFewEventsError: if a split has fewer events at a point than a bag holds.
        ConfigError, EventWeightError: if the table does not have what the task needs.
    """
    from milanalysis.learning.networks.network import build_network

    task = make_task(model.task, reference, member)
    training_rows = table.rows(Split.TRAIN)
    _require_useful_features(table, label)
    sampler = make_sampler(table, training_rows, model.background)
    validation = _validation_bags(task, table, model, stream(seed, "train", label, "validation"))
    network = build_network(
        model.network,
        table.feature_names,
        task.n_outputs,
        pooled=task.pooled,
        training_features=table.features[_evenly_spread(training_rows, ROWS_PER_BLOCK)],
        seed=stream_seed(seed, "train", label, member),
        bag_size=model.bag_size,
        n_theta=task.n_theta_inputs,
        n_constants=task.n_constants,
    )
    validation_targets = task.encode(validation, stream(seed, "train", label, "validation", "targets"))
    fingerprint = training_digest(table, model, reference, label=label, member=member, seed=seed)
    state = _State(network, directory / f"member-{member:02d}.checkpoint.npz", fingerprint)
    state.restore()
    step = _compile_step(network, state.optimizer, task, validation_targets)
    validate = _compile_validation(network, task, validation_targets)
    with tracking(trackers, state.history) as track:
        while (
            rates := learning_rates(model.training, [past.validation_loss for past in state.history])
        ) is not None:
            number, started = len(state.history), time.perf_counter()
            rng = stream(seed, "train", label, member, number)
            bags = _training_bags(task, sampler, model, rng, stream(seed, "train", label, member, "bags"))
            loss = _run_epoch(step, task, bags, rates, rng)
            trained = time.perf_counter() - started
            epoch = Epoch(
                epoch=number,
                learning_rate=float(rates[-1]),
                loss=loss,
                validation_loss=validate(validation, validation_targets),
                seconds=time.perf_counter() - started,
                events_per_second=len(rates) * bags_per_batch(model) * model.bag_size / trained,
            )
            if not np.isfinite([epoch.loss, epoch.validation_loss]).all():
                msg = (
                    f"the training of {label!r} (member {member}) diverged in epoch {number}: loss "
                    f"{epoch.loss}, validation loss {epoch.validation_loss}; lower the learning rate of its "
                    f"schedule (it was {epoch.learning_rate:.3g}), and look at the features for extreme "
                    "values"
                )
                raise FitError(msg)
            state.add(epoch)
            track(epoch)
            after_epoch(epoch)
    state.use_best()
    normalisation = _normalisation(task, network, table, model)
    return Trained(network, normalisation, tuple(state.history), state.best_epoch)


def training_digest(
    table: EventTable, model: AnyModelConfig, reference: FloatArray, *, label: str, member: int, seed: int
) -> str:
    """Return a digest of everything the result of a training depends on; see `train` for the arguments."""
    return digest_of(
        {
            "model": {**to_plain(model), "members": None, "average": None, "title": None},
            "table": table.digest,
            "reference": reference.tolist(),
            "stream": [seed, label, member],
            "code": source_digest(),
        }
    )


def _evenly_spread(rows: IntArray, n_largest: int) -> IntArray:
    """Return all rows, or ``n_largest`` evenly spaced ones: a million events standardise well enough."""
    if len(rows) <= n_largest:
        return rows
    spread: IntArray = rows[np.linspace(0, len(rows) - 1, n_largest).astype(np.int64)]
    return spread


def bags_per_batch(model: ModelConfig) -> int:
    """Return the bags per gradient step: a fixed number of events for any bag size, at least one bag."""
    return max(1, model.training.batch_events // model.bag_size)


def _require_useful_features(table: EventTable, label: str) -> None:
    """Refuse features that would spoil every weight in the first step, or that carry no information.

    Masses that are zero in all events are let through: at parton level leptons and quarks have none.
    """
    lowest, highest = table.features.min(axis=0, initial=np.inf), table.features.max(axis=0, initial=-np.inf)
    finite = np.isfinite(lowest) & np.isfinite(
        highest
    )  # a NaN is the minimum of all that it is compared with
    constant = lowest == highest
    found = [
        (name, good)
        for name, good, same, value in zip(table.feature_names, finite, constant, lowest, strict=True)
        if not good or (same and not (value == 0 and name.endswith("_m")))
    ]
    if bad := [name for name, good in found if not good]:
        msg = (
            f"model {label!r} cannot be trained: the features {', '.join(bad)} are not finite for some "
            "events; reject such events in the feature processor"
        )
        raise FitError(msg)
    if found and len(table) > 1:
        msg = (
            f"model {label!r} is not trained: the features {', '.join(name for name, _ in found)} are the "
            "same in all events, so something went wrong when they were computed, or there is nothing to "
            "learn from them; take them out of the feature processor, or repair them there"
        )
        raise FitError(msg)


def _validation_bags(task: Task, table: EventTable, model: ModelConfig, rng: np.random.Generator) -> Bags:
    """Draw the bags that decide which epoch is best, the same for all members."""
    n_bags = max(len(task.training_points), model.training.validation_events // model.bag_size)
    sampler = make_sampler(table, table.rows(Split.VALIDATION), model.background)
    return task.draw(sampler, n_bags, model.bag_size, rng)


def _normalisation(task: Task, network: Any, table: EventTable, model: ModelConfig) -> FloatArray:
    """Return the constants with which the mean ratio of reference events is one.

    Networks that look at bags of several events get none. Where their log ratios are a common factor too
    small, the mean of the exponential is not what it would be for the ratio, and dividing by it makes them
    worse.
    """
    from milanalysis.learning.networks.network import EventNetwork

    if task.pooled and model.bag_size > 1:
        return task.unnormalised
    known = table.rows(Split.TRAIN, Split.VALIDATION)
    probabilities = make_sampler(table, known, model.background).probabilities(task.reference[None, :])
    events = evaluator(task, EventNetwork(network)).events
    return normalisation(task, events, table.features, known, probabilities)


def _training_bags(
    task: Task, sampler: Sampler, model: ModelConfig, rng: np.random.Generator, fixed: np.random.Generator
) -> Bags:
    """Return the bags of an epoch: new ones, or those of every epoch in a new order."""
    n_bags = model.training.steps_per_epoch * bags_per_batch(model)
    if model.training.dynamic_bags:
        return task.draw(sampler, n_bags, model.bag_size, rng)
    return task.draw(sampler, n_bags, model.bag_size, fixed).take(rng.permutation(n_bags))


def _run_epoch(
    step: Callable[..., Any], task: Task, bags: Bags, rates: FloatArray, rng: np.random.Generator
) -> float:
    """Train for one epoch on its bags and return the mean loss of its steps.

    Batches are gathered as a whole, and several small ones are handed to TensorFlow at a time: a call costs
    as much as a step of a thousand events.
    """
    n_bags = len(bags) // len(rates)
    per_call = max(1, _EVENTS_PER_CALL // (n_bags * bags.bag_size))
    total = 0.0
    for first in range(0, len(rates), per_call):
        some = rates[first : first + per_call]
        batch = bags.take(slice(first * n_bags, (first + len(some)) * n_bags))
        arrays = (batch.features(), *task.encode(batch, rng))
        shaped = [array.reshape(len(some), n_bags, *array.shape[1:]) for array in arrays]
        total += float(step(some.astype(np.float32), *shaped))
    return total / len(rates)


def _compile_step(network: Any, optimizer: Any, task: Task, targets: Targets) -> Callable[..., Any]:
    """Compile a function that takes several gradient steps and returns the sum of their losses."""
    import tensorflow as tf

    n_features = network.input_shape[-1] - task.n_theta_inputs
    signature = [
        tf.TensorSpec((None,), tf.float32),
        tf.TensorSpec((None, *network.input_shape[:-1], n_features), tf.float32),
        *(tf.TensorSpec((None, None, *array.shape[1:]), array.dtype) for array in targets),
    ]

    @tf.function(input_signature=signature)
    def take_steps(rates: Any, features: Any, *targets: Any) -> Any:
        total = tf.constant(0.0)
        for i in tf.range(tf.shape(rates)[0]):
            with tf.GradientTape() as tape:
                of_batch = [target[i] for target in targets]
                outputs = network(_shown(task, features[i], of_batch), training=True)
                loss = tf.reduce_mean(task.loss(outputs, *of_batch))
                for penalty in network.losses:
                    loss += penalty
            gradients = tape.gradient(loss, network.trainable_variables)
            optimizer.learning_rate.assign(rates[i])
            optimizer.apply(gradients, network.trainable_variables)
            total += loss
        return total

    compiled = take_steps.get_concrete_function()
    return lambda *arrays: compiled(*map(tf.constant, arrays))


def _compile_validation(network: Any, task: Task, targets: Targets) -> Callable[[Bags, Targets], float]:
    """Compile the mean loss of bags, without dropout and regularisation."""
    import tensorflow as tf

    n_features = network.input_shape[-1] - task.n_theta_inputs
    signature = [
        tf.TensorSpec((*network.input_shape[:-1], n_features), tf.float32),
        *(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in targets),
    ]

    @tf.function(input_signature=signature)
    def losses(features: Any, *targets: Any) -> Any:
        return task.loss(network(_shown(task, features, targets), training=False), *targets)

    compiled = losses.get_concrete_function()

    def mean_loss(bags: Bags, targets: Targets) -> float:
        block = max(1, _EVENTS_PER_CALL // bags.bag_size)
        total = 0.0
        for start in range(0, len(bags), block):
            some = slice(start, start + block)
            arrays = (bags.take(some).features(), *[target[some] for target in targets])
            values = compiled(*map(tf.constant, arrays)).numpy()
            total += float(values.sum(dtype=np.float64))
        return total / len(bags)

    return mean_loss


def _shown(task: Task, features: Any, targets: Sequence[Any]) -> Any:
    """Return the network inputs of bags: their features and, if the task says so, theta beside each event."""
    import tensorflow as tf

    if not task.n_theta_inputs:
        return features
    theta = tf.repeat(targets[0][:, None, :], tf.shape(features)[1], axis=1)
    return tf.concat([features, theta], axis=-1)


class _State:
    """All that a training remembers from one epoch to the next, and its file."""

    def __init__(self, network: Any, path: Path, fingerprint: str) -> None:
        import keras

        self.optimizer = keras.optimizers.Adam()
        self.optimizer.build(network.trainable_variables)
        self.history: list[Epoch] = []
        self.best_epoch = -1
        self._best: list[FloatArray] = []
        self._network = network
        self._path = path
        self._fingerprint = fingerprint

    def add(self, epoch: Epoch) -> None:
        """Take note of an epoch, keep its weights if they are the best so far, and write the checkpoint."""
        self.history.append(epoch)
        if self.best_epoch < 0 or epoch.validation_loss < self.history[self.best_epoch].validation_loss:
            self.best_epoch = epoch.epoch
            self._best = _values(self._network)
        arrays = {
            **_numbered("network", _values(self._network)),
            **_numbered("optimizer", _values(self.optimizer)),
            **_numbered("best", self._best),
        }
        about = {
            "fingerprint": self._fingerprint,
            "best_epoch": self.best_epoch,
            "history": [asdict(past) for past in self.history],
        }
        with atomic_path(self._path) as temporary:
            np.savez(temporary, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)

    def restore(self) -> None:
        """Go back to the checkpoint, if there is one and it belongs to this very training.

        Raises:
            InputFileError: if there is one that cannot be read.
        """
        if not self._path.exists():
            return
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                if about["fingerprint"] != self._fingerprint:
                    logger.info(
                        "%s belongs to another training; this one starts from the beginning", self._path
                    )
                    return
                _assign(self._network, _in_order("network", arrays))
                _assign(self.optimizer, _in_order("optimizer", arrays))
                self._best = _in_order("best", arrays)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            msg = (
                f"the checkpoint {self._path} cannot be read ({error}); delete it to start this training anew"
            )
            raise InputFileError(msg) from error
        self.best_epoch = about["best_epoch"]
        self.history = [Epoch(**past) for past in about["history"]]
        logger.info("%s: going on after epoch %d", self._path, len(self.history) - 1)

    def use_best(self) -> None:
        """Give the network the weights of the best epoch."""
        _assign(self._network, self._best)


def _values(owner: Any) -> list[FloatArray]:
    """Return the values of all variables of a network or an optimizer, in their order."""
    return [variable.value.numpy() for variable in owner.variables]


def _assign(owner: Any, values: Sequence[FloatArray]) -> None:
    """Set all variables of a network or an optimizer."""
    for variable, value in zip(owner.variables, values, strict=True):
        variable.assign(value)


def _numbered(name: str, values: Sequence[FloatArray]) -> dict[str, FloatArray]:
    """Return arrays under numbered names."""
    return {f"{name}_{i:03d}": value for i, value in enumerate(values)}


def _in_order(name: str, arrays: Any) -> list[FloatArray]:
    """Return the arrays that `_numbered` has named, in order."""
    return [arrays[key] for key in sorted(arrays.files) if key.startswith(f"{name}_")]
