"""What templates hold beside the signal: a background, and systematic uncertainties as HistFactory has them.

An uncertainty changes the total and the shape. A `TemplateSystematic` is made of three sets of bin contents:
nominal, and with weights one standard deviation up and down (the columns ``weight_<name>_up`` and
``weight_<name>_down`` of a table). The total goes into pyhf's ``normsys``, the rest into ``histosys``; both
belong to one nuisance parameter of mean 0 and width 1. The interpolation between is pyhf's own default, so
that the likelihood here and that of the workspace are the same function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from milanalysis.errors import EventWeightError
from milanalysis.parameters import FloatArray
from milanalysis.statistics.likelihood.nuisances import RANGE, Nuisance

__all__ = ["BACKGROUND", "FREE_BACKGROUND", "BackgroundTemplate", "TemplateSystematic", "shifted"]

BACKGROUND = "background"
"""Name of the process, and of the parameter of its normalisation relative to what is expected."""
FREE_BACKGROUND = Nuisance(BACKGROUND, 0.0, 10.0, 1.0)
"""The normalisation of a background about which nothing is known."""

_LEAST = 0.05  # share of a bin that has to be left by any shift

# sixth-order polynomial between -1 and 1 that continues the exponentials with two derivatives: value, first
# and second
# derivative at +1 and -1 of alpha, alpha^2, ..., alpha^6
_POWERS = np.arange(1, 7)
_SMOOTH = np.linalg.inv(
    np.array(
        [
            np.ones(6),
            (-1.0) ** _POWERS,
            _POWERS,
            _POWERS * (-1.0) ** (_POWERS - 1),
            _POWERS * (_POWERS - 1),
            _POWERS * (_POWERS - 1) * (-1.0) ** _POWERS,
        ]
    )
)


@dataclass(frozen=True, eq=False)
class TemplateSystematic:
    """What one uncertainty does to the bins of one process.

    Attributes:
        name: of the nuisance parameter.
        total_up: factor on the total for a shift by one standard deviation up, positive.
        total_down: likewise down.
        shape_up: factor on each bin beside that, shape ``(n_bins,)``; the total stays what it is.
        shape_down: likewise down.

    Raises:
        EventWeightError: if a total or a bin is not positive within one standard deviation.
    """

    name: str
    total_up: float
    total_down: float
    shape_up: FloatArray
    shape_down: FloatArray

    def __post_init__(self) -> None:
        if not (self.total_up > 0 and self.total_down > 0):
            msg = (
                f"weight_{self.name}_up and _down change the total by factors {self.total_up:g} and "
                f"{self.total_down:g}, which have to be positive; check the columns"
            )
            raise EventWeightError(msg)
        lowest = np.minimum(self.shape_up, self.shape_down)
        if not (lowest > _LEAST).all():
            number = int(np.argmin(lowest))
            msg = (
                f"weight_{self.name}_up or _down leaves a share of {lowest[number]:.3g} of bin {number} of "
                f"{len(lowest)}, and more than {_LEAST:g} has to be left; use fewer bins or more simulated "
                "events, or check the columns"
            )
            raise EventWeightError(msg)

    @classmethod
    def of(cls, name: str, nominal: FloatArray, up: FloatArray, down: FloatArray) -> TemplateSystematic:
        """Take it from bin contents.

        Args:
            name: of the nuisance parameter.
            nominal: contents at the reference, positive, shape ``(n_bins,)``.
            up: with the weights of a shift up, likewise.
            down: with those of a shift down.
        """
        total_up, total_down = (float(one.sum() / nominal.sum()) for one in (up, down))
        return cls(name, total_up, total_down, up / nominal / total_up, down / nominal / total_down)

    @classmethod
    def of_total(cls, name: str, factor: float, n_bins: int) -> TemplateSystematic:
        """Return an uncertainty of the total alone, by a factor up or down."""
        ones = np.ones(n_bins)
        return cls(name, factor, 1 / factor, ones, ones)

    @property
    def nuisance(self) -> Nuisance:
        """The parameter; what is known about it is a mean of 0 and a width of 1.

        Shifts beyond one standard deviation are linear, so a bin that becomes smaller would be negative in
        the end: the range of the parameter ends before.
        """
        low, high = (
            min(RANGE, (1 - _LEAST) / max(1 - float(side.min()), 1e-9))
            for side in (self.shape_down, self.shape_up)
        )
        return Nuisance(self.name, -low, high, 0.0)

    def total_factor(self, alpha: FloatArray) -> FloatArray:
        """Return the factor on the total: exponential beyond one standard deviation, smooth between.

        Args:
            alpha: shifts in standard deviations, shape ``(n_points,)``.

        Source:
            pyhf's interpolation code 4 (`normsys`); K. Cranmer et al., CERN-OPEN-2012-016, section 4.1.
        """
        log_up, log_down = np.log(self.total_up), np.log(self.total_down)
        outside = np.where(alpha > 0, np.exp(alpha * log_up), np.exp(-alpha * log_down))
        ends = np.array(
            [
                self.total_up - 1,
                self.total_down - 1,
                log_up * self.total_up,
                -log_down * self.total_down,
                log_up**2 * self.total_up,
                log_down**2 * self.total_down,
            ]
        )
        inside = 1 + (alpha[:, None] ** _POWERS) @ (_SMOOTH @ ends)
        factors: FloatArray = np.where(np.abs(alpha) >= 1, outside, inside)
        return factors

    def shape_shift(self, alpha: FloatArray) -> FloatArray:
        """Return what is added to each bin, in units of its nominal content, shape ``(n_points, n_bins)``.

        Args:
            alpha: shifts in standard deviations, shape ``(n_points,)``.

        Source:
            pyhf's interpolation code 4p (`histosys`).
        """
        up, down = self.shape_up - 1, self.shape_down - 1
        odd, even = 0.5 * (up - down), 0.0625 * (up + down)
        a = alpha[:, None]
        inside = a * (odd + a * even * (15 + a**2 * (3 * a**2 - 10)))
        shifts: FloatArray = np.where(a > 1, a * up, np.where(a < -1, -a * down, inside))
        return shifts

    def modifiers(self, nominal: FloatArray) -> list[dict[str, Any]]:
        """Return the modifiers of a sample with some nominal contents, as pyhf's specification has them."""
        shape = {
            "hi_data": (nominal * self.shape_up).tolist(),
            "lo_data": (nominal * self.shape_down).tolist(),
        }
        return [
            {"name": self.name, "type": "normsys", "data": {"hi": self.total_up, "lo": self.total_down}},
            {"name": self.name, "type": "histosys", "data": shape},
        ]


@dataclass(frozen=True, eq=False)
class BackgroundTemplate:
    """A process that does not depend on the parameter.

    Attributes:
        contents: expected number of events in each bin, shape ``(n_bins,)``.
        errors: their Monte Carlo statistical errors, shape ``(n_bins,)``.
        normalisation: what is known about the total: "known", "free", or the relative uncertainty.
        shared: uncertainties that it has in common with the signal, by the same names.
    """

    contents: FloatArray
    errors: FloatArray
    normalisation: float | Literal["known", "free"] = "free"
    shared: tuple[TemplateSystematic, ...] = ()

    @property
    def is_free(self) -> bool:
        """Whether nothing is known about the total."""
        return self.normalisation == "free"

    @property
    def systematics(self) -> tuple[TemplateSystematic, ...]:
        """All uncertainties: of the total, if it is neither known nor free, and those that are shared."""
        if isinstance(self.normalisation, str):
            return self.shared
        own = TemplateSystematic.of_total(BACKGROUND, 1 + self.normalisation, len(self.contents))
        return (own, *self.shared)

    def expected(self, values: Mapping[str, FloatArray]) -> FloatArray:
        """Return the contents with shifts, shape ``(n_points, n_bins)``.

        Args:
            values: of the parameters by name, shape ``(n_points,)`` each.
        """
        factor = values[BACKGROUND] if self.is_free else np.ones(1)
        return shifted(self.contents * factor[:, None], self.systematics, values)


def shifted(
    contents: FloatArray, systematics: Sequence[TemplateSystematic], values: Mapping[str, FloatArray]
) -> FloatArray:
    """Return bin contents with the shifts of several uncertainties, as HistFactory combines them.

    Args:
        contents: without shifts, shape ``(n_points or 1, n_bins)``.
        systematics: the uncertainties.
        values: of the parameters by name, shape ``(n_points,)`` each.
    """
    shift: FloatArray = np.ones((1, contents.shape[1]))
    for one in systematics:
        shift = shift + one.shape_shift(values[one.name])
        contents = contents * one.total_factor(values[one.name])[:, None]
    return contents * shift
