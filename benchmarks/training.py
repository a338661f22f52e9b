"""Speed of training: events per CPU-second, against the pipeline of arXiv:2508.07114 written the usual way.

    python benchmarks/training.py [--bag-sizes 1 50 250] [--events 20000] [--epochs 4] [--repeat 2] [--batch
    10500]

The same events (21 samples of the strong toy, 12 features), the same network (three layers of 64 with batch
normalisation, 21 outputs), the same number of events in a batch. The pipelines:

- paper: events of each point shuffled one by one with tf.data, cut into bags, bags shuffled and batched;
  Keras ``fit`` with the AUC as a metric; dropout and L2 (appendix B.2 of arXiv:2508.07114).
- regularised: this package, with the paper's dropout and L2.
- fast: this package without these (the recipe for training that `milanalysis.learning.tasks.task`
  recommends).
- plain: as fast, and without batch normalisation.

Every measurement is a pair of processes of one thread each that train at the same time, as members of an
ensemble do. CPU time is user and system time of a process between the ends of its epochs, the first epoch, in
which graphs are traced, not counted. Ratios are taken within a repetition, so that both sides have seen the
same load of the machine; the geometric mean over bag sizes is judged. Writes
benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from milanalysis.config import GridConfig, ModelConfig, MulticlassTaskConfig, NetworkConfig, TrainingConfig
from milanalysis.events.tables import EventTable, Split, assign_split
from milanalysis.files.provenance import package_versions, write_json
from milanalysis.simulation.toys import QuadraticEFT

POINTS = GridConfig().points()
PIPELINES = {
    "paper": NetworkConfig(),
    "regularised": NetworkConfig(),
    "fast": NetworkConfig(dropout=0.0, l2=0.0),
    "plain": NetworkConfig(dropout=0.0, l2=0.0, batch_norm=False),
}
GOALS = {"regularised": 2.0, "fast": 4.0}
RESULTS = Path(__file__).parent / "results" / "training.json"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")


def make_table(n_each: int) -> EventTable:
    """Return samples at all points; one event in 25 is for validation."""
    toy, rng = QuadraticEFT(information=0.3), np.random.default_rng(1)
    events = np.concatenate([toy.sample(rng, n_each, theta) for theta in POINTS[:, 0]])
    event_id = np.arange(len(events))
    return EventTable(
        toy.feature_names,
        events.astype(np.float32),
        np.repeat(POINTS, n_each, axis=0),
        np.ones(len(events)),
        event_id,
        assign_split(event_id, 0, (0.96, 0.04, 0.0)),
    )


def make_model(pipeline: str, bag_size: int, batch_events: int, n_events: int, epochs: int) -> ModelConfig:
    """Return a model that sees about every event once in an epoch."""
    return ModelConfig(
        title=pipeline,
        task=MulticlassTaskConfig(),
        bag_size=bag_size,
        network=PIPELINES[pipeline],
        training=TrainingConfig(
            batch_events=batch_events,
            steps_per_epoch=max(1, n_events // batch_events),
            max_epochs=epochs,
            validation_events=len(POINTS) * bag_size,
        ),
    )


def package_pipeline(table: EventTable, model: ModelConfig) -> tuple[int, list[tuple[float, float]]]:
    """Train with the package; return events per epoch, and CPU and wall time after each epoch."""
    from milanalysis.learning.training.loop import bags_per_batch, train

    ends: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as directory:
        train(
            table,
            model,
            np.zeros(1),
            label="benchmark",
            member=0,
            seed=1,
            directory=Path(directory),
            after_epoch=lambda _: ends.append(now()),
        )
    return model.training.steps_per_epoch * bags_per_batch(model) * model.bag_size, ends


def paper_pipeline(table: EventTable, model: ModelConfig) -> tuple[int, list[tuple[float, float]]]:
    """Train the same network the usual way; return events per epoch, and CPU and wall time after each."""
    from milanalysis.learning.networks.backend import keras, tf

    ends: list[tuple[float, float]] = []
    features = table.features[table.rows(Split.TRAIN)]
    theta = table.theta[table.rows(Split.TRAIN), 0]
    samples = []
    for k, point in enumerate(POINTS[:, 0]):
        events = features[theta == point]
        bags = (
            tf.data.Dataset.from_tensor_slices(events)
            .shuffle(len(events), reshuffle_each_iteration=True)
            .batch(model.bag_size, drop_remainder=True)
        )
        samples.append(tf.data.Dataset.zip((bags, tf.data.Dataset.from_tensors(k).repeat())))
    bags = samples[0]
    for sample in samples[1:]:
        bags = bags.concatenate(sample)
    batches = (
        bags.shuffle(len(features) // model.bag_size, reshuffle_each_iteration=True)
        .batch(model.training.batch_events // model.bag_size)
        .map(lambda bag, k: (bag, tf.one_hot(k, len(POINTS))))
        .prefetch(tf.data.AUTOTUNE)
    )

    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(now()))
    network = keras_network(model, features)
    network.compile(
        optimizer=keras.optimizers.Adam(1e-3), loss="categorical_crossentropy", metrics=[keras.metrics.AUC()]
    )
    network.fit(batches, epochs=model.training.max_epochs, verbose=0, callbacks=[clock])
    n_bags = sum(int(np.sum(theta == point)) // model.bag_size for point in POINTS[:, 0])
    return n_bags * model.bag_size, ends


def keras_network(model: ModelConfig, features: np.ndarray):
    """Return the paper's network made of Keras' own layers."""
    from milanalysis.learning.networks.backend import keras

    layers, config = keras.layers, model.network
    normalization = layers.Normalization()
    normalization.adapt(features)
    x = inputs = keras.Input((None, features.shape[1]))
    x = normalization(x)
    for units in config.hidden:
        x = layers.Dense(units, kernel_regularizer=keras.regularizers.L2(config.l2))(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation(config.activation)(x)
        x = layers.Dropout(config.dropout)(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(len(POINTS), activation="softmax")(x))


def now() -> tuple[float, float]:
    """Return CPU time of this process, user and system, and wall time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.perf_counter()


def measure_here(pipeline: str, bag_size: int, batch: int, epochs: int, path: Path) -> None:
    """Measure in this process and print the result as JSON."""
    from milanalysis.learning.networks.backend import use_one_thread

    use_one_thread()
    table = EventTable.read(path)
    model = make_model(pipeline, bag_size, batch, len(table.rows(Split.TRAIN)), epochs)
    events, ends = (paper_pipeline if pipeline == "paper" else package_pipeline)(table, model)
    cpu, wall = np.median(np.diff(np.array(ends), axis=0), axis=0)
    print(json.dumps({"events_per_cpu_second": events / cpu, "events_per_second": events / wall}))


def measure_pair(pipeline: str, bag_size: int, options: argparse.Namespace, path: Path) -> dict[str, float]:
    """Measure two processes at the same time; mean events per CPU-second, and sum of events per second."""
    command = [sys.executable, __file__, "--here", pipeline, str(bag_size), str(path)]
    command += ["--batch", str(options.batch), "--epochs", str(options.epochs)]
    pair = [
        subprocess.Popen(
            command,
            env={**os.environ, **ONE_THREAD},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in pair]
    if any(process.returncode for process in pair):
        sys.exit(f"{pipeline}, bags of {bag_size}, failed:\n{outputs[0][1]}")
    found = [json.loads(text.splitlines()[-1]) for text, _ in outputs]
    return {
        "events_per_cpu_second": float(np.mean([one["events_per_cpu_second"] for one in found])),
        "events_per_second": float(np.sum([one["events_per_second"] for one in found])),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bag-sizes", type=int, nargs="+", default=[1, 50, 250])
    parser.add_argument("--events", type=int, default=20_000, help="of each of the 21 samples")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--batch", type=int, default=10_500, help="events")
    parser.add_argument("--here", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.here:
        pipeline, bag_size, path = options.here
        measure_here(pipeline, int(bag_size), options.batch, options.epochs, Path(path))
        return
    measured: dict[str, list[list[dict[str, float]]]] = {pipeline: [] for pipeline in PIPELINES}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "events.parquet"
        make_table(options.events).write(path)
        print(f"{'bag size':>8s} {'pipeline':12s} {'events/CPU-s':>12s} {'events/s':>9s}")
        for bag_size in options.bag_sizes:
            for pipeline in PIPELINES:
                measured[pipeline].append([])
            for _ in range(options.repeat):
                for pipeline in PIPELINES:
                    found = measure_pair(pipeline, bag_size, options, path)
                    measured[pipeline][-1].append(found)
                    rates = (found["events_per_cpu_second"], found["events_per_second"])
                    print(f"{bag_size:8d} {pipeline:12s} {rates[0]:12.0f} {rates[1]:9.0f}", flush=True)
    ratios = {}
    print(
        f"\n{'ratio to paper, per CPU-second':32s}"
        + "".join(f"{n:8d}" for n in options.bag_sizes)
        + "    mean"
    )
    for pipeline in PIPELINES:
        if pipeline == "paper":
            continue
        by_size = [
            float(
                np.median(
                    [
                        ours["events_per_cpu_second"] / paper["events_per_cpu_second"]
                        for ours, paper in zip(*pair, strict=True)
                    ]
                )
            )
            for pair in zip(measured[pipeline], measured["paper"], strict=True)
        ]
        mean = float(np.exp(np.mean(np.log(by_size))))
        ratios[pipeline] = {"by_bag_size": by_size, "geometric_mean": mean, "goal": GOALS.get(pipeline)}
        goal = f"  (goal {GOALS[pipeline]:g})" if pipeline in GOALS else ""
        print(f"{pipeline:32s}" + "".join(f"{ratio:8.2f}" for ratio in by_size) + f"{mean:8.2f}{goal}")
    write_json(
        RESULTS,
        {
            "bag_sizes": options.bag_sizes,
            "batch_events": options.batch,
            "events_per_sample": options.events,
            "measured": measured,
            "ratios": ratios,
            "versions": package_versions(),
        },
    )


if __name__ == "__main__":
    main()
