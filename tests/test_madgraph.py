"""MadGraph's cards, line by line against what appendix B.1 of arXiv:2508.07114 says."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import milanalysis, write_config

from milanalysis.config import CutsConfig, GeneratorConfig, LeptonCutsConfig
from milanalysis.errors import ConfigError, ExternalProgramError, RunDirectoryError
from milanalysis.simulation import madgraph
from milanalysis.simulation.madgraph import (
    BACKGROUND,
    PAPER_VALUES,
    SIGNAL,
    generated_events,
    run_madgraph,
    write_cards,
)

SIGNAL_LINES = """\
import model SMEFTsim_top_MwScheme_UFO-massless
generate u d > u d h $$ w+ w- / z a QCD=0 NP=1 NPcHW=1,
  h > e+ ve e- ve~ / z QCD=0 NP=1 NPcHW=1
"""
BACKGROUND_LINES = """\
import model SMEFTsim_top_MwScheme_UFO-massless
define vl = ve vm vt
define vl~ = ve~ vm~ vt~
generate u d > u d z z QCD=0 NP=0 NPcHW=0, (z > e+ e-),
(z > vl vl~) QCD=0 NP=0 NPcHW=0
"""
"""As printed; a comma ends a line that goes on."""


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cards")
    write_cards(directory, GeneratorConfig(), coefficient="cHW", n_events=1_000_000)
    return directory


def blocks(path: Path) -> dict[str, dict[int, float]]:
    """Read an SLHA file."""
    found: dict[str, dict[int, float]] = {}
    block = ""
    for line in path.read_text().splitlines():
        words = line.split("#")[0].split()
        if words[0] == "Block":
            block = words[1]
        elif words[0] == "DECAY":
            found.setdefault("DECAY", {})[int(words[1])] = float(words[2])
        else:
            found.setdefault(block, {})[int(words[0])] = float(words[1])
    return found


@pytest.mark.parametrize(("name", "printed"), [("signal", SIGNAL_LINES), ("background", BACKGROUND_LINES)])
def test_the_process_is_generated_as_printed(cards: Path, name: str, printed: str):
    lines = (cards / name / "proc_card.dat").read_text().splitlines()
    expected = " ".join(printed.split()).replace(" generate", "\ngenerate").replace(" define", "\ndefine")
    assert lines[:-1] == expected.splitlines()
    assert lines[-1] == f"output {cards.resolve() / name / 'process'}"


def test_there_are_39_values():
    expected = {float(value) for value in range(-10, 11)} | {round(k / 10, 1) for k in range(-9, 10)}
    assert set(PAPER_VALUES) == expected
    assert len(PAPER_VALUES) == 39
    assert list(PAPER_VALUES) == sorted(PAPER_VALUES)


def test_every_value_has_a_parameter_card_with_all_other_coefficients_zero(cards: Path):
    files = sorted((cards / "signal").glob("param_card_*.dat"))
    assert len(files) == 39
    values = []
    for path in files:
        found = blocks(path)
        wilson = found["SMEFT"]
        assert list(wilson) == list(range(1, 205))
        values.append(wilson.pop(7))
        assert set(wilson.values()) == {0.0}
        assert path.name == f"param_card_cHW_{np.format_float_positional(values[-1], trim='-')}.dat"
        assert found["SMEFTcutoff"] == {1: 1000.0}
        assert found["SMINPUTS"] == {1: 80.387, 2: 1.166379e-5, 3: 0.1179}
        assert found["MASS"][23] == 91.1876
        assert found["MASS"][25] == 125.09
        assert found["DECAY"] == {6: 1.33, 23: 2.4952, 24: 2.085, 25: 4.07e-3}
    assert sorted(values) == list(PAPER_VALUES)


def test_the_background_has_no_effect_of_new_physics(cards: Path):
    (path,) = (cards / "background").glob("param_card_*.dat")
    assert set(blocks(path)["SMEFT"].values()) == {0.0}
    assert not (cards / "background" / "reweight_card.dat").exists()


def test_a_million_events_are_made_at_each_value(cards: Path):
    for name in ("signal", "background"):
        settings = _settings(cards / name / "run_card.dat")
        assert settings["nevents"] == "1000000"
        assert settings["ebeam1"] == settings["ebeam2"] == "6500.0"
        assert (settings["ptj"], settings["etaj"], settings["drjj"]) == ("20.0", "5.0", "0.4")
        assert settings["cut_decays"] == "False"


def _settings(path: Path) -> dict[str, str]:
    pairs = (line.split("=") for line in path.read_text().splitlines())
    return {name.strip(): value.strip() for value, name in pairs}


def test_cuts_on_leptons_apply_to_decay_products(tmp_path: Path):
    config = GeneratorConfig(beam_energy=7000.0, cuts=CutsConfig(leptons=LeptonCutsConfig(pt_min=15.0)))
    write_cards(tmp_path, config, coefficient="cHW", n_events=10)
    settings = _settings(tmp_path / "signal" / "run_card.dat")
    assert settings["cut_decays"] == "True"
    assert settings["ptl"] == "15.0"
    assert settings["drjl"] == "0.4"
    assert settings["ebeam2"] == "7000.0"


def test_weights_at_all_other_values_belong_to_the_events_at_zero(cards: Path):
    lines = (cards / "signal" / "reweight_card.dat").read_text().splitlines()
    assert lines[0] == "change rwgt_dir rwgt"
    names, values = lines[1::2], [line.split() for line in lines[2::2]]
    assert names[0] == "launch --rwgt_name=cHW_-10"
    assert [words[:3] for words in values] == [["set", "SMEFT", "7"]] * 38
    assert [float(words[3]) for words in values] == [value for value in PAPER_VALUES if value != 0]
    runs = (cards / "signal" / "launch.dat").read_text().split("launch ")[1:]
    assert len(runs) == 39
    with_weights = [run for run in runs if "reweight=ON" in run]
    assert len(with_weights) == 1
    assert "-n cHW_0\n" in with_weights[0]
    assert str(cards / "signal" / "reweight_card.dat") in with_weights[0]
    for run in runs:
        named = [Path(line) for line in run.splitlines() if line.endswith(".dat")]
        assert all(path.is_file() for path in named)


def test_other_coefficients_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="not for 'cHB'"):
        write_cards(tmp_path, GeneratorConfig(), coefficient="cHB", n_events=10)
    assert not list(tmp_path.iterdir())


def test_without_madgraph_the_command_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = milanalysis("madgraph", write_config(tmp_path / "small.yaml"), "-o", tmp_path / "mg")
    assert result.exit_code == 0, result.output
    assert "47 cards are in" in result.output
    assert "mg5_aMC is not on the PATH" in result.output
    assert (tmp_path / "mg" / "signal" / "param_card_cHW_-0.3.dat").is_file()


STAND_IN = """\
#!{python}
# Does with commands and cards what MadGraph5_aMC@NLO 3.5.7 does, the exit code included.
import gzip, pathlib, shutil, sys
FAILS = {fails!r}
lines = pathlib.Path(sys.argv[1]).read_text().splitlines()
with open({calls!r}, "a") as calls:
    print(sys.argv[1], file=calls)
if {code}:
    sys.exit({code})
def generate(process, name, files):
    cards = {{pathlib.Path(file).stem.split("_card")[0]: pathlib.Path(file).read_text() for file in files}}
    if "gridpack" not in cards["run"] or "ebeam1" not in cards["run"]:
        return print("InvalidCmd : this is not a run card")
    masses, block = set(), ""
    for line in cards["param"].splitlines():
        words = line.split()
        block = words[1].lower() if words[0].lower() == "block" else block
        if words[0].isdigit() and block == "mass":
            masses.add(words[0])
        if words[0] == "DECAY" and words[1] not in masses:
            return print("KeyError : id (%s,) is not in mass" % words[1])
    if name in FAILS:
        return print("survey: no phase-space point passed the cuts")
    run = pathlib.Path(process, "Events", name)
    run.mkdir(parents=True)
    with gzip.open(run / "unweighted_events.lhe.gz", "wt") as file:
        file.write(name)
for number, line in enumerate(lines):
    words = line.split()
    if words[0] == "output" and "process" not in FAILS:
        shutil.rmtree(words[1], ignore_errors=True)
        pathlib.Path(words[1], "Events").mkdir(parents=True)
    if words[0] == "launch":
        rest = lines[number + 1 :]
        end = next((k for k, one in enumerate(rest) if one.startswith("launch")), len(rest))
        generate(words[1], words[3], [one for one in rest[:end] if one.endswith(".dat")])
"""


def stand_in(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, code: int = 0, fails: tuple[str, ...] = ()
) -> Path:
    """Put a program named like MadGraph on the PATH; it notes the files it is given in the file returned."""
    directory.mkdir(exist_ok=True)
    program, calls = directory / madgraph.PROGRAM, directory / "calls"
    program.write_text(STAND_IN.format(python=sys.executable, code=code, fails=fails, calls=str(calls)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(directory))
    return calls


@pytest.fixture
def own_cards(tmp_path: Path) -> Path:
    write_cards(tmp_path / "mg", GeneratorConfig(), coefficient="cHW", n_events=10)
    return tmp_path / "mg"


def test_madgraph_is_run_on_processes_and_launches(
    own_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = stand_in(tmp_path / "bin", monkeypatch)
    assert run_madgraph(own_cards)
    assert [Path(call).relative_to(own_cards.resolve()).as_posix() for call in calls.read_text().split()] == [
        "signal/proc_card.dat",
        "signal/launch.dat",
        "background/proc_card.dat",
        "background/launch.dat",
    ]
    files = generated_events(own_cards, SIGNAL)
    assert list(files) == [f"cHW_{np.format_float_positional(value, trim='-')}" for value in PAPER_VALUES]
    assert all(path is not None and path.is_file() for path in files.values())
    assert list(generated_events(own_cards, BACKGROUND)) == ["cHW_0"]


@pytest.mark.parametrize(
    ("card", "taken_out"),
    [("run_card.dat", "  False = gridpack\n"), ("param_card_cHW_0.dat", "  24 8.038700e+01 # MW\n")],
)
def test_without_the_line_that_was_missing_madgraph_generates_nothing_and_that_is_noticed(
    own_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str, taken_out: str
):
    stand_in(tmp_path / "bin", monkeypatch)
    path = own_cards / "background" / card
    text = path.read_text()
    assert text.count(taken_out) == 1
    path.write_text(text.replace(taken_out, ""))
    with pytest.raises(ExternalProgramError, match="0 of 1 runs of background: there are none"):
        run_madgraph(own_cards)


def test_every_particle_with_a_width_has_a_mass(cards: Path):
    for path in cards.glob("*/param_card_*.dat"):
        found = blocks(path)
        assert set(found["DECAY"]) <= set(found["MASS"])
        assert found["MASS"][24] == 80.387


def test_the_run_card_has_what_madgraph_does_not_do_by_itself(cards: Path):
    for name in ("signal", "background"):
        settings = _settings(cards / name / "run_card.dat")
        assert (settings["gridpack"], settings["event_norm"], settings["SDE_strategy"]) == (
            "False",
            "average",
            "2",
        )


def test_values_that_madgraph_has_left_out_are_named_although_it_exits_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stand_in(tmp_path / "bin", monkeypatch, fails=("cHW_-3", "cHW_0.4"))
    result = milanalysis("madgraph", write_config(tmp_path / "small.yaml"), "-o", tmp_path / "mg")
    assert result.exit_code == 2
    assert "37 of 39 runs of signal" in result.output
    assert "of cHW_-3, cHW_0.4 in" in result.output
    assert "events of all values are there" not in result.output


def test_a_process_that_was_not_written_is_an_error_although_madgraph_exits_with_0(
    own_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = stand_in(tmp_path / "bin", monkeypatch, fails=("process",))
    with pytest.raises(ExternalProgramError, match="has not written the process"):
        run_madgraph(own_cards)
    assert len(calls.read_text().split()) == 1


def test_the_same_command_again_leaves_events_and_cards_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = stand_in(tmp_path / "bin", monkeypatch)
    config = write_config(tmp_path / "small.yaml")
    result = milanalysis("madgraph", config, "-o", tmp_path / "mg", "--events", 50)
    assert result.exit_code == 0, result.output
    assert "events of all values are there" in result.output
    before = {path: path.read_bytes() for path in (tmp_path / "mg").rglob("*") if path.is_file()}
    for arguments in (("--events", 50), ("--events", 70), ("--cards-only",)):
        result = milanalysis("madgraph", config, "-o", tmp_path / "mg", *arguments)
        assert result.exit_code == 2
        assert "holds events of 39 runs" in result.output
    with pytest.raises(RunDirectoryError, match="another directory"):
        run_madgraph(tmp_path / "mg")
    assert {path: path.read_bytes() for path in (tmp_path / "mg").rglob("*") if path.is_file()} == before
    assert len(calls.read_text().split()) == 4
    assert milanalysis("madgraph", config, "-o", tmp_path / "other").exit_code == 0


def test_after_a_failure_without_events_the_same_command_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = write_config(tmp_path / "small.yaml")
    every = tuple(f"cHW_{np.format_float_positional(value, trim='-')}" for value in PAPER_VALUES)
    stand_in(tmp_path / "bin", monkeypatch, fails=every)
    assert milanalysis("madgraph", config, "-o", tmp_path / "mg").exit_code == 2
    stand_in(tmp_path / "bin", monkeypatch)
    assert milanalysis("madgraph", config, "-o", tmp_path / "mg").exit_code == 0


def test_a_failure_of_madgraph_is_reported(own_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stand_in(tmp_path / "bin", monkeypatch, code=3)
    with pytest.raises(ExternalProgramError, match=r"code 3 on .*proc_card\.dat"):
        run_madgraph(own_cards)
