"""The figures of a run, each drawn from the files in its run directory and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from milanalysis.config import load_config
from milanalysis.events.tables import EventTable, concatenate
from milanalysis.files.records import read_record
from milanalysis.files.run_directory import RunDirectory
from milanalysis.reporting import plotting
from milanalysis.statistics.information.comparison import Comparison
from milanalysis.statistics.observation import Observation
from milanalysis.statistics.repetition.pseudo_experiments import PseudoExperiments
from milanalysis.statistics.templates.result import TemplateResult

__all__ = ["FIGURES", "draw"]

_SHOWN = (-0.5, 0.1, 0.5, 1.0)
"""Values of the parameter, relative to the reference, at which distributions are drawn."""


def draw(run: Path, name: str, output: Path | None = None) -> list[Path]:
    """Draw one figure of a run and save it.

    Args:
        run: the run directory.
        name: one of `FIGURES`.
        output: the file without its ending; ``figures/<name>`` in the run directory if it is not given.

    Returns:
        The files.
    """
    return plotting.save(FIGURES[name](run), output or RunDirectory(run).figure(name))


def _kinematics(run: Path) -> Figure:
    config = load_config(RunDirectory(run).config_file)
    paths = [RunDirectory(run).table(name) for name in config.samples_with_role("simulation")]
    reference = config.parameter.reference
    return plotting.kinematics(
        concatenate([EventTable.read(path) for path in paths]),
        [reference + value for value in _SHOWN],
        parameter=config.parameter.name,
        reference=reference,
    )


def _profiles(run: Path) -> Figure:
    return plotting.profiles(read_record(RunDirectory(run).result("observed"), Observation))


def _estimates(run: Path) -> Figure:
    experiments = read_record(RunDirectory(run).result("pseudo_experiments"), PseudoExperiments)
    return plotting.estimates(experiments, _comparison(run))


def _coverage(run: Path) -> Figure:
    return plotting.coverage(_comparison(run))


def _templates(run: Path) -> Figure:
    reference = load_config(RunDirectory(run).config_file).parameter.reference
    result = read_record(RunDirectory(run).result("templates"), TemplateResult)
    return plotting.templates(result, [reference, *(reference + value for value in _SHOWN)])


def _comparison(run: Path) -> Comparison:
    return read_record(RunDirectory(run).result("comparison"), Comparison)


FIGURES: Mapping[str, Callable[[Path], Figure]] = {
    "kinematics": _kinematics,
    "templates": _templates,
    "profiles": _profiles,
    "estimates": _estimates,
    "coverage": _coverage,
}
"""What can be drawn, by name."""
