"""The analysis as written down: one YAML file, strictly checked.

Each choice is a small frozen dataclass that holds only what the choice accepts; alternatives are told apart
by ``kind``. Unknown keys are refused. Defaults are the paper's (arXiv:2508.07114) unless the field says
otherwise. Paths are relative to the YAML file. Energies in GeV, luminosity in 1/fb.
"""

from __future__ import annotations

from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from milanalysis.config import names
from milanalysis.config.classifiers import AnyModelConfig
from milanalysis.config.physics import (
    STRICT,
    ExactConfig,
    GeneratorConfig,
    Name,
    Positive,
    SplitConfig,
    TruthConfig,
)
from milanalysis.config.samples import FileSampleConfig, ProcessingConfig, SampleConfig, own_processors
from milanalysis.config.shorthand import spelled_out
from milanalysis.config.statistics import (
    BackgroundProcessConfig,
    CalibrationConfig,
    CoverageConfig,
    InferenceConfig,
    ObservableConfig,
    ParabolaConfig,
    SplineConfig,
    TemplateConfig,
)
from milanalysis.config.tasks import PolynomialSamplesTaskConfig, PolynomialTaskConfig
from milanalysis.config.tracking import CSVTrackingConfig, TrackingConfig, TuneConfig
from milanalysis.config.yaml_files import read_mapping
from milanalysis.errors import ConfigError
from milanalysis.files.paths import absolute_path
from milanalysis.parameters import FloatArray, Parameter, parameter_points

__all__ = ["AnalysisConfig", "load_config"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnalysisConfig:
    """A whole analysis.

    ``luminosity_uncertainty`` is relative; with it the luminosity is a nuisance parameter wherever the number
    of events counts. ``calibration`` lists calibrations for each model. Each adds a row to the comparison,
    beside that of the model as it is.
    """

    name: Name
    seed: Annotated[int, Field(ge=0)]
    luminosity_fb: Positive
    samples: dict[Name, SampleConfig]
    models: Annotated[dict[Name, AnyModelConfig], Field(min_length=1)]
    templates: TemplateConfig
    luminosity_uncertainty: Positive | None = None
    parameter: Parameter = Parameter()
    generator: GeneratorConfig = GeneratorConfig()
    processing: ProcessingConfig = ProcessingConfig()
    split: SplitConfig = SplitConfig()
    inference: InferenceConfig = InferenceConfig()
    calibration: dict[Name, tuple[CalibrationConfig, ...]] = field(default_factory=dict)
    tracking: TrackingConfig = CSVTrackingConfig()
    tune: TuneConfig | None = None
    coverage: CoverageConfig = CoverageConfig()
    background: BackgroundProcessConfig | None = None
    exact: ExactConfig = ExactConfig()
    truth: TruthConfig = TruthConfig()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> AnalysisConfig:
        for role in ("simulation", "observed"):
            if not self.samples_with_role(role):
                msg = f"samples: at least one sample needs role: {role}"
                raise ValueError(msg)
        model = self.templates.discriminant.model
        if model not in self.models:
            msg = (
                f"templates.discriminant.model: {model!r} is not one of the models ({', '.join(self.models)})"
            )
            raise ValueError(msg)
        if self.tune is not None and self.tune.model not in self.models:
            msg = f"tune.model: {self.tune.model!r} is not one of the models ({', '.join(self.models)})"
            raise ValueError(msg)
        for label, calibrations in self.calibration.items():
            if label not in self.models:
                msg = f"calibration: {label!r} is not one of the models ({', '.join(self.models)})"
                raise ValueError(msg)
            names = [one.name for one in calibrations]
            if len(set(names)) < len(names):
                msg = f"calibration.{label}: each of {', '.join(names)} can be listed once"
                raise ValueError(msg)
        backgrounds = self.samples_with_role("background")
        for label, one in self.models.items():
            if one.background is not None and one.background.sample not in backgrounds:
                msg = (
                    f"models.{label}.background.sample: {one.background.sample!r} is not a sample with role: "
                    f"background ({', '.join(backgrounds) or 'there is none'})"
                )
                raise ValueError(msg)
            if self.parameter.reference != 0 and isinstance(
                one.task, PolynomialTaskConfig | PolynomialSamplesTaskConfig
            ):
                msg = (
                    f"models.{label}.task: {one.task.kind} learns ratios relative to their value at 0, so "
                    f"parameter.reference has to be 0, and it is {self.parameter.reference:g}; use another "
                    "task, or shift the parameter"
                )
                raise ValueError(msg)
            points = one.task.known_points(self.parameter.reference)
            if points is not None and not _has(points, self.parameter.reference):
                msg = (
                    f"models.{label}.task.grid: the reference {self.parameter.reference} has to be a grid "
                    "point"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _names_are_different(self) -> AnalysisConfig:
        names.require_different_files("samples", self.samples)
        names.require_different_files("models", self.models)
        names.require_different_rows(
            {label: model.title for label, model in self.models.items()},
            {label: [entry.name for entry in some] for label, some in self.calibration.items()},
        )
        names.require_different_parameters(
            self.parameter.name,
            {
                name: sample.weight_variations
                for name, sample in self.samples.items()
                if isinstance(sample, FileSampleConfig)
            },
        )
        return self

    @model_validator(mode="after")
    def _nuisances_are_known(self) -> AnalysisConfig:
        backgrounds = self.samples_with_role("background")
        if self.background is not None and self.background.sample not in backgrounds:
            msg = (
                f"background.sample: {self.background.sample!r} is not one of the samples with role: "
                f"background ({', '.join(backgrounds) or 'there are none'})"
            )
            raise ValueError(msg)
        if self.templates.limits is not None and self.parameter.reference != 0:
            msg = "templates.limits: CLs compares with a parameter of 0, so parameter.reference has to be 0"
            raise ValueError(msg)
        varied = [
            one
            for one in self.samples.values()
            if isinstance(one, FileSampleConfig) and one.role == "simulation" and one.weight_variations
        ]
        wanted = any(
            isinstance(one, ObservableConfig) and one.systematics
            for some in self.calibration.values()
            for one in some
        )
        if wanted and not varied:
            msg = "calibration: systematics: true needs weight_variations of a simulated sample"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _points_are_known(self) -> AnalysisConfig:
        low, high = self.parameter.low, self.parameter.high
        for theta in self.coverage.theta:
            if not low < theta < high:
                msg = (
                    f"coverage.theta: {theta} has to lie between parameter.low ({low}) and parameter.high "
                    f"({high})"
                )
                raise ValueError(msg)
        below, above = self.captured_at()
        if not low <= below < self.parameter.reference < above <= high:
            msg = (
                f"coverage.captured_at: [{below:g}, {above:g}] has to be one value below and one above "
                f"parameter.reference ({self.parameter.reference:g}), between parameter.low ({low}) and "
                f"parameter.high ({high})"
            )
            raise ValueError(msg)
        model, at = self.templates.discriminant.model, self.templates.discriminant.theta
        first, last = self.models[model].task.trained_between(self.parameter.reference)
        if not max(low, first) - 1e-9 <= at <= min(high, last) + 1e-9:
            msg = (
                f"templates.discriminant.theta: {at:g} has to lie in the range of the parameter ({low:g} to "
                f"{high:g}) and of the training of models.{model} ({first:g} to {last:g})"
            )
            raise ValueError(msg)
        points = self.models[model].task.known_points(self.parameter.reference)
        if points is not None and not _has(points, self.templates.discriminant.theta):
            msg = (
                f"templates.discriminant.theta: {self.templates.discriminant.theta} has to be a point of "
                f"models.{model}.task.grid, since this model knows no others"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _truth_has_points_to_tell_apart(self) -> AnalysisConfig:
        reference = self.parameter.reference
        if self.truth.auc_at is not None and reference in self.truth.auc_at:
            msg = (
                f"truth.auc_at: {reference:g} is the reference, from which it shall be told; use other values"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _models_can_do_what_is_asked(self) -> AnalysisConfig:
        discriminant = self.templates.discriminant.model
        if not self.models[discriminant].is_additive:
            msg = (
                f"templates.discriminant.model: the ratio of {discriminant!r} is defined for whole bags "
                "only, and templates are filled event by event; use a per-event model"
            )
            raise ValueError(msg)
        for label, one in self.models.items():
            points = one.task.known_points(self.parameter.reference)
            if points is not None and len(np.unique(points)) < 2:
                msg = f"models.{label}.task: the grid holds no point besides the reference; change theta"
                raise ValueError(msg)
            kinds = {entry.kind for entry in self.calibration.get(label, ())}
            if kinds and points is not None and len(points) < 3:
                msg = (
                    f"calibration.{label}: this model knows the log ratio at one point and gives no interval "
                    "that could be calibrated"
                )
                raise ValueError(msg)
            if one.is_additive:
                continue
            if refused := sorted(kinds & {"rate", "observable"}):
                msg = (
                    f"calibration.{label}: kind {', '.join(refused)} needs log ratios of events, and this "
                    "model has those of bags only; use bartlett, coverage, bias or temperature"
                )
                raise ValueError(msg)
            if self.coverage.number == "poisson" or (self.coverage.events or 0) % one.bag_size:
                msg = (
                    f"coverage: the ratio of model {label!r} is not a sum over events, so pseudo-experiments "
                    f"have to be whole bags of {one.bag_size} events; use number: fixed and a multiple of "
                    f"{one.bag_size} for events, not {self.coverage.number} and {self.coverage.events}"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _grids_can_be_interpolated(self) -> AnalysisConfig:
        interpolation = self.inference.interpolation
        for label, one in self.models.items():
            points = one.task.known_points(self.parameter.reference)
            if points is None or len(points) < 3 or isinstance(interpolation, SplineConfig):
                continue
            if isinstance(interpolation, ParabolaConfig):
                distance = np.abs(points[:, 0] - points)  # (n_points, n_points)
                found, needed = int((distance <= interpolation.half_width * (1 + 1e-9)).sum(axis=1).min()), 3
                where = f"within half_width ({interpolation.half_width:g}) of one of them"
            else:
                found, needed, where = len(points), interpolation.degree + 1, "in all"
            if found < needed:
                msg = (
                    f"inference.interpolation: {interpolation.kind} needs {needed} grid points of "
                    f"models.{label}.task and there are {found} {where}; refine the grid, widen the window, "
                    "or use kind: spline"
                )
                raise ValueError(msg)
        return self

    def samples_with_role(self, role: str) -> list[str]:
        """Return the names of the samples with a role, in the order of the file."""
        return [name for name, sample in self.samples.items() if sample.role == role]

    def captured_at(self) -> tuple[float, float]:
        """Return the parameter values at which log ratios of events are compared with the exact ones."""
        if self.coverage.captured_at is not None:
            return self.coverage.captured_at
        one = self.parameter
        low, high = (round(one.reference + (end - one.reference) / 5, 12) for end in (one.low, one.high))
        return low, high

    def reference_point(self) -> FloatArray:
        """Return the reference as a parameter point, shape ``(n_parameters,)``."""
        point: FloatArray = parameter_points(self.parameter.reference)[0]
        return point


def _has(points: FloatArray, value: float) -> bool:
    """Return whether a value is one of the points of a grid."""
    return bool((np.abs(points[:, 0] - value) <= 1e-9).any())


def load_config(path: Path) -> AnalysisConfig:
    """Read and check an analysis from a YAML file.

    Args:
        path: the YAML file. Paths inside it are taken relative to its directory.

    Returns:
        The analysis, with absolute paths.

    Raises:
        ConfigError: naming the file, the key, what was found and what was expected; naming the path, if it
            holds an environment variable that is not set.
    """
    base = path.resolve().parent
    written = read_mapping(path)
    try:
        values = spelled_out(AnalysisConfig, written)
    except ConfigError as error:
        msg = f"{path} is not a valid analysis:\n  {error}"
        raise ConfigError(msg) from error
    except RecursionError as error:
        msg = f"{path}: a value refers to itself; write it without the anchor"
        raise ConfigError(msg) from error
    processing = values.get("processing", {})
    if isinstance(processing, dict):  # otherwise the validation has something to say
        values = {**values, "processing": {**own_processors(base), **processing}}
    try:
        config: AnalysisConfig = TypeAdapter(AnalysisConfig).validate_python(values)
    except ValidationError as error:
        raise ConfigError(_explain(path, error)) from error
    absolute: AnalysisConfig = _with_absolute_paths(config, base)
    return absolute


def _explain(path: Path, error: ValidationError) -> str:
    """Say in plain words what is wrong with a config."""
    lines = [f"{path} is not a valid analysis:"]
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"]]
        place = ".".join(part for part in parts if not part.startswith("<")) or "(top level)"
        if problem["type"] == "unexpected_keyword_argument":
            lines.append(f"  {place}: there is no such key; check its spelling and its indentation")
        elif problem["type"] == "missing":
            lines.append(f"  {place}: this key is required and is missing")
        elif problem["type"] in {"value_error", "union_tag_invalid", "union_tag_not_found", "model_kind"}:
            lines.append(f"  {place}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"  {place}: {problem['msg']}; found {problem['input']!r:.80}")
    return "\n".join(lines)


def _with_absolute_paths(value: Any, base: Path) -> Any:
    """Return a copy of a config in which every path is absolute."""
    if isinstance(value, Path):
        return absolute_path(value, base)
    if isinstance(value, tuple):
        return tuple(_with_absolute_paths(item, base) for item in value)
    if isinstance(value, dict):
        return {key: _with_absolute_paths(item, base) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(
            **{one.name: _with_absolute_paths(getattr(value, one.name), base) for one in fields(value)}
        )
    return value
