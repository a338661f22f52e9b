from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from milanalysis.config import (
    BackgroundConfig,
    CosineScheduleConfig,
    GridConfig,
    ModelConfig,
    MulticlassTaskConfig,
    NetworkConfig,
    PlateauScheduleConfig,
    PolynomialTaskConfig,
    TrainingConfig,
)
from milanalysis.errors import EventWeightError, FitError, InputFileError, TooFewEventsError
from milanalysis.events.tables import EventTable, Split, assign_split
from milanalysis.learning.networks.network import EventNetwork
from milanalysis.learning.sampling import with_background
from milanalysis.learning.tasks.task import make_task
from milanalysis.learning.tracking import CSVTracker
from milanalysis.learning.training import loop as training
from milanalysis.learning.training.loop import Trained, bags_per_batch, learning_rates, train, training_digest
from milanalysis.simulation.toys import GaussianShift, QuadraticEFT

REFERENCE = np.zeros(1)
GRID = GridConfig(low=-0.4, high=0.4, n_points=5)

PAPER = ModelConfig(
    title="small version of the paper's",
    bag_size=4,
    task=MulticlassTaskConfig(grid=GRID),
    network=NetworkConfig(hidden=(6,)),
    training=TrainingConfig(batch_events=400, steps_per_epoch=5, max_epochs=4, validation_events=800),
)


def gaussian_table(n_each: int, seed: int = 1) -> EventTable:
    """Events of a unit Gaussian at each grid point, without event weights."""
    rng, toy = np.random.default_rng(seed), GaussianShift(width=1.0)
    thetas = GRID.points()[:, 0]
    events = np.concatenate([toy.sample(rng, n_each, theta) for theta in thetas])
    event_id = np.arange(len(events))
    return EventTable(
        ("x",),
        events.astype(np.float32),
        np.repeat(thetas, n_each)[:, None],
        np.ones(len(events)),
        event_id,
        assign_split(event_id, 0, (0.6, 0.2, 0.2)),
    )


def trained(
    directory: Path, model: ModelConfig = PAPER, table: EventTable | None = None, **options
) -> Trained:
    metrics = CSVTracker(directory / "member-00.csv")
    settings = {"label": "toy", "member": 0, "seed": 3, "trackers": [metrics], **options}
    return train(table or gaussian_table(400), model, REFERENCE, directory=directory, **settings)


def weights(result: Trained) -> list[np.ndarray]:
    return [variable.value.numpy() for variable in result.network.variables]


def with_training(model: ModelConfig, **changes: object) -> ModelConfig:
    return replace(model, training=replace(model.training, **changes))


class Interruption(Exception):
    """Stands for a kill between two epochs."""


def test_a_batch_has_the_same_number_of_events_whatever_the_bag_size():
    assert bags_per_batch(ModelConfig(title="", task=MulticlassTaskConfig(), bag_size=250)) == 80_000 // 250
    assert bags_per_batch(replace(PAPER, bag_size=1000)) == 1


def test_the_plateau_schedule_reduces_once_and_stops_after_twice_the_patience():
    training = TrainingConfig(steps_per_epoch=1, schedule=PlateauScheduleConfig(patience=2))
    losses = [1.0, 0.9]
    seen = []
    while (rates := learning_rates(training, losses)) is not None:
        seen.append(float(rates[0]))
        losses.append(0.95)
    assert seen == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4])


def test_progress_postpones_the_reduction():
    training = TrainingConfig(steps_per_epoch=1, schedule=PlateauScheduleConfig(patience=2))
    assert learning_rates(training, [1.0, 1.1, 0.9, 1.0]) == pytest.approx(1e-3)


def test_the_cosine_schedule_warms_up_and_ends_near_zero():
    schedule = CosineScheduleConfig(peak=1.0, final_fraction=0.01, warmup_steps=3)
    training = TrainingConfig(steps_per_epoch=100, max_epochs=2, schedule=schedule)
    first, second = learning_rates(training, []), learning_rates(training, [1.0])
    np.testing.assert_allclose(first[:4], [0.25, 0.5, 0.75, 1.0], rtol=2e-3)
    assert second[0] == pytest.approx(0.505, abs=1e-3)
    assert second[-1] == pytest.approx(0.01, abs=1e-3)
    assert learning_rates(training, [1.0, 1.0]) is None


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_weights_bit_by_bit(tmp_path: Path):
    """With batch normalisation and dropout, whose random state is part of the checkpoint."""
    whole = trained(tmp_path / "whole")

    def interrupt(epoch) -> None:
        if epoch.epoch == 1:
            raise Interruption

    with pytest.raises(Interruption):
        trained(tmp_path / "parts", after_epoch=interrupt)
    continued = []
    parts = trained(tmp_path / "parts", after_epoch=continued.append)
    assert [epoch.epoch for epoch in continued] == [2, 3]
    for one, two in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(whole.normalisation, parts.normalisation)
    assert [epoch.loss for epoch in whole.history] == [epoch.loss for epoch in parts.history]
    with (tmp_path / "parts" / "member-00.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_members_differ_and_a_checkpoint_of_another_training_is_not_used(tmp_path: Path):
    short = with_training(PAPER, max_epochs=1)
    first = trained(tmp_path, short)
    (tmp_path / "member-00.checkpoint.npz").rename(tmp_path / "member-01.checkpoint.npz")
    second = trained(tmp_path, short, member=1)
    assert len(second.history) == 1
    assert not np.array_equal(weights(first)[-1], weights(second)[-1])


@pytest.mark.slow
def test_the_weights_of_the_best_epoch_are_kept(tmp_path: Path):
    """A learning rate that is absurd after the warm-up makes the later epochs worse than the first."""
    wild = with_training(PAPER, schedule=PlateauScheduleConfig(initial=3.0, final=2.0))
    result = trained(tmp_path, wild)
    losses = [epoch.validation_loss for epoch in result.history]
    assert result.best_epoch == int(np.argmin(losses))
    stopped = trained(tmp_path / "stopped", with_training(wild, max_epochs=result.best_epoch + 1))
    for one, two in zip(weights(result), weights(stopped), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_a_broken_checkpoint_is_named(tmp_path: Path):
    (tmp_path / "member-00.checkpoint.npz").write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(InputFileError, match=r"member-00\.checkpoint\.npz cannot be read.*delete it"):
        trained(tmp_path)


def test_features_that_are_not_finite_stop_the_training_before_it_begins(tmp_path: Path):
    table = gaussian_table(50)
    table.features[7, 0] = np.nan
    with pytest.raises(FitError, match="features x are not finite"):
        trained(tmp_path, table=table)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, False])
def test_bags_are_new_in_every_epoch_unless_they_shall_not_be(
    dynamic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    run_epoch = training._run_epoch

    def watch(step, task, bags, *others):
        seen.append({frozenset(bag) for bag in bags.index.tolist()})
        return run_epoch(step, task, bags, *others)

    monkeypatch.setattr(training, "_run_epoch", watch)
    trained(tmp_path, with_training(PAPER, max_epochs=2, dynamic_bags=dynamic))
    first, second = seen
    assert (first == second) == (not dynamic)


def test_a_constant_feature_stops_the_training_before_it_begins(tmp_path: Path):
    table = gaussian_table(50)
    table.features[:, 0] = 3.0
    with pytest.raises(FitError, match=r"the features x are the same in all events.*take them out"):
        trained(tmp_path, table=table)


@pytest.mark.slow
def test_masses_that_are_zero_are_no_constant_feature(tmp_path: Path):
    table = gaussian_table(50)
    massless = replace(
        table,
        feature_names=("x", "l0_m"),
        features=np.concatenate([table.features, np.zeros_like(table.features)], axis=1),
    )
    assert len(trained(tmp_path, with_training(PAPER, max_epochs=1), massless).history) == 1


def test_a_class_without_events_stops_the_training_before_it_begins(tmp_path: Path):
    table = gaussian_table(50)
    with pytest.raises(EventWeightError, match=r"no events represent the point \[0.2\]"):
        trained(tmp_path, table=table.take(table.theta[:, 0] != 0.2))


def test_bags_larger_than_the_sample_stop_the_training_before_it_begins(tmp_path: Path):
    with pytest.raises(TooFewEventsError, match="bags of 300 events cannot be drawn at the point"):
        trained(tmp_path, replace(PAPER, bag_size=300), gaussian_table(50))


@pytest.mark.slow
def test_background_in_the_bags_takes_information_away_and_nothing_else(tmp_path: Path):
    """A background like the reference, as many events as signal: half of the information is lost.

    Per event the exact log ratio of the mixture at small theta is ``theta x / 2``. The slope of the learned
    log ratio at theta = 0.4 in x is 0.4 without background and, to second order in theta, 0.2 (1 + theta^2 /
    4 ...) with it; three seeds gave 0.42 to 0.44 and 0.20 to 0.21.
    """
    table = gaussian_table(20_000)
    rng = np.random.default_rng(8)
    other = gaussian_table(10_000)
    other = replace(
        other,
        features=rng.normal(size=other.features.shape).astype(np.float32),
        event_id=other.event_id + len(table),
    )
    model = ModelConfig(
        title="",
        task=MulticlassTaskConfig(grid=GRID),
        bag_size=4,
        network=NetworkConfig(hidden=(16,), batch_norm=False, dropout=0.0, l2=0.0),
        training=TrainingConfig(
            batch_events=4000,
            steps_per_epoch=100,
            max_epochs=3,
            validation_events=20_000,
            schedule=CosineScheduleConfig(peak=1e-2),
        ),
    )
    x = np.linspace(-1, 1, 21, dtype=np.float32)[:, None]
    slopes = []
    for composition in (None, "fixed", "poisson"):
        if composition is None:
            one, events = model, table
        else:
            background = BackgroundConfig(sample="b", contamination=1.0, composition=composition)
            one, events = replace(model, background=background), with_background(table, [other])
        result = trained(tmp_path / str(composition), one, events)
        terms = make_task(one.task, REFERENCE).terms(
            EventNetwork(result.network).events(x), result.normalisation, 4
        )
        slopes.append(np.polyfit(x[:, 0], terms.values[:, -1], 1)[0])
    assert slopes[0] == pytest.approx(0.4, abs=0.06)
    assert slopes[1:] == pytest.approx([0.2, 0.2], abs=0.06)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_training_that_diverges_says_so(tmp_path: Path):
    plain = NetworkConfig(hidden=(6,), batch_norm=False, dropout=0.0, l2=0.0)
    explosive = with_training(
        replace(PAPER, network=plain), schedule=PlateauScheduleConfig(initial=1e30, final=1e30)
    )
    with pytest.raises(FitError, match=r"diverged in epoch 0.*lower the learning rate"):
        trained(tmp_path, explosive)


def test_the_digest_of_a_training_knows_what_matters_and_nothing_else():
    table = gaussian_table(10)

    def digest(model: ModelConfig = PAPER, member: int = 0, table: EventTable = table) -> str:
        return training_digest(table, model, REFERENCE, label="toy", member=member, seed=3)

    assert digest() == digest(replace(PAPER, title="another title", members=5))
    different = [
        digest(replace(PAPER, bag_size=5)),
        digest(member=1),
        digest(table=table.take(np.arange(20))),
    ]
    assert len({digest(), *different}) == 4


@pytest.mark.slow
def test_a_multiclass_bag_network_learns_the_gaussian_log_ratio(tmp_path: Path):
    """The exact log ratio of a bag is n (theta mean(x) - theta^2/2).

    Four seeds gave correlations from 0.992 to 0.999 and slopes from 0.96 to 1.04; the limits are three times
    as far from one.
    """
    table = gaussian_table(20_000)
    model = ModelConfig(
        title="",
        bag_size=5,
        task=MulticlassTaskConfig(grid=GRID),
        network=NetworkConfig(hidden=(16,), batch_norm=False, dropout=0.0, l2=0.0),
        training=TrainingConfig(
            batch_events=5000,
            steps_per_epoch=100,
            max_epochs=3,
            validation_events=20_000,
            schedule=CosineScheduleConfig(peak=1e-2),
        ),
    )
    result = trained(tmp_path, model, table)
    rng = np.random.default_rng(4)
    bags = GaussianShift(width=1.0).sample(rng, 10_000).reshape(2000, 5, 1)
    task = make_task(model.task, REFERENCE)
    learned = task.bag_log_ratio(
        EventNetwork(result.network)(bags.astype(np.float32)), result.normalisation, GRID.points()
    )
    theta = GRID.points()[:, 0]
    exact = 5 * (bags.mean(axis=1) * theta - theta**2 / 2)
    assert np.all(learned[:, 2] == 0)
    for k in (0, 4):
        assert np.corrcoef(learned[:, k], exact[:, k])[0, 1] > 0.976
        assert np.polyfit(exact[:, k], learned[:, k], 1)[0] == pytest.approx(1, abs=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("bag_size", [1, 2])
def test_the_polynomial_task_learns_the_score_and_the_rate_of_the_toy(bag_size: int, tmp_path: Path):
    """Captured information: squared correlation of the learned with the exact score on unseen events.

    32,000 training events and five epochs gave 0.895 to 0.917 in three seeds, at both bag sizes, and slopes
    (covariance over the variance of the exact score) from 0.89 to 0.93. The rate at c = 0.5 is 1.0203
    exactly; the learned one was within 0.003 of it.
    """
    toy = QuadraticEFT(information=0.3)
    table = toy.table(np.random.default_rng(5), 50_000)
    model = ModelConfig(
        title="",
        bag_size=bag_size,
        task=PolynomialTaskConfig(theta_range=0.5),
        network=NetworkConfig(hidden=(32, 32), activation="silu", batch_norm=False, dropout=0.0, l2=0.0),
        training=TrainingConfig(
            batch_events=500,
            steps_per_epoch=100,
            max_epochs=5,
            validation_events=8000,
            schedule=CosineScheduleConfig(),
        ),
    )
    result = trained(tmp_path, model, table)
    unseen = table.take(table.rows(Split.TEST))
    outputs = EventNetwork(result.network).events(unseen.features)
    polynomials = make_task(model.task, REFERENCE).terms(outputs, result.normalisation, 1).polynomials[0]
    exact = 2 * toy.amplitudes(unseen.features)[0]
    assert np.corrcoef(polynomials[:, 1], exact)[0, 1] ** 2 > 0.85
    assert np.cov(polynomials[:, 1], exact)[0, 1] / exact.var() == pytest.approx(0.91, abs=0.06)
    assert result.normalisation[0] == 1
    assert np.polynomial.polynomial.polyval(0.5, result.normalisation) == pytest.approx(1.0203, abs=0.01)
