"""What a network is asked, as written down: the tasks of a model.

Used through `milanalysis.config`, where the rest of the configuration is and its rules are stated. Which one
to use when is said in `milanalysis.learning.tasks.task`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from milanalysis.config.physics import STRICT, Count, Fraction, Positive
from milanalysis.parameters import FloatArray, parameter_points

__all__ = [
    "BinaryGridTaskConfig",
    "BinaryTaskConfig",
    "GridConfig",
    "ListedGridConfig",
    "LogitsFormConfig",
    "LossName",
    "MorphingFormConfig",
    "MulticlassTaskConfig",
    "PaperPairingConfig",
    "ParameterisedTaskConfig",
    "PolynomialSamplesTaskConfig",
    "PolynomialTaskConfig",
    "ReferencePairingConfig",
    "TaskConfig",
    "n_networks",
]

LossName: TypeAlias = Literal[
    "cross_entropy", "squared_error", "square_root", "maximum_likelihood", "maximum_likelihood_linear"
]
"""Losses of Table I of arXiv:2101.07263, the last in two forms; see `milanalysis.learning.tasks.losses`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridConfig:
    """Equidistant parameter points; the paper's default is -1 to 1 in steps of 0.1."""

    low: float = -1.0
    high: float = 1.0
    n_points: Annotated[int, Field(ge=2)] = 21

    @model_validator(mode="after")
    def _points_ascend(self) -> GridConfig:
        if not self.low < self.high:
            msg = f"low ({self.low}) has to be below high ({self.high})"
            raise ValueError(msg)
        return self

    def points(self) -> FloatArray:
        """Return the points, shape ``(n_points, 1)``, rounded so that zero is exactly zero."""
        return parameter_points(np.linspace(self.low, self.high, self.n_points).round(12))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ListedGridConfig:
    """Parameter points one by one, for grids like the paper's 39 that are finer in the middle."""

    values: Annotated[tuple[float, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _values_ascend(self) -> ListedGridConfig:
        if not all(low < high for low, high in zip(self.values, self.values[1:], strict=False)):
            msg = f"the values of a grid have to ascend, not {list(self.values)}"
            raise ValueError(msg)
        return self

    def points(self) -> FloatArray:
        """Return the points, shape ``(n_points, 1)``."""
        return parameter_points(np.array(self.values))


AnyGridConfig = GridConfig | ListedGridConfig


def _ends(points: FloatArray) -> tuple[float, float]:
    """Return the lowest and the highest of points of shape ``(n_points, 1)``."""
    return float(points.min()), float(points.max())


class _OnGrid:
    """What tasks say that know the log ratio at the points of a grid."""

    grid: AnyGridConfig

    def known_points(self, reference: float) -> FloatArray | None:
        """Return the points at which the log ratio is known, shape ``(n_points, 1)``; None: at any point."""
        del reference
        return self.grid.points()

    def trained_between(self, reference: float) -> tuple[float, float]:
        """Return the lowest and the highest value of the parameter that the training contains."""
        del reference
        return _ends(self.grid.points())


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MulticlassTaskConfig(_OnGrid):
    """Tell all grid points apart at once (section 4.2 of the paper)."""

    kind: Literal["multiclass"] = "multiclass"
    grid: AnyGridConfig = GridConfig()

    @property
    def is_linear(self) -> bool:
        """Log ratios are differences of outputs."""
        return True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BinaryTaskConfig:
    """Tell one point from the reference (appendix B.2.3 of the paper).

    It knows the log ratio at that one point, so it gives a discriminant for the templates, and no interval by
    itself.
    """

    kind: Literal["binary"] = "binary"
    theta: float
    loss: LossName = "cross_entropy"

    def known_points(self, reference: float) -> FloatArray | None:
        """Return the reference and the point, in ascending order, shape ``(2, 1)``."""
        return parameter_points(np.array(sorted((reference, self.theta))))

    def trained_between(self, reference: float) -> tuple[float, float]:
        """Return the reference and the point, in ascending order."""
        return min(reference, self.theta), max(reference, self.theta)

    @property
    def is_linear(self) -> bool:
        """Whether the log ratio is linear in the output."""
        return self.loss != "maximum_likelihood_linear"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BinaryGridTaskConfig(_OnGrid):
    """Tell each grid point from the reference, with a network for each (appendix C.3 of the paper).

    A member of such a model is as many networks as there are points beside the reference.
    """

    kind: Literal["binary_grid"] = "binary_grid"
    grid: AnyGridConfig = GridConfig()
    loss: LossName = "cross_entropy"

    @property
    def is_linear(self) -> bool:
        """Whether the log ratio is linear in the output."""
        return self.loss != "maximum_likelihood_linear"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PaperPairingConfig:
    """Bags and parameter values as the paper pairs them (appendices B.2.5 and C.5).

    Bags of theta_k with theta_k against bags of the reference with theta_k. Bags of the reference with the
    reference stand against bags of points ``near`` by, given as differences to it, in these ``shares``.
    """

    kind: Literal["paper"] = "paper"
    near: Annotated[tuple[float, ...], Field(min_length=1)] = (-0.2, -0.1, 0.1, 0.2)
    shares: tuple[Fraction, ...] = (0.2, 0.3, 0.3, 0.2)

    @model_validator(mode="after")
    def _shares_are_shares(self) -> PaperPairingConfig:
        if len(self.near) != len(self.shares) or abs(sum(self.shares) - 1) > 1e-9 or 0 in self.near:
            msg = (
                f"near ({list(self.near)}) and shares ({list(self.shares)}) need as many values, none of "
                "near may be 0, and shares have to add up to 1"
            )
            raise ValueError(msg)
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReferencePairingConfig:
    """Bags of theta_k against bags of the reference, both shown theta_k, for every k (not in the paper)."""

    kind: Literal["reference"] = "reference"


PairingConfig = Annotated[PaperPairingConfig | ReferencePairingConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ParameterisedTaskConfig(_OnGrid):
    """Tell whether a bag belongs to the parameter value shown with it (appendix B.2.5 of the paper)."""

    kind: Literal["parameterised"] = "parameterised"
    grid: AnyGridConfig = GridConfig()
    pairing: PairingConfig = ReferencePairingConfig()
    loss: LossName = "cross_entropy"

    @property
    def is_linear(self) -> bool:
        """Whether the log ratio is linear in the output."""
        return self.loss != "maximum_likelihood_linear"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PolynomialTaskConfig:
    """Learn the coefficients of a positive quartic from exact event weights (not in the paper).

    Each time a bag is shown the network is asked about ``points_per_bag`` values of the parameter, one drawn
    uniformly in each of as many equal parts of the interval within ``theta_range`` of the reference.
    Likelihoods end where the training did.

    ``labels: exact`` replaces the event weights by their means over all that is not visible, the exact
        visible ratio
    of each event. The optimum is the same and the labels are free of noise; it needs events at parton level.
    """

    kind: Literal["polynomial"] = "polynomial"
    labels: Literal["weights", "exact"] = "weights"
    theta_range: Positive = 1.0
    points_per_bag: Count = 4

    def known_points(self, reference: float) -> FloatArray | None:
        """None: the log ratio is known at any point."""
        del reference
        return None

    def trained_between(self, reference: float) -> tuple[float, float]:
        """Return the lowest and the highest value of the parameter that the training contains."""
        return reference - self.theta_range, reference + self.theta_range


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MorphingFormConfig:
    """The ratio of an event is a product of ``factors`` quadratics ``(1 + theta a)^2 + (theta b)^2``.

    One factor if the amplitude is linear in the parameter; two if production and decay both are, as for h ->
    WW in VBF.
    """

    kind: Literal["morphing"] = "morphing"
    factors: Literal[1, 2] = 1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LogitsFormConfig:
    """The log ratio of an event: ``theta s_1 + theta^2 s_2 + ...`` up to ``degree``, normalised."""

    kind: Literal["logits"] = "logits"
    degree: Annotated[int, Field(ge=1, le=6)] = 2


FormConfig = Annotated[MorphingFormConfig | LogitsFormConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PolynomialSamplesTaskConfig:
    """Tell all grid points apart with log ratios that are functions of the parameter (not in the paper).

    The log ratio of a bag is the sum over its events, whatever the bag size. Needs samples or event weights
    at the grid points only.
    """

    kind: Literal["polynomial_samples"] = "polynomial_samples"
    form: FormConfig = MorphingFormConfig()
    grid: AnyGridConfig = GridConfig()

    def known_points(self, reference: float) -> FloatArray | None:
        """Return the grid for free logits, normalised only there; None for morphing: any point."""
        del reference
        return self.grid.points() if isinstance(self.form, LogitsFormConfig) else None

    def trained_between(self, reference: float) -> tuple[float, float]:
        """Return the lowest and the highest value of the parameter that the training contains."""
        del reference
        return _ends(self.grid.points())


TaskConfig = Annotated[
    BinaryTaskConfig
    | BinaryGridTaskConfig
    | MulticlassTaskConfig
    | ParameterisedTaskConfig
    | PolynomialTaskConfig
    | PolynomialSamplesTaskConfig,
    Field(discriminator="kind"),
]


def n_networks(task: TaskConfig, members: int) -> int:
    """Return the number of networks of a model: one per member, or per member and point of a binary grid."""
    return members * (len(task.grid.points()) - 1) if isinstance(task, BinaryGridTaskConfig) else members
