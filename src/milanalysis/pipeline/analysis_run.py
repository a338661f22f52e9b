"""Runs in Python: carry one out, take up a finished one, and fit by hand what it has fitted.

This is what a notebook works with, as ``milanalysis.run`` and ``milanalysis.open_run``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from milanalysis.config import AnalysisConfig
from milanalysis.events.tables import EventTable
from milanalysis.files.provenance import read_json
from milanalysis.files.records import read_record
from milanalysis.files.run_directory import RunDirectory
from milanalysis.learning.models.ensembles import EnsembleRatio
from milanalysis.learning.models.stored import load_model
from milanalysis.parameters import EFTPolynomial, Parameter
from milanalysis.pipeline.methods import Methods, load_calibrations, methods_of_run, where_trained
from milanalysis.pipeline.repetition import read_observation
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.scheduling import execute, names_of_run, planned_run
from milanalysis.pipeline.template_analysis import ExpectedEvents, rate_model
from milanalysis.ratios.scored_events import ScoredEvents
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.exact.information import ReferenceInformation
from milanalysis.statistics.coverage import CoverageReport
from milanalysis.statistics.information.comparison import Comparison
from milanalysis.statistics.likelihood.interpolation import interpolation_from
from milanalysis.statistics.likelihood.models import LikelihoodModel, ShapeModel
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.observation import Observation
from milanalysis.statistics.repetition.pseudo_experiments import PseudoExperiments
from milanalysis.statistics.templates.result import TemplateResult
from milanalysis.terminal import html_table

__all__ = ["AnalysisRun", "Results", "open_run", "run"]


def run(
    config: Path | str | AnalysisConfig,
    output: Path | str | None = None,
    *,
    stages: Sequence[str] | None = None,
) -> AnalysisRun:
    """Carry out an analysis, as the command ``milanalysis run`` does; what is up to date is not done again.

    Args:
        config: path of a YAML file, or a configuration.
        output: the run directory; ``runs/<name>`` in the current directory if it is not given.
        stages: names of the stages to bring up to date; all of them if they are not given.

    Returns:
        The finished run.

    Raises:
        ConfigError: if the configuration is not valid.
        StageOrderError: if a stage is asked for whose input is not up to date.
    """
    source = config if isinstance(config, AnalysisConfig) else Path(config)
    planned = planned_run(source, None if output is None else Path(output))
    execute(planned, names_of_run(planned.config) if stages is None else stages)
    return AnalysisRun(planned)


def open_run(directory: Path | str) -> AnalysisRun:
    """Take up a run directory.

    Raises:
        InputFileError: if no run has made it.
    """
    return AnalysisRun(Run.of(Path(directory).resolve()))


class AnalysisRun:
    """An analysis with all that it has produced so far.

    Attributes:
        config: the configuration, with all defaults.
        parameter: the parameter of interest.
        files: where everything is in the run directory.
        results: what has been measured.
    """

    def __init__(self, files: Run) -> None:
        self._run = files
        self.files: RunDirectory = files
        self.config: AnalysisConfig = files.config
        self.parameter: Parameter = files.config.parameter
        self.results = Results(files)

    def __repr__(self) -> str:
        return (
            f"AnalysisRun({self.config.name!r} in {self.files.directory}, models: "
            f"{', '.join(self.config.models)}, results: {', '.join(self.results.available) or 'none yet'})"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("directory", self.files.directory),
            ("parameter", f"{self.parameter.name} in [{self.parameter.low:g}, {self.parameter.high:g}]"),
            ("samples", ", ".join(f"{name} ({one.role})" for name, one in self.config.samples.items())),
            ("models", ", ".join(self.config.models)),
            ("results", ", ".join(self.results.available)),
        ]
        return html_table(f"analysis {self.config.name}", ("", ""), rows)

    def table(self, role: str = "observed") -> EventTable:
        """Return the selected events of one role: ``"simulation"``, ``"observed"`` or ``"background"``."""
        return self._run.load_table(role)

    def model(self, label: str) -> EnsembleRatio:
        """Return a trained model, to be evaluated on any events."""
        return load_model(self.files.model(label))

    def terms(self, label: str, role: str = "observed") -> PolynomialTerms | GridTerms:
        """Return one model's log ratios of single events: all observed, or validation and test ones.

        They add up to the log ratio of any dataset of these events.
        """
        return self._scored(role).terms(label)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of all likelihoods of the observed events: models, exact likelihoods, templates."""
        return tuple(self._methods.titles)

    def likelihood(self, method: str) -> ProfileLikelihood:
        """Return one method's likelihood of the shape of the observed events, ready for `iminuit.Minuit`.

        Args:
            method: label of a model, or another of `methods`.

        Raises:
            KeyError: if there is no such method, listing those there are.
        """
        return self._model(method).observe(np.arange(len(self._scored("observed"))))

    def rate(self) -> ProfileLikelihood:
        """Return the likelihood of the observed event count; with that of the shape it is extended."""
        return rate_model(self._run, self.results.expected_events).observe(
            np.arange(len(self._scored("observed")))
        )

    def draw(self, name: str, output: Path | str | None = None) -> list[Path]:
        """Draw and save a figure of the run: kinematics, templates, profiles, estimates, or coverage.

        Args:
            name: of the figure.
            output: the file without its ending; ``figures/<name>`` in the run directory if it is not given.

        Returns:
            The files.

        Raises:
            KeyError: if there is no such figure, listing those there are.
        """
        from milanalysis.reporting.gallery import FIGURES, draw

        if name not in FIGURES:
            msg = f"there is no figure {name!r}; there are {', '.join(FIGURES)}"
            raise KeyError(msg)
        return draw(self.files.directory, name, None if output is None else Path(output))

    def _model(self, method: str) -> LikelihoodModel:
        """Return one method; a model alone needs no simulation."""
        models = self.config.models
        if method in models and models[method].is_additive and "exact" not in method:
            terms = self.terms(method)
            if terms.grid is None or len(terms.grid) >= 3:
                interpolation = interpolation_from(self.config.inference.interpolation)
                return ShapeModel(
                    terms,
                    where_trained(self.parameter, models[method].task),
                    None if terms.grid is None else interpolation,
                )
        every = self._methods.models()
        if method not in every:
            msg = f"there is no likelihood of {method!r}; there are {', '.join(every)}"
            raise KeyError(msg)
        return every[method]

    @cached_property
    def _methods(self) -> Methods:
        """All methods on the observed events."""
        simulated = self._run.load_table("simulation", with_features=False)
        calibrations = load_calibrations(self._run) if self._run.result("calibration").is_file() else {}
        return methods_of_run(self._run, simulated, self._scored("observed"), calibrations, role="observed")

    def _scored(self, role: str) -> ScoredEvents:
        return self._run.scored(role)


class Results:
    """The results of a run, each read from its file when it is asked for."""

    def __init__(self, files: Run) -> None:
        self._files = files

    @property
    def available(self) -> tuple[str, ...]:
        """Names of the results that are there."""
        return tuple(sorted(path.stem for path in self._files.result("any").parent.glob("*.json")))

    def __repr__(self) -> str:
        return f"Results({', '.join(self.available)})"

    @cached_property
    def observed(self) -> Observation:
        """The measurement: every method on the observed events, shape, rate, and both together."""
        return read_observation(self._files)

    @cached_property
    def comparison(self) -> Comparison:
        """All methods side by side; ``comparison["polynomial"]`` is the row of one."""
        return read_record(self._files.result("comparison"), Comparison)

    @cached_property
    def coverage(self) -> CoverageReport:
        """Coverage at all true values and levels."""
        return read_record(self._files.result("coverage"), CoverageReport)

    @cached_property
    def pseudo_experiments(self) -> PseudoExperiments:
        """Every fit of every pseudo-experiment at the first true value."""
        return read_record(self._files.result("pseudo_experiments"), PseudoExperiments)

    @cached_property
    def templates(self) -> TemplateResult:
        """The template analysis of the observed events."""
        return read_record(self._files.result("templates"), TemplateResult)

    @cached_property
    def expected_events(self) -> EFTPolynomial:
        """Expected number of all selected events, background included, as a function of the parameter."""
        return read_record(self._files.result("expected_events"), ExpectedEvents).total

    @cached_property
    def information(self) -> ReferenceInformation:
        """The Fisher information available, integrated over phase space."""
        return read_record(self._files.result("truth"), ReferenceInformation)

    @cached_property
    def workspace(self) -> Mapping[str, Any]:
        """The pyhf workspace of the template analysis."""
        return read_json(self._files.result("workspace"))
