"""Every event once: files with several names, copies, and the same events in different files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SMALL, milanalysis, write_config
from test_failures_of_processors import opened, write_collections, write_delphes
from test_processing import FEATURES, ITERATIVE, write_lhef

from milanalysis.errors import DataLeakError, InputFileError, ProcessorError
from milanalysis.events.files.admission import admit
from milanalysis.events.files.identity import require_different_events
from milanalysis.events.files.samples import Sample, open_sample
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.processing.tables_of_samples import make_tables
from milanalysis.events.tables import EventTable


def samples_of(**files: list[Path]) -> list[Sample]:
    """Open samples with numbered files; one called ``data`` is observed."""
    found: list[Sample] = []
    n_files = 0
    for name, paths in files.items():
        role: Any = "observed" if name == "data" else "simulation"
        found.append(open_sample(name, paths, theta=0.0, role=role, first_file_number=n_files, seed=1))
        n_files += len(paths)
    return found


def shared(directory: Path, samples: list[Sample]) -> list[str]:
    """Process samples and look for events that are there twice."""
    tables = {}
    for sample in samples:
        make_tables(
            load_processor(FEATURES)(), sample, directory / sample.name, executor=ITERATIVE, chunk_size=7
        )
        tables[sample.name] = directory / sample.name / "events.parquet"
    return require_different_events(samples, tables)


# --- files
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["name", "symlink", "hard link", "copy"])
@pytest.mark.parametrize("where", ["one sample", "two simulations", "simulation and data"])
def test_a_file_that_is_there_twice_is_refused_by_both_its_names(
    tmp_path: Path, how: str, where: str
) -> None:
    file, other = write_lhef(tmp_path / "a.root", stop=6), tmp_path / "b.root"
    if how == "name":
        other = file
    elif how == "symlink":
        other.symlink_to(file)
    elif how == "hard link":
        os.link(file, other)
    else:
        shutil.copy(file, other)
    if where == "one sample":
        samples, text = (
            samples_of(ref=[file, other]),
            "in sample 'ref'; its events would be on several sides of the split",
        )
    elif where == "two simulations":
        samples, text = (
            samples_of(ref=[file], more=[other]),
            "'more' .simulation.; its events would be counted twice",
        )
    else:
        samples = samples_of(ref=[file], data=[other])
        text = "'data' .observed.; the same events as data and as simulation"
    with pytest.raises(InputFileError, match=text) as caught:
        admit(samples)
    assert "there twice" in str(caught.value)
    assert all(str(path) in str(caught.value) for path in (file, other))


def test_different_files_are_no_copies(tmp_path: Path) -> None:
    first = write_lhef(tmp_path / "a.root", stop=6)
    second = write_lhef(tmp_path / "b.root", start=6, stop=12)
    empty = [write_lhef(tmp_path / f"{name}.root", stop=0) for name in ("c", "d")]
    admit(samples_of(ref=[first, *empty], data=[second]))
    shutil.copy(empty[0], empty[1])  # no events, none twice
    admit(samples_of(ref=[first, *empty, empty[0]], data=[second, empty[0]]))


def test_a_file_listed_many_times_is_reported_in_few_lines(tmp_path: Path) -> None:
    file = write_lhef(tmp_path / "a.root", stop=3)
    with pytest.raises(InputFileError, match="and 41 more of this kind") as caught:
        admit(samples_of(ref=[file] * 47))
    assert len(str(caught.value).splitlines()) == 6


# --- events
# -----------------------------------------------------------------------------------------------------


def test_the_same_events_in_different_files_are_refused_with_their_number(tmp_path: Path) -> None:
    whole = write_lhef(tmp_path / "whole.root", stop=20)
    part = write_lhef(tmp_path / "part.root", start=15, stop=25)
    text = (
        r"5 events are there twice: \S*part\.root has the same selected events as \S*whole\.root "
        r"\(entries 1[5-9] and [0-4], for example\), in sample 'ref'"
    )
    with pytest.raises(DataLeakError, match=text):
        shared(tmp_path / "one", samples_of(ref=[whole, part]))
    with pytest.raises(
        DataLeakError, match=r"'ref' \(simulation\) and 'data' \(observed\); the same events as data"
    ):
        shared(tmp_path / "two", samples_of(ref=[whole], data=[part]))
    rest = write_lhef(tmp_path / "rest.root", start=20, stop=30)
    assert shared(tmp_path / "three", samples_of(ref=[whole], data=[rest])) == []


def test_events_are_recognised_in_another_order_with_other_weights_and_in_single_precision(
    tmp_path: Path,
) -> None:
    file = write_lhef(tmp_path / "a.root", stop=12)

    def rewritten(leaf: str, values: ak.Array) -> ak.Array:
        if leaf == "Event.Weight":
            values = values * 3
        elif leaf in ("Particle.Px", "Particle.Py", "Particle.Pz", "Particle.E"):
            values = ak.values_astype(values, np.float32)
        return values[::-1][:, ::-1] if leaf.startswith("Particle") else values[::-1]

    other = write_lhef(tmp_path / "b.root", stop=12, change=rewritten)
    with pytest.raises(DataLeakError, match="12 events are there twice"):
        shared(tmp_path / "out", samples_of(ref=[file], more=[other]))


def repeated(n_events: int, times: int) -> Any:
    """Return a change that repeats the first events at the end."""
    return lambda _, values: ak.concatenate([values, *[values[:n_events]] * times])


def test_events_repeated_in_one_file_are_refused_or_counted(tmp_path: Path) -> None:
    twice = write_lhef(tmp_path / "twice.root", stop=10, change=repeated(10, 1))
    with pytest.raises(
        DataLeakError, match=r"10 selected events of \S*twice\.root .* repeat other events of it"
    ):
        shared(tmp_path / "twice", samples_of(ref=[twice]))
    few = write_lhef(tmp_path / "few.root", stop=400, change=repeated(1, 3))
    (warning,) = shared(tmp_path / "few", samples_of(ref=[few]))
    assert warning.startswith(f"3 selected events of {few}")


def test_detector_level_events_are_recognised_and_events_without_objects_have_no_identity(
    tmp_path: Path,
) -> None:
    first = write_delphes(tmp_path / "a.root", 8, seed=1)
    other = write_delphes(
        tmp_path / "b.root", 8, seed=1, between="//"
    )  # written anew, under other names of branches
    samples = [opened(first, first_file_number=0), opened(other, first_file_number=1)]
    samples[1] = open_sample("data", [other], source=samples[0].source, theta=0.0, first_file_number=1)
    with pytest.raises(DataLeakError, match="8 events are there twice"):
        shared(tmp_path / "out", samples)

    source = FEATURES.read_text()  # everything is selected, and features do not need objects
    source = source.replace("ak.num(leptons) == 2", "found.finite").replace(
        "ak.num(jets) >= 2", "found.finite"
    )
    source = source.replace("features = table1(", "features = {'met': found.missing[keep].pt} or table1(")
    (tmp_path / "all.py").write_text(source)
    nothing = [write_empty(tmp_path / f"{name}.root") for name in ("c", "d")]
    tables = {}
    empty = [
        open_sample(path.stem, [path], source=samples[0].source, theta=0.0, first_file_number=i)
        for i, path in enumerate(nothing)
    ]
    for sample in empty:
        make_tables(
            load_processor(tmp_path / "all.py")(),
            sample,
            tmp_path / sample.name,
            executor=ITERATIVE,
            chunk_size=5,
        )
        tables[sample.name] = tmp_path / sample.name / "events.parquet"
        assert len(EventTable.read(tables[sample.name])) == 4
    assert require_different_events(empty, tables) == []


def write_empty(path: Path) -> Path:
    """Write a Delphes tree of four events that have no lepton, no jet, and the same missing momentum."""
    import uproot

    source = write_delphes(path.with_suffix(".tmp"), 4)
    with uproot.open({source: "Delphes"}) as tree:
        collections = {}
        for name in ("Event", "Electron", "Muon", "Jet", "MissingET"):
            columns = {key.split(".")[1]: tree[key].array() for key in tree.keys(filter_name=f"{name}.*")}
            if name in ("Electron", "Jet"):
                columns = {key: values[:, :0] for key, values in columns.items()}
            if name == "MissingET":
                columns = {key: ak.full_like(values, 1.5) for key, values in columns.items()}
            collections[name] = ak.zip(columns)
    return write_collections(path, collections)


def test_the_digest_is_a_column_that_tables_do_not_read(tmp_path: Path) -> None:
    file = write_lhef(tmp_path / "a.root", stop=30)
    shared(tmp_path / "out", samples_of(ref=[file]))
    path = tmp_path / "out" / "ref" / "events.parquet"
    digests = pq.read_table(path)["momenta_digest"].to_numpy()
    assert len(np.unique(digests)) == 30
    assert "momenta_digest" not in EventTable.read(path).feature_names


def test_a_processor_that_names_events_itself_is_refused(tmp_path: Path) -> None:
    source = FEATURES.read_text().replace(
        '"parts": write_part(table, cutflow, events)',
        '"parts": write_part(dataclasses.replace(table, event_id=table.event_id + 10**6), cutflow, events)',
    )
    (tmp_path / "mine.py").write_text(
        source.replace("import awkward as ak", "import dataclasses\n\nimport awkward as ak")
    )
    sample = open_sample("x", [write_lhef(tmp_path / "a.root", stop=5)], theta=0.0)
    with pytest.raises(ProcessorError, match="has event ids that are not of its chunk"):
        make_tables(
            load_processor(tmp_path / "mine.py")(), sample, tmp_path / "out", executor=ITERATIVE, chunk_size=9
        )


# --- the command line
# -------------------------------------------------------------------------------------------


def test_process_refuses_the_same_events_and_prints_the_cutflow_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    write_lhef(tmp_path / "a.root", stop=30)
    write_lhef(tmp_path / "same.root", start=20, stop=40)
    write_lhef(tmp_path / "other.root", start=30, stop=50)

    def process(data: str) -> Any:
        config = write_config(
            tmp_path / f"{data}.yaml",
            samples={
                "ref": {"kind": "files", "role": "simulation", "files": ["a.root"], "theta": 0.0},
                "data": {"kind": "files", "role": "observed", "files": [f"{data}.root"]},
            },
            processing={**SMALL["processing"], "features": str(ROOT / "processors" / "features.py")},
        )
        run = tmp_path / f"run-{data}"
        assert milanalysis("simulate", config, "-o", run).exit_code == 0
        return milanalysis("process", config, "-o", run)

    refused = process("same")
    assert refused.exit_code == 2
    assert "10 events are there twice" in " ".join(refused.output.split())
    assert "Traceback" not in refused.output
    done = process("other")
    assert done.exit_code == 0, done.output
    for words in ("events after each cut", "(simulation)", "two charged leptons", "100.0 %", "(observed)"):
        assert words in done.output, done.output
