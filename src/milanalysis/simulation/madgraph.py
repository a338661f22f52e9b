"""The paper's generation with MadGraph: cards for the signal at 39 values of cHW and for the background.

What the paper states is written as stated: program, model, processes, values and the number of events. Of the
run card it says nothing, so that MadGraph's defaults hold, written out where the built-in generator has the
same settings; of the parameter card, that all other Wilson coefficients are zero. They are not by themselves:
the restriction ``massless`` of the model gives every coefficient a value of its own, lest MadGraph drop it
from the model.

Differences to the built-in generator: MadGraph sends the u quark along +z only (its cross-sections are half
as large, and `exact` needs ``generator.u_beam: first``), and its default scale is dynamic.

What MadGraph5_aMC@NLO 3.5.7 makes of the cards decides some lines: it takes a file for a run card by the
words ``gridpack`` and ``ebeam1``, reads a mass for each particle that has a width, and exits with 0 on every
error, so that only the file of events says that a value was generated.

Source:
    Appendix B.1 of arXiv:2508.07114; the model is that of arXiv:2012.11343.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from milanalysis.config import GeneratorConfig
from milanalysis.errors import ConfigError, ExternalProgramError, RunDirectoryError
from milanalysis.files.provenance import atomic_path
from milanalysis.simulation.amplitudes import GAMMA_H, GAMMA_W, GF, LAMBDA, MH, MW

__all__ = [
    "BACKGROUND",
    "PAPER_VALUES",
    "PROGRAM",
    "SIGNAL",
    "MadGraphProcess",
    "check_no_events",
    "generated_events",
    "param_card",
    "process_card",
    "reweight_card",
    "run_card",
    "run_madgraph",
    "write_cards",
]

PROGRAM = "mg5_aMC"
"""The command of MadGraph5_aMC@NLO."""
PAPER_VALUES: tuple[float, ...] = tuple(
    sorted({*map(float, range(-10, 11)), *(round(0.1 * step, 1) for step in range(-9, 10))})
)
"""Values of cHW: -10 to 10 in steps of 1 and -0.9 to 0.9 in steps of 0.1, 39 in all."""

_MODEL = "SMEFTsim_top_MwScheme_UFO-massless"
_MODEL_HINT = (
    f"Is the model {_MODEL.split('-')[0]} among its models (SMEFTsim 3, https://smeftsim.github.io)?"
)
_BLOCK = "SMEFT"
_COEFFICIENTS = {"cHW": 7}
_N_COEFFICIENTS = 204
_MZ, _MB, _MT = 91.1876, 4.18, 172.76
_GAMMA_Z, _GAMMA_T = 2.4952, 1.33
_MASSES = {5: (_MB, "MB"), 6: (_MT, "MT"), 23: (_MZ, "MZ"), 24: (MW, "MW"), 25: (MH, "MH")}
_WIDTHS = {6: _GAMMA_T, 23: _GAMMA_Z, 24: GAMMA_W, 25: GAMMA_H}
"""Masses and widths in GeV by PDG number; MadGraph wants a mass of every particle that has a width."""
_LAUNCH = "launch.dat"
_EVENTS = "unweighted_events.lhe.gz"
_ALPHA_S = 0.1179


@dataclass(frozen=True)
class MadGraphProcess:
    """A process as it is told to MadGraph.

    Attributes:
        name: of the directory of its cards.
        commands: definitions and the line that generates it.
        values: of the coefficient at which events are made.
    """

    name: str
    commands: tuple[str, ...]
    values: tuple[float, ...]


SIGNAL = MadGraphProcess(
    "signal",
    ("generate u d > u d h $$ w+ w- / z a QCD=0 NP=1 NPcHW=1, h > e+ ve e- ve~ / z QCD=0 NP=1 NPcHW=1",),
    PAPER_VALUES,
)
BACKGROUND = MadGraphProcess(
    "background",
    (
        "define vl = ve vm vt",
        "define vl~ = ve~ vm~ vt~",
        "generate u d > u d z z QCD=0 NP=0 NPcHW=0, (z > e+ e-), (z > vl vl~) QCD=0 NP=0 NPcHW=0",
    ),
    (0.0,),
)


def process_card(process: MadGraphProcess, output: Path) -> str:
    """Return the commands that write the code of a process to a directory."""
    return _text(f"import model {_MODEL}", *process.commands, f"output {output}")


def run_card(config: GeneratorConfig, n_events: int) -> str:
    """Return the run card; what it does not name has MadGraph's default.

    Args:
        config: beam energy and cuts. Cuts on leptons apply to decay products too, which MadGraph by default
            leaves alone.
        n_events: events per run.
    """
    cuts, leptons = config.cuts, config.cuts.leptons
    settings: dict[str, object] = {
        "gridpack": False,  # one of the two words by which MadGraph knows a run card
        "nevents": n_events,
        "lpp1": 1,
        "lpp2": 1,
        "ebeam1": config.beam_energy,
        "ebeam2": config.beam_energy,
        "pdlabel": "nn23lo1",
        "ptj": cuts.quark_pt_min,
        "etaj": cuts.quark_eta_max,
        "drjj": cuts.quark_delta_r_min,
        "cut_decays": leptons is not None,
        "bwcutoff": 15.0,
        "use_syst": False,
        "event_norm": "average",  # the weights of a file average to its cross-section: normalisation: mean
        "SDE_strategy": 2,  # MadGraph's own choice for these processes, made only without a run card
    }
    if leptons is not None:
        settings |= {
            "ptl": leptons.pt_min,
            "etal": leptons.eta_max,
            "drll": leptons.delta_r_min,
            "drjl": leptons.delta_r_min,
        }
    return _text(*(f"  {value} = {name}" for name, value in settings.items()))


def param_card(coefficient: str, value: float) -> str:
    """Return the parameter card with one Wilson coefficient at a value and all others at zero.

    Raises:
        ConfigError: if the coefficient is not one that is known here.
    """
    own = _number_of(coefficient)
    wilson = [
        f"  {number} {value if number == own else 0.0:.6e}" + (f" # {coefficient}" if number == own else "")
        for number in range(1, _N_COEFFICIENTS + 1)
    ]
    return _text(
        "Block SMINPUTS",
        f"  1 {MW:.6e} # MW",
        f"  2 {GF:.6e} # Gf",
        f"  3 {_ALPHA_S:.6e} # aS",
        "Block MASS",
        *(f"  {number} {mass:.6e} # {name}" for number, (mass, name) in _MASSES.items()),
        "Block YUKAWA",
        f"  5 {_MB:.6e} # ymb",
        f"  6 {_MT:.6e} # ymt",
        "Block SMEFTcutoff",
        f"  1 {LAMBDA:.6e} # LambdaSMEFT",
        f"Block {_BLOCK}",
        *wilson,
        *(f"DECAY {number} {width:.6e}" for number, width in _WIDTHS.items()),
    )


def reweight_card(coefficient: str, values: Sequence[float]) -> str:
    """Return the card that adds to each event its weights at other values, named ``cHW_<value>``.

    Raises:
        ConfigError: if the coefficient is not one that is known here.
    """
    own = _number_of(coefficient)
    lines = ["change rwgt_dir rwgt"]
    for value in values:
        lines += [f"launch --rwgt_name={_name(coefficient, value)}", f"set {_BLOCK} {own} {value:.6e}"]
    return _text(*lines)


def _launch_script(process: MadGraphProcess, folder: Path, coefficient: str) -> str:
    """Return the commands that make the events of a process, one run for each value."""
    lines = []
    for value in process.values:
        # Weights at all values are kept with the events at the reference, from which they are best known.
        reweighted = value == 0.0 and len(process.values) > 1
        lines += [
            f"launch {folder / 'process'} -n {_name(coefficient, value)}",
            "shower=OFF",
            "detector=OFF",
            f"reweight={'ON' if reweighted else 'OFF'}",
            "done",
            str(folder / f"param_card_{_name(coefficient, value)}.dat"),
            str(folder / "run_card.dat"),
            *([str(folder / "reweight_card.dat")] if reweighted else []),
            "done",
        ]
    return _text(*lines)


def write_cards(directory: Path, config: GeneratorConfig, *, coefficient: str, n_events: int) -> list[Path]:
    """Write all cards of signal and background.

    Args:
        directory: gets ``signal/`` and ``background/``, each with ``proc_card.dat``, ``run_card.dat``, one
            ``param_card_<value>.dat`` per value and ``launch.dat``; the signal has ``reweight_card.dat``,
            too.
        config: beam energy and cuts.
        coefficient: name of the Wilson coefficient.
        n_events: events per value.

    Returns:
        The files.

    Raises:
        ConfigError: if the coefficient is not one that is known here.
        RunDirectoryError: if there are events that were made with the cards of this directory.
    """
    _number_of(coefficient)
    check_no_events(directory)
    written = []
    for process in (SIGNAL, BACKGROUND):
        folder = directory.resolve() / process.name
        cards = {
            "proc_card.dat": process_card(process, folder / "process"),
            "run_card.dat": run_card(config, n_events),
            _LAUNCH: _launch_script(process, folder, coefficient),
        }
        for value in process.values:
            cards[f"param_card_{_name(coefficient, value)}.dat"] = param_card(coefficient, value)
        others = [value for value in process.values if value != 0.0]
        if others:
            cards["reweight_card.dat"] = reweight_card(coefficient, others)
        for name, text in cards.items():
            with atomic_path(folder / name) as temporary:
                temporary.write_text(text)
            written.append(folder / name)
    return written


def generated_events(directory: Path, process: MadGraphProcess) -> dict[str, Path | None]:
    """Return the event file of each run in the launch script; None where MadGraph has not written it."""
    script = (directory / process.name / _LAUNCH).read_text()
    runs = _process_directory(directory, process) / "Events"
    files = {
        name: runs / name / _EVENTS for name in re.findall(r"^launch .* -n (\S+)$", script, re.MULTILINE)
    }
    return {
        name: path if path.is_file() and path.stat().st_size > 0 else None for name, path in files.items()
    }


def check_no_events(directory: Path) -> None:
    """Refuse a directory that holds events, which MadGraph would delete with the process they belong to.

    Raises:
        RunDirectoryError: naming the directory and what is there.
    """
    for process in (SIGNAL, BACKGROUND):
        runs = _process_directory(directory, process) / "Events"
        found = sorted({path.parent.name for path in runs.glob("*/*.lhe*")})
        if found:
            msg = (
                f"{runs} holds events of {len(found)} runs "
                f"({', '.join(found[:5])}{', ...' if len(found) > 5 else ''}); MadGraph deletes them when it "
                "writes the process again, and other cards would not be theirs. Give another directory with "
                "-o, or move them away"
            )
            raise RunDirectoryError(msg)


def run_madgraph(directory: Path) -> bool:
    """Generate what the cards of a directory say, if MadGraph is there.

    Args:
        directory: where `write_cards` has written, without events.

    Returns:
        False if there is no MadGraph on the PATH; then nothing was done. True if there are events at all
        values.

    Raises:
        RunDirectoryError: if there are events already.
        ExternalProgramError: if MadGraph failed, or has left out values, naming these and those that are
            there.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        return False
    check_no_events(directory)
    for process in (SIGNAL, BACKGROUND):
        folder = directory.resolve() / process.name
        _call(program, folder / "proc_card.dat")
        if not _process_directory(directory, process).is_dir():
            msg = (
                f"{program} has not written the process {_process_directory(directory, process)}, whatever "
                f"its exit code says; the reason is above. {_MODEL_HINT}"
            )
            raise ExternalProgramError(msg)
        _call(program, folder / _LAUNCH)
        files = generated_events(directory, process)
        missing = [name for name, path in files.items() if path is None]
        if missing:
            there = [name for name, path in files.items() if path is not None]
            msg = (
                f"{program} has generated {len(there)} of {len(files)} runs of {process.name}: there are "
                f"{', '.join(there) or 'none'}, and there is no Events/<run>/{_EVENTS} of "
                f"{', '.join(missing)} in {_process_directory(directory, process)}. MadGraph exits with 0 on "
                "errors too; the reason is above, or in the file *_debug.log it names. The events that are "
                "there can be used; for all of them give the same command with another directory (-o)"
            )
            raise ExternalProgramError(msg)
    return True


def _call(program: str, script: Path) -> None:
    """Run MadGraph on a file of commands."""
    outcome = subprocess.run([program, str(script)], cwd=script.parent, check=False)
    if outcome.returncode != 0:
        msg = (
            f"{program} ended with code {outcome.returncode} on {script}; what it said is above. "
            f"{_MODEL_HINT}"
        )
        raise ExternalProgramError(msg)


def _process_directory(directory: Path, process: MadGraphProcess) -> Path:
    """Return where MadGraph writes the code of a process, and its events."""
    return directory.resolve() / process.name / "process"


def _number_of(coefficient: str) -> int:
    """Return the number of a Wilson coefficient in its block."""
    if coefficient not in _COEFFICIENTS:
        msg = (
            f"cards can be written for {', '.join(_COEFFICIENTS)}, not for {coefficient!r}; set "
            "parameter.name in the configuration"
        )
        raise ConfigError(msg)
    return _COEFFICIENTS[coefficient]


def _name(coefficient: str, value: float) -> str:
    """Return the name of a value, for example ``cHW_-0.5``."""
    return f"{coefficient}_{np.format_float_positional(value, trim='-')}"


def _text(*lines: str) -> str:
    """Return lines as the content of a file."""
    return "\n".join((*lines, ""))
