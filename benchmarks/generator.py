"""Speed of the generator and of the writers, against named references in the same run.

Run ``python benchmarks/generator.py``. Seconds are of CPU time, in one process; the reference is a plain
NumPy loop of the same size, so that the ratios hold on other machines.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from milanalysis.config import CutsConfig, GeneratorConfig, LeptonCutsConfig
from milanalysis.randomness import stream
from milanalysis.simulation.generator import Generator, generate_sample
from milanalysis.simulation.lhe import SampleHeader, write_lhe, write_lhef_root

N_EVENTS = 100_000


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def reference() -> None:
    """A million uniform random numbers, and the logarithm, sine and sum of squares of each, ten times."""
    rng = np.random.default_rng(1)
    for _ in range(10):
        numbers = rng.random(1_000_000)
        np.dot(np.log(numbers), np.sin(numbers))


def main() -> None:
    unit = min(seconds(reference) for _ in range(3))
    print(f"reference (10 x 1M numpy log, sin, dot): {unit:.3f} s\n")
    print(f"{'what':48} {'seconds':>8} {'/reference':>10} {'per second':>12}")

    def show(what: str, n: int, work: Callable[[], object]) -> None:
        taken = seconds(work)
        print(f"{what:48} {taken:8.2f} {taken / unit:10.1f} {n / taken:12,.0f}")

    configs = {
        "quark cuts, cHW = 0": (GeneratorConfig(), 0.0),
        "quark cuts, cHW = 1": (GeneratorConfig(), 1.0),
        "quark and lepton cuts": (GeneratorConfig(cuts=CutsConfig(leptons=LeptonCutsConfig())), 0.0),
    }
    for name, (config, theta) in configs.items():
        made: list[Generator] = []
        show(f"adapt, {name}", 1, lambda: made.append(Generator.adapted(config, theta, stream(1, "a"))))  # noqa: B023
        generator = made[0]
        show(f"unweight, {name}", N_EVENTS, lambda: generator.unweighted(N_EVENTS, stream(1, "u")))  # noqa: B023
        print(
            f"    sigma = {generator.cross_section_fb:.4f} +- {generator.cross_section_error_fb:.4f} fb, "
            f"above the maximum weight: {generator.overweight:.1e}"
        )

    generator = Generator.adapted(GeneratorConfig(), 0.0, stream(1, "a"))
    blocks = list(generate_sample(generator, name="benchmark", n_events=N_EVENTS, seed=1))
    header = SampleHeader.of_sample(
        generator, weight_points=(-1.0, -0.5, 0.0, 0.5, 1.0), n_events=N_EVENTS, seed=1
    )
    with tempfile.TemporaryDirectory() as folder:
        root, text = Path(folder) / "x.root", Path(folder) / "x.lhe.gz"
        show("write LHEF ROOT", N_EVENTS, lambda: write_lhef_root(root, blocks, header))
        show("write .lhe.gz", N_EVENTS, lambda: write_lhe(text, blocks, header))
        print(
            f"    {root.stat().st_size / N_EVENTS:.0f} and {text.stat().st_size / N_EVENTS:.0f} bytes per "
            "event"
        )


if __name__ == "__main__":
    main()
