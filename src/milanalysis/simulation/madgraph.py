"""The paper's generation, for those who have MadGraph: cards for the signal at 39 values of cHW and for the background.

What the paper states is written as stated: program, model, processes, values and the number of events. Of the run card
it says nothing, so that MadGraph's defaults hold, written out where the built-in generator has the same settings;
of the parameter card, that all other Wilson coefficients are zero. They are not by themselves: the restriction
``massless`` of the model gives every coefficient a value of its own, lest MadGraph drop it from the model.

Differences to the built-in generator: MadGraph sends the u quark along +z only, and its default scale is dynamic.

Source:
    Appendix B.1 of arXiv:2508.07114; the model is that of arXiv:2012.11343.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from milanalysis.config import GeneratorConfig
from milanalysis.errors import ConfigError, ExternalProgramError
from milanalysis.provenance import atomic_path
from milanalysis.simulation.amplitudes import GAMMA_H, GAMMA_W, GF, LAMBDA, MH, MW

__all__ = [
    "BACKGROUND",
    "PAPER_VALUES",
    "PROGRAM",
    "SIGNAL",
    "MadGraphProcess",
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
_BLOCK = "SMEFT"
_COEFFICIENTS = {"cHW": 7}
_N_COEFFICIENTS = 204
_MZ, _MB, _MT = 91.1876, 4.18, 172.76
_GAMMA_Z, _GAMMA_T = 2.4952, 1.33
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
        config: beam energy and cuts. Cuts on leptons apply to decay products too, which MadGraph by default leaves
            alone.
        n_events: events per run.
    """
    cuts, leptons = config.cuts, config.cuts.leptons
    settings: dict[str, object] = {
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
        f"  5 {_MB:.6e} # MB",
        f"  6 {_MT:.6e} # MT",
        f"  23 {_MZ:.6e} # MZ",
        f"  25 {MH:.6e} # MH",
        "Block YUKAWA",
        f"  5 {_MB:.6e} # ymb",
        f"  6 {_MT:.6e} # ymt",
        "Block SMEFTcutoff",
        f"  1 {LAMBDA:.6e} # LambdaSMEFT",
        f"Block {_BLOCK}",
        *wilson,
        f"DECAY 6 {_GAMMA_T:.6e}",
        f"DECAY 23 {_GAMMA_Z:.6e}",
        f"DECAY 24 {GAMMA_W:.6e}",
        f"DECAY 25 {GAMMA_H:.6e}",
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
            ``param_card_<value>.dat`` per value and ``launch.dat``; the signal has ``reweight_card.dat``, too.
        config: beam energy and cuts.
        coefficient: name of the Wilson coefficient.
        n_events: events per value.

    Returns:
        The files.

    Raises:
        ConfigError: if the coefficient is not one that is known here.
    """
    written = []
    for process in (SIGNAL, BACKGROUND):
        folder = directory.resolve() / process.name
        cards = {
            "proc_card.dat": process_card(process, folder / "process"),
            "run_card.dat": run_card(config, n_events),
            "launch.dat": _launch_script(process, folder, coefficient),
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


def run_madgraph(directory: Path) -> bool:
    """Generate what the cards of a directory say, if MadGraph is there.

    Args:
        directory: where `write_cards` has written.

    Returns:
        False if there is no MadGraph on the PATH; then nothing was done.

    Raises:
        ExternalProgramError: if MadGraph failed.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        return False
    for process in (SIGNAL, BACKGROUND):
        folder = directory.resolve() / process.name
        for script in ("proc_card.dat", "launch.dat"):
            outcome = subprocess.run([program, str(folder / script)], cwd=folder, check=False)
            if outcome.returncode != 0:
                msg = (
                    f"{program} ended with code {outcome.returncode} on {folder / script}; what it said is above. Is the "
                    f"model {_MODEL.split('-')[0]} among its models (SMEFTsim 3, https://smeftsim.github.io)?"
                )
                raise ExternalProgramError(msg)
    return True


def _number_of(coefficient: str) -> int:
    """Return the number of a Wilson coefficient in its block."""
    if coefficient not in _COEFFICIENTS:
        msg = (
            f"cards can be written for {', '.join(_COEFFICIENTS)}, not for {coefficient!r}; "
            "set parameter.name in the configuration"
        )
        raise ConfigError(msg)
    return _COEFFICIENTS[coefficient]


def _name(coefficient: str, value: float) -> str:
    """Return the name of a value, for example ``cHW_-0.5``."""
    return f"{coefficient}_{np.format_float_positional(value, trim='-')}"


def _text(*lines: str) -> str:
    """Return lines as the content of a file."""
    return "\n".join((*lines, ""))
