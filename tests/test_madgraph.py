"""MadGraph's cards, line by line against what appendix B.1 of arXiv:2508.07114 says."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from conftest import milanalysis, write_config

from milanalysis.config import CutsConfig, GeneratorConfig, LeptonCutsConfig
from milanalysis.errors import ConfigError, ExternalProgramError
from milanalysis.simulation import madgraph
from milanalysis.simulation.madgraph import PAPER_VALUES, run_madgraph, write_cards

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


def _stand_in(directory: Path, code: int) -> None:
    """Make a program named like MadGraph that notes what it is asked to do."""
    directory.mkdir()
    program = directory / madgraph.PROGRAM
    program.write_text(f'#!/bin/sh\necho "$@" >> {directory}/calls\nexit {code}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_madgraph_is_run_on_processes_and_launches(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _stand_in(tmp_path / "bin", 0)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert run_madgraph(cards)
    calls = (tmp_path / "bin" / "calls").read_text().split()
    assert [Path(call).relative_to(cards.resolve()).as_posix() for call in calls] == [
        "signal/proc_card.dat",
        "signal/launch.dat",
        "background/proc_card.dat",
        "background/launch.dat",
    ]


def test_a_failure_of_madgraph_is_reported(cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _stand_in(tmp_path / "bin", 3)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ExternalProgramError, match=r"code 3 on .*proc_card\.dat"):
        run_madgraph(cards)
