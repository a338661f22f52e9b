"""What a network is asked, and what it makes of the same events: tasks compared on toys with an exact ratio.

Two toys of EFT type: a strong signal (information 0.3 per event, datasets of 1000 events) and a weak one (0.01, datasets
of 10,000). All tasks see the same samples at the points of a grid, as many steps, and the same network; the polynomial
task sees as many events at the reference instead, with their event weights. Every estimate is that of a parabola
through the log ratios within 0.4 of the highest, as in arXiv:2508.07114, on the same datasets.

Columns: captured information rho^2 (squared correlation of estimate and exact score), response (change of the mean
estimate with the true value), calibration c (inverse variance over mean curvature) over that of the exact ratio, and the
mean squared distance of ``-2 ln L`` from the parabola.

Run: python benchmarks/tasks.py [--events 20000] [--epochs 30]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from milanalysis.config import (
    CosineScheduleConfig,
    GridConfig,
    LogitsFormConfig,
    ModelConfig,
    MorphingFormConfig,
    MulticlassTaskConfig,
    NetworkConfig,
    PaperPairingConfig,
    ParameterisedTaskConfig,
    PolynomialSamplesTaskConfig,
    PolynomialTaskConfig,
    TrainingConfig,
)
from milanalysis.events.tables import EventTable, concatenate
from milanalysis.learning.networks import EventNetwork
from milanalysis.learning.ratios import NetworkRatio, evaluator
from milanalysis.learning.scores import EventScores
from milanalysis.learning.tasks import make_task
from milanalysis.learning.training import train
from milanalysis.parameters import FloatArray
from milanalysis.simulation.toys import QuadraticEFT, ToyScores

GRID = GridConfig(n_points=21)
POINTS = GRID.points()
TOYS = {"strong": (QuadraticEFT(0.3), 1000), "weak": (QuadraticEFT(0.01), 10_000)}
N_DATASETS, N_UNSEEN = 300, 300_000
TASKS = {
    "polynomial from weights": (PolynomialTaskConfig(theta_range=1.0), 1),
    "morphing": (PolynomialSamplesTaskConfig(grid=GRID, form=MorphingFormConfig()), 1),
    "morphing, bags of 50": (PolynomialSamplesTaskConfig(grid=GRID, form=MorphingFormConfig()), 50),
    "logits of degree 2": (PolynomialSamplesTaskConfig(grid=GRID, form=LogitsFormConfig(degree=2)), 1),
    "multiclass": (MulticlassTaskConfig(grid=GRID), 1),
    "multiclass, bags of 50": (MulticlassTaskConfig(grid=GRID), 50),
    "multiclass, bags of 250": (MulticlassTaskConfig(grid=GRID), 250),
    "parameterised": (ParameterisedTaskConfig(grid=GRID), 1),
    "parameterised, pairs of the paper": (
        ParameterisedTaskConfig(grid=GRID, pairing=PaperPairingConfig()),
        1,
    ),
}


def samples(toy: QuadraticEFT, n_each: int) -> EventTable:
    rng = np.random.default_rng(1)
    fractions = (0.9, 0.1, 0.0)
    tables = [
        toy.table(rng, n_each, float(theta), split_seed=k, fractions=fractions)
        for k, theta in enumerate(POINTS[:, 0])
    ]
    return concatenate(
        [replace(one, event_weights=None, event_id=one.event_id + k * n_each) for k, one in enumerate(tables)]
    )


def learned(
    task: object, bag_size: int, table: EventTable, epochs: int, unseen: EventTable
) -> tuple[EventScores, EventScores, float]:
    """Return the scores of unseen events, as they are used and without normalisation, and seconds."""
    model = ModelConfig(
        title="",
        task=task,
        bag_size=bag_size,
        network=NetworkConfig(hidden=(64, 64), activation="silu", batch_norm=False, dropout=0, l2=0),
        training=TrainingConfig(
            batch_events=4000,
            steps_per_epoch=100,
            max_epochs=epochs,
            validation_events=40_000,
            schedule=CosineScheduleConfig(),
        ),
    )
    started = time.process_time()
    with tempfile.TemporaryDirectory() as directory:
        result = train(table, model, np.zeros(1), label="toy", member=0, seed=1, directory=Path(directory))
    seconds = time.process_time() - started
    one = make_task(model.task, np.zeros(1))
    ratio = NetworkRatio(
        label="toy",
        network=evaluator(one, EventNetwork(result.network)),
        task=one,
        normalisation=result.normalisation,
        feature_names=table.feature_names,
        trained_bag_size=bag_size,
        n_averaged=bag_size,
    )
    return ratio.scores(unseen), replace(ratio, normalisation=one.unnormalised).scores(unseen), seconds


def estimates(scores: EventScores, rows: np.ndarray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return estimate, curvature of ``-ln L``, and mean squared distance of ``-2 ln L`` from the parabola."""
    grid, found = POINTS[:, 0], []
    per_event = scores.per_event(POINTS)
    for one in rows:
        twice_nll = -2 * per_event[one].sum(axis=0)
        near = np.abs(grid - grid[twice_nll.argmin()]) <= 0.4 + 1e-9
        parabola = np.polynomial.Polynomial.fit(grid[near], twice_nll[near], 2).convert().coef
        distance = np.polynomial.polynomial.polyval(grid[near], parabola) - twice_nll[near]
        found.append((-parabola[1] / (2 * parabola[2]), parabola[2], np.mean(distance**2)))
    estimate, curvature, distance = np.array(found).T
    return estimate, curvature, distance


def rows_of(toy: QuadraticEFT, n_events: int, n_each: int, epochs: int) -> Iterator[dict[str, object]]:
    table = samples(toy, n_each)
    weighted = toy.table(np.random.default_rng(2), len(table), fractions=(0.9, 0.1, 0.0))
    unseen = toy.table(np.random.default_rng(3), N_UNSEEN)
    datasets = np.random.default_rng(4).integers(0, N_UNSEEN, (N_DATASETS, n_events))
    score = 2 * toy.amplitudes(unseen.features)[0][datasets].sum(axis=1)
    calibrations = {}

    def summary(name: str, scores: EventScores, seconds: float) -> dict[str, object]:
        estimate, curvature, distance = estimates(scores, datasets)
        covariance = np.cov(estimate, score)
        calibrations[name] = 1 / (covariance[0, 0] * curvature.mean())
        return {
            "task": name,
            "rho2": round(float(np.corrcoef(estimate, score)[0, 1] ** 2), 4),
            "response": round(
                float(covariance[0, 1] / covariance[1, 1] * toy.fisher_information(n_events)), 3
            ),
            "c_over_exact": round(float(calibrations[name] / calibrations["exact"]), 3),
            "parabola_mse": round(float(distance.mean()), 4),
            "cpu_seconds": round(seconds, 1),
        }

    yield summary("exact", ToyScores(toy, unseen.features.astype(np.float64)), 0.0)
    for name, (task, bag_size) in TASKS.items():
        events = weighted if isinstance(task, PolynomialTaskConfig) else table
        used, plain, seconds = learned(task, bag_size, events, epochs, unseen)
        yield summary(name, used, seconds)
        if name == "multiclass":
            yield summary(f"{name}, not normalised", plain, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000, help="events at each of 21 points")
    parser.add_argument("--epochs", type=int, default=30, help="of 100 steps of 4000 events")
    parser.add_argument("--toys", nargs="+", default=list(TOYS), choices=list(TOYS))
    options = parser.parse_args()
    for signal in options.toys:
        toy, n_events = TOYS[signal]
        for row in rows_of(toy, n_events, options.events, options.epochs):
            print(json.dumps({"signal": signal, **row}), flush=True)


if __name__ == "__main__":
    main()
