"""Les Houches text converted to ROOT: the same events as pylhe and ExRootLHEFConverter see."""

from __future__ import annotations

import gzip
import shutil
import warnings
from pathlib import Path

import numpy as np
import pylhe
import pytest
import uproot
from conftest import milanalysis
from test_processing import FEATURES, ITERATIVE, POINTS

from milanalysis.errors import InputFileError
from milanalysis.events.files.samples import open_sample
from milanalysis.events.lhe import stream as lhetext
from milanalysis.events.lhe.conversion import convert_lhe, converted_path
from milanalysis.events.lhe.stream import LHEFile
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.processing.tables_of_samples import make_tables
from milanalysis.events.tables import EventTable
from milanalysis.files.provenance import read_json

DATA = Path(__file__).parent / "data"
TEXT = DATA / "vbf_hww_sm.lhe.gz"  # the first 300 events of what tests/data/vbf_hww_sm.lhef.root was made of
NAMES = ["cHW_-1", "cHW_-0.5", "cHW_-0.1", "cHW_0.1", "cHW_0.2", "cHW_0.5", "cHW_1"]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = converted_path(TEXT, tmp_path_factory.mktemp("converted"))
    convert_lhe(TEXT, path)
    return path


def test_tree_is_that_of_exrootlhefconverter(converted: Path) -> None:
    with uproot.open(converted) as ours, uproot.open(DATA / "vbf_hww_sm.lhef.root") as genuine:
        for name in ours["LHEF"].keys():  # noqa: SIM118
            found = ours["LHEF"][name].array()
            expected = genuine["LHEF"][name].array(entry_stop=300)
            assert found.type == expected.type, name
            if name.split(".")[-1] in ("Eta", "Phi", "Rapidity", "PT"):
                # computed from momenta; near the beam rapidities lose digits in E - pz
                np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=1e-9, atol=1e-6)
            else:
                np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy(), err_msg=name)


def test_momenta_and_weights_are_those_of_pylhe_to_the_last_bit(converted: Path) -> None:
    events = list(pylhe.LHEFile.fromfile(str(TEXT)).events)
    with uproot.open({converted: "LHEF"}) as tree:
        for ours, name in (("Px", "px"), ("Py", "py"), ("Pz", "pz"), ("E", "e"), ("M", "m"), ("PID", "id")):
            expected = [[getattr(particle, name) for particle in event.particles] for event in events]
            np.testing.assert_array_equal(tree[f"Particle/Particle.{ours}"].array().to_numpy(), expected)
        weights = [[event.weights[name] for name in NAMES] for event in events]
        np.testing.assert_array_equal(tree["Rwgt/Rwgt.Weight"].array().to_numpy(), weights)


def test_names_of_weights_and_the_cross_section_are_kept_beside_the_tree(converted: Path) -> None:
    values = read_json(converted.with_suffix(".json"))
    assert values["weight_names"] == NAMES
    assert values["weight_descriptions"]["cHW_0.5"] == "cHW = 0.5, Lambda = 1 TeV"
    assert values["cross_section_pb"] == 2.0414e-3
    assert (values["n_events"], values["normalisation"], values["strategy"]) == (300, "mean", -4)


def test_a_converted_file_is_processed_with_weights_by_name(converted: Path, tmp_path: Path) -> None:
    points = dict(zip(NAMES, POINTS, strict=True))
    sample = open_sample("x", [converted], theta=0.0, weight_points=points)
    assert sample.weight_points == POINTS
    assert sample.expected_cross_section_fb == pytest.approx(2.0414)
    make_tables(load_processor(FEATURES)(), sample, tmp_path, executor=ITERATIVE, chunk_size=100)
    table = EventTable.read(tmp_path / "events.parquet")
    assert len(table) == 300
    assert table.event_weights is not None


@pytest.mark.parametrize("size", [700, 5000, 1 << 20])
def test_blocks_of_text_may_end_anywhere(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> np.ndarray:
        with LHEFile.open(TEXT) as file:
            return np.concatenate([block.particles for block in file.blocks()])

    whole = read()
    monkeypatch.setattr(lhetext, "_TEXT_BLOCK", size)
    np.testing.assert_array_equal(read(), whole)


def text_of(n_events: int, *, end: str = "</LesHouchesEvents>\n", weights: str = "") -> str:
    event = (
        "<event>\n 2 1 +1.0e+00 91.0 0.0075 0.118\n"
        " 21 -1 0 0 501 502 0 0 50 50 0 0. 1.\n 25 1 1 2 0 0 0 0 10D+01 100 100 0. 0.\n# a comment\n"
        f"{weights}</event>\n"
    )
    return (
        '<LesHouchesEvents version="3.0">\n<header><initrwgt><weight id="a">one</weight> <weight id=\'b\'>two'
        "</weight></initrwgt></header>\n<init>\n2212 2212 6500 6500 0 0 247000 247000 3 2\n1.0 0.3 1.0 1\n"
        f"2.0 0.4 1.0 2\n</init>\n{event * n_events}{end}"
    )


def converted_text(text: str, directory: Path) -> tuple[dict[str, object], Path]:
    path = directory / "made.lhe"
    path.write_text(text)
    return convert_lhe(path, directory / "made.lhef.root"), directory / "made.lhef.root"


def test_several_processes_compact_weights_and_fortran_exponents_are_read(tmp_path: Path) -> None:
    summary, path = converted_text(text_of(4, weights="<weights> 0.25 0.5 </weights>\n"), tmp_path)
    assert summary["cross_section_pb"] == 3.0
    assert summary["cross_section_error_pb"] == pytest.approx(0.5)
    assert summary["weight_names"] == ["a", "b"]
    assert summary["normalisation"] == "unit"
    with uproot.open({path: "LHEF"}) as tree:
        assert tree["Rwgt/Rwgt.Weight"].array().tolist() == [[0.25, 0.5]] * 4
        assert tree["Particle/Particle.Pz"].array().tolist() == [[50.0, 100.0]] * 4


def test_weights_in_another_order_are_put_in_order_and_missing_ones_refused(tmp_path: Path) -> None:
    one = "<rwgt>\n<wgt id='a'> 1 </wgt>\n<wgt id=\"b\"> 2 </wgt>\n</rwgt>\n"
    other = "<rwgt>\n<wgt id='b'> 4 </wgt>\n<wgt id='a'> 3 </wgt>\n</rwgt>\n"
    text = text_of(1, weights=one, end="") + text_of(1, weights=other).split("</init>\n")[1]
    _, path = converted_text(text, tmp_path)
    with uproot.open({path: "LHEF"}) as tree:
        assert tree["Rwgt/Rwgt.Weight"].array().tolist() == [[1.0, 2.0], [3.0, 4.0]]
    text = text_of(3, weights=one, end="") + text_of(1, weights="").split("</init>\n")[1]
    with pytest.raises(InputFileError, match="in event 4: it has 0 weights"):
        converted_text(text, tmp_path)


def test_a_file_without_events_gives_a_tree_without_events(tmp_path: Path) -> None:
    summary, path = converted_text(text_of(0), tmp_path)
    assert (summary["n_events"], summary["normalisation"]) == (0, None)
    with uproot.open(path) as file:
        assert file["LHEF"].num_entries == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            text_of(5, end=""),
            r"made\.lhe is truncated or damaged in event 6: the text ends, after 5 complete",
        ),
        (text_of(5, end="")[:-60], "in event 5: the text ends, after 4 complete"),
        (text_of(2, end="") + "<event>\n 2 1 1. 9", "in event 3: the text ends"),
        (text_of(3).replace("21 -1", "2l -1"), "in event 1: its lines do not hold the numbers"),
        (
            text_of(1, end="") + text_of(1).split("</init>\n")[1].replace(" 25 1 1", ""),
            "in event 2: its lines",
        ),
        (text_of(1, end="") + "<event>\n\n</event>", "in event 2: its first line is b''"),
        ("<html>\n", "is not a Les Houches file"),
        ("", "is not a Les Houches file"),
        (text_of(1).replace("3 2\n", "\n"), "has an <init> block that cannot be read"),
    ],
)
def test_damaged_text_is_an_error_that_names_the_event(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        converted_text(text, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["made.lhe"]


def test_a_truncated_compressed_file_says_in_which_event_it_ends(tmp_path: Path) -> None:
    whole = TEXT.read_bytes()
    cut = tmp_path / "cut.lhe.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    readable = b""
    with gzip.open(cut) as stream:
        try:
            while piece := stream.read1(1000):
                readable += piece
        except EOFError:
            pass
    complete = readable.count(b"</event>")
    assert 100 < complete < 200
    with pytest.raises(
        InputFileError, match=rf"cut\.lhe\.gz is truncated or damaged in event {complete + 1}:"
    ):
        convert_lhe(cut, tmp_path / "cut.lhef.root")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not (tmp_path / "cut.lhef.root").exists()


def test_the_command_converts_several_files_and_says_what_they_hold(tmp_path: Path) -> None:
    shutil.copy(TEXT, tmp_path / "one.lhe.gz")
    (tmp_path / "two.lhe").write_text(text_of(2))
    answer = milanalysis("convert", tmp_path / "one.lhe.gz", tmp_path / "two.lhe", "-o", tmp_path / "out")
    assert answer.exit_code == 0, answer.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["one.lhef.json", "one.lhef.root", "two.lhef.json", "two.lhef.root"]
    answer = milanalysis("convert", tmp_path / "absent.lhe")
    assert answer.exit_code == 2
    assert "absent.lhe" in answer.output
