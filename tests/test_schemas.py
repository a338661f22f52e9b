"""How coffea sees LHEF trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import NanoEventsFactory

from milanalysis.config import LHEFFormatConfig
from milanalysis.events.files.schemas import LHEFSchema
from milanalysis.events.objects import object_branches

GENUINE = Path(__file__).parent / "data" / "vbf_hww_sm.lhef.root"


def read(path: Path) -> Any:
    return NanoEventsFactory.from_root({str(path): "LHEF"}, schemaclass=LHEFSchema, mode="virtual").events()


@pytest.fixture(scope="module")
def events() -> Any:
    return read(GENUINE)


@pytest.fixture(scope="module")
def branches() -> dict[str, ak.Array]:
    with uproot.open({GENUINE: "LHEF"}) as tree:
        return {name.split("/")[-1]: tree[name].array() for name in tree.keys()}  # noqa: SIM118


def test_collections_have_the_names_of_the_file(events: Any) -> None:
    assert set(events.fields) == {"Event", "Rwgt", "Particle"}
    assert len(events) == 1000


def test_event_is_one_record_per_event_and_weights_are_lists(
    events: Any, branches: dict[str, ak.Array]
) -> None:
    assert events.Event.Weight.ndim == 1
    assert ak.all(ak.num(events.Rwgt.Weight) == 7)
    np.testing.assert_array_equal(
        ak.to_numpy(events.Event.Weight), ak.to_numpy(branches["Event.Weight"])[:, 0]
    )
    assert ak.all(events.Rwgt.Weight == branches["Rwgt.Weight"])


def test_particles_are_lorentz_vectors_of_the_branches(events: Any, branches: dict[str, ak.Array]) -> None:
    particles = events.Particle
    for ours, theirs in {
        "px": "Px",
        "py": "Py",
        "pz": "Pz",
        "energy": "E",
        "Mass": "M",
        "PID": "PID",
    }.items():
        assert ak.all(getattr(particles, ours) == branches[f"Particle.{theirs}"]), ours
    outgoing = particles.Status == 1
    np.testing.assert_allclose(
        ak.flatten(particles.eta[outgoing]), ak.flatten(branches["Particle.Eta"][outgoing]), rtol=1e-9
    )


def test_momentum_is_conserved_between_incoming_and_outgoing_particles(events: Any) -> None:
    outgoing = events.Particle[events.Particle.Status == 1].sum(axis=1)
    incoming = events.Particle[events.Particle.Status == -1].sum(axis=1)
    difference = outgoing - incoming
    for component in (difference.px, difference.py, difference.pz, difference.energy):
        assert ak.max(abs(component)) < 1e-6  # GeV; the file has 11 digits of up to 6500 GeV


def test_higgs_mass_is_the_invariant_mass_of_its_decay_products(events: Any) -> None:
    final = events.Particle[events.Particle.Status == 1]
    leptons = final[abs(final.PID) > 10]
    higgs = events.Particle[events.Particle.PID == 25][:, 0]
    np.testing.assert_allclose(leptons.sum(axis=1).mass, higgs.Mass, rtol=1e-6)


@pytest.mark.parametrize("separator", ["/", ""])
@pytest.mark.parametrize("bookkeeping", [True, False])
def test_both_ways_of_naming_branches_are_read(tmp_path: Path, separator: str, bookkeeping: bool) -> None:
    values = {
        "Event": ak.Array({"Weight": [[1.0], [2.0]], "fBits": [[1], [1]]}),
        "Particle": ak.Array(
            {"PID": [[11, 2], [1]], "fUniqueID": [[1, 2], [1]]}
            | {name: [[1.0, 2.0], [3.0]] for name in ("Px", "Py", "Pz", "E", "M")}
            | {"Status": [[1, 1], [1]]}
        ),
    }
    if not bookkeeping:
        values = {
            name: array[[f for f in array.fields if not f.startswith("f")]] for name, array in values.items()
        }
    values = {name: ak.zip({f: array[f] for f in array.fields}) for name, array in values.items()}

    def field_name(outer: str, inner: str) -> str:
        return f"{outer}{separator}{outer if separator else ''}.{inner}" if inner else outer

    with uproot.recreate(tmp_path / "made.root") as file:
        file.mktree(
            "LHEF",
            {name: array.type for name, array in values.items()},
            counter_name=lambda name: f"{name}_size",
            field_name=field_name,
        )
        file["LHEF"].extend(values)
    made = read(tmp_path / "made.root")
    assert set(made.fields) == {"Event", "Particle"}
    assert made.Event.Weight.tolist() == [1.0, 2.0]
    assert made.Particle.pz.tolist() == [[1.0, 2.0], [3.0]]
    assert "fUniqueID" not in made.Particle.fields


def test_required_branches_are_those_of_the_genuine_file(branches: dict[str, ak.Array]) -> None:
    assert set(object_branches(LHEFFormatConfig())) <= set(branches)
