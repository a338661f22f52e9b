"""What the weights of a sample mean, and which of its files can be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from test_processing import FEATURES, GENUINE, ITERATIVE, POINTS, write_lhef

from milanalysis.config import FileSampleConfig
from milanalysis.errors import EventWeightError, InputFileError
from milanalysis.events.files.samples import open_sample
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.processing.tables_of_samples import make_tables
from milanalysis.events.tables import EventTable

SIGMA = 2.0414  # fb


def scaled(path: Path, factor: float, n: int = 40) -> Path:
    """Write some genuine events with other nominal weights."""
    return write_lhef(path, stop=n, change=lambda name, v: v * factor if name == "Event.Weight" else v)


def total(files: list[Path], directory: Path, **settings: Any) -> float:
    sample = open_sample("x", files, theta=0.0, **settings)
    make_tables(load_processor(FEATURES)(), sample, directory, executor=ITERATIVE, chunk_size=30)
    return float(EventTable.read(directory / "events.parquet").weight.sum())


@pytest.mark.parametrize(
    ("normalisation", "factors"),
    [
        ("mean", (1.0, 1.0)),
        ("sum", (1 / 60, 1 / 60)),  # 40 and 20 events
        ("file_sum", (1 / 40, 1 / 20)),
        ("unit", (1 / 2.0414e-3, 1 / 2.0414e-3)),
    ],
)
def test_each_normalisation_gives_the_cross_section(
    tmp_path: Path, normalisation: str, factors: tuple[float, float]
) -> None:
    files = [
        scaled(tmp_path / f"{i}.root", factor, n)
        for i, (factor, n) in enumerate(zip(factors, (40, 20), strict=True))
    ]
    known = {"normalisation": normalisation, "cross_section_fb": SIGMA}
    assert total(files, tmp_path / "out", **known) == pytest.approx(SIGMA, rel=1e-9)


def test_a_wrong_normalisation_is_refused_and_the_fitting_one_is_named(tmp_path: Path) -> None:
    file = scaled(tmp_path / "sum.root", 1 / 40)
    with pytest.raises(
        EventWeightError, match=r"0\.051.* fb, and the cross-section is 2\.04.*: sum would fit"
    ):
        total([file], tmp_path / "out", cross_section_fb=SIGMA)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_cross_section_in_the_json_file_beside_a_root_file_is_checked(tmp_path: Path) -> None:
    file = scaled(tmp_path / "some.root", 3.0)
    (tmp_path / "some.json").write_text(json.dumps({"cross_section_pb": SIGMA / 1000}))
    with pytest.raises(EventWeightError, match=r"add up to 6\.12\d* fb, and the cross-section is 2\.04"):
        total([file], tmp_path / "out")
    (tmp_path / "some.json").write_text(json.dumps({"cross_section_pb": 3 * SIGMA / 1000}))
    assert total([file], tmp_path / "out") == pytest.approx(3 * SIGMA)


@pytest.mark.parametrize(
    "description",
    [
        {"weight_names": 5},
        {"weight_names": {"a": 1}},
        {"weight_points": ["a", None]},
        {"weight_points": [True, 2]},
    ],
    ids=str,
)
def test_what_a_json_file_says_of_weights_in_another_form_is_not_used(
    tmp_path: Path, description: dict[str, Any]
) -> None:
    file = scaled(tmp_path / "some.root", 1.0)
    (tmp_path / "some.json").write_text(json.dumps(description))
    sample = open_sample("x", [file], theta=0.0, weight_points=[0.5, 1.0])
    assert sample.order is not None
    with pytest.raises(EventWeightError, match=r"some\.json does not say the names of the weights"):
        open_sample("x", [file], theta=0.0, weight_points={"a": 0.5, "b": 1.0})
    (tmp_path / "names.json").write_text(json.dumps(description))
    with pytest.raises(EventWeightError, match=r"names\.json, named under weight_names, should be"):
        open_sample(
            "x", [file], theta=0.0, weight_points={"a": 0.5, "b": 1.0}, weight_names=tmp_path / "names.json"
        )


def test_weights_may_be_given_by_name(tmp_path: Path) -> None:
    file = tmp_path / "named.root"
    shutil.copy(GENUINE, file)
    names = [f"cHW_{point:g}" for point in POINTS]
    by_name = {f"cHW_{point:g}": point for point in (-1.0, 0.1, -0.5, 0.5, 1.0)}
    with pytest.raises(EventWeightError, match=r"does not say the names of the weights in .*named\.root"):
        open_sample("x", [file], theta=0.0, weight_points=by_name)
    (tmp_path / "named.json").write_text(json.dumps({"weight_names": names}))
    found = open_sample("x", [file], theta=0.0, weight_points=by_name).weight_points
    assert found == (-1.0, -0.5, None, 0.1, None, 0.5, 1.0)
    with pytest.raises(EventWeightError, match=r"has no weight cHW_7; it has cHW_-1, "):
        open_sample("x", [file], theta=0.0, weight_points={"cHW_7": 7.0})
    total([file], tmp_path / "out", weight_points=by_name)
    table = EventTable.read(tmp_path / "out" / "events.parquet")
    assert table.event_weights is not None
    np.testing.assert_allclose(table.weights_at(0.2).sum(), 1000 * mean_weight(4), rtol=1e-6)


def test_varied_weights_are_columns_of_the_table_in_fb(tmp_path: Path) -> None:
    file = tmp_path / "named.root"
    shutil.copy(GENUINE, file)
    (tmp_path / "named.json").write_text(json.dumps({"weight_names": [f"cHW_{point:g}" for point in POINTS]}))
    variations = {"by_name": ("cHW_0.1", "cHW_-0.1"), "by_place": (3, 2)}
    total([file], tmp_path / "out", weight_points=POINTS, variations=variations)
    table = EventTable.read(tmp_path / "out" / "events.parquet")
    assert list(table.variations) == ["by_name", "by_place"]
    # the polynomial goes through the weights of the file, which are in single precision
    expected = table.weights_at([0.1, -0.1])
    for varied in table.variations.values():
        np.testing.assert_allclose(varied, expected, rtol=2e-5)
    total([file], tmp_path / "alone", variations={"by_place": (3, 2)})
    alone = EventTable.read(tmp_path / "alone" / "events.parquet")
    assert alone.event_weights is None
    np.testing.assert_array_equal(alone.variations["by_place"], table.variations["by_place"])
    with pytest.raises(EventWeightError, match="has no weight jes_down, jes_up; it has cHW_-1"):
        total([file], tmp_path / "wrong", variations={"jes": ("jes_up", "jes_down")})
    with pytest.raises(
        EventWeightError, match=r"weight_variations\.jes of sample 'x' names the weight at place 7"
    ):
        total([file], tmp_path / "wrong", variations={"jes": (0, 7)})


def mean_weight(i: int) -> float:
    import uproot

    with uproot.open({GENUINE: "LHEF"}) as tree:
        return float(ak.mean(tree["Rwgt/Rwgt.Weight"].array()[:, i]))


def test_patterns_stand_for_the_files_they_match(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"run_{name}.root").touch()
    config = FileSampleConfig(role="observed", files=(tmp_path / "run_*.root", tmp_path / "other.root"))
    assert [path.name for path in config.paths()] == ["run_a.root", "run_b.root", "other.root"]
    with pytest.raises(InputFileError, match="no file matches this pattern"):
        FileSampleConfig(role="observed", files=(tmp_path / "x*.root",)).paths()


# --- files that cannot be read
# ---------------------------------------------------------------------------------


def test_bad_files_are_left_out_and_named_if_that_is_wanted(tmp_path: Path) -> None:
    good = scaled(tmp_path / "good.root", 1.0)
    cut = tmp_path / "cut.root"
    cut.write_bytes(GENUINE.read_bytes()[:100_000])
    (tmp_path / "cut.json").write_text(json.dumps({"n_events": 1000}))
    late = scaled(tmp_path / "late.root", 1.0, n=50)
    files = [cut, good, late, tmp_path / "gone.root"]
    sample = open_sample("x", files, theta=0.0, on_bad_file="skip")
    late.write_bytes(late.read_bytes()[:6000])  # damaged after it was looked into
    summary = make_tables(
        load_processor(FEATURES)(),
        sample,
        tmp_path / "out",
        executor=ITERATIVE,
        chunk_size=30,
        on_bad_file="skip",
    )
    report = {Path(row["file"]).name: (row["events"], row["reason"]) for row in summary["skipped"]}
    assert set(report) == {"cut.root", "gone.root", "late.root"}
    assert report["cut.root"][0] == 1000
    assert "truncated" in report["cut.root"][1]
    assert report["gone.root"] == (None, report["gone.root"][1])
    assert "no such file" in report["gone.root"][1]
    assert report["late.root"][0] == 50
    assert "damaged" in report["late.root"][1]
    assert sum("is left out" in warning for warning in summary["warnings"]) == 3
    table = EventTable.read(tmp_path / "out" / "events.parquet")
    assert (len(table), summary["n_read"]) == (40, 40)
    assert (table.event_id >> 40 == 1).all()  # numbers of files do not depend on what is left out
    assert table.weight.sum() == pytest.approx(SIGMA)


def test_a_sample_that_means_nothing_without_its_bad_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="none of its files can be read"):
        open_sample("x", [tmp_path / "gone.root"], theta=0.0, on_bad_file="skip")
    good = scaled(tmp_path / "good.root", 1.0)
    with pytest.raises(
        InputFileError, match=r"gone\.root cannot be read .* do not add up to the cross-section"
    ):
        open_sample("x", [good, tmp_path / "gone.root"], theta=0.0, on_bad_file="skip", normalisation="sum")


def test_chunks_begin_at_multiples_where_asked() -> None:
    sample = open_sample("x", [GENUINE], theta=0.0)
    items = sample.work_items(230, None, 50)
    assert [(item.entrystart, item.entrystop) for item in items] == [
        (0, 200), (200, 400), (400, 600), (600, 800), (800, 1000),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="enlarge chunk_size"):
        sample.work_items(30, None, 50)
