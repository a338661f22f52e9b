"""Leptons, jets and missing momentum of Delphes trees, and the features made of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from milanalysis.config import DelphesFormatConfig, IterativeExecutorConfig
from milanalysis.errors import EventWeightError, InputFileError
from milanalysis.events.features import TABLE1
from milanalysis.events.files.samples import open_sample
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.processing.tables_of_samples import make_tables
from milanalysis.events.tables import EventTable

DATA = Path(__file__).parent / "data"
GENUINE = DATA / "vbf_hww_sm_pythia8.delphes.root"
FEATURES = Path(__file__).parents[1] / "processors" / "features.py"
POINTS = (-1.0, -0.5, -0.1, 0.1, 0.2, 0.5, 1.0)
CMS = DelphesFormatConfig()


def tables(path: Path, directory: Path, **settings: Any) -> tuple[EventTable, dict[str, Any]]:
    options: dict[str, Any] = {"source": CMS, "theta": 0.0, "weight_points": POINTS, **settings}
    sample = open_sample("detector", [path], **options)
    processor = load_processor(FEATURES)()
    summary = make_tables(processor, sample, directory, executor=IterativeExecutorConfig(), chunk_size=170)
    return EventTable.read(directory / "events.parquet"), summary


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[EventTable, dict[str, Any]]:
    return tables(GENUINE, tmp_path_factory.mktemp("delphes"))


def columns_of(path: Path, prefix: str = "") -> dict[str, list[Any]]:
    names = [
        *(f"{c}.{m}" for c in ("Electron", "Muon") for m in ("PT", "Eta", "Phi", "Charge", "IsolationVar")),
        *(f"Jet.{m}" for m in ("PT", "Eta", "Phi", "Mass", "BTag")),
        "MissingET.MET",
        "MissingET.Phi",
    ]
    with uproot.open({path: "Delphes"}) as tree:
        return {name: tree[name].array().tolist() for name in names}


def wrapped(angle: float) -> float:
    return math.remainder(angle, 2 * math.pi)


def plain_event(event: dict[str, Any]) -> tuple[str, list[float]]:
    """Select an event and compute its features with nothing but the math module."""
    leptons = []
    for collection, pid in (("Electron", 11), ("Muon", 13)):
        parts = [event[f"{collection}.{m}"] for m in ("PT", "Eta", "Phi", "Charge", "IsolationVar")]
        for pt, eta, phi, charge, isolation in zip(*parts, strict=True):
            if pt > 10 and abs(eta) < 2.5 and isolation < 0.25:
                leptons.append((pt, eta, phi, 0.0, -pid * charge))
    jets = []
    parts = [event[f"Jet.{m}"] for m in ("PT", "Eta", "Phi", "Mass", "BTag")]
    for pt, eta, phi, mass, tag in zip(*parts, strict=True):
        near = any(math.hypot(eta - other[1], wrapped(phi - other[2])) < 0.4 for other in leptons)
        if pt > 20 and abs(eta) < 5 and not near:
            jets.append((pt, eta, phi, mass, tag & 1))
    if len(leptons) != 2:
        return "two charged leptons", []
    if len(jets) < 2:
        return "two jets or more", []
    if any(jet[4] and abs(jet[1]) < 2.5 for jet in jets):
        return "no b jet", []
    leptons.sort(reverse=True)
    jets.sort(reverse=True)
    values, pairs = [], []
    for pair in (leptons[:2], jets[:2]):
        vectors = []
        for pt, eta, phi, mass, _ in pair:
            p = (pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta))
            energy = math.sqrt(mass**2 + sum(x * x for x in p))
            values += [pt, eta, phi, energy, mass]
            vectors.append((*p, energy))
        pairs.append([sum(x) for x in zip(*vectors, strict=True)])
    values += [event["MissingET.MET"][0], event["MissingET.Phi"][0]]
    values += [math.sqrt(max(e * e - x * x - y * y - z * z, 0.0)) for x, y, z, e in pairs]
    values += [math.hypot(x, y) for x, y, _, _ in pairs]
    for pair in (leptons[:2], jets[:2]):
        high, low = sorted(pair, key=lambda one: -one[1])
        values.append(wrapped(high[2] - low[2]))
    for lepton in leptons:
        values += [float(lepton[4] == 11), float(lepton[4] == -11)]
    return "selected", values


def test_features_of_a_genuine_file_agree_with_a_calculation_event_by_event(
    made: tuple[EventTable, dict[str, Any]],
) -> None:
    table, summary = made
    columns = columns_of(GENUINE)
    events = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    outcomes = [plain_event(event) for event in events]
    selected = [i for i, (outcome, _) in enumerate(outcomes) if outcome == "selected"]
    assert table.event_id.tolist() == selected
    assert 80 < len(selected) < 130
    expected = np.array([outcomes[i][1] for i in selected])
    # float32 rounding is 6e-8; pair masses lose digits where objects are nearly collinear
    np.testing.assert_allclose(table.features, expected, rtol=2e-7, atol=1e-6)
    rejected = {row["cut"]: row["rejected"] for row in summary["steps"]}
    for cut in ("two charged leptons", "two jets or more", "no b jet"):
        assert rejected[cut] == sum(outcome == cut for outcome, _ in outcomes), cut
    assert sum(rejected.values()) + len(table) == len(events) == 500


def test_flags_of_quark_types_are_left_out_by_name(made: tuple[EventTable, dict[str, Any]]) -> None:
    assert made[0].feature_names == TABLE1[:32]
    assert not any(name.endswith(("_up", "_down")) for name in made[0].feature_names)


def test_weights_follow_the_leading_nominal_one(made: tuple[EventTable, dict[str, Any]]) -> None:
    table, summary = made
    with uproot.open({GENUINE: "Delphes"}) as tree:
        weights = ak.to_numpy(tree["Weight.Weight"].array()).astype(float)[table.event_id]
    # pb per event -> fb of a sample of 500; single precision is 6e-8 of the weights a polynomial is made of
    distance = np.abs(table.weights_at(POINTS) * 500 / 1000 - weights[:, 1:])
    assert (distance < 3e-7 * weights.max(axis=1, keepdims=True)).all()
    np.testing.assert_allclose(table.weight * 500 / 1000, weights[:, 0], rtol=1e-6)
    assert summary["steps"][0]["cross_section_fb"] == pytest.approx(2.0414, rel=1e-6)


def test_a_list_that_begins_with_the_first_point_is_told_apart(tmp_path: Path) -> None:
    """`WeightLHEF` has no leading nominal weight; either mistake is found out."""
    right = DelphesFormatConfig(weights="WeightLHEF", leading_nominal=False)
    table, _ = tables(GENUINE, tmp_path / "right", source=right)
    assert table.event_weights is not None
    with pytest.raises(EventWeightError, match="lists 7 weight_points"):
        tables(GENUINE, tmp_path / "a", source=DelphesFormatConfig(leading_nominal=False))
    with pytest.raises(EventWeightError, match="set leading_nominal: false"):
        tables(
            GENUINE,
            tmp_path / "b",
            source=DelphesFormatConfig(weights="WeightLHEF"),
            weight_points=POINTS[1:],
        )


def test_weights_that_belong_to_no_point_are_passed_over(
    tmp_path: Path, made: tuple[EventTable, dict[str, Any]]
) -> None:
    table, _ = tables(GENUINE, tmp_path, weight_points=(-1.0, None, *POINTS[2:]))
    assert made[0].event_weights is not None
    assert table.event_weights is not None
    # Without one point single-precision rounding is amplified a little more.
    np.testing.assert_allclose(table.event_weights, made[0].event_weights, atol=2e-4)
    with pytest.raises(EventWeightError, match="do not lie on a polynomial"):
        tables(GENUINE, tmp_path / "wrong", weight_points=(None, -1.0, *POINTS[2:]))


def renamed(path: Path, names: dict[str, str], **changes: Any) -> Path:
    """Write the genuine events under the collection names of another card."""
    with uproot.open({GENUINE: "Delphes"}) as tree:
        collections: dict[str, Any] = {}
        for name in ("Event", "Weight", "Electron", "Muon", "Jet", "MissingET"):
            if names.get(name, name) is None:
                continue
            wanted = {
                "Event": ["Weight"],
                "Weight": ["Weight"],
                "Jet": ["PT", "Eta", "Phi", "Mass", "BTag"],
                "MissingET": ["MET", "Eta", "Phi"],
            }.get(name, ["PT", "Eta", "Phi", "Charge", "IsolationVar"])
            columns = {member: tree[f"{name}/{name}.{member}"].array() for member in wanted}
            columns |= {m: change(columns[m]) for m, change in changes.get(name, {}).items()}
            collections[names.get(name, name)] = ak.zip(columns)
    with uproot.recreate(path) as file:
        file.mktree(
            "Delphes",
            {name: values.type for name, values in collections.items()},
            counter_name=lambda name: f"{name}_size",
            field_name=lambda outer, inner: f"{outer}/{outer}.{inner}" if inner else outer,
        )
        file["Delphes"].extend(collections)
    return path


def test_collections_of_another_card_are_named_in_the_configuration(
    tmp_path: Path, made: tuple[EventTable, dict[str, Any]]
) -> None:
    names = {"Muon": "MuonTight", "Jet": "JetPUPPI", "MissingET": "PuppiMissingET"}
    path = renamed(tmp_path / "puppi.root", names)
    puppi = DelphesFormatConfig(muons="MuonTight", jets="JetPUPPI", missing="PuppiMissingET")
    table, _ = tables(path, tmp_path, source=puppi)
    assert table.digest == made[0].digest


def test_a_missing_collection_is_an_error_that_names_it_or_is_left_out_on_purpose(tmp_path: Path) -> None:
    path = renamed(tmp_path / "electrons.root", {"Muon": None})  # type: ignore[dict-item]
    with pytest.raises(InputFileError, match=r"electrons\.root.* has no branch Muon\.Charge.*under format"):
        tables(path, tmp_path)
    table, _ = tables(path, tmp_path, source=DelphesFormatConfig(muons=None))
    assert len(table) > 80


def test_undefined_momenta_are_rejected_and_counted(tmp_path: Path) -> None:
    def damaged(values: ak.Array) -> ak.Array:
        numbers = np.array(ak.to_numpy(ak.flatten(values)))
        numbers[0] = np.nan
        return ak.unflatten(numbers, ak.num(values))

    path = renamed(tmp_path / "nan.root", {}, Electron={"PT": damaged}, MissingET={"MET": damaged})
    table, summary = tables(path, tmp_path)
    assert {row["cut"]: row["rejected"] for row in summary["steps"]}["finite momenta"] == 2
    assert np.isfinite(table.features).all()


def test_an_empty_delphes_file_gives_an_empty_table(tmp_path: Path) -> None:
    table, summary = tables(DATA / "empty.delphes.root", tmp_path)
    assert len(table) == 0
    assert table.feature_names == TABLE1[:32]
    assert summary["warnings"] == ["empty.delphes.root has no events", "no event is selected"]


def test_a_delphes_tree_is_not_an_lhef_tree() -> None:
    with pytest.raises(InputFileError, match="has no tree 'LHEF'; its trees are: Delphes"):
        open_sample("x", [GENUINE], theta=0.0)
