"""Event files are read back exactly, by programs that did not write them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pylhe
import pytest
import uproot

from milanalysis.config import GeneratorConfig
from milanalysis.errors import AccountingError
from milanalysis.files.provenance import read_json
from milanalysis.files.records import from_plain, to_plain
from milanalysis.randomness import stream
from milanalysis.simulation.amplitudes import evaluate_polynomials
from milanalysis.simulation.generator import Events, Generator, generate_sample
from milanalysis.simulation.lhe import SampleHeader, write_lhe, write_lhef_root

GENUINE = Path(__file__).parent / "data" / "vbf_hww_sm.lhef.root"
POINTS = (-1.0, -0.5, 0.0, 0.3, 1.0)
N_EVENTS = 3000


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator.adapted(GeneratorConfig(), 0.0, stream(21, "adapt"))


@pytest.fixture(scope="module")
def blocks(generator: Generator) -> list[Events]:
    events = next(generate_sample(generator, name="lhe", n_events=N_EVENTS, seed=21))
    return [events.take(slice(0, 1800)), events.take(slice(1800, None))]


@pytest.fixture(scope="module")
def header(generator: Generator) -> SampleHeader:
    return SampleHeader.of_sample(generator, weight_points=POINTS, n_events=N_EVENTS, seed=21)


@pytest.fixture(scope="module")
def tree(
    blocks: list[Events], header: SampleHeader, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    path = tmp_path_factory.mktemp("lhef") / "sample.root"
    write_lhef_root(path, blocks, header)
    with uproot.open(path) as file:
        arrays = file["LHEF"].arrays(library="ak")
        return {name.split("/")[-1]: arrays[name].to_numpy() for name in arrays.fields}


def test_tree_has_the_branches_of_a_genuine_file(
    blocks: list[Events], header: SampleHeader, tmp_path: Path
) -> None:
    write_lhef_root(tmp_path / "sample.root", blocks, header)
    with uproot.open(tmp_path / "sample.root") as ours, uproot.open(GENUINE) as genuine:
        found = {name: ours["LHEF"][name].typename for name in ours["LHEF"].keys()}  # noqa: SIM118
        expected = {name: genuine["LHEF"][name].typename for name in genuine["LHEF"].keys()}  # noqa: SIM118
        assert ours["LHEF"].num_entries == N_EVENTS
        assert [len(basket) for basket in ours["LHEF"]["Event_size"].iterate(step_size=1800, library="np")]
    # The parents of the branches hold a count that the *_size branches hold too; uproot cannot write them.
    left_out = {"Event", "Rwgt", "Particle"}
    expected = {
        name: kind
        for name, kind in expected.items()
        if name not in left_out and not name.endswith((".fUniqueID", ".fBits"))
    }
    assert found == expected


def test_tree_holds_the_events(tree: dict[str, np.ndarray], blocks: list[Events]) -> None:
    momenta = np.concatenate([block.momenta for block in blocks])
    u_beam = np.concatenate([block.u_beam for block in blocks])
    components = ("Particle.E", "Particle.Px", "Particle.Py", "Particle.Pz")
    vectors = np.stack([tree[name] for name in components], axis=-1)
    np.testing.assert_array_equal(vectors[:, [2, 3, 5, 6, 7, 8]], momenta[:, 2:])
    swapped = u_beam == 2
    np.testing.assert_array_equal(vectors[~swapped, :2], momenta[~swapped, :2])
    np.testing.assert_array_equal(vectors[swapped, 1::-1], momenta[swapped, :2])
    np.testing.assert_array_equal(tree["Particle.PID"][:, :2], np.where(swapped[:, None], [1, 2], [2, 1]))
    assert tree["Particle.PID"][0, 2:].tolist() == [2, 1, 25, -11, 12, 11, -12]
    assert tree["Particle.Status"][0].tolist() == [-1, -1, 1, 1, 2, 1, 1, 1, 1]
    np.testing.assert_array_equal(tree["Event.Number"][:, 0], np.arange(1, N_EVENTS + 1))


def test_derived_columns_follow_from_the_momenta_as_in_a_genuine_file(tree: dict[str, np.ndarray]) -> None:
    with uproot.open(GENUINE) as genuine:
        arrays = genuine["LHEF"].arrays(library="ak")
        reference = {name.split("/")[-1]: arrays[name].to_numpy() for name in arrays.fields}
    # The genuine file was made from a text with 11 digits.
    for columns, tolerance in ((tree, 1e-9), (reference, 1e-6)):
        px, py, pz = (columns[f"Particle.P{axis}"] for axis in "xyz")
        pt = np.hypot(px, py)
        np.testing.assert_allclose(columns["Particle.PT"], pt, rtol=tolerance)
        np.testing.assert_allclose(columns["Particle.Phi"], np.arctan2(py + 0.0, px), atol=tolerance)
        np.testing.assert_array_equal(columns["Particle.Eta"][:, 0], 999.9)
        np.testing.assert_array_equal(columns["Particle.Rapidity"][:, 1], -999.9)
        np.testing.assert_array_equal(columns["Particle.Phi"][:, :2], 0.0)
        outgoing = np.s_[:, 2:]
        eta = np.arcsinh(pz[outgoing] / pt[outgoing])
        np.testing.assert_allclose(columns["Particle.Eta"][outgoing], eta, atol=tolerance)
        energy = columns["Particle.E"][outgoing]
        rapidity = 0.5 * np.log((energy + pz[outgoing]) / (energy - pz[outgoing]))
        np.testing.assert_allclose(columns["Particle.Rapidity"][outgoing], rapidity, atol=1e-5)
    for name in ("Mother1", "Mother2", "ColorLine1", "ColorLine2", "Spin", "LifeTime"):
        np.testing.assert_array_equal(
            tree[f"Particle.{name}"][0, :5], _as_ordered_like(tree, reference, f"Particle.{name}")[:5]
        )


def _as_ordered_like(tree: dict[str, np.ndarray], reference: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return a column of the first genuine event whose incoming quarks stand in the order of our first."""
    same = np.all(reference["Particle.PID"][:, :2] == tree["Particle.PID"][0, :2], axis=1)
    return reference[name][np.flatnonzero(same)[0]]


def test_weights_are_the_cross_section_at_each_point(
    tree: dict[str, np.ndarray], blocks: list[Events], header: SampleHeader
) -> None:
    polynomials = np.concatenate([block.polynomials for block in blocks])
    np.testing.assert_array_equal(tree["Event.Weight"], header.cross_section_pb)
    expected = header.cross_section_pb * evaluate_polynomials(polynomials, np.array(POINTS))
    np.testing.assert_allclose(tree["Rwgt.Weight"], expected, rtol=1e-14)
    np.testing.assert_array_equal(tree["Rwgt.Weight"][:, POINTS.index(0.0)], header.cross_section_pb)


def test_header_is_written_beside_the_tree(
    blocks: list[Events], header: SampleHeader, tmp_path: Path
) -> None:
    returned = write_lhef_root(tmp_path / "sample.root", blocks, header)
    values = read_json(tmp_path / "sample.json")
    assert values == returned
    again = from_plain(SampleHeader, values)
    assert to_plain(again) == to_plain(header)
    assert again.weight_points == POINTS
    np.testing.assert_array_equal(again.rate.coefficients, header.rate.coefficients)


def test_text_is_read_back_exactly_by_pylhe(
    blocks: list[Events], header: SampleHeader, tmp_path: Path
) -> None:
    path = tmp_path / "sample.lhe.gz"
    write_lhe(path, blocks, header)
    file = pylhe.LHEFile.fromfile(str(path))
    identifiers = [weight.id for group in file.header.initrwgt.entries for weight in group.weights]
    assert identifiers == ["cHW_-1", "cHW_-0.5", "cHW_0", "cHW_0.3", "cHW_1"]
    assert file.init.procInfo[0].xSection == header.cross_section_pb
    events = list(file.events)
    assert len(events) == N_EVENTS
    momenta = np.concatenate([block.momenta for block in blocks])
    polynomials = np.concatenate([block.polynomials for block in blocks])
    found = np.array([[(p.e, p.px, p.py, p.pz) for p in event.particles] for event in events])
    np.testing.assert_array_equal(found[:, [2, 3, 5, 6, 7, 8]], momenta[:, 2:])
    weights = np.array([[event.weights[name] for name in identifiers] for event in events])
    np.testing.assert_array_equal(weights, header.weights(polynomials))
    assert {event.eventinfo.weight for event in events} == {header.cross_section_pb}
    assert [int(particle.id) for particle in events[0].particles[2:]] == [2, 1, 25, -11, 12, 11, -12]
    # Colour flows from the incoming u to the outgoing d, and from d to u.
    lines = {particle.id: particle.color1 for particle in events[0].particles[:2]}
    assert [particle.color1 for particle in events[0].particles[2:4]] == [lines[1], lines[2]]
    assert [particle.mother1 for particle in events[0].particles] == [0, 0, 1, 1, 1, 5, 5, 5, 5]


def test_a_file_with_missing_events_is_not_kept(
    blocks: list[Events], header: SampleHeader, tmp_path: Path
) -> None:
    with pytest.raises(AccountingError, match="1800 events"):
        write_lhef_root(tmp_path / "sample.root", blocks[:1], header)
    with pytest.raises(AccountingError, match="1800 events"):
        write_lhe(tmp_path / "sample.lhe.gz", blocks[:1], header)
    assert list(tmp_path.iterdir()) == []


def test_the_same_events_give_the_same_text(
    blocks: list[Events], header: SampleHeader, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_lhe(tmp_path / f"{name}.lhe.gz", blocks, header)
    texts = [gzip.decompress((tmp_path / f"{name}.lhe.gz").read_bytes()) for name in ("a", "b")]
    assert texts[0] == texts[1]
