"""Genuine files of MadGraph5_aMC@NLO through `convert`, `process` and `exact`, against the closed form."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from click.testing import Result
from conftest import milanalysis, write_config

from milanalysis.config import GeneratorConfig
from milanalysis.events.tables import EventTable
from milanalysis.files.provenance import read_json
from milanalysis.parameters import FloatArray
from milanalysis.randomness import stream
from milanalysis.ratios.terms import PolynomialTerms, load_terms
from milanalysis.simulation.amplitudes import (
    decay_polynomial,
    evaluate_polynomials,
    event_polynomials,
    production_polynomial,
)
from milanalysis.simulation.generator import Generator
from milanalysis.simulation.madgraph import PAPER_VALUES

DATA = Path(__file__).parent / "data"
SIGNAL, BACKGROUND = "madgraph_signal_sm_2000", "madgraph_zz_200"
NAMES = [f"cHW_{np.format_float_positional(value, trim='-')}" for value in PAPER_VALUES if value != 0]
MOMENTUM = ("Px", "Py", "Pz")
POINTS = np.array([value for value in PAPER_VALUES if value != 0])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Convert both files, which MadGraph has given one name."""
    directory = tmp_path_factory.mktemp("madgraph")
    (directory / f"{SIGNAL}.lhe").write_bytes(lzma.decompress((DATA / f"{SIGNAL}.lhe.xz").read_bytes()))
    shutil.copy(DATA / f"{BACKGROUND}.lhe.gz", directory)
    answer = milanalysis("convert", directory / f"{SIGNAL}.lhe", directory / f"{BACKGROUND}.lhe.gz")
    return directory, answer


@pytest.fixture(scope="module")
def run(files: tuple[Path, Result]) -> Path:
    directory, _ = files
    config = write_config(
        directory / "mg.yaml",
        generator={"u_beam": "first"},
        exact={"visible": "required", "accuracy": "fast"},
        samples={
            "madgraph": {
                "kind": "files",
                "role": "simulation",
                "files": [str(directory / f"{SIGNAL}.lhef.root")],
                "theta": 0.0,
                "weight_points": dict(zip(NAMES, POINTS.tolist(), strict=True)),
            },
            "zz": {
                "kind": "files",
                "role": "background",
                "files": [str(directory / f"{BACKGROUND}.lhef.root")],
                "normalisation": "sum",
            },
            "observed": {"kind": "generate", "role": "observed", "theta": 0.12, "events": 230},
        },
    )
    for stage in ("simulate", "process", "exact"):
        answer = milanalysis(stage, config, "-o", directory / "run")
        assert answer.exit_code == 0, answer.output
    return directory / "run"


def closed_form(path: Path) -> tuple[FloatArray, FloatArray]:
    """Return the polynomial of each event from its momenta, and its weights over the nominal one."""
    with uproot.open({path: "LHEF"}) as tree:
        particle = {name: tree[f"Particle/Particle.{name}"].array() for name in ("PID", "Status", *MOMENTUM)}
        weights = tree["Rwgt/Rwgt.Weight"].array().to_numpy()
        nominal = tree["Event/Event.Weight"].array().to_numpy()

    def one(pid: int, status: int) -> FloatArray:
        chosen = (particle["PID"] == pid) & (particle["Status"] == status)
        assert ak.all(ak.sum(chosen, axis=1) == 1)
        momentum = np.stack([ak.flatten(particle[name][chosen]).to_numpy() for name in MOMENTUM], axis=-1)
        # The text rounds each component by itself; energies that do not fit cost a factor of 20 near zeros
        # of |M|^2.
        energy = np.sqrt(np.sum(momentum**2, axis=-1, keepdims=True))
        return np.concatenate([energy, momentum], axis=-1)

    assert (one(2, -1)[:, 3] > 0).all()  # the u quark is in beam 1
    production = production_polynomial(one(2, -1), one(1, -1), one(2, 1), one(1, 1))
    decay = decay_polynomial(one(-11, 1), one(12, 1), one(11, 1), one(-12, 1))
    return event_polynomials(production, decay), weights / nominal


def test_files_are_recognised_for_what_they_are(files: tuple[Path, Result]) -> None:
    directory, answer = files
    assert answer.exit_code == 0, answer.output
    signal, background = (read_json(directory / f"{name}.lhef.json") for name in (SIGNAL, BACKGROUND))
    assert signal["weight_names"] == NAMES
    assert signal["weight_descriptions"]["cHW_-0.3"] == "set param_card smeft 7 -0.3 # orig: 0.0"
    assert (signal["n_events"], signal["normalisation"]) == (2000, "mean")
    assert (background["n_events"], background["normalisation"]) == (200, "sum")
    assert background["weight_names"] == []
    assert background["cross_section_pb"] == 3.361559e-4
    assert background["cross_section_error_pb"] == 6.578959e-6


def test_each_weight_is_that_of_the_closed_form(files: tuple[Path, Result]) -> None:
    polynomials, ratios = closed_form(files[0] / f"{SIGNAL}.lhef.root")
    assert ratios.shape == (2000, 38)
    distance = np.abs(ratios / evaluate_polynomials(polynomials, POINTS) - 1.0)
    # Weights have 8 digits, momenta 11; near zeros of the polynomial rounding is enlarged by up to 4e5.
    assert np.quantile(distance, 0.99) < 5e-8
    assert distance.max() < 4e-6


def test_the_cross_section_is_half_of_ours_since_u_is_in_beam_1_only(files: tuple[Path, Result]) -> None:
    summary = read_json(files[0] / f"{SIGNAL}.lhef.json")
    ours = Generator.adapted(GeneratorConfig(), 0.0, stream(7, "adapt")).rate(0.0)
    ratio = 2e3 * summary["cross_section_pb"] / ours
    error = summary["cross_section_error_pb"] / summary["cross_section_pb"]
    assert error < 0.01
    # 3 standard errors of MadGraph's integration, and 1 % for its dynamical scale.
    assert abs(ratio - 1.0) < 3.0 * error + 0.01


def test_tables_have_the_cross_sections_of_the_files(run: Path) -> None:
    for name, n_events, expected in (("madgraph", 2000, 1.020143), ("zz", 200, 0.3361559)):
        cutflow = read_json(run / "tables" / name / "cutflow.json")
        assert cutflow["n_read"] == cutflow["n_selected"] == n_events
        assert cutflow["steps"][0]["cross_section_fb"] == pytest.approx(expected, rel=1e-6)


def test_exact_ratios_average_to_the_same_as_the_weights_of_the_events(run: Path) -> None:
    result = read_json(run / "results" / "exact.json")
    assert (result["available"], result["u_beam"]) == (True, "first")
    table = EventTable.read(run / "tables" / "madgraph" / "events.parquet")
    assert len(table) == 2000
    terms = load_terms(run / "exact" / "madgraph.npz")
    assert isinstance(terms, PolynomialTerms)
    visible = terms.polynomials[0]
    joint = table.event_polynomials()
    # The visible ratio is the mean of the joint one over what is not visible: the difference has mean zero.
    for power in (1, 2):
        difference = joint[:, power] - visible[:, power]
        error = difference.std() / np.sqrt(len(difference))
        assert abs(difference.mean()) < 4.0 * error
        assert error > 0
    assert np.corrcoef(joint[:, 1], visible[:, 1])[0, 1] > 0.5
