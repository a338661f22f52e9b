"""Analytic generators with exact log ratio and Fisher information.

They stand in for the physics wherever an estimator, an interval or a coverage is compared with the truth.
Which one to use when:

- `GaussianShift`: everything in closed form, the log ratio is an exact parabola.
- `GaussianPlane`: the same with two parameters, whose estimates are correlated.
- `ExponentialTilt`: closed form, the log ratio is not a parabola, so intervals are asymmetric.
- `QuadraticEFT`: looks like EFT physics. Twelve features, most of them not sensitive; a squared amplitude
  with an interference and a quadratic term; exact event weights, as an `EventTable`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from milanalysis.events.tables import EventTable, assign_split
from milanalysis.parameters import EFTPolynomial, FloatArray, IntArray, parameter_points

__all__ = ["ExponentialTilt", "GaussianPlane", "GaussianShift", "QuadraticEFT", "Toy", "ToyTerms"]


class Toy(Protocol):
    """A generator whose likelihood ratio is known; the reference is theta = 0."""

    def sample(self, rng: np.random.Generator, n_events: int, theta: float = 0.0) -> FloatArray:
        """Return events of a parameter point, shape ``(n_events, n_observables)``."""

    def log_ratio(self, events: FloatArray, theta: npt.ArrayLike) -> FloatArray:
        """Return ``ln p(x|theta) / p(x|0)`` of each event, shape ``(n_events, n_points)``."""


@dataclass(frozen=True, eq=False)
class ToyTerms:
    """Exact log ratios of a toy's events, in the form of `milanalysis.ratios.terms.EventTerms`.

    Attributes:
        toy: the generator.
        events: as `Toy.sample` returns them.
    """

    toy: Toy
    events: FloatArray

    @property
    def grid(self) -> FloatArray | None:
        """None: defined at any point."""
        return None

    def __len__(self) -> int:
        return len(self.events)

    def per_event(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``."""
        return self.toy.log_ratio(self.events, theta)

    def log_ratio(self, rows: IntArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of datasets, summed over the last axis of ``rows``: ``(..., n_points)``."""
        total: FloatArray = self.per_event(theta)[rows].sum(axis=-2)
        return total

    def take(self, rows: IntArray) -> ToyTerms:
        """Return the terms of some events only, in the order of ``rows``."""
        return ToyTerms(self.toy, self.events[rows])


@dataclass(frozen=True)
class GaussianShift:
    """One observable, normally distributed around theta.

    ``ln p(x|theta)/p(x|0) = (theta x - theta^2/2) / width^2``; the maximum-likelihood estimate is the mean of
    the observable, its standard deviation ``width / sqrt(n)`` exactly, for any n.

    Attributes:
        width: standard deviation of the observable.
    """

    width: float = 1.0

    def sample(self, rng: np.random.Generator, n_events: int, theta: float = 0.0) -> FloatArray:
        """Return events, shape ``(n_events, 1)``."""
        return rng.normal(theta, self.width, size=(n_events, 1))

    def log_ratio(self, events: FloatArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``."""
        points = parameter_points(theta)[:, 0]
        ratio: FloatArray = (events[:, :1] * points - 0.5 * points**2) / self.width**2
        return ratio

    def fisher_information(self, n_events: int = 1) -> float:
        """Return ``n / width^2``, the same at every theta."""
        return n_events / self.width**2


@dataclass(frozen=True)
class GaussianPlane:
    """Two correlated observables of unit variance, normally distributed around two parameters.

    ``ln p(x|theta)/p(x|0) = theta C^-1 x - theta C^-1 theta / 2``; the estimates are the means of the
    observables, their covariance is ``C / n`` exactly, and the border of an allowed region is an ellipse.

    Attributes:
        correlation: of the observables, and so of the estimates.

    Example:
        >>> GaussianPlane(0.6).log_ratio(np.array([[1.0, 0.0]]), [[1.0, 0.0]]).round(5)
        array([[0.78125]])
    """

    correlation: float = 0.6

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the observables, shape ``(2, 2)``."""
        return np.array([[1.0, self.correlation], [self.correlation, 1.0]])

    def sample(
        self, rng: np.random.Generator, n_events: int, theta: npt.ArrayLike = (0.0, 0.0)
    ) -> FloatArray:
        """Return events, shape ``(n_events, 2)``."""
        return rng.multivariate_normal(np.broadcast_to(theta, 2), self.covariance, size=n_events)

    def log_ratio(self, events: FloatArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``."""
        points = parameter_points(theta)
        information = self.fisher_information()
        quadratic: FloatArray = np.einsum("pi,ij,pj->p", points, information, points)
        ratio: FloatArray = events @ information @ points.T - 0.5 * quadratic
        return ratio

    def fisher_information(self, n_events: int = 1) -> FloatArray:
        """Return ``n C^-1``, the same at every theta, shape ``(2, 2)``."""
        information: FloatArray = np.asarray(n_events * np.linalg.inv(self.covariance), dtype=np.float64)
        return information


@dataclass(frozen=True)
class ExponentialTilt:
    """One positive observable with density ``(1 - theta) exp(-(1 - theta) x)``, theta < 1.

    ``ln p(x|theta)/p(x|0) = theta x + ln(1 - theta)``; the estimate is ``1 - 1/mean(x)``.

    Example:
        >>> ExponentialTilt().log_ratio(np.array([[1.0]]), 0.5).round(4)
        array([[-0.1931]])
    """

    def sample(self, rng: np.random.Generator, n_events: int, theta: float = 0.0) -> FloatArray:
        """Return events, shape ``(n_events, 1)``."""
        return rng.exponential(1 / (1 - _below_one(theta)), size=(n_events, 1))

    def log_ratio(self, events: FloatArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``."""
        points = parameter_points(theta)[:, 0]
        _below_one(float(points.max()))
        return events[:, :1] * points + np.log1p(-points)

    def fisher_information(self, n_events: int = 1, theta: float = 0.0) -> float:
        """Return ``n / (1 - theta)^2``."""
        return n_events / (1 - _below_one(theta)) ** 2


def _below_one(theta: float) -> float:
    """Refuse a tilt that makes the exponential grow."""
    if theta >= 1:
        msg = f"an exponential tilt exists for theta < 1, not at {theta}"
        raise ValueError(msg)
    return theta


_T_MAX = 5.0  # where the exponential latent is cut off


@dataclass(frozen=True)
class QuadraticEFT:
    """An interference and a quadratic term, as in EFT: ``p(x|theta) = p0(x) r(x|theta) / nu(theta)``.

    Latent variables are two cosines uniform in (-1, 1), an angle phi uniform in (-pi, pi) and a time t,
    exponential and cut off at 5. With ``s_i = sqrt(1 - cos_i^2)`` and mu the mean of t,

        ``u = k1 s1 s2 cos(phi) + k2 (t - mu) + k3 cos1 cos2``,   ``w = kw s1 sin(phi)``,
        ``r = (1 + theta u)^2 + (theta w)^2``,   ``nu(theta) = 1 + theta^2 E0[u^2 + w^2]``,

    and the constants are such that ``4 Var(u)`` is the information of one event at theta = 0. All latents are
    among the twelve features (beside noise and copies smeared by noise), so the exact ratio of the latents is
    that of the features.

    Attributes:
        information: Fisher information of one event at theta = 0. 0.3 with 1000 events resembles the
            physics; 0.01 with 10 000 events is a weak signal.

    Example:
        >>> toy = QuadraticEFT(0.3)
        >>> [round(k, 7) for k in toy.constants], round(toy.quadratic, 5)
        ([0.3674235, 0.1902023, 0.3674235, 0.1369306], 0.08125)
    """

    information: float = 0.3

    feature_names: ClassVar[tuple[str, ...]] = (
        *("phi", "cos1", "cos2", "time", "size1", "size2"),
        *("angle", "angle_phi", "smeared_cos1", "noise_time", "noise", "sign"),
    )

    @cached_property
    def constants(self) -> tuple[float, float, float, float]:
        """``k1, k2, k3, kw``: 40 % of Var(u) from each of the first two terms, 20 % from the third."""
        v = self.information / 4
        _, variance = self._time_moments
        return (
            float(np.sqrt(0.4 * v * 9 / 2)),
            float(np.sqrt(0.4 * v / variance)),
            float(np.sqrt(0.2 * v * 9)),
            float(0.5 * np.sqrt(v)),
        )

    @cached_property
    def quadratic(self) -> float:
        """``E0[u^2 + w^2]``, the coefficient of theta^2 in the rate."""
        return self.information / 4 + self.constants[3] ** 2 / 3

    @property
    def rate(self) -> EFTPolynomial:
        """``nu(theta)``, the rate relative to theta = 0, as a polynomial of degree four."""
        return EFTPolynomial(np.array([1.0, 0.0, self.quadratic, 0.0, 0.0]))

    @cached_property
    def _time_moments(self) -> tuple[float, float]:
        """Mean and variance of Exp(1) cut off at T: moments are incomplete gamma functions."""
        cut = np.exp(-_T_MAX)
        norm = 1 - cut
        mean = (1 - (1 + _T_MAX) * cut) / norm
        second = (2 - (2 + 2 * _T_MAX + _T_MAX**2) * cut) / norm
        return float(mean), float(second - mean**2)

    def amplitudes(self, features: npt.NDArray[np.floating]) -> tuple[FloatArray, FloatArray]:
        """Return ``u`` and ``w`` of each event from its features, shapes ``(n_events,)``."""
        phi, cos1, cos2, time = np.asarray(features, dtype=np.float64)[:, :4].T
        k1, k2, k3, kw = self.constants
        sin1, sin2 = np.sqrt(1 - cos1**2), np.sqrt(1 - cos2**2)
        u = k1 * sin1 * sin2 * np.cos(phi) + k2 * (time - self._time_moments[0]) + k3 * cos1 * cos2
        return u, kw * sin1 * np.sin(phi)

    def polynomials(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """Return the coefficients of ``r``, padded to degree four, shape ``(n_events, 5)``."""
        u, w = self.amplitudes(features)
        zero = np.zeros_like(u)
        return np.stack([np.ones_like(u), 2 * u, u**2 + w**2, zero, zero], axis=1)

    def sample(self, rng: np.random.Generator, n_events: int, theta: float = 0.0) -> FloatArray:
        """Return events by accept-reject, shape ``(n_events, 12)``."""
        k1, k2, k3, kw = self.constants
        size = abs(theta)
        mean = self._time_moments[0]
        u_max = k1 + k2 * max(mean, _T_MAX - mean) + k3
        r_max = (1 + size * u_max) ** 2 + (size * kw) ** 2
        accepted: list[FloatArray] = []
        missing = n_events
        while missing > 0:
            latents = self._latents(rng, int(missing * r_max / float(self.rate(theta)) * 1.05) + 16)
            u, w = self.amplitudes(latents)
            r = (1 + theta * u) ** 2 + (theta * w) ** 2
            kept = latents[rng.random(len(r)) * r_max < r]
            accepted.append(kept[:missing])
            missing -= len(accepted[-1])
        return self._observe(rng, np.concatenate(accepted) if accepted else np.empty((0, 4)))

    def log_ratio(self, events: FloatArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``."""
        points = parameter_points(theta)[:, 0]
        u, w = self.amplitudes(events)
        r = (1 + u[:, None] * points) ** 2 + (w[:, None] * points) ** 2
        return np.log(r) - np.log(self.rate(points))

    def fisher_information(self, n_events: int = 1) -> float:
        """Return the information of n events at theta = 0."""
        return n_events * self.information

    def table(
        self,
        rng: np.random.Generator,
        n_events: int,
        theta: float = 0.0,
        *,
        split_seed: int = 0,
        fractions: tuple[float, float, float] = (0.64, 0.16, 0.20),
    ) -> EventTable:
        """Return a table of events with exact event weights; the cross-section at theta = 0 is 1 fb.

        Args:
            rng: source of randomness.
            n_events: number of events.
            theta: at which they are generated.
            split_seed: seed of the split into train, validation and test.
            fractions: of train, validation and test.
        """
        events = self.sample(rng, n_events, theta)
        event_id = np.arange(n_events, dtype=np.int64)
        return EventTable(
            self.feature_names,
            events.astype(np.float32),
            np.full((n_events, 1), float(theta)),
            np.full(n_events, float(self.rate(theta)) / n_events),
            event_id,
            assign_split(event_id, split_seed, fractions),
            self.polynomials(events)[:, 1:],
        )

    def _latents(self, rng: np.random.Generator, n_events: int) -> FloatArray:
        """Return ``phi, cos1, cos2, t`` at theta = 0, shape ``(n_events, 4)``."""
        phi = rng.uniform(-np.pi, np.pi, n_events)
        cos1, cos2 = rng.uniform(-1, 1, (2, n_events))
        time = -np.log1p(-rng.random(n_events) * (1 - np.exp(-_T_MAX)))
        return np.stack([phi, cos1, cos2, time], axis=1)

    def _observe(self, rng: np.random.Generator, latents: FloatArray) -> FloatArray:
        """Return the twelve features: the latents, smeared copies of them, and noise."""
        phi, cos1, cos2, time = latents.T
        noise = rng.normal(size=(6, len(latents)))
        angle = rng.uniform(-np.pi, np.pi, len(latents))
        columns = (
            *(phi, cos1, cos2, time),
            np.exp(0.5 * time + 0.3 * noise[0]),
            np.exp(0.5 * time - 0.3 * noise[0] + 0.2 * noise[1]),
            angle,
            np.pi - np.mod(np.pi - angle - phi, 2 * np.pi),  # (-pi, pi]
            noise[2] + 0.5 * cos1,
            noise[3] * (1 + 0.2 * time),
            noise[4],
            np.sign(noise[5]),
        )
        return np.stack(columns, axis=1)
