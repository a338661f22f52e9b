"""Two Gaussians, bags of ten: a classifier of bags against one of events (arXiv:2101.07263, III A 1).

    python benchmarks/two_gaussians.py [--seeds 4] [--test-events 2000000]

Events are numbers from N(+0.1, 1) or N(-0.1, 1). The log ratio of a bag is 0.2 times the sum of its events,
so nothing separates bags better than the sum, and its area under the ROC curve is Phi(0.2 sqrt(10) / sqrt(2))
= 0.67264; for events it is 0.55623. Each network is compared with the sum on the same test bags, so that
their fluctuation (0.0016) cancels. 50,000 events are learned from, always in the same bags, and as many
decide when to stop; networks and batches as in arXiv:2101.07263. (In new bags every epoch a list comes closer
to the optimum.)

- f1 -> 10: a network of events, its outputs summed over the bag.
- sum, mean: additive networks trained on bags. For the sum, f10 -> 1 is the same network used on events.
- deep_set, attention: symmetric, and not additive.
- list, sorted_list: a plain network of ten numbers.

Writes benchmarks/results/two_gaussians.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from milanalysis.config import (
    AttentionPoolConfig,
    BinaryTaskConfig,
    DeepSetPoolConfig,
    ListPoolConfig,
    MeanPoolConfig,
    ModelConfig,
    NetworkConfig,
    PlateauScheduleConfig,
    SortedListPoolConfig,
    SumPoolConfig,
    TrainingConfig,
)
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import package_versions, write_json
from milanalysis.learning.networks.network import EventNetwork
from milanalysis.learning.training.loop import train
from milanalysis.parameters import FloatArray

MEAN, BAG_SIZE, N_EVENTS = 0.1, 10, 50_000
POOLINGS = {
    "sum": SumPoolConfig(),
    "mean": MeanPoolConfig(),
    "deep_set": DeepSetPoolConfig(hidden=(128,)),
    "attention": AttentionPoolConfig(),
    "list": ListPoolConfig(),
    "sorted_list": SortedListPoolConfig(by="x"),
}
RESULTS = Path(__file__).parent / "results" / "two_gaussians.json"


def draw(rng: np.random.Generator, n_each: int) -> tuple[FloatArray, FloatArray]:
    """Return events and the mean of the Gaussian that each comes from, shape ``(2 n_each, 1)``."""
    theta = np.repeat([-MEAN, MEAN], n_each)[:, None]
    return rng.normal(theta), theta


def make_table(rng: np.random.Generator) -> EventTable:
    """Return the events to learn from, and those that decide when to stop."""
    events, theta = draw(rng, N_EVENTS)
    split = np.where(np.arange(len(events)) % 2, Split.TRAIN, Split.VALIDATION).astype(np.int8)
    return EventTable(
        ("x",), events.astype(np.float32), theta, np.ones(len(events)), np.arange(len(events)), split
    )


def make_model(pooling: object, bag_size: int) -> ModelConfig:
    """Return a model: two layers of 128, batches of a tenth of the events, early stopping after 20 epochs."""
    return ModelConfig(
        title="",
        task=BinaryTaskConfig(theta=MEAN),
        bag_size=bag_size,
        network=NetworkConfig(
            hidden=(128, 128), pooling=pooling, activation="relu", batch_norm=False, dropout=0.0, l2=0.0
        ),
        training=TrainingConfig(
            batch_events=N_EVENTS // 10,
            steps_per_epoch=10,
            validation_events=N_EVENTS,
            dynamic_bags=False,
            schedule=PlateauScheduleConfig(patience=10),
        ),
    )


def auc(outputs: FloatArray, is_signal: np.ndarray) -> float:
    """Return the area under the ROC curve, from the sum of the ranks of the signal."""
    n_signal = int(is_signal.sum())
    n_other = len(outputs) - n_signal
    ranks = rankdata(outputs)[is_signal].sum()
    return float((ranks - n_signal * (n_signal + 1) / 2) / (n_signal * n_other))


def study(seed: int, poolings: Sequence[str], n_test: int) -> dict[str, float]:
    """Train one network of events and one of bags for each pooling; return differences of AUC to the optimum.

    Differences are taken on the same test events: ``f1`` and ``f10->1`` for single events, all others for
    bags.
    """
    rng = np.random.default_rng(seed)
    table = make_table(rng)
    events, theta = draw(rng, n_test // 2)
    bags = events.astype(np.float32).reshape(-1, BAG_SIZE, 1)
    is_signal, bag_is_signal = theta[:, 0] > 0, theta[::BAG_SIZE, 0] > 0
    best_of_bags = auc(bags.sum(axis=(1, 2), dtype=np.float64), bag_is_signal)
    best_of_events = auc(events[:, 0], is_signal)

    def network_of(pooling: object, bag_size: int, label: str) -> EventNetwork:
        with tempfile.TemporaryDirectory() as directory:
            trained = train(
                table,
                make_model(pooling, bag_size),
                np.array([-MEAN]),
                label=label,
                member=0,
                seed=seed,
                directory=Path(directory),
            )
        return EventNetwork(trained.network)

    by_event = network_of(MeanPoolConfig(), 1, "f1").events(events.astype(np.float32))[:, 0]
    differences = {
        "f1": auc(by_event, is_signal) - best_of_events,
        "f1->10": auc(by_event.reshape(-1, BAG_SIZE).sum(axis=1), bag_is_signal) - best_of_bags,
    }
    for kind in poolings:
        network = network_of(POOLINGS[kind], BAG_SIZE, kind)
        differences[kind] = auc(network(bags)[:, 0], bag_is_signal) - best_of_bags
        if kind == "sum":
            alone = network.events(events.astype(np.float32))[:, 0]
            differences["f10->1"] = auc(alone, is_signal) - best_of_events
    return differences


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--test-events", type=int, default=2_000_000)
    options = parser.parse_args()
    found = [study(seed, list(POOLINGS), options.test_events) for seed in range(1, options.seeds + 1)]
    print("difference of the area under the ROC curve to the optimum on the same events")
    print(f"{'network':12s} {'mean':>9s}   by seed")
    for name in found[0]:
        values = [one[name] for one in found]
        print(f"{name:12s} {np.mean(values):+9.5f}  " + " ".join(f"{value:+.5f}" for value in values))
    write_json(
        RESULTS,
        {
            "optimum": {
                "events": float(ndtr(np.sqrt(2) * MEAN)),
                "bags": float(ndtr(np.sqrt(2 * BAG_SIZE) * MEAN)),
            },
            "difference": {name: [one[name] for one in found] for name in found[0]},
            "test_events": options.test_events,
            "versions": package_versions(),
        },
    )


if __name__ == "__main__":
    main()
