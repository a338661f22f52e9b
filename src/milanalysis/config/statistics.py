"""The statistics part of an analysis as written down: templates, intervals, calibration, coverage.

Used through `milanalysis.config`, where the rest of the configuration is and its rules are stated.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from milanalysis.config.physics import STRICT, Count, Fraction, Name, Positive

__all__ = [
    "BackgroundProcessConfig",
    "BagTemplateConfig",
    "BartlettConfig",
    "BiasConfig",
    "CalibrationConfig",
    "CoverageConfig",
    "CoverageSearchConfig",
    "DiscriminantConfig",
    "InferenceConfig",
    "ObservableConfig",
    "ParabolaConfig",
    "PolynomialConfig",
    "RateConfig",
    "SplineConfig",
    "TemperatureConfig",
    "TemplateConfig",
]

Repetitions = Annotated[int, Field(ge=2)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DiscriminantConfig:
    """Per-event discriminant: the log ratio of a model at one parameter point."""

    model: Name
    theta: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BagTemplateConfig:
    """Bins in the log ratio of whole bags, at the point of the discriminant.

    ``bags`` are drawn from validation events at each of several points, and their shares are described by
    polynomials.
    """

    bag_size: Annotated[int, Field(ge=2)] = 10
    bins: Annotated[int, Field(ge=2)] = 8
    bags: Annotated[int, Field(ge=100)] = 20_000
    degree: Annotated[int, Field(ge=2)] = 6


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TemplateConfig:
    """The traditional analysis: bins in a per-event discriminant.

    ``binning`` says whether they have equal expected content, or lose the least Fisher information.
    ``limits`` is the level of asymptotic CLs limits from shape and rate; null leaves them out. With
    ``of_bags`` there is one more row, of bags.
    """

    discriminant: DiscriminantConfig
    bins: Annotated[int, Field(ge=2)] = 20
    binning: Literal["quantiles", "information"] = "quantiles"
    limits: Fraction | None = None
    of_bags: BagTemplateConfig | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BackgroundProcessConfig:
    """A background in the data (not in the paper).

    ``sample`` has ``role: background``. Its expected number of events is cross-section times luminosity times
    selection; with a ``fraction``, that share of all selected events at the reference instead, whatever its
    cross-section. It counts in the expected number of events; one more row is the template fit with the
    background as a part of it, whose total is known up to a relative ``uncertainty``, or not at all (null).
    All other rows ignore it, and their titles say so. Coverage is also reported for pseudo-experiments with
    background.
    """

    sample: Name
    fraction: Fraction | None = None
    uncertainty: Positive | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ParabolaConfig:
    """Parabola through the grid points within ``half_width`` of the lowest one (appendix C.4)."""

    kind: Literal["parabola"] = "parabola"
    half_width: Positive = 0.4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplineConfig:
    """Natural cubic spline through all grid points (not in the paper)."""

    kind: Literal["spline"] = "spline"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PolynomialConfig:
    """Polynomial through all grid points by least squares (not in the paper)."""

    kind: Literal["polynomial"] = "polynomial"
    degree: Annotated[int, Field(ge=2)] = 4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InferenceConfig:
    """Confidence level of the intervals, and how methods that know a grid are made continuous."""

    level: Fraction = 0.6827
    interpolation: Annotated[
        ParabolaConfig | SplineConfig | PolynomialConfig, Field(discriminator="kind")
    ] = ParabolaConfig()


class _NamedByKind:
    """What calibrations say that a model has once of each kind."""

    kind: str

    @property
    def name(self) -> str:
        """Name that tells this entry from others of the same model."""
        return self.kind


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BartlettConfig:
    """The log ratio times c = (1/Var) / mean curvature (Eq. 34), from validation pseudo-experiments.

    With ``bias_corrected`` the mean estimate is moved to the true value first, as in the paper (Eq. 35).
    """

    kind: Literal["bartlett"] = "bartlett"
    bias_corrected: bool = False
    pseudo_experiments: Repetitions = 500

    @property
    def name(self) -> str:
        """Name that tells this entry from others of the same model."""
        return f"{self.kind}_bias" if self.bias_corrected else self.kind


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoverageSearchConfig:
    """The log ratio times the c that gives nominal coverage: the paper's search, on validation events."""

    kind: Literal["coverage"] = "coverage"
    level: Fraction = 0.6827
    bias_corrected: bool = False
    pseudo_experiments: Repetitions = 500

    @property
    def name(self) -> str:
        """Name that tells this entry from others of the same model."""
        return f"{self.kind}_bias" if self.bias_corrected else self.kind


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BiasConfig(_NamedByKind):
    """The mean estimate moved to the true value (Eq. 35)."""

    kind: Literal["bias"] = "bias"
    pseudo_experiments: Repetitions = 500


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TemperatureConfig(_NamedByKind):
    """The log ratio divided by the temperature that best separates bags of different points.

    Not in the paper.
    """

    kind: Literal["temperature"] = "temperature"
    bags_per_point: Repetitions = 100


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RateConfig(_NamedByKind):
    """Ratios divided by their mean over events of the reference, which has to be 1 (not in the paper)."""

    kind: Literal["rate"] = "rate"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ObservableConfig:
    """The log ratio used as an observable, with a likelihood taken from simulation (not in the paper).

    The observable of an event is the slope of its log ratio within ``half_width`` of the reference; null
    takes the whole range. It needs event weights. With ``systematics`` the ``weight_variations`` of the
    simulated samples are nuisance parameters.
    """

    kind: Literal["observable"] = "observable"
    half_width: Positive | None = None
    systematics: bool = False

    @property
    def name(self) -> str:
        """Name that tells this entry from others of the same model."""
        return f"{self.kind}_systematics" if self.systematics else self.kind


CalibrationConfig = Annotated[
    BartlettConfig | CoverageSearchConfig | BiasConfig | TemperatureConfig | RateConfig | ObservableConfig,
    Field(discriminator="kind"),
]


def _as_tuple(value: Any) -> Any:
    """Accept one number where a list of numbers is meant."""
    return (value,) if isinstance(value, int | float) else value


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoverageConfig:
    """Pseudo-experiments drawn from the test events, the same for all methods.

    ``theta`` is one true value or several. The comparison of methods is made at the first; with two or more,
    the final interval is also constructed from pseudo-experiments, after Neyman and after Feldman and
    Cousins. ``number`` says whether every pseudo-experiment has ``events`` events, or a Poisson number with
    this mean; null takes the number that is expected at the reference (whole bags, for models that are
    defined for these only). Shape and rate together are always tested with a Poisson number whose mean
    depends on the true value. ``captured_at`` are the two values of the parameter, below and above the
    reference, at which the log ratios of events are compared with the exact ones; null takes those a fifth of
    the way from the reference to the ends of its range (-0.2 and 0.2 by default).
    """

    pseudo_experiments: Repetitions = 200
    events: Count | None = None
    number: Literal["fixed", "poisson"] = "fixed"
    theta: Annotated[tuple[float, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (0.0,)
    levels: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.6827, 0.9545)
    captured_at: tuple[float, float] | None = None
