"""Running processors over files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from milanalysis.config import FuturesExecutorConfig, IterativeExecutorConfig, LHEFFormatConfig
from milanalysis.errors import AccountingError, EventWeightError, InputFileError, ProcessorError
from milanalysis.events.files.samples import Sample, open_sample
from milanalysis.events.processing.chunks import Cutflow, exact_sum
from milanalysis.events.processing.processors import load_processor, make_processor, run_processor
from milanalysis.events.processing.tables_of_samples import make_tables
from milanalysis.events.tables import EventTable, assign_split, event_ids
from milanalysis.files.provenance import file_digest

DATA = Path(__file__).parent / "data"
GENUINE = DATA / "vbf_hww_sm.lhef.root"
FEATURES = Path(__file__).parents[1] / "processors" / "features.py"
POINTS = (-1.0, -0.5, -0.1, 0.1, 0.2, 0.5, 1.0)
ITERATIVE = IterativeExecutorConfig()


def write_lhef(
    path: Path,
    *,
    tree: str = "LHEF",
    drop: str = "",
    change: Callable[[str, Any], Any] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Path:
    """Write some events of the genuine file, with something changed."""
    collections = {}
    with uproot.open({GENUINE: "LHEF"}) as file:
        for name in ("Event", "Rwgt", "Particle"):
            columns = {}
            for key in file.keys(filter_name=f"{name}/*"):
                leaf = key.split("/")[1]
                values = file[key].array(entry_start=start, entry_stop=stop)
                if leaf != drop:
                    columns[leaf.split(".")[1]] = values if change is None else change(leaf, values)
            collections[name] = ak.zip(columns)
    with uproot.recreate(path) as out:
        out.mktree(
            tree,
            {name: values.type for name, values in collections.items()},
            counter_name=lambda name: f"{name}_size",
            field_name=lambda outer, inner: f"{outer}/{outer}.{inner}" if inner else outer,
        )
        out[tree].extend(collections)
    return path


def processor_file(path: Path, body: str) -> Path:
    """Write a processor whose ``process`` is given."""
    path.write_text(
        "from coffea import processor\n\nfrom milanalysis.errors import EventWeightError\n\n\n"
        "class Made(processor.ProcessorABC):\n"
        f"    def process(self, events):\n        {body}\n\n"
        "    def postprocess(self, accumulator):\n        return accumulator\n"
    )
    return path


@pytest.fixture(scope="module")
def sample() -> Sample:
    return open_sample("sm", [GENUINE], theta=0.0, weight_points=POINTS, seed=5)


def tables(sample: Sample, directory: Path, *, processor: Path = FEATURES, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"executor": ITERATIVE, "chunk_size": 1000, **changes}
    return make_tables(load_processor(processor)(), sample, directory, **settings)


@pytest.fixture(scope="module")
def made(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made")
    tables(sample, directory)
    return directory


# --- tables -------------------------------------------------------------------------------------------------


def test_table_has_every_event_with_its_weight_name_and_split(made: Path) -> None:
    table = EventTable.read(made / "events.parquet")
    np.testing.assert_array_equal(table.event_id, event_ids(0, np.arange(1000)))
    np.testing.assert_array_equal(table.split, assign_split(table.event_id, 5, (0.64, 0.16, 0.20)))
    np.testing.assert_allclose(table.weight.sum(), 2.0414, rtol=1e-12)  # fb; the file says 2.0414e-3 pb
    assert (table.theta == 0).all()


def test_weights_of_the_table_at_other_points_are_those_of_the_file(made: Path) -> None:
    table = EventTable.read(made / "events.parquet")
    with uproot.open({GENUINE: "LHEF"}) as tree:
        weights = ak.to_numpy(tree["Rwgt/Rwgt.Weight"].array())
    # pb per event -> fb of a sample of 1000; the file has 8 digits
    np.testing.assert_allclose(table.weights_at(POINTS), weights, rtol=2e-7)


def test_only_the_tables_are_left_behind(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == ["cutflow.json", "events.parquet"]


@pytest.mark.parametrize("chunk_size", [999, 123])
def test_bytes_do_not_depend_on_the_chunk_size(
    sample: Sample, made: Path, tmp_path: Path, chunk_size: int
) -> None:
    tables(sample, tmp_path, chunk_size=chunk_size)
    for name in ("events.parquet", "cutflow.json"):
        assert file_digest(tmp_path / name) == file_digest(made / name)


def test_bytes_do_not_depend_on_the_executor_and_workers_need_only_milanalysis(
    sample: Sample, made: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "mine.py"  # a path that workers cannot import
    copy.parent.mkdir()
    shutil.copy(FEATURES, copy)
    out = tmp_path / "out"
    make_tables(
        load_processor(copy)(), sample, out, executor=FuturesExecutorConfig(workers=2), chunk_size=150
    )
    for name in ("events.parquet", "cutflow.json"):
        assert file_digest(out / name) == file_digest(made / name)

    # the same warm workers: errors arrive as they were raised, and the pool survives them
    for body, kind, text in (
        ("raise EventWeightError('seven of nine')", EventWeightError, "^seven of nine"),
        ("raise KeyError(events.metadata['entrystart'])", ProcessorError, "processing failed with KeyError"),
    ):
        failing = load_processor(processor_file(tmp_path / "failing.py", body))()
        with pytest.raises(kind, match=text):
            run_processor(failing, sample, executor=FuturesExecutorConfig(workers=2), chunk_size=100)

    # one chunk of many fails while others write: no table, and the finished parts are kept for the next
    # attempt
    source = FEATURES.read_text().replace(
        "return chunk_table(", "assert events.metadata['entrystart'] != 300\n        return chunk_table("
    )
    (tmp_path / "once.py").write_text(source)
    with pytest.raises(ProcessorError, match=r"events 300 to 349.* AssertionError"):
        tables(
            sample,
            tmp_path / "failed",
            processor=tmp_path / "once.py",
            executor=FuturesExecutorConfig(workers=2),
            chunk_size=50,
        )
    assert [path.name for path in (tmp_path / "failed").iterdir()] == [".parts"]

    # a worker that dies is an error with advice, and the next run has new workers
    dying = load_processor(processor_file(tmp_path / "dying.py", "import os\n        os._exit(9)"))()
    with pytest.raises(ProcessorError, match="a worker process stopped without an answer"):
        run_processor(dying, sample, executor=FuturesExecutorConfig(workers=2), chunk_size=500)
    tables(sample, out, executor=FuturesExecutorConfig(workers=2), chunk_size=500)
    assert file_digest(out / "events.parquet") == file_digest(made / "events.parquet")


def test_files_follow_each_other_in_the_order_given(tmp_path: Path) -> None:
    files = [write_lhef(tmp_path / f"{name}.root", stop=n) for name, n in (("z", 30), ("a", 20))]
    both = open_sample("both", files, theta=0.0, first_file_number=3)
    tables(both, tmp_path / "out", chunk_size=7)
    table = EventTable.read(tmp_path / "out" / "events.parquet")
    expected = np.concatenate([event_ids(3, np.arange(30)), event_ids(4, np.arange(20))])
    np.testing.assert_array_equal(table.event_id, expected)
    np.testing.assert_array_equal(table.features[:20], table.features[30:])
    assert table.event_weights is None
    np.testing.assert_allclose(table.weight.sum(), 2.0414, rtol=1e-12)  # of the sample, not of each file


def test_an_unknown_generation_point_is_nan(tmp_path: Path) -> None:
    file = write_lhef(tmp_path / "some.root", stop=20)
    tables(open_sample("x", [file], weight_points=POINTS), tmp_path)
    table = EventTable.read(tmp_path / "events.parquet")
    assert np.isnan(table.theta).all()
    assert table.event_weights is not None


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    for n_events in (30, 50):
        file = write_lhef(tmp_path / "some.root", stop=n_events)
        assert tables(open_sample("x", [file], theta=0.0), tmp_path / "out")["n_read"] == n_events


# --- the cutflow --------------------------------------------------------------------------------------------


def test_undefined_numbers_and_other_final_states_are_counted_and_rejected(tmp_path: Path) -> None:
    def damage(leaf: str, values: ak.Array) -> ak.Array:
        array = np.array(ak.to_numpy(values))
        if leaf == "Event.Weight":
            array[0] = np.nan
        elif leaf == "Rwgt.Weight":
            array[1, 3] = np.inf
        elif leaf == "Particle.Pz":
            array[2, 2] = np.nan
        elif leaf == "Particle.PID":
            array[3, array[3] == 11] = 12  # one charged lepton is left
            array[4, 2] = 21  # one quark is left
        return ak.from_regular(ak.Array(array))

    file = write_lhef(tmp_path / "damaged.root", stop=20, change=damage)
    summary = tables(open_sample("x", [file], theta=0.0, weight_points=POINTS), tmp_path, chunk_size=3)
    assert [(row["cut"], row["events"], row["rejected"]) for row in summary["steps"]] == [
        ("read", 20, 0),
        ("finite weights", 18, 2),
        ("finite momenta", 17, 1),
        ("two charged leptons", 16, 1),
        ("two quarks", 15, 1),
    ]
    table = EventTable.read(tmp_path / "events.parquet")
    np.testing.assert_array_equal(table.event_id, np.arange(5, 20))
    assert summary["steps"][-1]["cross_section_fb"] == pytest.approx(2.0414 * 15 / 20)
    assert json.loads((tmp_path / "cutflow.json").read_text()) == summary


def test_a_file_without_events_gives_an_empty_table_and_a_warning(tmp_path: Path) -> None:
    empty, some = (write_lhef(tmp_path / f"{n}.root", stop=n) for n in (0, 10))
    summary = tables(open_sample("x", [empty], theta=0.0, weight_points=POINTS), tmp_path / "empty")
    assert summary["warnings"] == ["0.root has no events", "no event is selected"]
    table = EventTable.read(tmp_path / "empty" / "events.parquet")
    assert len(table) == 0
    assert len(table.feature_names) == 36
    summary = tables(open_sample("x", [empty, some], theta=0.0, weight_points=POINTS), tmp_path / "both")
    assert (summary["n_selected"], summary["warnings"]) == (10, ["0.root has no events"])


def test_nothing_selected_gives_an_empty_table_and_a_warning(tmp_path: Path) -> None:
    file = write_lhef(
        tmp_path / "no.root", stop=10, change=lambda leaf, v: v * 0 + 22 if leaf == "Particle.PID" else v
    )
    summary = tables(open_sample("x", [file], theta=0.0, weight_points=POINTS), tmp_path)
    assert (summary["n_read"], summary["n_selected"]) == (10, 0)
    assert summary["warnings"] == ["no event is selected"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("out['parts'].popitem()", "10 chunks expected and 9 found"),
        ("out['cutflow'] = out['cutflow'] + out['cutflow']", "1000 events read expected and 2000 found"),
        (
            "out['parts'] = {k: v - 1 for k, v in out['parts'].items()}",
            "events selected expected and 990 found",
        ),
    ],
)
def test_a_processor_that_loses_or_doubles_events_is_found_out(
    sample: Sample, tmp_path: Path, change: str, text: str
) -> None:
    source = FEATURES.read_text().replace(
        "return accumulator", "out = accumulator\n        EDIT\n        return out"
    )
    (tmp_path / "lossy.py").write_text(source.replace("EDIT", change))
    with pytest.raises(AccountingError, match=text):
        make_tables(
            load_processor(tmp_path / "lossy.py")(),
            sample,
            tmp_path / "out",
            executor=ITERATIVE,
            chunk_size=100,
        )
    assert list((tmp_path / "out").iterdir()) == []


@given(values=st.lists(st.floats(-1e300, 1e300), max_size=30))
def test_sums_of_weights_are_exact(values: list[float]) -> None:
    assert exact_sum(np.array(values)) == sum(map(Fraction, values), Fraction(0))


def test_cutflows_with_different_cuts_do_not_add() -> None:
    with pytest.raises(AccountingError, match="different steps"):
        Cutflow({"read": (1, Fraction(1))}) + Cutflow({"all": (1, Fraction(1))})


# --- files that are refused ---------------------------------------------------------------------------------


def bad_file(directory: Path, kind: str) -> Path:
    path = directory / f"{kind}.root"
    if kind == "zero":
        path.touch()
    elif kind == "text":
        path.write_text("<LesHouchesEvents>")
    elif kind in ("truncated", "header"):
        content = GENUINE.read_bytes()
        path.write_bytes(content[: len(content) * 6 // 10 if kind == "truncated" else 80])
    elif kind == "directory":
        path.mkdir()
    elif kind == "tree":
        write_lhef(path, tree="Events", stop=3)
    elif kind == "branch":
        write_lhef(path, drop="Particle.Px", stop=3)
    return path


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "there is no such file; expected a ROOT file with a tree 'LHEF'"),
        ("zero", "has no content"),
        ("text", "is not a ROOT file"),
        ("truncated", "is truncated: it has .* bytes and should have"),
        ("header", "truncated or damaged"),
        ("directory", "is a directory; give the files in it, such as .*directory.root/\\*.root"),
        ("tree", "has no tree 'LHEF'; its trees are: Events"),
        ("branch", "has no branch Particle.Px;"),
    ],
)
def test_a_bad_file_is_refused_by_name_with_what_was_expected(tmp_path: Path, kind: str, text: str) -> None:
    path = bad_file(tmp_path, kind)
    with pytest.raises(InputFileError, match=text) as caught:
        open_sample("x", [GENUINE, path], theta=0.0)
    assert str(caught.value).startswith(str(path))


def test_the_file_of_a_killed_job_is_refused() -> None:
    with pytest.raises(InputFileError, match="was stopped before it closed the file"):
        open_sample("x", [DATA / "unclosed.delphes.root"], theta=0.0)


def test_a_delphes_file_is_not_an_lhef_file() -> None:
    with pytest.raises(InputFileError, match="has no tree 'LHEF'; its trees are: Delphes"):
        open_sample("x", [DATA / "empty.delphes.root"], theta=0.0)
    with pytest.raises(InputFileError, match="has no branch"):
        open_sample("x", [DATA / "empty.delphes.root"], source=LHEFFormatConfig(tree="Delphes"), theta=0.0)


@pytest.mark.parametrize(
    ("points", "text"),
    [
        (POINTS[:6], r"has 7 weights per event in Rwgt.Weight and sample 'x' lists 6 weight_points"),
        ((*POINTS, 2.0), r"lists 8 weight_points .* list one value for each weight"),
        (POINTS[::-1], "order of the weights"),
    ],
)
def test_weight_points_that_do_not_fit_the_file_are_refused(
    tmp_path: Path, points: tuple[float, ...], text: str
) -> None:
    with pytest.raises(EventWeightError, match=text) as caught:
        tables(open_sample("x", [GENUINE], theta=0.0, weight_points=points), tmp_path / "out")
    assert "vbf_hww_sm.lhef.root" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_weight_points_for_a_file_without_weights_are_refused(tmp_path: Path) -> None:
    file = write_lhef(
        tmp_path / "none.root", stop=5, change=lambda n, v: v[:, :0] if n == "Rwgt.Weight" else v
    )
    with pytest.raises(EventWeightError, match="has 0 weights per event"):
        tables(open_sample("x", [file], theta=0.0, weight_points=POINTS), tmp_path)
    tables(open_sample("x", [file], theta=0.0), tmp_path)
    assert EventTable.read(tmp_path / "events.parquet").event_weights is None


def test_a_file_damaged_after_it_was_opened_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = write_lhef(tmp_path / "soon.root", stop=50)
    opened = open_sample("x", [file], theta=0.0)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(
        InputFileError, match=r"soon\.root \(events 0 to 49\) cannot be read: the file is damaged"
    ):
        tables(opened, tmp_path / "out")


# --- processors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (None, "there is no such file; expected a processor file"),
        ("x = 1\n", "defines 0 processors instead of one"),
        ("import nosuchmodule\n", "cannot be loaded: ModuleNotFoundError"),
        ("class A(:\n", "cannot be loaded: SyntaxError"),
        (
            (
                "from coffea.processor import ProcessorABC\n"
                "class A(ProcessorABC): pass\nclass B(ProcessorABC): pass\n"
            ),
            "defines 2 processors instead of one .*A, B",
        ),
        (
            "from coffea.processor import ProcessorABC\nclass A(ProcessorABC): pass\n",
            "has no method .*process",
        ),
    ],
)
def test_files_without_a_usable_processor_are_refused(tmp_path: Path, source: str | None, text: str) -> None:
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(ProcessorError, match=text):
        load_processor(path)


def test_a_processor_that_cannot_be_made_is_refused_by_file() -> None:
    """Most likely the two files were exchanged in the configuration."""
    features, bags = FEATURES, FEATURES.with_name("bag_likelihood.py")
    with pytest.raises(ProcessorError, match=r"features\.py: FeatureProcessor cannot be made"):
        make_processor(features, None, models={})
    with pytest.raises(ProcessorError, match=r"bag_likelihood\.py: BagLikelihoodProcessor cannot be made"):
        make_processor(bags)


def test_a_processor_can_be_chosen_by_name(tmp_path: Path) -> None:
    path = processor_file(tmp_path / "two.py", "return {}")
    path.write_text(path.read_text() + "\n\nclass Other(Made):\n    pass\n")
    assert load_processor(path, "Other").__name__ == "Other"
    with pytest.raises(ProcessorError, match="no processor 'Third'"):
        load_processor(path, "Third")


def test_an_error_in_a_processor_says_where_and_why(sample: Sample, tmp_path: Path) -> None:
    failing = load_processor(processor_file(tmp_path / "f.py", "return events.Particle.Nonsense"))()
    with pytest.raises(ProcessorError, match=r"vbf_hww_sm\.lhef\.root \(events 0 to 999\)") as caught:
        run_processor(failing, sample, executor=ITERATIVE, chunk_size=1000)
    assert "Nonsense" in str(caught.value)
    assert isinstance(caught.value.__cause__, AttributeError)
    assert "f.py" in "".join(caught.value.__notes__)


def test_a_bug_runs_once_and_is_not_repeated(sample: Sample, tmp_path: Path) -> None:
    log = tmp_path / "log"
    body = f"with open({str(log)!r}, 'a') as log: log.write('x')\n        raise ValueError('no')"
    failing = load_processor(processor_file(tmp_path / "f.py", body))()
    with pytest.raises(ProcessorError, match="ValueError: no"):
        run_processor(failing, sample, executor=ITERATIVE, chunk_size=100)
    assert log.read_text() == "x"


def test_a_feature_processor_has_to_return_cutflow_and_parts(sample: Sample, tmp_path: Path) -> None:
    wrong = load_processor(processor_file(tmp_path / "f.py", "return {'n': len(events)}"))()
    with pytest.raises(ProcessorError, match=r"KeyError: 'cutflow'.*'parts': write_part"):
        make_tables(wrong, sample, tmp_path / "out", executor=ITERATIVE, chunk_size=1000)


def test_features_that_are_not_finite_are_an_error_that_names_them(sample: Sample, tmp_path: Path) -> None:
    source = FEATURES.read_text().replace(
        "return chunk_table(", "features['odd'] = features['met'] / 0.0 * 0.0\n        return chunk_table("
    )
    (tmp_path / "odd.py").write_text(source)
    with np.errstate(all="ignore"), pytest.raises(ProcessorError, match="the features odd are not finite"):
        make_tables(
            load_processor(tmp_path / "odd.py")(),
            sample,
            tmp_path / "out",
            executor=ITERATIVE,
            chunk_size=500,
        )


def test_a_feature_may_be_added_or_dropped_by_name(sample: Sample, tmp_path: Path) -> None:
    source = FEATURES.read_text().replace(
        "return chunk_table(",
        "features['deta_qq'] = abs(features['q0_eta'] - features['q1_eta'])\n"
        "        del features['l0_m']\n        return chunk_table(",
    )
    (tmp_path / "mine.py").write_text(source)
    tables(sample, tmp_path, processor=tmp_path / "mine.py", chunk_size=500)
    table = EventTable.read(tmp_path / "events.parquet")
    assert table.feature_names[-1] == "deta_qq"
    assert "l0_m" not in table.feature_names
    assert (table.column("deta_qq") >= 0).all()
