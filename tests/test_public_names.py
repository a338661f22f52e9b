"""The Python face: which names there are, how they are called, and that one import is enough."""

from __future__ import annotations

import ast
import enum
import inspect
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

import milanalysis as mil

SIGNATURES = Path(__file__).parent / "data" / "public_names.json"


def called(one: Any) -> str:
    """Return the parameters of a callable, defaults marked with =; the same in every version of Python."""
    parameters = inspect.signature(one).parameters.values()
    return ", ".join(
        ("*" if one.kind is one.KEYWORD_ONLY else "")
        + one.name
        + ("=" if one.default is not one.empty else "")
        for one in parameters
    )


def signatures() -> dict[str, str]:
    """Return how every public name is called; for modules and classes with what is public in them."""
    found = {}
    for name in mil.__all__:
        one = getattr(mil, name)
        if isinstance(one, types.ModuleType):
            found |= {
                f"{name}.{inner}": called(getattr(one, inner))
                for inner in one.__all__
                if callable(getattr(one, inner))
            }
        elif inspect.isclass(one):
            plain = not issubclass(one, Exception | enum.Enum) and not getattr(one, "_is_protocol", False)
            found[name] = called(one) if plain else "a class"
            for inner, value in vars(one).items():
                raw = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                if not inner.startswith("_") and inspect.isfunction(raw):
                    found[f"{name}.{inner}"] = called(raw)
        else:
            found[name] = called(one) if callable(one) else type(one).__name__
    return dict(sorted(found.items()))


def test_names_and_signatures_are_the_ones_that_users_know():
    """Changing one is a choice: `python tests/test_public_names.py` writes the file again."""
    assert signatures() == json.loads(SIGNATURES.read_text())


def test_the_names_are_few_and_each_has_a_docstring():
    assert 30 <= len(mil.__all__) <= 40
    assert sorted(mil.__all__) == dir(mil)
    for name in set(mil.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(mil, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'; its names are"):
        _ = mil.nothing


def test_the_import_loads_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import milanalysis; "
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "pydantic", "rich", "coffea", "tensorflow", "matplotlib"} & set(
        ast.literal_eval(loaded)
    )


@pytest.mark.parametrize(
    "path",
    [
        *sorted((ROOT / "plots").glob("*.py")),
        *sorted((ROOT / "processors").glob("*.py")),
        *sorted((ROOT / "notebooks").glob("*.ipynb")),
        ROOT / "README.md",
    ],
    ids=lambda path: path.name,
)
def test_what_users_read_imports_nothing_deeper_than_one_public_module(path):
    imports = re.findall(r"(?:from|import) (milanalysis[\w.]*)", path.read_text())
    allowed = {"milanalysis.processing"} if path.parent.name == "processors" else {"milanalysis"}
    assert set(imports) <= allowed


@pytest.mark.slow
def test_a_reader_fits_by_hand_what_the_run_has_fitted(small_run):
    run = mil.open_run(small_run[1])
    shape = run.likelihood("polynomial")
    both = mil.interval(shape + run.rate(), level=0.6827)
    assert mil.interval(shape) == run.results.observed.methods["polynomial"].shape
    assert both.estimate == pytest.approx(
        run.results.observed.methods["polynomial"].combined.estimate, abs=1e-6
    )
    for method in run.methods:  # whatever is in the table can be fitted
        assert mil.interval(run.likelihood(method)) == run.results.observed.methods[method].shape
    with pytest.raises(KeyError, match="there is no likelihood of 'nothing'; there are exact"):
        run.likelihood("nothing")
    # another range, a constraint from elsewhere, two channels
    assert mil.interval(shape.within("cHW", -0.5, 0.5)).estimate == pytest.approx(
        mil.interval(shape).estimate, abs=1e-4
    )
    known = shape.constrained("cHW", mil.GaussianConstraint(0.0, 0.001))
    assert mil.interval(known).high - mil.interval(known).low < 0.0021
    assert (shape + shape)(0.1) == pytest.approx(2 * shape(0.1))
    # a model on own arrays
    table = run.table("observed")
    own = mil.EventTable.of({name: table.column(name) for name in table.feature_names})
    ratio = mil.load_model(run.files.model("polynomial"))
    np.testing.assert_allclose(
        ratio.terms(own).per_event([0.1]), run.terms("polynomial").per_event([0.1]), atol=1e-5
    )
    assert mil.plotting.profile(shape, both).axes[0].get_xlabel().startswith("$c_{HW}$")
    assert run.results.comparison["polynomial"].coverage.n_total == 10
    assert run.results.information.levels
    assert run.results.workspace["channels"]
    assert run.results.templates.counts
    assert len(run.results.pseudo_experiments) == 10


@pytest.mark.slow
def test_objects_are_short_to_look_at(small_run):
    run = mil.open_run(small_run[1])
    shown = [
        *(run, run.results, run.parameter, run.table()),
        *(run.terms("polynomial"), run.terms("multiclass_bag"), run.model("polynomial")),
        *(run.likelihood("polynomial"), run.results.comparison, run.results.observed),
        mil.interval(run.rate()),
    ]
    for one in shown:
        assert len(repr(one)) < 300, type(one)
    for one in (run, run.table(), run.results.comparison, run.results.observed):
        assert one._repr_html_().count("<tr>") > 3


@pytest.mark.slow
def test_a_run_in_python_is_the_run_of_the_command(small_run):
    config, directory, _ = small_run
    again = mil.run(config, directory)
    assert again.results.comparison["polynomial"] == mil.open_run(directory).results.comparison["polynomial"]
    assert mil.run(mil.load_config(config), directory, stages=["plot"]).config == again.config


if __name__ == "__main__":
    SIGNATURES.write_text(json.dumps(signatures(), indent=1) + "\n")
