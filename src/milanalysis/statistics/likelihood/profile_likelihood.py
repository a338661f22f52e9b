"""What a fit sees: ``-2 ln L`` of one dataset as a function of named parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from milanalysis.errors import ContradictionError
from milanalysis.parameters import FloatArray
from milanalysis.statistics.likelihood.constraints import Constraint

__all__ = ["ProfileLikelihood"]


@dataclass(frozen=True, eq=False, repr=False)
class ProfileLikelihood:
    """What a fit sees: ``-2 ln L`` of one dataset as a function of named parameters.

    The first parameter is the parameter of interest; `about` puts another in its place. An object of this
    class can be given to ``iminuit.Minuit`` directly: it carries its parameter names, limits and
    ``errordef``.

    Attributes:
        parameters: their names.
        limits: lowest and highest value of each parameter; infinite where there is none.
        start: where a fit may start.
        function: ``-2 ln L`` of the data, up to a constant, of points of shape ``(n_points, n_parameters)``,
            returned in shape ``(n_points,)``.
        constraints: what is known about nuisance parameters from elsewhere, by name. They belong to the
            parameters and not to the data, so in a sum each counts once.

    Example:
        >>> height = ProfileLikelihood(("a",), ((-5.0, 5.0),), (0.0,), lambda theta: (theta[:, 0] - 1) ** 2)
        >>> width = ProfileLikelihood(("a",), ((-3.0, 9.0),), (0.0,), lambda theta: theta[:, 0] ** 2)
        >>> total = height + width
        >>> total(1.0), total.limits
        (1.0, ((-3.0, 5.0),))
    """

    parameters: tuple[str, ...]
    limits: tuple[tuple[float, float], ...]
    start: tuple[float, ...]
    function: Callable[[FloatArray], FloatArray]
    constraints: Mapping[str, Constraint] = field(default_factory=dict)
    errordef: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not len(self.parameters) == len(self.limits) == len(self.start) > 0:
            msg = (
                f"{len(self.parameters)} parameters with {len(self.limits)} limits and {len(self.start)} "
                "starts"
            )
            raise ValueError(msg)
        for name, (low, high) in zip(self.parameters, self.limits, strict=True):
            if not low < high:
                msg = f"parameter {name!r} has no allowed values: its limits are {low} and {high}"
                raise ValueError(msg)
        if unknown := self.constraints.keys() - set(self.parameters):
            msg = f"constraint on {min(unknown)!r}, and the parameters are {', '.join(self.parameters)}"
            raise ValueError(msg)

    @property
    def _parameters(self) -> dict[str, tuple[float, float]]:
        """Names and limits in the form that iminuit looks for."""
        return dict(zip(self.parameters, self.limits, strict=True))

    def __call__(self, *values: float) -> float:
        """Return ``-2 ln L`` at one point, up to a constant."""
        return float(self.evaluate(np.array([values]))[0])

    def evaluate(self, theta: FloatArray) -> FloatArray:
        """Return ``-2 ln L`` with constraints at points ``(n_points, n_parameters)``, up to a constant."""
        total = self.function(theta)
        for name, constraint in self.constraints.items():
            total = total + constraint.twice_nll(theta[:, self.parameters.index(name)])
        return total

    def __repr__(self) -> str:
        of_parameters = ", ".join(
            f"{name} in [{low:g}, {high:g}]"
            for name, (low, high) in zip(self.parameters, self.limits, strict=True)
        )
        known = f"; constrained: {', '.join(self.constraints)}" if self.constraints else ""
        return f"ProfileLikelihood({of_parameters}{known})"

    def constrained(self, name: str, constraint: Constraint) -> ProfileLikelihood:
        """Return the same likelihood with an independent measurement of a parameter.

        Raises:
            ContradictionError: if another one is there already.
            ValueError: if there is no such parameter.

        Example:
            >>> from milanalysis.statistics.likelihood.constraints import GaussianConstraint
            >>> flat = ProfileLikelihood(("a",), ((-5.0, 5.0),), (0.0,), lambda theta: 0 * theta[:, 0])
            >>> flat.constrained("a", GaussianConstraint(1.0, 0.5))(2.0)
            4.0
        """
        if self.constraints.get(name, constraint) != constraint:
            msg = (
                f"parameter {name!r} is constrained by {self.constraints[name]} already; combine the two "
                "into one"
            )
            raise ContradictionError(msg)
        return replace(self, constraints={**self.constraints, name: constraint})

    def within(self, name: str, low: float, high: float) -> ProfileLikelihood:
        """Return the same likelihood with another range of a parameter, which the old one contains.

        Raises:
            ValueError: if there is no such parameter, or the new range is not inside the old one.
        """
        if name not in self.parameters:
            msg = f"there is no parameter {name!r}; this likelihood has {', '.join(self.parameters)}"
            raise ValueError(msg)
        place = self.parameters.index(name)
        allowed = self.limits[place]
        if not allowed[0] <= low < high <= allowed[1]:
            msg = (
                f"the range of {name!r} is {allowed[0]:g} to {allowed[1]:g}, and {low:g} to {high:g} is no "
                "part of it"
            )
            raise ValueError(msg)
        limits, start = list(self.limits), list(self.start)
        limits[place], start[place] = (low, high), min(max(start[place], low), high)
        return replace(self, limits=tuple(limits), start=tuple(start))

    def about(self, name: str) -> ProfileLikelihood:
        """Return the same likelihood with another parameter as the one of interest, the first.

        Raises:
            ValueError: if there is no such parameter, listing those there are.

        Example:
            >>> two = ProfileLikelihood(
            ...     ("a", "b"), ((-1.0, 1.0), (0.0, 2.0)), (0.0, 1.0), lambda theta: theta @ [1.0, 10.0]
            ... )
            >>> other = two.about("b")
            >>> other.parameters, other(0.5, 1.0)
            (('b', 'a'), 6.0)
        """
        if name not in self.parameters:
            msg = f"there is no parameter {name!r}; this likelihood has {', '.join(self.parameters)}"
            raise ValueError(msg)
        first = self.parameters.index(name)
        order = [first, *(i for i in range(len(self.parameters)) if i != first)]
        back = np.argsort(order)
        return ProfileLikelihood(
            tuple(self.parameters[i] for i in order),
            tuple(self.limits[i] for i in order),
            tuple(self.start[i] for i in order),
            lambda theta: self.function(theta[:, back]),
            self.constraints,
        )

    def __add__(self, other: ProfileLikelihood) -> ProfileLikelihood:
        """Return the likelihood of both datasets or terms together; parameters of the same name are one.

        A shared parameter has the narrower limits and starts where the first term says. Its constraint counts
        once.

        Raises:
            ContradictionError: if two terms know different things about a parameter, or mean different things
                by its name.
        """
        names = self.parameters + tuple(name for name in other.parameters if name not in self.parameters)
        mine = dict(zip(self.parameters, zip(self.limits, self.start, strict=True), strict=True))
        its = dict(zip(other.parameters, zip(other.limits, other.start, strict=True), strict=True))
        limits = []
        for name in names:
            given = [terms[name][0] for terms in (mine, its) if name in terms]
            limits.append((max(low for low, _ in given), min(high for _, high in given)))
        start = tuple((mine if name in mine else its)[name][1] for name in names)
        my_columns = [names.index(name) for name in self.parameters]
        its_columns = [names.index(name) for name in other.parameters]

        def total(theta: FloatArray) -> FloatArray:
            return self.function(theta[:, my_columns]) + other.function(theta[:, its_columns])

        for name in mine.keys() & its.keys() & (self.constraints.keys() | other.constraints.keys()):
            known, also = self.constraints.get(name), other.constraints.get(name)
            if known is not None and also is not None and known != also:
                msg = (
                    f"parameter {name!r} is constrained by {known} in one term and by {also} in another; "
                    "combine the two into one"
                )
                raise ContradictionError(msg)
            if mine[name][1] != its[name][1]:
                msg = (
                    f"parameter {name!r} is {mine[name][1]:g} without a shift in one term and "
                    f"{its[name][1]:g} in another: a shift in standard deviations and a factor cannot have "
                    "the same name; rename one of them"
                )
                raise ContradictionError(msg)
        clipped = tuple(float(np.clip(value, *limit)) for value, limit in zip(start, limits, strict=True))
        return ProfileLikelihood(
            names, tuple(limits), clipped, total, {**other.constraints, **self.constraints}
        )
