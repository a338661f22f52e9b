"""Features per second through coffea, against reading the same branches with uproot alone.

    python benchmarks/features.py --events 1000000

Writes an LHEF file by repeating the events of tests/data/vbf_hww_sm.lhef.root (rotated about the beam, so
that no two are equal), then reads it several times in turn: with ``uproot`` alone, in chunks of the same
size, and with processors/features.py on coffea executors, up to the merged parquet table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from milanalysis.config import FuturesExecutorConfig, IterativeExecutorConfig, LHEFFormatConfig
from milanalysis.events.features import TABLE1
from milanalysis.events.files.samples import open_sample
from milanalysis.events.objects import object_branches
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.processing.tables_of_samples import make_tables

ROOT = Path(__file__).parents[1]
GENUINE = ROOT / "tests" / "data" / "vbf_hww_sm.lhef.root"
WEIGHT_POINTS = (-1.0, -0.5, -0.1, 0.1, 0.2, 0.5, 1.0)
BRANCHES = (*object_branches(LHEFFormatConfig()), "Rwgt.Weight")
BASKET_EVENTS = 25_000


def write_sample(path: Path, n_events: int) -> None:
    """Write a file of many events, in baskets as large as those of the generator."""
    rng = np.random.default_rng(0)
    with uproot.open(GENUINE) as file:
        tree = file["LHEF"]
        collections = {
            name: ak.zip(
                {
                    key.split(".")[1]: tree[key].array()
                    for key in tree.keys()  # noqa: SIM118
                    if key.startswith(f"{name}/")
                }
            )
            for name in ("Event", "Rwgt", "Particle")
        }
    copies = -(-BASKET_EVENTS // len(collections["Event"]))
    block = {name: ak.concatenate([values] * copies)[:BASKET_EVENTS] for name, values in collections.items()}
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        file.mktree(
            "LHEF",
            {name: values.type for name, values in block.items()},
            counter_name=lambda name: f"{name}_size",
            field_name=lambda outer, inner: f"{outer}/{outer}.{inner}" if outer else inner,
        )
        for start in range(0, n_events, BASKET_EVENTS):
            angle = rng.uniform(0, 2 * np.pi, BASKET_EVENTS)
            particles = block["Particle"]
            px = np.cos(angle) * particles.Px - np.sin(angle) * particles.Py
            py = np.sin(angle) * particles.Px + np.cos(angle) * particles.Py
            rotated = ak.with_field(ak.with_field(particles, px, "Px"), py, "Py")
            stop = min(BASKET_EVENTS, n_events - start)
            file["LHEF"].extend({**{k: v[:stop] for k, v in block.items()}, "Particle": rotated[:stop]})


def read_with_uproot(path: Path, chunk_size: int) -> int:
    """Read the branches the features need, and nothing else."""
    with uproot.open(path, array_cache=None) as file:
        pieces = file["LHEF"].iterate(
            filter_name=lambda name: name.split("/")[-1] in BRANCHES, step_size=chunk_size
        )
        return sum(len(piece) for piece in pieces if len(piece.fields) == len(BRANCHES))


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Return the wall and processor time of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def make(path: Path, directory: Path, *, workers: int, chunk_size: int) -> None:
    """Make the table of a sample, from the first look into its files to the merged parquet file."""
    executor = FuturesExecutorConfig(workers=workers) if workers else IterativeExecutorConfig()
    processor = load_processor(ROOT / "processors" / "features.py")()
    sample = open_sample("benchmark", [path], theta=0.0, weight_points=WEIGHT_POINTS)
    make_tables(processor, sample, directory, executor=executor, chunk_size=chunk_size)


def peak_memory(directory: Path, n_events: int, chunk_size: int) -> float:
    """Return the peak memory in GB of a fresh process that makes the table of one file."""
    path = directory / "events.lhef.root"
    write_sample(path, n_events)
    process = get_context("spawn").Process(target=_measured, args=(path, chunk_size))
    process.start()
    process.join()
    return float((directory / "peak").read_text())


def _measured(path: Path, chunk_size: int) -> None:
    make(path, path.parent / "memory", workers=0, chunk_size=chunk_size)
    # Not ru_maxrss, which a new process takes over from the one that started it.
    status = Path("/proc/self/status").read_text().split()
    (path.parent / "peak").write_text(str(float(status[status.index("VmHWM:") + 1]) / 1e6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--chunk-size", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of the futures executor")
    parser.add_argument(
        "--memory",
        action="store_true",
        help="compare the peak memory for files of this many and of five times as many events",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = directory / "events.lhef.root"
        write_sample(path, options.events)
        size = options.chunk_size
        ways: dict[str, Callable[[], object]] = {
            "uproot alone": lambda: read_with_uproot(path, size),
            "tables, iterative": lambda: make(path, directory / "a", workers=0, chunk_size=size),
            f"tables, {options.workers} workers": lambda: make(
                path, directory / "b", workers=options.workers, chunk_size=size
            ),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, way in ways.items():
                times[name].append(seconds(way))
        print(f"{options.events} events, chunks of {size}, {len(TABLE1)} features, best of {options.repeats}")
        best = {
            name: tuple(min(values) for values in zip(*rows, strict=True)) for name, rows in times.items()
        }
        for name, (wall, cpu) in best.items():
            rate = options.events * len(TABLE1) / wall / 1e6
            relative = best["uproot alone"][0] / wall
            print(
                f"{name:22s} {wall:7.2f} s wall {cpu:7.2f} s cpu here {rate:7.2f} M features/s  "
                f"{relative:5.2f} of uproot"
            )
        if options.memory:
            one, five = (peak_memory(directory, n * options.events, size) for n in (1, 5))
            print(f"peak memory {one:.2f} GB, for five times the events {five:.2f} GB: {five / one:.2f}")


if __name__ == "__main__":
    main()
