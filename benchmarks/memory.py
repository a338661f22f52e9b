"""Peak memory of a training on a table that is larger than memory should hold.

    python benchmarks/memory.py --events 21000000 --directory /tmp

Writes a table of normally distributed features (36, float32, as in the reference study) at 21 values of the
coefficient, with or without event weights, one row group after the other, then trains one member of a model
on it in a process of its own and prints the largest memory that the process had: resident in all, and without
the pages of mapped files, which the operating system drops when it needs room. Measured with one epoch of 150
batches of 80,000 events, on two cores that others used, too:

    --task multiclass                  21 labelled samples, single events   5.22 GB resident, 1.98 GB without
    pages of files --task polynomial --bag-size 50    one sample with event weights        5.23 GB resident,
    1.48 GB without pages of files
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from milanalysis.config import (
    CosineScheduleConfig,
    GridConfig,
    ModelConfig,
    MulticlassTaskConfig,
    PolynomialTaskConfig,
    TrainingConfig,
)
from milanalysis.events.tables import EventTable, assign_split, write_stream

GRID = GridConfig()
N_FEATURES = 36
ROWS = 65_536


def pieces(n_events: int, *, weighted: bool) -> Iterator[pa.Table]:
    """Make events block by block, sample after sample: a shift of the first feature by 0.3 theta."""
    names = tuple(f"x{i}" for i in range(N_FEATURES))
    points = GRID.points()[:, 0]
    for start in range(0, n_events, ROWS):
        event_id = np.arange(start, min(start + ROWS, n_events))
        rng = np.random.default_rng(start)
        features = rng.standard_normal((len(event_id), N_FEATURES), dtype=np.float32)
        theta = np.zeros(len(event_id)) if weighted else points[event_id * len(points) // n_events]
        features[:, 0] += (0.3 * theta).astype(np.float32)
        weights = None
        if weighted:  # (1 + theta u)^2
            u = 0.15 * features[:, 0].astype(np.float64)
            weights = np.stack([2 * u, u**2, np.zeros_like(u), np.zeros_like(u)], axis=1)
        table = EventTable(
            names,
            features,
            theta[:, None],
            np.ones(len(event_id)),
            event_id,
            assign_split(event_id, 0, (0.64, 0.16, 0.20)),
            weights,
        )
        yield table.to_arrow()


def model_of(task: str, bag_size: int, epochs: int) -> ModelConfig:
    """The paper's network, with a short schedule."""
    tasks = {"multiclass": MulticlassTaskConfig(grid=GRID), "polynomial": PolynomialTaskConfig()}
    return ModelConfig(
        title=task,
        task=tasks[task],
        bag_size=bag_size,
        training=TrainingConfig(max_epochs=epochs, schedule=CosineScheduleConfig()),
    )


def train(path: Path, directory: Path, model: ModelConfig) -> None:
    """Train one member, as `milanalysis train` does."""
    from milanalysis.learning.networks.backend import use_one_thread
    from milanalysis.learning.training.jobs import train_member, training_jobs

    use_one_thread()
    (job,) = training_jobs(
        {"benchmark": model}, tables=[path], reference=np.zeros(1), seed=1, directory=directory
    )
    train_member(job, lambda epoch: print(f"  {epoch}", flush=True))


def memory_of(pid: int) -> dict[str, float]:
    """Return resident memory in GB: of all pages, and of those that belong to no file."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {name: float(values[name].split()[0]) * 1024e-9 for name in ("VmRSS", "RssAnon")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=21_000_000)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--task", choices=["multiclass", "polynomial"], default="multiclass")
    parser.add_argument("--bag-size", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="memory-", dir=options.directory))
    try:
        path = scratch / "events.parquet"
        started = time.perf_counter()
        write_stream(pieces(options.events, weighted=options.task == "polynomial"), path)
        size = path.stat().st_size * 1e-9
        print(
            f"{options.events} events, {size:.2f} GB of parquet, written in "
            f"{time.perf_counter() - started:.0f} s"
        )
        model = model_of(options.task, options.bag_size, options.epochs)
        process = multiprocessing.get_context("spawn").Process(
            target=train, args=(path, scratch / "models", model)
        )
        peak = dict.fromkeys(("VmRSS", "RssAnon"), 0.0)
        started = time.perf_counter()
        process.start()
        while process.is_alive():
            try:
                now = memory_of(process.pid or 0)
            except (OSError, KeyError):
                break
            peak = {name: max(peak[name], value) for name, value in now.items()}
            time.sleep(0.02)
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)
        arrays = sum(one.stat().st_size for one in (scratch / "models" / ".training").rglob("*.npy")) * 1e-9
        print(
            f"{options.task}, bags of {options.bag_size}: trained in {time.perf_counter() - started:.0f} s; "
            f"peak {peak['VmRSS']:.2f} GB resident, {peak['RssAnon']:.2f} GB without pages of files "
            f"({arrays:.2f} GB of arrays)"
        )
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
