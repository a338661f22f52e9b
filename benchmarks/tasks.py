"""What a network is asked, and what it makes of the same events: tasks compared on toys with an exact ratio.

Two toys of EFT type: a strong signal (information 0.3 per event, datasets of 1000 events) and a weak one
(0.01, datasets of 10,000). All tasks see the same samples at the points of a grid, as many steps, and the
same network (but "all as in the paper", which has the network, regularisation and learning rates of
arXiv:2508.07114); the polynomial task sees as many events at the reference instead, with their event weights.
Every estimate is that of a parabola through the log ratios within 0.4 of the highest, as in that paper, on
the same datasets.

Columns: captured information rho^2 (squared correlation of estimate and exact score), response (change of the
    mean
estimate with the true value), calibration c (inverse variance over mean curvature) over that of the exact
ratio, the mean squared distance of ``-2 ln L`` from the parabola, and the excess of the cross-entropy of the
points, event by event, over that of the exact ratio (in nats).

Run: python benchmarks/tasks.py; --help names the options. Writes benchmarks/results/tasks.json.
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
from scipy.special import log_softmax

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
    PlateauScheduleConfig,
    PolynomialSamplesTaskConfig,
    PolynomialTaskConfig,
    TrainingConfig,
)
from milanalysis.events.tables import EventTable, concatenate
from milanalysis.files.provenance import package_versions, write_json
from milanalysis.learning.models.network_ratio import NetworkRatio, evaluator
from milanalysis.learning.networks.network import EventNetwork
from milanalysis.learning.tasks.task import make_task
from milanalysis.learning.training.loop import train
from milanalysis.parameters import FloatArray
from milanalysis.ratios.terms import EventTerms
from milanalysis.simulation.toys import QuadraticEFT, ToyTerms

GRID = GridConfig(n_points=21)
POINTS = GRID.points()
TOYS = {"strong": (QuadraticEFT(0.3), 1000), "weak": (QuadraticEFT(0.01), 10_000)}
N_DATASETS, N_UNSEEN = 300, 300_000
RESULTS = Path(__file__).parent / "results" / "tasks.json"
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
    "multiclass, bags of 250, all as in the paper": (MulticlassTaskConfig(grid=GRID), 250),
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
    name: str, table: EventTable, unseen: EventTable, options: argparse.Namespace
) -> tuple[EventTerms, EventTerms, float]:
    """Return the terms of unseen events, as they are used and without normalisation, and seconds."""
    task, bag_size = TASKS[name]
    network = NetworkConfig(
        hidden=tuple(options.hidden), activation="silu", batch_norm=False, dropout=0, l2=0
    )
    as_in_paper = name.endswith("as in the paper")
    model = ModelConfig(
        title="",
        task=task,
        bag_size=bag_size,
        network=NetworkConfig() if as_in_paper else network,
        training=TrainingConfig(
            batch_events=options.batch,
            steps_per_epoch=100,
            max_epochs=options.epochs,
            validation_events=40_000,
            schedule=PlateauScheduleConfig() if as_in_paper else CosineScheduleConfig(),
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
    return ratio.terms(unseen), replace(ratio, normalisation=one.unnormalised).terms(unseen), seconds


def estimates(terms: EventTerms, rows: np.ndarray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return estimate, curvature of ``-ln L``, and mean squared distance of ``-2 ln L`` from the parabola."""
    grid, found = POINTS[:, 0], []
    per_event = terms.per_event(POINTS)
    for one in rows:
        twice_nll = -2 * per_event[one].sum(axis=0)
        near = np.abs(grid - grid[twice_nll.argmin()]) <= 0.4 + 1e-9
        parabola = np.polynomial.Polynomial.fit(grid[near], twice_nll[near], 2).convert().coef
        distance = np.polynomial.polynomial.polyval(grid[near], parabola) - twice_nll[near]
        found.append((-parabola[1] / (2 * parabola[2]), parabola[2], np.mean(distance**2)))
    estimate, curvature, distance = np.array(found).T
    return estimate, curvature, distance


def excess(terms: EventTerms, exact: FloatArray) -> float:
    """Return the excess cross-entropy over points, from exact log ratios ``(n_events, n_points)``."""
    difference = log_softmax(exact, axis=1) - log_softmax(terms.per_event(POINTS), axis=1)
    return float(np.mean(np.sum(np.exp(exact) * difference, axis=1)) / len(POINTS))


def rows_of(toy: QuadraticEFT, n_events: int, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    table = samples(toy, options.events)
    weighted = toy.table(np.random.default_rng(2), len(table), fractions=(0.9, 0.1, 0.0))
    unseen = toy.table(np.random.default_rng(3), N_UNSEEN)
    datasets = np.random.default_rng(4).integers(0, N_UNSEEN, (N_DATASETS, n_events))
    score = 2 * toy.amplitudes(unseen.features)[0][datasets].sum(axis=1)
    exact = ToyTerms(toy, unseen.features.astype(np.float64))
    exact_log_ratios = exact.per_event(POINTS)
    calibrations = {}

    def summary(name: str, terms: EventTerms, seconds: float) -> dict[str, object]:
        estimate, curvature, distance = estimates(terms, datasets)
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
            "excess": round(excess(terms, exact_log_ratios), 6),
            "cpu_seconds": round(seconds, 1),
        }

    yield summary("exact", exact, 0.0)
    for name in options.tasks:
        events = weighted if isinstance(TASKS[name][0], PolynomialTaskConfig) else table
        used, plain, seconds = learned(name, events, unseen, options)
        yield summary(name, used, seconds)
        if name == "multiclass":
            yield summary(f"{name}, not normalised", plain, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000, help="events at each of 21 points")
    parser.add_argument("--epochs", type=int, default=20, help="of 100 steps")
    parser.add_argument("--batch", type=int, default=4000, help="events of a step")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64], help="units of the hidden layers")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--toys", nargs="+", default=list(TOYS), choices=list(TOYS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = []
    for signal in options.toys:
        toy, n_events = TOYS[signal]
        for row in rows_of(toy, n_events, options):
            rows.append({"signal": signal, **row})
            print(json.dumps(rows[-1]), flush=True)
    settings = {name: getattr(options, name) for name in ("events", "epochs", "batch", "hidden")}
    write_json(options.output, {"settings": settings, "rows": rows, "versions": package_versions()})


if __name__ == "__main__":
    main()
