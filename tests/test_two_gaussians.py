"""A small version of benchmarks/two_gaussians.py: classifiers of bags against the optimum."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

# Keras converts TensorFlow variables with np.array(), and these do not know numpy 2's copy keyword yet.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "two_gaussians.py"


def test_symmetric_networks_reach_the_optimum_and_a_list_does_not():
    """The ROC area of bags of ten, less that of the sum of the events, on the same 50,000 bags.

    Two seeds of the benchmark (200,000 bags) gave -0.0001 to -0.0005 for the forms that cannot tell the order
    of events and -0.0036 and -0.0038 for the list. Paired differences of networks this close to the optimum
    fluctuate by 0.0002 here.
    """
    spec = importlib.util.spec_from_file_location("two_gaussians", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    difference = benchmark.study(1, ["sum", "deep_set", "list"], 500_000)
    for name in ("f1", "f1->10", "sum", "f10->1", "deep_set"):
        assert abs(difference[name]) < 0.001, name
    assert difference["list"] < -0.002
