"""Phase space of production and of decay: from the unit hypercube to weights, kinematics and four-momenta.

Production is that of two quarks and a system of any mass between them, for the signal the Higgs boson. Both
integrands of the signal depend on dot products alone, which follow from transverse momenta, rapidities and
invariant masses. Angles that nothing depends on (the azimuth of the event, the orientation of the decay) are
drawn only for the events that are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from milanalysis.config import CutsConfig
from milanalysis.parameters import FloatArray
from milanalysis.simulation.amplitudes import (
    GAMMA_W,
    MH,
    MW,
    decay_dot_polynomial,
    production_dot_polynomial,
)
from milanalysis.simulation.densities import PartonDensities

__all__ = [
    "DecayPhaseSpace",
    "DecayPoints",
    "PhaseSpace",
    "Points",
    "PointsT",
    "ProductionPhaseSpace",
    "ProductionPoints",
    "QuarkPhaseSpace",
    "QuarkPoints",
    "boost",
    "delta_phi",
    "rotate",
]

FB_GEV_SQUARED = 0.3893794e12
"""``(hbar c)^2`` [fb GeV^2]."""
_PT_SCALE = 60.0
"""Transverse momentum [GeV] at which the quark spectrum starts to fall."""


class _Columns:
    """Fields of equal length that can be selected together."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def take(self, rows: slice | npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Self:
        """Return the selected points."""
        columns = (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
        return type(self)(
            *(column.take(rows) if isinstance(column, _Columns) else column[rows] for column in columns)
        )

    @classmethod
    def concatenated(cls, parts: list[Self]) -> Self:
        """Return points one part after the other."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        columns = ([getattr(part, name) for part in parts] for name in names)
        return cls(*(_joined(column) for column in columns))


def _joined(parts: list[Any]) -> Any:
    """Return columns one part after the other."""
    first = parts[0]
    return type(first).concatenated(parts) if isinstance(first, _Columns) else np.concatenate(parts)


@dataclass(frozen=True)
class Points(_Columns):
    """Points of a phase space.

    Attributes:
        polynomial: density in the unit hypercube as a polynomial in cHW, shape
            ``(n_points, n_coefficients)``.
    """

    polynomial: FloatArray

    def scaled(self, factor: FloatArray) -> Self:
        """Return the points with their polynomials times a factor for each, shape ``(n_points,)``."""
        return replace(self, polynomial=self.polynomial * factor[:, None])


PointsT = TypeVar("PointsT", bound=Points)
_PointsT_co = TypeVar("_PointsT_co", bound=Points, covariant=True)


class PhaseSpace(Protocol[_PointsT_co]):
    """A map of the unit hypercube to points."""

    @property
    def n_variables(self) -> int:
        """Dimension of the hypercube."""

    def points(self, unit: FloatArray) -> tuple[_PointsT_co, npt.NDArray[np.bool_]]:
        """Map numbers in [0, 1), shape ``(n_variables, n)``, to points inside the cuts, and flag them."""


@dataclass(frozen=True)
class QuarkPoints(_Columns):
    """Kinematics of ``u d > u d X`` with the incoming u along +z.

    Attributes:
        pt_u: transverse momentum of the outgoing u quark [GeV], shape ``(n_points,)``; the others alike.
        pt_d: of the outgoing d quark.
        dphi: azimuth of the d relative to that of the u.
        y_u: rapidity of the outgoing u quark.
        y_d: rapidity of the outgoing d quark.
        y_system: rapidity of the system X.
        energy_u: energy of the incoming u [GeV].
        energy_d: energy of the incoming d [GeV].
        density: what multiplies the mean squared amplitude in the unit hypercube.
    """

    pt_u: FloatArray
    pt_d: FloatArray
    dphi: FloatArray
    y_u: FloatArray
    y_d: FloatArray
    y_system: FloatArray
    energy_u: FloatArray
    energy_d: FloatArray
    density: FloatArray

    def momenta(self, azimuth: FloatArray, mass: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Return the four-momenta of u_in, d_in, u_out, d_out and of the system X.

        Args:
            azimuth: of the outgoing u quark, shape ``(n,)``.
            mass: of the system X [GeV].

        Returns:
            Quarks, shape ``(n, 4, 4)``, with ``E = |p|``, and the system, shape ``(n, 4)``, on its mass
            shell.
        """
        quarks = np.zeros((len(self), 4, 4))
        quarks[:, 0, 3], quarks[:, 1, 3] = self.energy_u, -self.energy_d
        outgoing = ((2, self.pt_u, self.y_u, azimuth), (3, self.pt_d, self.y_d, azimuth + self.dphi))
        for row, pt, rapidity, phi in outgoing:
            quarks[:, row, 1], quarks[:, row, 2] = pt * np.cos(phi), pt * np.sin(phi)
            quarks[:, row, 3] = pt * np.sinh(rapidity)
        quarks[..., 0] = np.linalg.norm(quarks[..., 1:], axis=-1)
        system = quarks[:, 0] + quarks[:, 1] - quarks[:, 2] - quarks[:, 3]
        system[:, 0] = np.sqrt(mass**2 + np.sum(system[:, 1:] ** 2, axis=1))
        return quarks, system


@dataclass(frozen=True)
class QuarkPhaseSpace:
    """Two quarks and a system X of given mass, u from the first beam, within the quark cuts.

    ::

        d sigma = (2/S) (2 pi)^4 / (2 x1 x2 S) u(x1) d(x2) mean|M|^2
                  dy_u dy_d dy_X pT_u dpT_u dphi_u pT_d dpT_d dphi_d / (2 (2 pi)^3)^3

    The transverse momentum of X and the momentum fractions x1, x2 follow from conservation.

    Attributes:
        beam_energy: energy of each proton [GeV].
        cuts: on the quarks; those on leptons play no part here.
        densities: of partons in the proton.
    """

    beam_energy: float
    cuts: CutsConfig
    densities: PartonDensities

    def points(self, unit: FloatArray, mass: FloatArray | float) -> tuple[QuarkPoints, npt.NDArray[np.bool_]]:
        """Map the hypercube to events.

        Args:
            unit: numbers in [0, 1), shape ``(6, n)``: the transverse momenta of d and u, the angle between
                them, the rapidities of d and u, and that of the system.
            mass: of the system [GeV], a number or shape ``(n,)``.

        Returns:
            The points inside the cuts, in order, and which of the ``n`` they are.
        """
        root_s = 2.0 * self.beam_energy
        pt_d, jacobian = self._transverse_momentum(unit[0])
        pt_u, jacobian_u = self._transverse_momentum(unit[1])
        dphi = np.pi * (1.0 - 2.0 * unit[2])
        # The forward light-cone momentum of a quark has about the same distribution at any transverse
        # momentum.
        y_d, width = self._rapidity(unit[3], pt_d)
        y_u, width_u = self._rapidity(unit[4], pt_u)
        y_u = -y_u
        jacobian *= jacobian_u * 2.0 * np.pi * width * width_u

        # Light-cone momenta E + pz and E - pz of the quarks leave room for the system in this interval.
        exp_d, exp_u = np.exp(y_d), np.exp(y_u)
        plus, minus = pt_d * exp_d + pt_u * exp_u, pt_d / exp_d + pt_u / exp_u
        inside = (plus < root_s) & (minus < root_s)
        y_max = self.cuts.quark_eta_max
        inside &= (np.abs(y_d) < y_max) & (np.abs(y_u) < y_max)
        mass_t = np.sqrt(mass**2 + pt_d**2 + pt_u**2 + 2.0 * pt_d * pt_u * np.cos(dphi))
        y_x_max = np.log(np.where(inside, root_s - plus, 1.0) / mass_t)
        y_x_min = -np.log(np.where(inside, root_s - minus, 1.0) / mass_t)
        inside &= y_x_max > y_x_min
        inside &= np.hypot(y_d - y_u, dphi) > self.cuts.quark_delta_r_min
        y_x, jacobian_x = _between_quarks(unit[5], y_x_min, y_x_max, y_d, y_u)
        jacobian *= jacobian_x

        exp_x = np.exp(y_x)
        x_u = np.where(inside, (plus + mass_t * exp_x) / root_s, 0.5)
        x_d = np.where(inside, (minus + mass_t / exp_x) / root_s, 0.5)
        inside &= (x_u < 1.0) & (x_d < 1.0)  # rounding at the ends of the interval
        x_u, x_d = np.where(inside, x_u, 0.5), np.where(inside, x_d, 0.5)
        # A grid may be zero or, from its interpolation, slightly negative where x is close to 1.
        flux = self.densities.up(x_u) * self.densities.down(x_d) / (x_u * x_d) ** 2 / root_s**4
        inside &= (flux > 0.0) & (jacobian > 0.0)  # no room on that side of the quarks
        three_body = (2.0 * np.pi) ** 4 / (2.0 * (2.0 * np.pi) ** 3) ** 3
        # One azimuth is left to chance: it counts 2 pi.
        density = FB_GEV_SQUARED * three_body * 2.0 * np.pi * flux * pt_d * pt_u * jacobian
        energy_u, energy_d = x_u * self.beam_energy, x_d * self.beam_energy
        points = QuarkPoints(pt_u, pt_d, dphi, y_u, y_d, y_x, energy_u, energy_d, density)
        return points.take(inside), inside

    def _transverse_momentum(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Map [0, 1) to transverse momenta between the cut and the beam energy, and return the Jacobian."""
        low = self.cuts.quark_pt_min
        end = (self.beam_energy - low) / (self.beam_energy - low + _PT_SCALE)
        rest = 1.0 - end * unit
        return low + _PT_SCALE * (end * unit) / rest, _PT_SCALE * end / rest**2

    def _rapidity(self, unit: FloatArray, pt: FloatArray) -> tuple[FloatArray, float]:
        """Map [0, 1) to rapidities through ``ln(E + pz)``, and return the Jacobian, a constant."""
        low = math.log(self.cuts.quark_pt_min) - self.cuts.quark_eta_max
        width = math.log(2.0 * self.beam_energy) - low
        return low + width * unit - np.log(pt), width


@dataclass(frozen=True)
class ProductionPoints(Points):
    """Points of ``u d > u d h``, incoming u along +z, and the cross-section density polynomial [fb].

    Attributes:
        quarks: kinematics.
    """

    quarks: QuarkPoints


@dataclass(frozen=True)
class ProductionPhaseSpace:
    """Cross-section of ``p p > u d h`` (W-boson fusion, u from the first beam) within the quark cuts.

    Attributes:
        beam_energy: energy of each proton [GeV].
        cuts: on the quarks; those on leptons play no part here.
        densities: of partons in the proton.
    """

    beam_energy: float
    cuts: CutsConfig
    densities: PartonDensities

    @property
    def n_variables(self) -> int:
        """Dimension of the hypercube."""
        return 6

    def points(self, unit: FloatArray) -> tuple[ProductionPoints, npt.NDArray[np.bool_]]:
        """Map the hypercube to events.

        Args:
            unit: as in `QuarkPhaseSpace.points`.

        Returns:
            The points inside the cuts, in order, and which of the ``n`` they are.
        """
        q, inside = QuarkPhaseSpace(self.beam_energy, self.cuts, self.densities).points(unit, MH)
        exp_d, exp_u = np.exp(q.y_d), np.exp(q.y_u)
        polynomial = production_dot_polynomial(
            ab=2.0 * q.energy_u * q.energy_d,
            a1=q.energy_u * q.pt_u / exp_u,
            a2=q.energy_u * q.pt_d / exp_d,
            b1=q.energy_d * q.pt_u * exp_u,
            b2=q.energy_d * q.pt_d * exp_d,
            l12=q.pt_u * q.pt_d * (np.cosh(q.y_d - q.y_u) - np.cos(q.dphi)),
        )
        polynomial *= q.density[:, None]
        positive = polynomial[:, 0] > 0.0
        inside[inside] = positive
        return ProductionPoints(polynomial, q).take(positive), inside


def _between_quarks(
    unit: FloatArray, low: FloatArray, high: FloatArray, y_d: FloatArray, y_u: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Map thirds of [0, 1) to rapidities below, between and above the quarks, and return the Jacobian.

    The Higgs boson is mostly between the quarks, and falls exponentially outside; one grid for all
    rapidities could not follow the quarks.
    """
    first = np.clip(np.minimum(y_d, y_u), low, high)
    second = np.clip(np.maximum(y_d, y_u), low, high)
    position = 3.0 * unit
    below, above = position < 1.0, position >= 2.0
    start = np.where(below, first, np.where(above, second, first))
    end = np.where(below, low, np.where(above, high, second))
    length = end - start
    part = position - np.floor(position)
    outside = below | above
    reach = -np.expm1(-np.abs(length))
    offset = np.where(outside, np.copysign(-np.log1p(-part * reach), length), part * length)
    jacobian = np.where(outside, reach / (1.0 - part * reach), np.abs(length))
    return start + offset, 3.0 * jacobian


@dataclass(frozen=True)
class DecayPoints(Points):
    """Kinematics of ``h > W W > (e+ ve) (e- ve~)`` in the rest frame of the Higgs boson.

    One lepton pair, called the first, is nearly on shell; it comes from the W+ or the W- with equal
    probability, since the decay is symmetric between them.

    Attributes:
        s_1: squared mass of the first pair [GeV^2], shape ``(n_points,)``; the others alike.
        s_2: squared mass of the second pair.
        cos_1: polar angle of the first charged lepton in its pair's rest frame, from the direction of flight.
        cos_2: the same for the second.
        phi: angle between the decay planes.
        polynomial: of the partial-width density [GeV].
    """

    s_1: FloatArray
    s_2: FloatArray
    cos_1: FloatArray
    cos_2: FloatArray
    phi: FloatArray

    def momenta(self) -> FloatArray:
        """Return charged lepton and neutrino of the first, then of the second pair, shape ``(n, 4, 4)``.

        The first pair flies along +z, its charged lepton lies in the half plane x > 0.
        """
        energy_1, energy_2, momentum = _two_body(self.s_1, self.s_2)
        vectors = np.empty((len(self), 4, 4))
        pairs = (
            (0, energy_1, self.s_1, self.cos_1, 0.0, 1.0),
            (2, energy_2, self.s_2, self.cos_2, self.phi, -1.0),
        )
        for row, energy, mass_squared, cos, azimuth, direction in pairs:
            pt = 0.5 * np.sqrt(mass_squared * (1.0 - cos**2))
            for lepton, sign in ((row, 1.0), (row + 1, -1.0)):
                vectors[:, lepton, 0] = 0.5 * (energy + sign * momentum * cos)
                vectors[:, lepton, 1] = sign * pt * np.cos(azimuth)
                vectors[:, lepton, 2] = sign * pt * np.sin(azimuth)
                vectors[:, lepton, 3] = direction * 0.5 * (momentum + sign * energy * cos)
        return vectors


@dataclass(frozen=True)
class DecayPhaseSpace:
    """Partial width of ``h > e+ ve e- ve~`` through two W bosons, for a Higgs boson on its mass shell.

    ::

        d Gamma = 1/(2 MH) |M|^2  ds_1/(2 pi) ds_2/(2 pi)  p/(4 pi MH)  (1/(8 pi))^2 dOmega_1 dOmega_2 / (4
        pi)^2

    The two Breit-Wigner functions 1/D_1 and 1/D_2 are never both large. The part ``D_2 / (D_1 + D_2)`` of the
    integrand, where only the first is, is half of the whole by symmetry.
    """

    @property
    def n_variables(self) -> int:
        """Dimension of the hypercube."""
        return 5

    def points(self, unit: FloatArray) -> tuple[DecayPoints, npt.NDArray[np.bool_]]:
        """Map the hypercube ``(5, n)`` to decays, and say which are inside phase space."""
        width = MW * GAMMA_W
        low, high = math.atan2(-(MW**2), width), math.atan2(MH**2 - MW**2, width)
        s_1 = np.clip(MW**2 + width * np.tan(low + (high - low) * unit[0]), 0.0, MH**2)
        s_2_max = (MH - np.sqrt(s_1)) ** 2
        s_2 = s_2_max * unit[1]
        cos_1, cos_2 = 2.0 * unit[2] - 1.0, 2.0 * unit[3] - 1.0
        phi = 2.0 * np.pi * unit[4]

        energy_1, energy_2, momentum = _two_body(s_1, s_2)
        plane = 0.5 * np.sqrt(s_1 * s_2 * (1.0 - cos_1**2) * (1.0 - cos_2**2)) * np.cos(phi)

        def dot(sign_1: float, sign_2: float) -> FloatArray:
            """Product of a lepton of the first with one of the second pair; charged leptons have sign +1."""
            energies = (energy_1 + sign_1 * momentum * cos_1) * (energy_2 + sign_2 * momentum * cos_2)
            along = (momentum + sign_1 * energy_1 * cos_1) * (momentum + sign_2 * energy_2 * cos_2)
            return np.asarray(0.25 * (energies + along) - 0.5 * sign_1 * sign_2 * plane)

        polynomial = decay_dot_polynomial(
            ab=dot(1, -1), a1=dot(1, 1), a2=0.5 * s_1, b1=0.5 * s_2, b2=dot(-1, -1), l12=dot(-1, 1)
        )
        d_1 = (s_1 - MW**2) ** 2 + width**2
        d_2 = (s_2 - MW**2) ** 2 + width**2
        jacobian = d_1 / width * (high - low) * s_2_max
        pairs = momentum / (4.0 * np.pi * MH) / (8.0 * np.pi) ** 2 / (2.0 * np.pi) ** 2
        density = 2.0 * d_2 / (d_1 + d_2) * jacobian * pairs / (2.0 * MH)
        polynomial *= density[:, None]
        inside = polynomial[:, 0] > 0.0  # not so at the very edge of phase space
        return DecayPoints(polynomial, s_1, s_2, cos_1, cos_2, phi).take(inside), inside


def _two_body(s_1: FloatArray, s_2: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the energies and the momentum of two pairs in the rest frame of the Higgs boson [GeV]."""
    energy_1 = 0.5 * (MH**2 + s_1 - s_2) / MH
    momentum = np.sqrt(np.maximum(energy_1**2 - s_1, 0.0))
    return energy_1, MH - energy_1, momentum


def delta_phi(phi_1: npt.ArrayLike, phi_2: npt.ArrayLike) -> FloatArray:
    """Return ``phi_1 - phi_2`` wrapped to (-pi, pi]."""
    difference = np.asarray(phi_1, dtype=np.float64) - np.asarray(phi_2, dtype=np.float64)
    return np.asarray(np.pi - np.mod(np.pi - difference, 2.0 * np.pi))


def rotate(vectors: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Turn the vectors ``(n, k, 4)`` of each event by a rotation drawn uniformly from all rotations."""
    quaternions = rng.standard_normal((4, len(vectors)))
    w, x, y, z = quaternions / np.linalg.norm(quaternions, axis=0)
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    turned = vectors.copy()
    turned[..., 1:] = vectors[..., 1:] @ matrix.transpose(2, 1, 0)
    return turned


def boost(vectors: FloatArray, frame: FloatArray) -> FloatArray:
    """Boost massless vectors ``(n, k, 4)`` from the rest frame of ``frame`` ``(n, 4)``, staying massless."""
    mass = np.sqrt(frame[:, 0] ** 2 - np.sum(frame[:, 1:] ** 2, axis=1))
    velocity = frame[:, None, 1:] / mass[:, None, None]  # beta gamma
    gamma = (frame[:, 0] / mass)[:, None]
    along = np.sum(vectors[..., 1:] * velocity, axis=-1)
    moved = vectors.copy()
    moved[..., 1:] += velocity * (along / (1.0 + gamma) + vectors[..., 0])[..., None]
    moved[..., 0] = np.linalg.norm(moved[..., 1:], axis=-1)
    return moved
