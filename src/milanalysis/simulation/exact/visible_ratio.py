"""The exact likelihood ratio of what is seen: neutrinos and momentum fractions integrated out.

Seen are the momenta of the outgoing u and d quarks, the positron and the electron. The missing transverse
momentum is minus their sum, so it adds nothing. Hidden are two neutrinos and both momentum fractions: 8
numbers, less 4 by momentum conservation and one by the mass of the Higgs boson (the narrow width makes it a
delta function). The other three are its rapidity y and the direction n of the neutrino ve in the rest frame
of Q = ve + ve~::

    g(c) = sum_beams int dy  [x1 f(x1)] [x2 f(x2)] / (x1 x2)^2  |M_P(c; y)|^2  int dOmega_n |M_D(c; y, n)|^2

    x1 = (P+ + mT e^y) / sqrt(S),   x2 = (P- + mT e^-y) / sqrt(S),   mT^2 = MH^2 + |pT_u + pT_d|^2

with P+- = E +- pz of both quarks together. All other phase-space factors are constant: two massless
neutrinos give ``d^4Q dOmega_n / 8``, fixed leptons make ``d^4Q`` the ``d^4P`` of the Higgs boson, on its mass
shell that is ``d^2P_T dy / 2``, and the balance of energy and momentum removes the rest. Both squared
amplitudes are quadratic in c = cHW, so g(c) is a quartic, and ``g(c) / g(0) = 1 + r_1 c + ... + r_4 c^4``.
Each r_k is the mean of the exact event weight w_k over everything hidden, at c = 0; r_1 is the score. Like
the event weights the ratio is not normalised: divided by ``sigma(c) / sigma(0)`` it is a ratio of probability
densities. It is never negative.

The integral over n stands in `milanalysis.simulation.exact.neutrinos`; the one over y is a Gauss-Legendre
sum, see `Accuracy`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt

from milanalysis.errors import ProcessMismatchError
from milanalysis.events.tables import EventTable
from milanalysis.parallel import warm_workers
from milanalysis.parameters import FloatArray, IntArray
from milanalysis.simulation.amplitudes import MH, MW, production_dot_polynomial
from milanalysis.simulation.densities import ClosedFormDensities, PartonDensities
from milanalysis.simulation.exact.neutrinos import decay_integral, unit_gauss
from milanalysis.simulation.exact.visible_momenta import visible_momenta

__all__ = ["FAST", "FINE", "PRESETS", "STANDARD", "Accuracy", "VisibleRatio"]

_COLUMNS = 6000
"""Points in y that are worked on at a time; arrays of this length stay in the cache."""

_ENERGY_TOLERANCE = 0.5
"""Energy [GeV] by which two neutrinos may be space-like, by rounding and the Higgs boson's width."""

_RAPIDITY_TOLERANCE = 1e-3
"""How far rounding may close the range of y, where momentum fractions reach one."""


@dataclass(frozen=True)
class Accuracy:
    """How finely the three hidden variables are integrated.

    Measured with 20,000 unweighted events at cHW = 0 (13 TeV, quark cuts only) against
    ``(24, 64, 10, split)``, which agrees with ``(40, 96, 16, split)`` to 1.1e-7; time on one core of an EPYC
    processor (Zen 4)::

        n_y n_theta n_phi split   us/event   r_1: rms    99 %     max     mean    1000 Var r_1
          6     4     2    no         6       1.2e-3   4.6e-3   2.7e-2   3e-4    -0.07
         12     8     3    no        14       3.3e-4   1.0e-3   8.7e-3  -2e-4     0.006
          4     6     3    yes       11       1.8e-4   5.8e-4   4.7e-3  -7e-5    -0.005     FAST
         24    16     4    no        48       4.1e-5   1.3e-4   7.4e-4  -2e-5    -0.0002
          6    16     3    yes       30       3.7e-5   9.4e-5   1.0e-3  -3e-5     0.0006
          8    24     4    yes       50       5.3e-6   2.0e-5   2.6e-4  -5e-7     0.0001    STANDARD
         12    24     4    yes       84       1.3e-6   3.7e-6   6.9e-5  -8e-8    -0.00004
         16    32     4    yes      140       1.8e-7   6.0e-7   1.3e-5  -5e-8     0.000001  FINE

    The errors of r_2, r_3, r_4 are of the size of these or smaller.
    For comparison, 0.5 % of uncertainty in the densities changes r_1 by 9e-5 (rms; at most 5e-3).

    Attributes:
        n_y: points in the rapidity of the Higgs boson, in each panel.
        n_theta: points in the mass of each W boson (mapped to an angle, which flattens the Breit-Wigner
            peak).
        n_phi: points in azimuth.
        split: cut the range of y into panels where a W boson can just become real. The integrand changes
            quickly there and would otherwise limit the accuracy.
    """

    n_y: int
    n_theta: int
    n_phi: int
    split: bool = False

    def __post_init__(self) -> None:
        if min(self.n_y, self.n_theta, self.n_phi) < 1:
            msg = f"orders of integration are at least 1, not {self}"
            raise ValueError(msg)


FAST = Accuracy(4, 6, 3, split=True)
"""For averages over many events: root-mean-square error of r_1 2e-4, where its standard deviation is 0.5."""
STANDARD = Accuracy(8, 24, 4, split=True)
"""For labels and likelihoods: 5e-6, less than the effect of another fit or grid for the densities."""
FINE = Accuracy(16, 32, 4, split=True)
"""To check the other two against: 2e-7."""
PRESETS = {"fast": FAST, "standard": STANDARD, "fine": FINE}
"""The accuracies that a configuration names."""

_DENSITIES = ClosedFormDensities()


@dataclass(frozen=True)
class VisibleRatio:
    """The exact ratio of visible events in ``u d > u d h``, ``h > e+ ve e- ve~``, as a quartic in cHW.

    Attributes:
        beam_energy: energy of each proton [GeV].
        densities: parton densities; the ratio depends on them very little.
        accuracy: orders of integration.

    Example:
        >>> momenta = np.array([[[60, 0, 300], [-30, 40, -500], [20, -30, 10], [-25, -8, 40]]])
        >>> VisibleRatio().polynomials(momenta).round(2)
        array([[ 1.  , -0.13,  0.01, -0.  ,  0.  ]])
    """

    beam_energy: float = 6500.0
    densities: PartonDensities = _DENSITIES
    accuracy: Accuracy = STANDARD

    def polynomials(
        self,
        momenta: npt.NDArray[np.floating],
        *,
        u_beam: npt.ArrayLike | None = None,
        flavour_known: bool = True,
        n_jobs: int = 1,
    ) -> FloatArray:
        """Return the likelihood ratio of each event as a polynomial in cHW.

        Args:
            momenta: of u, d, e+, e- in this order, shape ``(n_events, 4, 3)`` = (px, py, pz) or
                ``(n_events, 4, 4)`` = (E, px, py, pz) [GeV]. Everything is massless: E is not looked at.
            u_beam: 1 if the incoming u moves along +z and 2 if along -z, for all events or for each;
                None if it is not known, then both are summed.
            flavour_known: False if the first two momenta may be exchanged; then both assignments are summed.
            n_jobs: processes that share the work; the result does not depend on it.

        Returns:
            ``1, r_1, ..., r_4``, shape ``(n_events, 5)``.

        Raises:
            ValueError: if the momenta or ``u_beam`` have another form.
            ProcessMismatchError: if an event cannot come from this process.
        """
        densities = self.hypotheses(momenta, flavour_known=flavour_known, n_jobs=n_jobs).sum(axis=2)
        if u_beam is None:
            total = densities.sum(axis=1)
        else:
            beam = np.broadcast_to(np.asarray(u_beam), len(densities))
            if not np.all((beam == 1) | (beam == 2)):
                msg = (
                    f"u_beam is 1 or 2 for every event, not {np.unique(beam)[:5].tolist()}; leave it out if "
                    "it is not known"
                )
                raise ValueError(msg)
            total = densities[np.arange(len(densities)), beam.astype(np.int64) - 1]
        return np.asarray(total / total[:, :1])

    def table_polynomials(
        self,
        table: EventTable,
        *,
        u_beam: npt.ArrayLike | None = None,
        flavour_known: bool = True,
        n_jobs: int = 1,
    ) -> FloatArray:
        """Return `polynomials` of the events of a table with the features of a parton-level file.

        Args:
            table: with the features of `milanalysis.simulation.exact.visible_momenta.visible_momenta`.
            u_beam: as in `polynomials`.
            flavour_known: as in `polynomials`.
            n_jobs: as in `polynomials`.

        Raises:
            ProcessMismatchError: if the events are not of this process at parton level, saying why.
        """
        momenta = visible_momenta(table)
        return self.polynomials(momenta, u_beam=u_beam, flavour_known=flavour_known, n_jobs=n_jobs)

    def hypotheses(
        self, momenta: npt.NDArray[np.floating], *, flavour_known: bool = True, n_jobs: int = 1
    ) -> FloatArray:
        """Return the density of each event under each assignment of beams and flavours.

        Sums and ratios of these are all there is to know; for example the probability at c = 0 that the u
        came from the beam along +z is ``g[:, 0, :, 0].sum(1) / g[..., 0].sum((1, 2))``.

        Args:
            momenta: as in `polynomials`.
            flavour_known: False adds the assignment with both quarks exchanged.
            n_jobs: as in `polynomials`.

        Returns:
            Coefficients ``g_0 ... g_4`` of the powers of cHW, shape ``(n_events, 2, 1 or 2, 5)`` with axes
            event, beam of the incoming u (+z, -z), flavours (as given, exchanged), power. The unit is
            arbitrary and another one for each event.
        """
        kinematics = _Kinematics.of(_three_momenta(momenta), 2.0 * self.beam_energy)
        step = max(1, _COLUMNS // self.accuracy.n_y)
        starts = range(0, len(momenta), step)
        blocks = [kinematics.take(slice(start, start + step)) for start in starts]
        work = partial(self._block, flavour_known=flavour_known)
        if n_jobs > 1:
            per_task = max(1, len(blocks) // (8 * n_jobs))
            results = warm_workers(n_jobs).map(work, blocks, chunksize=per_task)
        else:
            results = map(work, blocks)
        return np.concatenate([np.empty((0, 2, 1 if flavour_known else 2, 5)), *results])

    def _block(self, kinematics: _Kinematics, *, flavour_known: bool) -> FloatArray:
        """Return `hypotheses` of a block of events."""
        row, y, weight = _rapidities(kinematics, self.accuracy)
        k = kinematics.take(row).as_columns()
        root_s = 2.0 * self.beam_energy
        plus = k.transverse_mass * np.exp(y)
        minus = k.transverse_mass**2 / plus
        decay = _decay(k, plus, minus, self.accuracy)
        below_one = 1.0 - 1e-12
        x1 = np.minimum((k.u_plus + k.d_plus + plus) / root_s, below_one)
        x2 = np.minimum((k.u_minus + k.d_minus + minus) / root_s, below_one)
        weight = weight / (x1 * x2) ** 2
        luminosities = (
            weight * self.densities.up(x1) * self.densities.down(x2),
            weight * self.densities.down(x1) * self.densities.up(x2),
        )
        flavours = (k,) if flavour_known else (k, k.exchanged())
        result = np.zeros((len(kinematics.transverse_mass), 2, len(flavours), 5))
        for beam, luminosity in enumerate(luminosities):
            for flavour, quarks in enumerate(flavours):
                production = _production(quarks, root_s * x1, root_s * x2, u_first=beam == 0)
                production *= luminosity[..., None]
                np.add.at(result[:, beam, flavour], row, _integrated_product(production, decay))
        return result


@dataclass(frozen=True)
class _Kinematics:
    """What is the same at all points of the integration; arrays of shape ``(n_events,)`` [GeV, GeV^2].

    ``x_plus``, ``x_minus``: E + pz, E - pz. ``quarks``, ``leptons``: dot products u.d and e+.e-.
        ``positron_offset``:
    ``pT.pT_h + e+.e-``, so that ``e+.Q = e+.P_h - e+.e-`` is ``(e+ P- + e- P+) / 2`` less this.
    ``y_low``, ``y_high``: range of the rapidity of the Higgs boson.
    """

    u_plus: FloatArray
    u_minus: FloatArray
    d_plus: FloatArray
    d_minus: FloatArray
    quarks: FloatArray
    positron_plus: FloatArray
    positron_minus: FloatArray
    positron_offset: FloatArray
    electron_plus: FloatArray
    electron_minus: FloatArray
    electron_offset: FloatArray
    leptons: FloatArray
    transverse_mass: FloatArray
    y_low: FloatArray
    y_high: FloatArray

    @classmethod
    def of(cls, momenta: FloatArray, root_s: float) -> Self:
        """Return the kinematics of events, shape ``(n_events, 4, 3)``.

        Raises:
            ProcessMismatchError: if no Higgs boson fits an event.
        """
        plus, minus = _light_cone(momenta)
        transverse = momenta[..., :2]
        higgs = -transverse[:, 0] - transverse[:, 1]
        pair = transverse[:, 2] + transverse[:, 3]
        quarks, leptons = (
            np.maximum(
                0.5 * (plus[:, i] * minus[:, i + 1] + minus[:, i] * plus[:, i + 1])
                - _dot(transverse[:, i], transverse[:, i + 1]),
                0.0,
            )
            for i in (0, 2)
        )
        mass = np.sqrt(MH**2 + _dot(higgs, higgs))
        pair_mass = np.sqrt(2.0 * leptons + _dot(pair, pair))
        # Q^2 is largest where the Higgs boson has the rapidity of the lepton pair; Q^2 >= 0 bounds y on both
        # sides.
        missing = np.sqrt(_dot(higgs - pair, higgs - pair))
        energy = mass - pair_mass
        q_squared = np.maximum(energy - missing, 0.0) * (energy + missing)
        half = 2.0 * np.arcsinh(np.sqrt(q_squared / (4.0 * mass * pair_mass)))
        y_pair = 0.5 * np.log((plus[:, 2] + plus[:, 3]) / (minus[:, 2] + minus[:, 3]))
        room_plus = root_s - plus[:, 0] - plus[:, 1]
        room_minus = root_s - minus[:, 0] - minus[:, 1]
        low = np.maximum(y_pair - half, -np.log(np.maximum(room_minus, 1e-9) / mass))
        high = np.minimum(y_pair + half, np.log(np.maximum(room_plus, 1e-9) / mass))
        possible = (energy - missing > -_ENERGY_TOLERANCE) & (low < high + _RAPIDITY_TOLERANCE)
        if not np.all(possible):
            wrong = np.flatnonzero(~possible)
            msg = (
                f"{len(wrong)} of {len(momenta)} events (the first is number {wrong[0]}) cannot be u d > u d "
                f"h, h > e+ ve e- ve~: no Higgs boson of {MH} GeV fits their momenta at sqrt(s) = {root_s:g} "
                "GeV. The exact ratio is for signal events at parton level: check the sample and the beam "
                "energy."
            )
            raise ProcessMismatchError(msg)
        centre = 0.5 * (low + high)
        return cls(
            plus[:, 0],
            minus[:, 0],
            plus[:, 1],
            minus[:, 1],
            quarks,
            plus[:, 2],
            minus[:, 2],
            _dot(higgs, transverse[:, 2]) + leptons,
            plus[:, 3],
            minus[:, 3],
            _dot(higgs, transverse[:, 3]) + leptons,
            leptons,
            mass,
            np.minimum(low, centre),
            np.maximum(high, centre),
        )

    def take(self, rows: IntArray | slice) -> Self:
        """Return some of the events."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def as_columns(self) -> Self:
        """Return arrays of shape ``(n_events, 1)``."""
        return type(self)(*(getattr(self, field.name)[:, None] for field in fields(self)))

    def exchanged(self) -> Self:
        """Return the events with both quarks exchanged."""
        return replace(
            self, u_plus=self.d_plus, u_minus=self.d_minus, d_plus=self.u_plus, d_minus=self.u_minus
        )


def _three_momenta(momenta: npt.NDArray[np.floating]) -> FloatArray:
    """Return px, py, pz in double precision, checked."""
    momenta = np.asarray(momenta)
    if momenta.ndim != 3 or momenta.shape[1] != 4 or momenta.shape[2] not in (3, 4):
        msg = (
            f"visible momenta have shape (n_events, 4, 3) or (n_events, 4, 4), in the order u, d, e+, e-; "
            f"these have {momenta.shape}"
        )
        raise ValueError(msg)
    three: FloatArray = momenta[..., -3:].astype(np.float64)
    if not (np.all(np.isfinite(three)) and np.all(np.any(three[..., :2] != 0.0, axis=-1))):
        msg = "every visible particle needs finite momenta and a transverse momentum that is not zero"
        raise ValueError(msg)
    return three


def _light_cone(momenta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return E + pz and E - pz of massless particles, the small one without cancellation."""
    pt_squared = np.sum(momenta[..., :2] ** 2, axis=-1)
    pz = momenta[..., 2]
    large = np.sqrt(pt_squared + pz**2) + np.abs(pz)
    small = pt_squared / large
    forward = pz > 0.0
    return np.asarray(np.where(forward, large, small)), np.asarray(np.where(forward, small, large))


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return scalar products of transverse vectors."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]


def _rapidities(k: _Kinematics, accuracy: Accuracy) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return the points in y of all panels.

    An event whose range has shrunk to a point by rounding keeps that point: weights add up to 1 for every
    event, since the length of the range is common to all powers and assignments.

    Returns:
        Row of each panel's event, shape ``(n_panels,)``; y and its weight, shape ``(n_panels, n_y)``.
    """
    edges = np.stack([k.y_low, k.y_high], axis=1)
    if accuracy.split:
        # 2 e.Q = MW^2: beyond, this lepton's W boson can be real.
        cuts = list(edges.T)
        for plus, minus, offset in (
            (k.positron_plus, k.positron_minus, k.positron_offset),
            (k.electron_plus, k.electron_minus, k.electron_offset),
        ):
            centre = 0.5 * np.log(plus / minus)
            cosh = (0.5 * MW**2 + offset) / (k.transverse_mass * np.sqrt(plus * minus))
            distance = np.arccosh(np.maximum(cosh, 1.0))
            cuts += [centre - distance, centre + distance]
        edges = np.sort(np.clip(np.stack(cuts, axis=1), edges[:, :1], edges[:, 1:]), axis=1)
    width = np.diff(edges, axis=1)
    total = width.sum(axis=1, keepdims=True)
    share = np.divide(width, total, out=np.zeros_like(width), where=total > 0.0)
    share[total[:, 0] == 0.0, 0] = 1.0
    row, panel = np.nonzero(share)
    nodes, weights = unit_gauss(accuracy.n_y)
    y = edges[row, panel][:, None] + width[row, panel][:, None] * nodes
    return row, y, share[row, panel][:, None] * weights


def _decay(k: _Kinematics, plus: FloatArray, minus: FloatArray, accuracy: Accuracy) -> FloatArray:
    """Return `decay_integral`, ``(3, n_panels, n_y)``, for light-cone Higgs momenta ``(n_panels, n_y)``."""
    tiny = 1e-6  # GeV^2: a neutrino pair collinear with a lepton, or rounding
    alpha = np.maximum(0.5 * (k.positron_plus * minus + k.positron_minus * plus) - k.positron_offset, tiny)
    beta = np.maximum(0.5 * (k.electron_plus * minus + k.electron_minus * plus) - k.electron_offset, tiny)
    leptons = np.broadcast_to(k.leptons, alpha.shape)
    return decay_integral(
        alpha.ravel(), beta.ravel(), leptons.ravel(), n_theta=accuracy.n_theta, n_phi=accuracy.n_phi
    ).reshape(3, *alpha.shape)


def _production(k: _Kinematics, plus: FloatArray, minus: FloatArray, *, u_first: bool) -> FloatArray:
    """Return the squared production amplitude as a polynomial in cHW, shape ``(n_panels, n_y, 3)``.

    Args:
        k: the events, as columns.
        plus: E + pz of the parton along +z, shape ``(n_panels, n_y)``.
        minus: E - pz of the parton along -z.
        u_first: whether the parton along +z is the u.
    """
    u_along, d_along = 0.5 * plus * k.u_minus, 0.5 * plus * k.d_minus
    u_against, d_against = 0.5 * minus * k.u_plus, 0.5 * minus * k.d_plus
    dots = (u_along, d_along, u_against, d_against) if u_first else (u_against, d_against, u_along, d_along)
    return production_dot_polynomial(0.5 * plus * minus, *dots, k.quarks)


def _integrated_product(production: FloatArray, decay: FloatArray) -> FloatArray:
    """Return the quartics ``production * decay`` summed over y, shape ``(n_panels, 5)``."""
    product = np.zeros((len(production), 5))
    for i in range(3):
        for j in range(3):
            product[:, i + j] += np.sum(production[..., i] * decay[j], axis=1)
    return product
