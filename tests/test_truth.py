"""The reference information against another program, against itself, and on the command line."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import milanalysis, write_config

from milanalysis.config import CutsConfig, GeneratorConfig, LeptonCutsConfig
from milanalysis.files.provenance import read_json
from milanalysis.files.records import from_plain, to_plain
from milanalysis.simulation.amplitudes import evaluate_polynomials
from milanalysis.simulation.exact import information as truth
from milanalysis.simulation.exact.information import ReferenceInformation, reference_information


def information(config: GeneratorConfig, n_points: int, **changes: object) -> ReferenceInformation:
    settings = {
        "parameter": "cHW",
        "theta": 0.0,
        "auc_at": (0.1, 0.2),
        "n_events": 1000,
        "n_points": n_points,
        "seed": 5,
        "workers": 1,
    }
    return reference_information(config, **{**settings, **changes})


def agrees(found: ReferenceInformation, expected: dict[str, tuple[float, float]], error: float) -> None:
    """1000 events: variance and mean square of the score, to four standard errors of both programs."""
    for name, values in expected.items():
        level = found[name]
        for number, own, value in (
            (level.shape, level.shape_error, values[0]),
            (level.rate_and_shape, level.rate_and_shape_error, values[1]),
        ):
            assert abs(1000 * number - value) < 4 * np.hypot(1000 * own, error), name


# 5.4 million points of another program; its E[s^2] of what is visible is Var + (sigma'/sigma)^2 with -0.1805.
QUARK_CUTS = {"joint": (292.59, 325.2), "visible": (273.61, 306.2), "beam_known": (288.81, 321.4)}
LEPTON_CUTS = {"joint": (239.39, 270.3), "visible": (223.98, 254.8), "beam_known": (235.85, 266.7)}


@pytest.fixture(scope="module")
def quick() -> ReferenceInformation:
    return information(GeneratorConfig(), 300_000)


def test_information_with_quark_cuts(quick: ReferenceInformation):
    agrees(quick, QUARK_CUTS, 0.4)
    assert quick["visible"].shape_error < 0.012 * quick["visible"].shape
    assert abs(quick.cross_section_fb - 2.0413) < 4 * quick.cross_section_error_fb + 0.01


def test_information_with_lepton_cuts_and_the_beam_known():
    config = GeneratorConfig(u_beam="first", cuts=CutsConfig(leptons=LeptonCutsConfig()))
    found = information(config, 300_000)
    assert [level.name for level in found.levels] == ["joint", "beam_known"]
    agrees(found, {name: LEPTON_CUTS[name] for name in ("joint", "beam_known")}, 0.5)
    assert abs(found.cross_section_fb - 1.188 / 2) < 4 * found.cross_section_error_fb + 0.004


def test_the_rate_with_quark_cuts(quick: ReferenceInformation):
    # independent calculation with the NNPDF2.3 grid; the closed-form densities move a coefficient by up to
    # half a percent
    for found, error, expected, its_error in zip(
        quick.rate[1:],
        quick.rate_error[1:],
        (-0.1805, 0.1016, -0.00843, 0.000260),
        (3e-4, 2e-4, 1e-5, 1e-6),
        strict=True,
    ):
        assert found == pytest.approx(expected, abs=4 * np.hypot(error, its_error) + 0.005 * abs(expected))
        assert error < 0.05 * abs(expected)
    assert quick.rate[0] == 1


def test_the_best_separation_of_single_events(quick: ReferenceInformation):
    for name, expected in (("visible", (0.5101, 0.5201)), ("joint", (0.5103, 0.5205))):
        # The other program used 650,000 unweighted events: 2e-4.
        tolerance = np.hypot(2e-4, np.array(quick[name].auc_error))
        assert np.all(np.abs(np.array(quick[name].auc) - expected) < 2 * tolerance)
        assert max(quick[name].auc_error) < 2e-4


def test_areas_from_bins_are_those_of_sorted_events():
    generator = truth._adapted(GeneratorConfig(), 0.0, np.random.default_rng(1))
    events = generator.weighted(20_000, np.random.default_rng(2))
    r = evaluate_polynomials(events.polynomials, 0.5)
    order = np.argsort(r)
    reference, other = events.weight[order], (events.weight * r)[order]
    below = np.cumsum(reference) - 0.5 * reference
    exact = other @ below / (reference.sum() * other.sum())
    place = np.arctan(np.log(r) / 0.1) / np.pi + 0.5
    bins = (place * truth._BINS).astype(int)
    contents = np.array(
        [np.bincount(bins, weights=w, minlength=truth._BINS) for w in (events.weight, events.weight * r)]
    )
    sums = truth._Sums(1, np.ones((1, 3)), contents[None, None], np.ones(5))
    assert sums.results(0)[2] == pytest.approx(exact, abs=1e-6)


def test_the_result_does_not_depend_on_the_number_of_workers():
    one, two = (information(GeneratorConfig(), 40_000, workers=workers) for workers in (1, 2))
    assert one == two


def test_results_come_back_from_plain_values(quick: ReferenceInformation):
    values = to_plain(quick)
    assert from_plain(ReferenceInformation, values) == quick
    width = quick.half_width(quick["visible"].shape, 1.0)
    assert width == pytest.approx(1 / np.sqrt(1000 * quick["visible"].shape))
    assert quick.half_width(quick["visible"].shape, 1.96) == pytest.approx(1.96 * width)


def test_the_command_prints_the_levels_and_keeps_them(tmp_path):
    config = write_config(tmp_path / "small.yaml", truth={"points": 100_000, "auc_at": [0.3]})
    result = milanalysis("truth", config, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    for words in ("What there is to know about cHW", "visible", "AUC", "cHW = 0.3"):
        assert words in result.output
    values = read_json(tmp_path / "run" / "results" / "truth.json")
    assert values["auc_at"] == [0.3]
    assert values["n_events"] == 1000
    assert "from 100 events" in " ".join(result.output.split())
    again = milanalysis("truth", config, "-o", tmp_path / "run")
    assert "truth  up to date" in again.output
    assert "What there is to know" in again.output


@pytest.mark.long
@pytest.mark.parametrize(
    ("cuts", "expected", "error"), [(None, QUARK_CUTS, 0.4), (LeptonCutsConfig(), LEPTON_CUTS, 0.5)]
)
def test_the_default_number_of_points_keeps_its_promise(
    cuts: LeptonCutsConfig | None, expected: dict[str, tuple[float, float]], error: float
):
    found = information(GeneratorConfig(cuts=CutsConfig(leptons=cuts)), 5_000_000, workers=2)
    agrees(found, expected, error)
    for level in found.levels:
        assert level.shape_error < (0.0018 if cuts is None else 0.0025) * level.shape
