"""CPU-seconds of training until a network captures 95 % of the information that is there.

    python benchmarks/time_to_information.py [--events 50000] [--members 1] [--bag-size 50] [--goal 0.95]

The strong toy: 0.3 of Fisher information per event, known exactly. Captured information is the squared
correlation of the learned score (slope of an event's log ratio within 0.2 of the reference) with the exact
one, on 300,000 events that were not learned from; evaluating it is not counted. The recipes:

- weights: per-event polynomial from exact event weights, as many events at the reference as the others have
  in all.
- morphing: per-event polynomial learned from labelled samples at 21 points by cross-entropy.
- paper: 21 classes, bags, dropout and L2, batches of 80,000 events, and an ensemble of 20 members
  (arXiv:2508.07114). Its members are alike and independent, so ``--members`` of them are trained, the
  information is that of their average, and the CPU time is that of 20. They are trained with this package;
  the usual pipeline takes longer by the factor that benchmarks/training.py measures.

Start-up and tracing are counted. Writes benchmarks/results/time_to_information.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from milanalysis.config import (
    CosineScheduleConfig,
    GridConfig,
    ModelConfig,
    MorphingFormConfig,
    MulticlassTaskConfig,
    NetworkConfig,
    PolynomialSamplesTaskConfig,
    PolynomialTaskConfig,
    TrainingConfig,
)
from milanalysis.events.tables import EventTable, assign_split
from milanalysis.files.provenance import package_versions, write_json
from milanalysis.learning.models.network_ratio import NetworkRatio, evaluator
from milanalysis.learning.networks.network import EventNetwork, build_network
from milanalysis.learning.tasks.task import make_task
from milanalysis.learning.training.loop import train
from milanalysis.parameters import FloatArray
from milanalysis.simulation.toys import QuadraticEFT

POINTS = GridConfig().points()
NEAR = POINTS[np.abs(POINTS[:, 0]) <= 0.2 + 1e-9]
TOY = QuadraticEFT(information=0.3)
N_UNSEEN, PAPER_MEMBERS = 300_000, 20
PER_EVENT = {
    "network": NetworkConfig(hidden=(64, 64), activation="silu", batch_norm=False, dropout=0.0, l2=0.0),
    "training": TrainingConfig(
        batch_events=1000,
        steps_per_epoch=100,
        max_epochs=30,
        validation_events=20_000,
        schedule=CosineScheduleConfig(peak=3e-3),
    ),
}
RESULTS = Path(__file__).parent / "results" / "time_to_information.json"


def labelled(n_each: int) -> EventTable:
    """Return samples at all points, without event weights."""
    rng = np.random.default_rng(1)
    events = np.concatenate([TOY.sample(rng, n_each, theta) for theta in POINTS[:, 0]])
    event_id = np.arange(len(events))
    return EventTable(
        TOY.feature_names,
        events.astype(np.float32),
        np.repeat(POINTS, n_each, axis=0),
        np.ones(len(events)),
        event_id,
        assign_split(event_id, 0, (0.9, 0.1, 0.0)),
    )


def models(options: argparse.Namespace) -> dict[str, ModelConfig]:
    paper = TrainingConfig(
        steps_per_epoch=max(1, len(POINTS) * options.events * 9 // 10 // 80_000),
        max_epochs=options.epochs,
        validation_events=100_000,
    )
    morphing = PolynomialSamplesTaskConfig(form=MorphingFormConfig())
    return {
        "weights": ModelConfig(title="", task=PolynomialTaskConfig(theta_range=0.5), **PER_EVENT),
        "morphing": ModelConfig(title="", task=morphing, **PER_EVENT),
        "paper": ModelConfig(
            title="",
            task=MulticlassTaskConfig(),
            bag_size=options.bag_size,
            members=PAPER_MEMBERS,
            training=paper,
        ),
    }


def slopes_by_epoch(
    table: EventTable, model: ModelConfig, unseen: EventTable, member: int
) -> tuple[list[FloatArray], list[float]]:
    """Train one member; return its score of unseen events and the CPU time spent, after each epoch."""
    weights: list[list[np.ndarray]] = []
    seconds: list[float] = []
    started = time.process_time()
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = Path(directory) / f"member-{member:02d}.checkpoint.npz"

        def remember(_: object) -> None:
            seconds.append(time.process_time() - started)
            with np.load(checkpoint) as arrays:
                weights.append([arrays[key] for key in sorted(arrays) if key.startswith("network_")])

        result = train(
            table,
            model,
            np.zeros(1),
            label="toy",
            member=member,
            seed=1,
            directory=Path(directory),
            after_epoch=remember,
        )
    task = make_task(model.task, np.zeros(1))
    network = build_network(
        model.network,
        table.feature_names,
        task.n_outputs,
        pooled=task.pooled,
        training_features=table.features[:1000],
        seed=1,
        bag_size=model.bag_size,
        n_constants=task.n_constants,
    )
    slopes = []
    for values in weights:
        for variable, value in zip(network.variables, values, strict=True):
            variable.assign(value)
        ratio = NetworkRatio(
            label="toy",
            network=evaluator(task, EventNetwork(network)),
            task=task,
            normalisation=result.normalisation,
            feature_names=table.feature_names,
            trained_bag_size=model.bag_size,
            n_averaged=model.bag_size,
        )
        slopes.append(ratio.terms(unseen).per_event(NEAR) @ NEAR[:, 0] / np.sum(NEAR**2))
    return slopes, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=50_000, help="of each of the 21 samples")
    parser.add_argument("--bag-size", type=int, default=50, help="of the paper's recipe")
    parser.add_argument("--members", type=int, default=1, help="of the paper's ensemble that are trained")
    parser.add_argument("--epochs", type=int, default=60, help="of the paper's recipe, at most")
    parser.add_argument("--goal", type=float, default=0.95)
    options = parser.parse_args()
    samples = labelled(options.events)
    weighted = TOY.table(np.random.default_rng(2), len(samples), fractions=(0.9, 0.1, 0.0))
    unseen = replace(TOY.table(np.random.default_rng(3), N_UNSEEN), event_weights=None)
    exact = 2 * TOY.amplitudes(unseen.features)[0]
    found = {}
    print(f"{'recipe':10s} {'CPU-s to ' + format(options.goal, 'g'):>14s} {'epochs':>7s} {'in the end':>10s}")
    for name, model in models(options).items():
        table = weighted if name == "weights" else samples
        trained = [
            slopes_by_epoch(table, model, unseen, member)
            for member in range(options.members if name == "paper" else 1)
        ]
        n_epochs = min(len(slopes) for slopes, _ in trained)
        captured = [
            float(np.corrcoef(np.mean([slopes[epoch] for slopes, _ in trained], axis=0), exact)[0, 1] ** 2)
            for epoch in range(n_epochs)
        ]
        cost = model.members * np.mean([seconds[:n_epochs] for _, seconds in trained], axis=0)
        reached = next((epoch for epoch, value in enumerate(captured) if value >= options.goal), None)
        spent = None if reached is None else float(cost[reached])
        found[name] = {
            "cpu_seconds_to_goal": spent,
            "captured": captured,
            "cpu_seconds": cost.tolist(),
            "members_trained": len(trained),
            "members_counted": model.members,
        }
        text = f"> {cost[-1]:.0f}" if spent is None else f"{spent:.1f}"
        epochs = "-" if reached is None else str(reached + 1)
        print(f"{name:10s} {text:>14s} {epochs:>7s} {max(captured):10.4f}", flush=True)
    write_json(
        RESULTS,
        {
            "goal": options.goal,
            "events_per_sample": options.events,
            "bag_size_of_paper": options.bag_size,
            "recipes": found,
            "versions": package_versions(),
        },
    )


if __name__ == "__main__":
    main()
