"""Runs on other executors, runs that were killed, and what is done again afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, milanalysis, write_config
from test_processing import FEATURES, GENUINE, ITERATIVE, POINTS

from milanalysis.config import DaskExecutorConfig, FuturesExecutorConfig
from milanalysis.errors import ConfigError, ProcessorError
from milanalysis.events.files.samples import Sample, open_sample
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.processing.tables_of_samples import make_tables
from milanalysis.events.tables import EventTable
from milanalysis.files.provenance import file_digest

# Beside the feature processor's work: note which chunk this is, and do what a file says, once.
TRACED = """
    def process(self, events):
        import os, signal, time
        from pathlib import Path
        start = events.metadata["entrystart"]
        with open(HERE / "log", "a") as log:
            log.write(f"{start}\\n")
        trap = HERE / f"trap-{start}"
        if trap.exists():
            kind = trap.read_text()
            trap.unlink()
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            (HERE / "waiting").touch()
            time.sleep(100)
"""


def traced_processor(directory: Path) -> Path:
    path = directory / "elsewhere" / "traced.py"
    path.parent.mkdir(parents=True)
    source = FEATURES.read_text().replace(
        "    def process(self, events: Any) -> dict[str, Any]:\n",
        TRACED.replace("HERE", f"Path({str(directory)!r})"),
    )
    path.write_text(source)
    return path


def chunks_done(directory: Path) -> list[int]:
    log = directory / "log"
    done = sorted(map(int, log.read_text().split())) if log.exists() else []
    log.unlink(missing_ok=True)
    return done


@pytest.fixture(scope="module")
def sample() -> Sample:
    return open_sample("sm", [GENUINE], theta=0.0, weight_points=POINTS, seed=5)


@pytest.fixture(scope="module")
def expected(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("expected")
    make_tables(load_processor(FEATURES)(), sample, directory, executor=ITERATIVE, chunk_size=1000)
    return file_digest(directory / "events.parquet")


def made(processor: Path, sample: Sample, out: Path, **settings: Any) -> str:
    options: dict[str, Any] = {"executor": ITERATIVE, "chunk_size": 100, **settings}
    make_tables(load_processor(processor)(), sample, out, **options)
    assert sorted(path.name for path in out.iterdir()) == ["cutflow.json", "events.parquet"]
    return file_digest(out / "events.parquet")


# --- executors
# -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dask_gives_the_same_bytes_although_a_worker_is_killed(
    sample: Sample, expected: str, tmp_path: Path
) -> None:
    processor = traced_processor(tmp_path)
    (tmp_path / "trap-300").write_text("kill")
    local = DaskExecutorConfig(workers=2)
    assert made(processor, sample, tmp_path / "out", executor=local) == expected
    assert set(chunks_done(tmp_path)) == set(range(0, 1000, 100))

    # errors arrive as they were raised
    source = FEATURES.read_text().replace("found = read_objects(events)", "found = events.NoSuchThing")
    (tmp_path / "failing.py").write_text(source)
    with pytest.raises(ProcessorError, match=r"events \d+ to \d+\): processing failed with AttributeError"):
        make_tables(
            load_processor(tmp_path / "failing.py")(), sample, tmp_path / "x", executor=local, chunk_size=100
        )


@pytest.mark.slow
def test_a_dask_scheduler_may_be_given_by_its_address(small_run, tmp_path: Path) -> None:
    from distributed import LocalCluster

    shutil.copytree(small_run[1], tmp_path / "run")
    (tmp_path / "run" / "stages" / "process.json").unlink()
    for sample in SMALL["samples"]:
        (tmp_path / "run" / "tables" / sample / "events.parquet").unlink()
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        answer = milanalysis(
            "process", small_run[0], "-o", tmp_path / "run", "--scheduler", cluster.scheduler_address
        )
        assert answer.exit_code == 0, answer.output
        from milanalysis.events.processing import executors

        executors._dask_client(cluster.scheduler_address, 2).close()
        executors._dask_client.cache_clear()
    for sample in SMALL["samples"]:
        name = f"tables/{sample}/events.parquet"
        assert file_digest(tmp_path / "run" / name) == file_digest(small_run[1] / name)


def test_a_wrong_scheduler_is_an_error_with_advice(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milanalysis.events.processing.executors._CONNECTING_SECONDS", 1)
    nowhere = DaskExecutorConfig(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ConfigError, match="no dask scheduler at tcp://127"):
        made(FEATURES, sample, tmp_path, executor=nowhere)


@pytest.mark.parametrize("address", ["localhost", "tcp://127.0.0.1", "nowhere://x:1", "tcp://x:port", ""])
def test_what_is_no_address_of_a_scheduler_is_refused_at_once(tmp_path: Path, address: str) -> None:
    executor = {"kind": "dask", "scheduler": address}
    config = write_config(tmp_path / "small.yaml", processing={**SMALL["processing"], "executor": executor})
    for arguments in ((config,), (write_config(tmp_path / "plain.yaml"), "--scheduler", address)):
        answer = milanalysis("process", *arguments, "-o", tmp_path / "run")
        assert answer.exit_code == 2
        assert f"{address!r} is no address of a dask scheduler" in answer.output
    assert DaskExecutorConfig(scheduler="tcp://[::1]:8786").scheduler == "tcp://[::1]:8786"
    assert DaskExecutorConfig(scheduler="node-7.cluster:8786").scheduler is not None


@pytest.mark.slow
def test_parsl_gives_the_same_bytes(sample: Sample, expected: str, tmp_path: Path) -> None:
    processor = traced_processor(tmp_path)
    script = f"""
from pathlib import Path
from milanalysis.config import ParslExecutorConfig
from milanalysis.events.files.samples import open_sample
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.processing.tables_of_samples import make_tables
sample = open_sample("sm", [Path({str(GENUINE)!r})], theta=0.0, weight_points={POINTS}, seed=5)
processor = load_processor(Path({str(processor)!r}))()
make_tables(processor, sample, Path("out"), executor=ParslExecutorConfig(workers=2), chunk_size=300)
"""
    outcome = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert file_digest(tmp_path / "out" / "events.parquet") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "log", "out"]


# --- runs that were killed
# --------------------------------------------------------------------------------------


def killed_run(directory: Path, processor: Path) -> None:
    """Start a run in another process and kill it when it has come to chunk 500."""
    (directory / "trap-500").write_text("wait")
    script = (
        "from pathlib import Path\n"
        "from milanalysis.config import IterativeExecutorConfig\n"
        "from milanalysis.events.files.samples import open_sample\n"
        "from milanalysis.events.processing.processors import load_processor\n"
        "from milanalysis.events.processing.tables_of_samples import make_tables\n"
        f"sample = open_sample('sm', [Path({str(GENUINE)!r})], theta=0.0, weight_points={POINTS}, seed=5)\n"
        f"make_tables(load_processor(Path({str(processor)!r}))(), sample, Path({str(directory / 'out')!r}),"
        " executor=IterativeExecutorConfig(), chunk_size=100)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while not (directory / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (directory / "waiting").exists()
    assert chunks_done(directory) == [0, 100, 200, 300, 400, 500]


def test_a_killed_run_is_taken_up_and_gives_the_same_bytes(
    sample: Sample, expected: str, tmp_path: Path
) -> None:
    processor = traced_processor(tmp_path)
    killed_run(tmp_path, processor)
    out = tmp_path / "out"
    assert [path.name for path in out.iterdir()] == [".parts"]
    (parts,) = (out / ".parts").iterdir()
    finished = sorted(parts.glob("[!.]*"))  # and not the half-written table
    assert len(finished) == 5

    # a part that was cut, one that was being written, and one of another chunk size are not taken for
    # finished ones
    finished[1].write_bytes(finished[1].read_bytes()[:-100])
    (parts / f".123-{finished[4].name}").write_bytes(b"half")
    shutil.copy(finished[0], parts / "000000-000000000000-000000000150.arrow")
    assert made(processor, sample, out) == expected
    assert chunks_done(tmp_path) == [100, 500, 600, 700, 800, 900]


def test_parts_of_another_processor_or_other_settings_are_not_used(
    sample: Sample, expected: str, tmp_path: Path
) -> None:
    processor = traced_processor(tmp_path)
    killed_run(tmp_path, processor)
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "out", kept)
    other = open_sample("sm", [GENUINE], theta=0.0, weight_points=POINTS, seed=6)
    made(processor, other, tmp_path / "out")
    assert len(chunks_done(tmp_path)) == 10
    processor.write_text(processor.read_text() + "\n# another selection, perhaps\n")
    assert made(processor, sample, kept) == expected
    assert len(chunks_done(tmp_path)) == 10


def test_a_killed_worker_costs_only_the_chunks_that_were_not_finished(
    sample: Sample, expected: str, tmp_path: Path
) -> None:
    processor = traced_processor(tmp_path)
    (tmp_path / "trap-900").write_text("kill")
    one = FuturesExecutorConfig(workers=1)
    with pytest.raises(ProcessorError, match="a worker process stopped without an answer"):
        made(processor, sample, tmp_path / "out", executor=one)
    assert chunks_done(tmp_path)[-1] == 900
    assert made(processor, sample, tmp_path / "out", executor=one) == expected
    assert chunks_done(tmp_path) == [900]


def test_a_table_is_made_again_only_when_something_it_depends_on_has_changed(tmp_path: Path) -> None:
    processor = traced_processor(tmp_path)
    files = [tmp_path / "a.root", tmp_path / "b.root"]
    for file in files:
        shutil.copy(GENUINE, file)
    stamp, out = tmp_path / "stamp.json", tmp_path / "out"

    def again(**settings: Any) -> int:
        options: dict[str, Any] = {"theta": 0.0, **settings}
        make_tables(
            load_processor(processor)(),
            open_sample("x", files, **options),
            out,
            executor=ITERATIVE,
            chunk_size=500,
            stamp=stamp,
        )
        return len(chunks_done(tmp_path))

    assert again() == 4
    assert again() == 0
    assert again(weight_points=POINTS) == 4
    os.utime(files[1])  # written again
    assert again(weight_points=POINTS) == 4
    (out / "events.parquet").write_bytes(b"damaged")
    assert again(weight_points=POINTS) == 4
    assert len(EventTable.read(out / "events.parquet")) == 2000
    assert again(weight_points=POINTS) == 0


def test_stages_refuse_tables_without_events(tmp_path: Path) -> None:
    from test_processing import write_lhef

    empty = write_lhef(tmp_path / "empty.root", stop=0)
    samples = {
        "reference": {
            "kind": "files",
            "role": "simulation",
            "files": [str(empty)],
            "theta": 0.0,
            "weight_points": [-1.0, -0.5, 0.2, 0.5, 1.0],
        },
        "observed": {"kind": "files", "role": "observed", "files": [str(empty)]},
    }
    config = write_config(tmp_path / "empty.yaml", samples=samples)
    answer = milanalysis("run", config, "-o", tmp_path / "run")
    assert answer.exit_code == 2
    assert "no event of the samples with role simulation (reference) is selected" in " ".join(
        answer.output.split()
    )
    assert not (tmp_path / "run" / "models").exists()
