"""How much of the visible information a network captures, from event weights and from exact labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, milanalysis

from milanalysis.events.tables import EventTable, Split
from milanalysis.learning.models.stored import load_model
from milanalysis.parameters import FloatArray
from milanalysis.pipeline.scheduling import planned_run
from milanalysis.ratios.terms import load_terms
from milanalysis.statistics.information.comparison import event_score

SEEDS = 3


def captured(score: FloatArray, exact: FloatArray) -> float:
    """Return the squared correlation: the fraction of the Fisher information that a score captures."""
    return float(np.corrcoef(score, exact)[0, 1] ** 2)


def captured_fractions(directory: Path, features: str, **inputs: bool) -> dict[str, list[float]]:
    """Train the quickstart's per-event network with both kinds of labels; return fractions per seed."""
    values = yaml.safe_load((ROOT / "analysis_configs" / "quickstart.yaml").read_text())
    model = {**values["models"]["polynomial"], "members": SEEDS}
    model["network"] = {**model["network"], "inputs": {"kind": "symmetric", **inputs}}
    values["models"] = {
        f"{labels}_labels": {**model, "title": labels, "task": {**model["task"], "labels": labels}}
        for labels in ("weights", "exact")
    }
    values["templates"]["discriminant"]["model"] = "exact_labels"
    values["processing"] = {
        "features": str(ROOT / "processors" / features),
        "bag_likelihood": str(ROOT / "processors" / "bag_likelihood.py"),
    }
    config = directory / "study.yaml"
    config.write_text(yaml.safe_dump(values))
    for stage in ("simulate", "process", "exact", "train"):
        result = milanalysis(stage, config, "-o", directory / "run")
        assert result.exit_code == 0, result.output
    run = planned_run(config, directory / "run")
    table = EventTable.read(run.table("reference"))
    rows = table.rows(Split.TEST)
    terms = load_terms(run.exact_file("reference"))
    exact = event_score(terms.take(rows), 0.0)
    held_out = table.take(rows)
    return {
        labels: [
            captured(event_score(member.terms(held_out), 0.0), exact)
            for member in load_model(run.model(f"{labels}_labels")).members
        ]
        for labels in ("weights", "exact")
    }


@pytest.mark.long
def test_a_network_learns_most_of_what_there_is_from_the_features_of_the_paper(tmp_path: Path):
    fractions = captured_fractions(tmp_path, "features.py")
    # 400,000 held-out events; their tail leaves 0.003 of uncertainty on each fraction.
    assert np.median(fractions["weights"]) >= 0.97, fractions
    assert np.median(fractions["exact"]) >= 0.97, fractions


@pytest.mark.long
def test_a_network_learns_nearly_all_there_is_if_it_is_given_the_structure_of_production(tmp_path: Path):
    # The closed-form estimate of the matrix element of production, and all symmetries.
    fractions = captured_fractions(tmp_path, "matrix_element_features.py", reflection=True, products=True)
    assert np.median(fractions["weights"]) >= 0.99, fractions
    assert np.median(fractions["exact"]) >= 0.99, fractions
