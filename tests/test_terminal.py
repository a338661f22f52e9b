"""What the terminal, the disk and the file system may do to a command."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL, milanalysis, write_config
from rich.console import Console
from rich.table import Table

from milanalysis.config import (
    BiasConfig,
    DaskExecutorConfig,
    DelphesFormatConfig,
    PolynomialTaskConfig,
    load_config,
)
from milanalysis.errors import OutputError, RunDirectoryError
from milanalysis.files.provenance import atomic_path
from milanalysis.learning.tracking import CSVTracker, Epoch
from milanalysis.pipeline.locking import alone_in
from milanalysis.reporting.narrow_tables import fitted


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = f'"{sys.executable}" -m milanalysis.cli'
    return subprocess.run(
        ["bash", "-c", command.replace("milanalysis", program, 1)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def wide_table() -> Table:
    table = Table(title="numbers")
    for heading in ("method", "estimate", "interval", "coverage"):
        table.add_column(heading)
    table.add_row("polynomial per-event", "+0.149", r"\[+0.083, +0.216]", "67.0 %")
    return table


@pytest.mark.parametrize("width", [20, 40, 80, 150])
def test_a_table_keeps_every_number_whole_at_any_width(width):
    text = io.StringIO()
    console = Console(file=text, width=width)
    console.print(fitted(wide_table(), console))
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    words = " ".join(shown.replace("│", " ").split())
    for one in ("estimate", "polynomial", "+0.149", "+0.083", "+0.216", "67.0 %"):
        assert one in words


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS], ids=errno.errorcode.get
)
def test_a_disk_that_takes_no_more_is_named_with_the_file_and_the_reason(tmp_path, number):
    target = tmp_path / "table.parquet"

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(
        OutputError, match=r"table\.parquet cannot be written \(.*goes on from there"
    ) as caught:
        write()
    assert os.strerror(number) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_metrics_that_cannot_be_written_are_named(tmp_path, monkeypatch):
    tracker = CSVTracker(tmp_path / "member-00.csv")
    tracker.start([])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("csv.writer", full)
    with pytest.raises(OutputError, match=r"member-00\.csv cannot be written \(No space left"):
        tracker.log(Epoch(0, 1e-3, 1.0, 1.0, 1.0, 1.0))


def test_an_input_that_cannot_be_read_is_not_taken_for_the_output(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"input\.lhe"), atomic_path(tmp_path / "out.root"):
        (tmp_path / "input.lhe").read_bytes()


def test_an_error_of_the_system_is_one_message(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("milanalysis.pipeline.scheduling.execute", full)
    result = milanalysis("run", write_config(tmp_path / "small.yaml"), "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "No space left on device" in result.output
    assert "Traceback" not in result.output


def test_memory_that_runs_out_is_one_message(tmp_path, monkeypatch):
    def greedy(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("milanalysis.pipeline.scheduling.execute", greedy)
    result = milanalysis("run", write_config(tmp_path / "small.yaml"), "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "not enough memory" in result.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", ["--help", "--version", "convert --help", "convert {tmp_path}/none.lhe"])
def test_a_full_device_is_one_message(tmp_path, command):
    answer = shell(f"milanalysis {command.format(tmp_path=tmp_path)} > /dev/full")
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert answer.stderr.startswith("error: ")


def test_workers_work_where_standard_error_is_closed(tmp_path):
    (tmp_path / "one.py").write_text(
        "from milanalysis.parallel import warm_workers\n"
        "from milanalysis.terminal import prepare_streams\n"
        "prepare_streams()\n"
        "print(warm_workers(1).submit(len, 'four').result())\n"
    )
    answer = shell(f'"{sys.executable}" {tmp_path}/one.py 2>&-')
    assert (answer.returncode, answer.stdout.strip()) == (0, "4")


def test_a_run_directory_that_is_no_utf_8_is_refused(tmp_path):
    config = write_config(tmp_path / "small.yaml")
    result = milanalysis("truth", config, "-o", tmp_path / b"run\xff".decode(errors="surrogateescape"))
    assert result.exit_code == 2
    assert "a name that is not UTF-8" in result.output


@pytest.mark.parametrize("command", ["milanalysis --help >&-", "milanalysis --help 2>&-"])
def test_a_closed_stream_changes_nothing(command):
    assert shell(command).returncode == 0


def test_a_message_is_without_escape_sequences_where_no_color_is_wanted(tmp_path):
    answer = shell(f"milanalysis run {tmp_path}/none.yaml", NO_COLOR="1", FORCE_COLOR="1")
    assert answer.returncode == 2
    assert "error: " in answer.stderr
    assert "\x1b" not in answer.stderr + answer.stdout


def test_a_name_that_the_terminal_cannot_show_is_replaced(tmp_path):
    answer = shell(f"milanalysis run {tmp_path}/±.yaml", PYTHONIOENCODING="ascii")
    assert answer.returncode == 2
    assert "+-.yaml" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_second_run_waits_outside(tmp_path):
    with (
        alone_in(tmp_path),
        pytest.raises(RunDirectoryError, match="another run works in"),
        alone_in(tmp_path),
    ):
        pass


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog):
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with alone_in(tmp_path):
        pass
    assert "without locks" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a, b]: 1", "a key has to be a word"),
        ("seed: {{ seed }}", "a key has to be a word"),
        ("a: 1\na: 2", "'a' is there twice"),
        ("a:\n\t- 1", "not valid YAML"),
        ("a: *b", "not valid YAML"),
        ("- a", "should hold the keys"),
        ("", "should hold the keys"),
    ],
)
def test_yaml_that_cannot_be_meant_is_one_message(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    result = milanalysis("run", path)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())


def test_yaml_in_another_encoding_and_a_directory_are_one_message(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    for path in (tmp_path / "latin.yaml", tmp_path):
        result = milanalysis("run", path)
        assert result.exit_code == 2, result.output
        assert "cannot be read" in result.output


@pytest.mark.slow
@pytest.mark.parametrize(("option", "value"), [("--theta", "5"), ("--experiments", "0")])
def test_options_of_the_report_are_checked_as_the_configuration_is(small_run, option, value):
    result = milanalysis("coverage-report", small_run[1], option, value)
    assert result.exit_code == 2, result.output
    assert "coverage" in result.output


def test_files_alone_ask_for_no_simulation(tmp_path):
    data = Path(__file__).parent / "data" / "vbf_hww_sm.lhef.root"
    files = {"kind": "files", "files": [str(data)]}
    samples = {"reference": {**files, "role": "simulation"}, "observed": {**files, "role": "observed"}}
    result = milanalysis(
        "process", write_config(tmp_path / "f.yaml", samples=samples), "-o", tmp_path / "run"
    )
    assert "milanalysis simulate" not in result.output


@pytest.mark.parametrize(
    "code",
    [
        (
            "from milanalysis.learning.training.workers import training_processes\n"
            "with training_processes(1) as pool:\n"
        ),
        "from milanalysis.parallel import warm_workers\nif pool := warm_workers(1):\n",
    ],
    ids=["training", "all else"],
)
def test_a_worker_ends_with_the_process_that_started_it(code):
    code = (
        f"import os, time\n{code}"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 60).result()\n"
    )
    # the starter prints the number of its worker and is killed while the worker is busy
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    worker = int(starter.stdout.readline())
    starter.kill()
    starter.wait()
    starter.stdout.close()
    deadline = time.monotonic() + 30
    while _is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_running(worker)


def _is_running(process: int) -> bool:
    """Say whether a process does anything; one that has ended and waits to be collected does not."""
    status = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return bool(status.stdout.strip()) and not status.stdout.startswith("Z")


def test_a_word_stands_for_a_choice_and_a_value_for_a_list_of_one(tmp_path):
    models = {"polynomial": {**SMALL["models"]["polynomial"], "task": "polynomial"}}
    observed = {"kind": "files", "role": "observed", "files": "x.root", "format": "delphes"}
    short = {
        "models": models,
        "samples": {**SMALL["samples"], "observed": observed},
        "processing": {**SMALL["processing"], "executor": "dask"},
        "calibration": {"polynomial": "bias"},
        "truth": {"auc_at": 0.1},
    }
    found = load_config(write_config(tmp_path / "short.yaml", **short))
    assert found.processing.executor == DaskExecutorConfig()
    assert found.samples["observed"].format == DelphesFormatConfig()
    assert [path.name for path in found.samples["observed"].files] == ["x.root"]
    assert found.models["polynomial"].task == PolynomialTaskConfig()
    assert found.calibration["polynomial"] == (BiasConfig(),)
    assert found.truth.auc_at == (0.1,)


def test_a_word_that_is_no_choice_is_refused_with_the_choices(tmp_path):
    processing = {**SMALL["processing"], "executor": "dusk"}
    result = milanalysis("run", write_config(tmp_path / "bad.yaml", processing=processing))
    assert result.exit_code == 2
    assert (
        "processing.executor: 'dusk' is none of the choices: iterative, futures, dask, parsl" in result.output
    )


def test_the_reference_cannot_be_told_from_itself(tmp_path):
    result = milanalysis("truth", write_config(tmp_path / "bad.yaml", truth={"auc_at": [0.1, 0.0]}))
    assert result.exit_code == 2
    assert "truth.auc_at: 0 is the reference" in result.output
