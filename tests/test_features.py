"""The features of Table 1."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import awkward as ak
import numpy as np
import pytest
import uproot
import vector
from coffea.nanoevents import NanoEventsFactory
from hypothesis import given, settings
from hypothesis import strategies as st

from milanalysis.events.features import TABLE1, table1
from milanalysis.events.files.schemas import LHEFSchema
from milanalysis.events.objects import hardest_first, read_objects
from milanalysis.events.processing.chunks import Cutflow
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.tables import EventTable
from milanalysis.parameters import FloatArray

ROOT = Path(__file__).parents[1]
GENUINE = Path(__file__).parent / "data" / "vbf_hww_sm.lhef.root"


def objects(particles: list[list[tuple[int, float, float, float, float, float]]]) -> ak.Array:
    """Make particles from (PID, px, py, pz, E, mass)."""
    columns = {
        name: ak.Array([[one[i] for one in event] for event in particles])
        for i, name in enumerate(("PID", "px", "py", "pz", "E", "Mass"))
    }
    return ak.zip(columns, with_name="Momentum4D", behavior=vector.backends.awkward.behavior)


def massless(pid: int, pt: float, eta: float, phi: float) -> tuple[int, float, float, float, float, float]:
    return pid, pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta), pt * math.cosh(eta), 0.0


def balance(visible: ak.Array) -> ak.Array:
    """Return the transverse momentum that balances everything visible."""
    return vector.zip({"px": -ak.sum(visible.px, axis=1), "py": -ak.sum(visible.py, axis=1)})


def features_of(leptons: list[Any], quarks: list[Any]) -> dict[str, FloatArray]:
    leptons_, quarks_ = objects([leptons]), objects([quarks])
    visible = ak.concatenate([leptons_, quarks_], axis=1)
    visible = ak.with_name(visible, "Momentum4D", behavior=vector.backends.awkward.behavior)
    return table1(hardest_first(leptons_), hardest_first(quarks_), balance(visible))


def plain_features(px: Any, py: Any, pz: Any, e: Any, m: Any, pid: Any, status: Any) -> list[float]:
    """Compute Table 1 for one event with nothing but the math module."""
    final = [i for i in range(len(pid)) if status[i] == 1]

    def pt(i: int) -> float:
        return math.hypot(px[i], py[i])

    def eta(i: int) -> float:
        return math.asinh(pz[i] / pt(i))

    leptons = sorted((i for i in final if abs(pid[i]) in (11, 13)), key=pt, reverse=True)
    quarks = sorted((i for i in final if abs(pid[i]) <= 6), key=pt, reverse=True)
    values = []
    for i in (*leptons, *quarks):
        values += [pt(i), eta(i), math.atan2(py[i], px[i]), e[i], m[i]]
    mx, my = (-sum(p[i] for i in (*leptons, *quarks)) for p in (px, py))
    values += [math.hypot(mx, my), math.atan2(my, mx)]
    pairs = leptons, quarks
    for a, b in pairs:
        mass2 = (e[a] + e[b]) ** 2 - sum((p[a] + p[b]) ** 2 for p in (px, py, pz))
        values.append(math.sqrt(max(mass2, 0.0)))
    values += [math.hypot(px[a] + px[b], py[a] + py[b]) for a, b in pairs]
    for a, b in pairs:
        high, low = (a, b) if eta(a) > eta(b) else (b, a)
        difference = math.atan2(py[high], px[high]) - math.atan2(py[low], px[low])
        values.append(math.remainder(difference, 2 * math.pi))
    for i in leptons:
        values += [float(pid[i] == 11), float(pid[i] == -11)]
    for i in quarks:
        values += [float(abs(pid[i]) in (1, 3, 5)), float(abs(pid[i]) in (2, 4, 6))]
    return values


@pytest.fixture(scope="module")
def genuine() -> tuple[EventTable, Cutflow]:
    """Features of the genuine file through the processor's own selection."""
    metadata = {
        "sample": "sm",
        "file_number": 0,
        "theta": [0.0],
        "weight_points": [],
        "fb_per_weight": 1.0,
        "format": {"kind": "lhef", "tree": "LHEF"},
        "seed": 1,
        "split": [0.64, 0.16, 0.2],
        "entrystart": 0,
        "entrystop": 1000,
    }
    events = NanoEventsFactory.from_root(
        {str(GENUINE): "LHEF"}, schemaclass=LHEFSchema, mode="virtual", metadata=metadata
    ).events()
    processor = load_processor(ROOT / "processors" / "features.py")()
    found: tuple[EventTable, Cutflow] = processor.event_table(events)
    return found


def test_there_are_36_features_with_the_published_names() -> None:
    assert " ".join(TABLE1) == (
        "l0_pt l0_eta l0_phi l0_e l0_m l1_pt l1_eta l1_phi l1_e l1_m "
        "q0_pt q0_eta q0_phi q0_e q0_m q1_pt q1_eta q1_phi q1_e q1_m "
        "met met_phi m_ll m_qq pt_ll pt_qq dphi_ll dphi_qq "
        "l0_electron l0_positron l1_electron l1_positron q0_down q0_up q1_down q1_up"
    )


def test_features_of_a_genuine_file_agree_with_a_calculation_event_by_event(
    genuine: tuple[EventTable, Cutflow],
) -> None:
    table, cutflow = genuine
    names = ("Px", "Py", "Pz", "E", "M", "PID", "Status")
    with uproot.open({GENUINE: "LHEF"}) as tree:
        columns = [tree[f"Particle/Particle.{name}"].array().tolist() for name in names]
    expected = np.array([plain_features(*event) for event in zip(*columns, strict=True)])
    assert table.feature_names == TABLE1
    assert cutflow.n_selected == cutflow.n_read == len(table) == 1000
    assert table.features.dtype == np.float32
    # float32 rounding is 6e-8; pair masses lose digits where particles are nearly collinear
    np.testing.assert_allclose(table.features, expected, rtol=2e-7, atol=1e-6)


@pytest.mark.parametrize(
    ("phi_forward", "phi_backward", "expected"),
    [
        (1.0, 0.25, 0.75),
        (0.25, 1.0, -0.75),
        (3.0, -3.0, 6.0 - 2 * math.pi),
        (-3.0, 3.0, 2 * math.pi - 6.0),
        (math.pi, 0.0, math.pi),
        (0.0, math.pi, math.pi),
    ],
)
@pytest.mark.parametrize("forward_is_harder", [True, False])
def test_delta_phi_is_that_of_the_larger_eta_minus_the_other_within_minus_pi_and_pi(
    phi_forward: float, phi_backward: float, expected: float, forward_is_harder: bool
) -> None:
    pt = (50.0, 30.0) if forward_is_harder else (30.0, 50.0)
    pair = [massless(-11, pt[0], 1.0, phi_forward), massless(11, pt[1], -0.5, phi_backward)]
    quarks = [massless(2, *p[:1], *p[1:]) for p in ((60.0, 3.0, 0.3), (40.0, -3.0, 2.0))]
    assert features_of(pair, quarks)["dphi_ll"][0] == pytest.approx(expected, abs=1e-12)


def test_flags_say_charge_of_leptons_and_type_of_quarks() -> None:
    leptons = [massless(11, 20, 0.1, 0.1), massless(-11, 40, 0.2, 0.2)]
    quarks = [massless(-3, 50, 1, 0), massless(4, 30, -1, 1)]
    found = features_of(leptons, quarks)
    flags = {name: found[name][0] for name in TABLE1[28:]}
    assert flags == {
        "l0_electron": 0, "l0_positron": 1, "l1_electron": 1, "l1_positron": 0,
        "q0_down": 1, "q0_up": 0, "q1_down": 0, "q1_up": 1,
    }  # fmt: skip


def test_collinear_massless_pair_has_mass_zero() -> None:
    leptons = [massless(11, 20, 2.0, 0.7), massless(-11, 40, 2.0, 0.7)]
    quarks = [massless(2, 50, 1, 0), massless(1, 30, -1, 1)]
    assert 0 <= features_of(leptons, quarks)["m_ll"][0] < 1e-5


def test_masses_are_those_of_the_file() -> None:
    pid, px, py, pz, _, _ = massless(5, 50, 1, 0)
    bottom = (pid, px, py, pz, math.sqrt(px**2 + py**2 + pz**2 + 4.7**2), 4.7)
    found = features_of(
        [massless(11, 20, 0.1, 0.1), massless(-11, 40, 0.2, 0.2)], [bottom, massless(1, 30, 0, 0)]
    )
    assert found["q0_m"][0] == 4.7
    assert found["q1_m"][0] == 0.0


ANGLE = st.floats(-3, 3)
PARTICLE = st.tuples(st.floats(1, 1000), st.floats(-4.5, 4.5), ANGLE)
ROTATING = {"l0_phi", "l1_phi", "q0_phi", "q1_phi", "met_phi"}


@settings(max_examples=40)
@given(particles=st.tuples(PARTICLE, PARTICLE, PARTICLE, PARTICLE), angle=ANGLE)
def test_a_rotation_about_the_beam_turns_azimuths_and_leaves_the_rest(particles: Any, angle: float) -> None:
    pids = (11, -11, 2, 1)

    def event(turn: float) -> dict[str, FloatArray]:
        made = [
            massless(pid, pt, eta, phi + turn) for pid, (pt, eta, phi) in zip(pids, particles, strict=True)
        ]
        return features_of(made[:2], made[2:])

    before, after = event(0.0), event(angle)
    if any(abs(particles[i][0] - particles[i + 1][0]) < 1e-6 for i in (0, 2)):
        return  # the order by pT is undecided
    if any(abs(particles[i][1] - particles[i + 1][1]) < 1e-6 for i in (0, 2)):
        return  # the order by eta is undecided
    for name in TABLE1:
        # GeV or radians; pair masses lose digits by cancellation: sqrt(1e-16) * E (up to 1e5 GeV) = 1e-3
        tolerance = 2e-3 if name.startswith("m_") else 1e-8
        difference = after[name][0] - before[name][0]
        if name == "met_phi" and before["met"][0] < 1.0:
            continue  # the direction of nothing
        if name in ROTATING:
            difference = math.remainder(difference - angle, 2 * math.pi)
        elif name.startswith("dphi"):
            difference = math.remainder(difference, 2 * math.pi)
        assert abs(difference) < tolerance * (1 + abs(before[name][0]) * (name not in ROTATING)), name


@given(order=st.permutations(range(4)))
def test_the_order_of_particles_in_the_file_does_not_matter(order: list[int]) -> None:
    made = [
        massless(11, 31, 0.3, 0.1),
        massless(-11, 45, -1, 2),
        massless(2, 70, 3, -2),
        massless(1, 33, -2, 1),
    ]
    particles = objects([[made[i] for i in order]])
    leptons, quarks = particles[abs(particles.PID) > 10], particles[abs(particles.PID) < 10]
    found = table1(hardest_first(leptons), hardest_first(quarks), balance(particles))
    expected = features_of(made[:2], made[2:])
    for name in TABLE1:
        assert found[name][0] == pytest.approx(expected[name][0], rel=1e-12, abs=1e-12), name


class Chunk:
    """A chunk of an LHEF tree with made-up particles."""

    metadata: ClassVar = {"format": {"kind": "lhef"}, "filename": "made"}

    def __init__(self, particles: list[list[tuple[int, float, float, float, float, float]]]) -> None:
        made = objects(particles)
        columns = {"PID": made.PID, "x": made.px, "y": made.py, "z": made.pz, "t": made.E, "Mass": made.Mass}
        self.Particle = ak.zip({**columns, "Status": ak.ones_like(made.PID)})


def test_missing_momentum_balances_everything_visible() -> None:
    visible = [massless(11, 3, 0, 0), massless(2, 4, 1, math.pi / 2), massless(21, 1, 0, -math.pi / 2)]
    missing = read_objects(Chunk([[*visible, massless(12, 70, 0, 0)]])).missing
    assert missing.pt[0] == pytest.approx(math.hypot(3, 3))
    assert missing.phi[0] == pytest.approx(math.atan2(-3, -3))


def test_events_with_undefined_momenta_are_found() -> None:
    good, beam = massless(11, 30, 1, 1), (21, 0.0, 0.0, 10.0, 10.0, 0.0)
    nan, infinite = (11, 1.0, 1.0, math.nan, 2.0, 0.0), (2, 1.0, 1.0, 1.0, math.inf, 0.0)
    events = [[good, good], [good, nan], [infinite], [good, beam], [good]]
    assert read_objects(Chunk(events)).finite.tolist() == [True, False, False, False, True]
