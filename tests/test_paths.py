"""Paths as people write them, in a configuration."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, milanalysis, write_config
from test_processing import FEATURES, GENUINE, ITERATIVE

from milanalysis.config import FileSampleConfig, load_config
from milanalysis.errors import ConfigError, InputFileError
from milanalysis.events.files.samples import open_sample
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.processing.tables_of_samples import make_tables
from milanalysis.files.paths import beside, matching_files, problem_with_file


def given_files(directory: Path, *files: str, **changes: Any) -> tuple[Path, ...]:
    """Return the files of a configuration in a directory, patterns replaced by what they match."""
    samples = {**SMALL["samples"], "observed": {"kind": "files", "role": "observed", "files": list(files)}}
    config = load_config(write_config(directory / "a.yaml", samples=samples, **changes))
    observed = config.samples["observed"]
    assert isinstance(observed, FileSampleConfig)
    return observed.paths()


@pytest.mark.parametrize(
    "name",
    [
        "root:::site:1094::disk.root",
        "a b.root",
        "Zürich-é.root",
        "a:Delphes.root",
        "run[1].root",
        "x$y.root",
        "~odd.root",
        "{a,b}.root",
    ],
)
def test_a_file_is_read_under_whatever_name_it_has(tmp_path: Path, name: str) -> None:
    shutil.copy(GENUINE, tmp_path / name)
    (path,) = given_files(tmp_path, name)
    assert path == tmp_path / name
    sample = open_sample("x", [path], theta=0.0)
    summary = make_tables(
        load_processor(FEATURES)(), sample, tmp_path / "out", executor=ITERATIVE, chunk_size=600
    )
    assert summary["n_read"] == 1000


def test_the_home_directory_and_variables_are_expanded_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "d").mkdir(parents=True)
    for name in ("a.root", "b.root", "names.json", "mine.py"):
        (home / "d" / name).touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DATA", str(home / "d"))
    monkeypatch.delenv("NOT_SET", raising=False)
    for text in ("~/d/a.root", "$HOME/d/a.root", "${DATA}/a.root", "$DATA/a*.root"):
        assert given_files(tmp_path, text) == (home / "d" / "a.root",), text
    config = load_config(
        write_config(
            tmp_path / "b.yaml",
            samples={
                **SMALL["samples"],
                "observed": {
                    "kind": "files",
                    "role": "observed",
                    "files": ["~/d/a.root"],
                    "weight_names": "$DATA/names.json",
                },
            },
            processing={"features": "~/d/mine.py", "bag_likelihood": "${DATA}/mine.py"},
        )
    )
    observed = config.samples["observed"]
    assert isinstance(observed, FileSampleConfig)
    assert observed.weight_names == home / "d" / "names.json"
    assert config.processing.features == config.processing.bag_likelihood == home / "d" / "mine.py"
    with pytest.raises(ConfigError, match=r"\$NOT_SET/a.root: the environment variable NOT_SET is not set"):
        given_files(tmp_path, "$NOT_SET/a.root")
    with pytest.raises(ConfigError, match=r"~nobody-at-all/a\.root: the home directory is not known"):
        given_files(tmp_path, "~nobody-at-all/a.root")


@pytest.mark.parametrize(
    "address",
    [
        "root://server.example.org//store/a.root",
        "https://zenodo.org/a.root",
        "s3://bucket/a.root",
        "XROOTD://x//y.root",
    ],
)
def test_addresses_are_refused_and_shown_as_they_were_written(tmp_path: Path, address: str) -> None:
    with pytest.raises(
        ConfigError, match="remote files are not supported, copy it to a local disk"
    ) as caught:
        given_files(tmp_path, address)
    assert repr(address) in str(caught.value)
    with pytest.raises(ConfigError, match="without file://"):
        given_files(tmp_path, f"file://{tmp_path}/a.root")


def test_only_what_does_not_exist_is_a_pattern(tmp_path: Path) -> None:
    for folder in ("run[1]", "run1", "run2"):
        (tmp_path / folder).mkdir()
        for name in ("b.root", "a.root"):
            (tmp_path / folder / name).touch()

    def found(text: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in matching_files(tmp_path / text)]

    assert found("run[1]/a.root") == ["run[1]/a.root"]
    assert found("run[1]/*.root") == ["run[1]/a.root", "run[1]/b.root"]
    assert found("run[12]/a.root") == ["run1/a.root", "run2/a.root"]
    assert found("**/b.root") == ["run1/b.root", "run2/b.root", "run[1]/b.root"]
    assert found("run[1]/gone.root") == ["run[1]/gone.root"]  # no pattern; that it is not there is said later
    with pytest.raises(InputFileError, match="no file matches this pattern"):
        found("run[1]/x*.root")


def test_what_is_no_readable_file_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.root"
    file.touch()
    os.mkfifo(tmp_path / "pipe.root")
    (tmp_path / "broken.root").symlink_to("gone.root")
    (tmp_path / "circle.root").symlink_to("circle.root")
    assert problem_with_file(file) is None
    for name, text in (
        ("gone.root", "there is no such file"),
        ("a.root:Delphes", "give the name of the tree, 'Delphes', under format: tree"),
        ("broken.root", "is a link to gone.root, which does not exist"),
        ("circle.root", "cannot be reached"),
        ("pipe.root", "is not a regular file"),
        ("a.root/b.root", "cannot be reached"),
        ("x" * 300, "cannot be reached"),
    ):
        assert text in str(problem_with_file(tmp_path / name)), name
    assert "is a directory; give the files in it" in str(problem_with_file(tmp_path))
    assert str(problem_with_file(tmp_path, ".py")).endswith("/*.py")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    assert "no permission" in str(problem_with_file(file))


def test_what_describes_a_file_is_found_beside_a_link_and_beside_its_target(tmp_path: Path) -> None:
    store, here = tmp_path / "store", tmp_path / "here"
    store.mkdir()
    here.mkdir()
    (store / "long-name.root").touch()
    link = here / "a.root"
    link.symlink_to(store / "long-name.root")
    assert beside(link) is None
    (store / "long-name.json").touch()
    assert beside(link) == store / "long-name.json"
    (here / "a.json").touch()
    assert beside(link) == here / "a.json"
    assert given_files(here, "a.root") == (link,)  # the link is kept


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("folder", "is a directory; give the files in it, such as"),
        ("broken.root", "is a link to gone.root, which does not exist"),
        ("root://a.example//b.root", "'root://a.example//b.root' is an address"),
        ("none*.root", "no file matches this pattern"),
        ("a.root:LHEF", "under format: tree"),
        ("text.root", "is not a ROOT file"),
    ],
)
def test_the_command_line_refuses_such_files_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.root").symlink_to("gone.root")
    (tmp_path / "text.root").write_text("<LesHouchesEvents>")
    samples = {**SMALL["samples"], "observed": {"kind": "files", "role": "observed", "files": [file]}}
    result = milanalysis(
        "simulate", write_config(tmp_path / "a.yaml", samples=samples), "-o", tmp_path / "run"
    )
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert text in " ".join(result.output.split())
