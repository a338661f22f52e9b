"""What nominal weights cannot mean, and cross-sections that are not known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from test_failures_of_processors import opened, write_collections, write_delphes
from test_processing import FEATURES, ITERATIVE, POINTS, write_lhef

from milanalysis.errors import EventWeightError, InputFileError
from milanalysis.events.files.admission import admit
from milanalysis.events.files.nominal_weights import nominal_weights, weight_problem, weight_warnings
from milanalysis.events.files.samples import open_sample
from milanalysis.events.files.weight_names import unchecked_order
from milanalysis.events.processing.processors import load_processor
from milanalysis.events.processing.tables_of_samples import make_tables

SIGMA_PB = 2.0414e-3
N = 40


def with_weights(path: Path, weights: Any, n_events: int = N) -> Path:
    """Write genuine events with other nominal weights, shape ``(n_events,)`` or a number."""
    column = ak.from_regular(np.broadcast_to(np.asarray(weights, dtype=np.float64), n_events)[:, None])
    return write_lhef(
        path, stop=n_events, change=lambda leaf, values: column if leaf == "Event.Weight" else values
    )


def table(sample: Any, directory: Path) -> dict[str, Any]:
    return make_tables(load_processor(FEATURES)(), sample, directory, executor=ITERATIVE, chunk_size=25)


def problem(files: list[Path], role: Any = "simulation", **settings: Any) -> str | None:
    return weight_problem(open_sample("ref", files, theta=0.0, role=role, **settings))


# --- statistics
# -------------------------------------------------------------------------------------------------


def test_statistics_of_weights_are_those_of_numpy_in_whatever_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.random.default_rng(1).normal(1.0, 2.0, N)
    weights[[3, 17]] = np.nan, np.inf
    file = with_weights(tmp_path / "a.root", weights)
    finite = weights[np.isfinite(weights)]
    for size in (1_000_000, 7):
        monkeypatch.setattr("milanalysis.events.files.nominal_weights._EVENTS_AT_A_TIME", size)
        nominal_weights.cache_clear()
        found = nominal_weights(open_sample("x", [file]).files[0])
        assert (found.n_events, found.n_finite) == (N, N - 2)
        assert found.total == pytest.approx(finite.sum(), rel=1e-12)
        assert found.variance_of_sum == pytest.approx(len(finite) * finite.var(), rel=1e-12)
        assert (found.smallest, found.largest) == (finite.min(), finite.max())
        assert found.closest_to_zero == np.abs(finite).min()


# --- the door
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalisation", ["mean", "sum", "file_sum"])
@pytest.mark.parametrize("weights", [1.0, np.resize([1.0, 1.0, 1.0, -1.0], N)], ids=["1", "1 or -1"])
def test_weights_that_are_all_one_are_counts(tmp_path: Path, weights: Any, normalisation: Any) -> None:
    file = with_weights(tmp_path / "a.root", weights)
    text = problem([file], normalisation=normalisation)
    assert text is not None
    assert "give normalisation: unit and cross_section_fb under samples.ref" in text
    assert problem([file], normalisation="unit", cross_section_fb=2.04) is None
    assert problem([file], normalisation=normalisation, cross_section_fb=1000.0) is None
    assert problem([file], role="observed", normalisation=normalisation) is None or np.ndim(weights)
    (tmp_path / "a.json").write_text(json.dumps({"cross_section_pb": 1.0}))
    assert problem([file], normalisation=normalisation) is None
    (tmp_path / "a.json").write_text(json.dumps({"cross_section_pb": None}))
    assert problem([file], normalisation=normalisation) == text


@pytest.mark.parametrize(
    ("normalisation", "weights", "text"),
    [
        ("sum", 1 / N, "normalised to 1"),
        ("mean", np.resize([0.5, 1.5], N), "normalised to 1"),
        ("mean", 0.0, "all nominal weights are 0"),
        ("mean", np.nan, f"none of its {N} nominal weights is a finite number"),
        ("mean", SIGMA_PB, None),
        ("sum", 1.0 / N * 1.001, None),
        ("mean", np.resize([1.0, 1.2], N), None),
    ],
)
def test_weights_of_simulation_that_stand_for_nothing(
    tmp_path: Path, normalisation: Any, weights: Any, text: str | None
) -> None:
    found = problem([with_weights(tmp_path / "a.root", weights)], normalisation=normalisation)
    assert found is None if text is None else text in str(found)


def test_observed_events_have_equal_weights(tmp_path: Path) -> None:
    signs = with_weights(tmp_path / "signs.root", np.resize([2e-3, 2e-3, 2e-3, -2e-3], N))
    text = problem([signs], role="observed")
    assert text is not None
    assert (
        "go from -0.002 to 0.002 (their sum is that of 20 events of equal weight, and 40 would be counted)"
        in text
    )
    assert problem([signs]) is None  # as simulation
    rounded = with_weights(tmp_path / "rounded.root", SIGMA_PB * (1 + 1e-7 * np.resize([1, -1], N)))
    other = with_weights(tmp_path / "other.root", 2 * SIGMA_PB, n_events=20)
    assert problem([rounded, other], role="observed") is None
    (warning,) = weight_warnings(open_sample("data", [rounded, other], role="observed"))
    assert "weights of observed events are not used" in warning
    assert weight_warnings(open_sample("data", [rounded], role="observed")) == []


def test_files_of_one_sample_have_weights_of_one_kind(tmp_path: Path) -> None:
    files = [
        with_weights(tmp_path / f"{i}.root", w)
        for i, w in enumerate((SIGMA_PB, 1.01 * SIGMA_PB, 1.5 * SIGMA_PB, 1.0))
    ]
    assert weight_warnings(open_sample("x", files[:2], role="simulation")) == []
    (warning,) = weight_warnings(open_sample("x", files[:3], role="simulation"))
    assert f"the weights of {files[0]} alone give 2.0414 fb and those of all files 2.38844 fb" in warning
    assert weight_warnings(open_sample("x", files[:3], role="simulation", normalisation="sum")) == []
    text = problem([files[0], files[3]])
    assert text is not None
    assert f"weights of {files[3]} are all 1 and those of {files[0]} are not" in text
    spread = with_weights(
        tmp_path / "spread.root", SIGMA_PB * np.resize([0.1, 2.3], N)
    )  # mean 1.2, error 0.17
    assert weight_warnings(open_sample("x", [files[0], spread], role="simulation")) == []


def test_all_problems_come_in_one_message(tmp_path: Path) -> None:
    ones = with_weights(tmp_path / "ones.root", 1.0)
    signs = with_weights(tmp_path / "signs.root", np.resize([1.0, -1.0], 20), n_events=20)
    samples = [
        open_sample("ref", [ones, ones], role="simulation"),
        open_sample("data", [signs], role="observed", first_file_number=2),
    ]
    with pytest.raises(InputFileError) as caught:
        admit(samples)
    twice, ref, data = str(caught.value).splitlines()
    assert "there twice" in twice
    assert "all weights of sample 'ref' are 1" in ref
    assert data.startswith("sample 'data': role: observed")
    with pytest.raises(EventWeightError, match="role: observed"):
        admit(samples[1:])


def test_an_event_without_event_record_is_no_damage(tmp_path: Path) -> None:
    import uproot

    source = write_delphes(tmp_path / "whole.root", 5)
    path = tmp_path / "a.root"
    with uproot.open({source: "Delphes"}) as tree:
        collections = {
            name: ak.zip({key.split(".")[1]: tree[key].array() for key in tree.keys(filter_name=f"{name}.*")})
            for name in ("Event", "Electron", "Muon", "Jet", "MissingET")
        }
        event = collections["Event"]
        collections["Event"] = ak.concatenate([event[:2], event[2:3][:, :0], event[3:]])
    write_collections(path, collections)
    for on_bad_file in ("fail", "skip"):
        sample = opened(source, path, on_bad_file=on_bad_file)
        with pytest.raises(
            EventWeightError, match=r"a\.root: 1 of 5 events do not have exactly one Event record"
        ):
            admit([sample])


# --- cross-sections
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, 0, -1, -1.0, math.nan, math.inf, 1e308, 10**400, "2.04e-3", True, [1.0]]
)
def test_a_cross_section_that_is_not_known_is_not_checked_and_that_is_said(
    tmp_path: Path, value: Any
) -> None:
    file = with_weights(tmp_path / "a.root", 3 * SIGMA_PB)
    (tmp_path / "a.json").write_text(json.dumps({"cross_section_pb": value}))
    sample = open_sample("x", [file], theta=0.0, role="simulation")
    assert sample.expected_cross_section_fb is None
    summary = table(sample, tmp_path / "out")
    (warning,) = summary["warnings"]
    assert "the cross-section is not known" in warning
    assert f"says {json.dumps(value):.40}" in warning
    stated = open_sample("x", [file], theta=0.0, role="simulation", cross_section_fb=3000 * SIGMA_PB)
    assert table(stated, tmp_path / "stated")["warnings"] == []


def test_without_a_word_about_the_cross_section_there_is_no_warning(tmp_path: Path) -> None:
    file = with_weights(tmp_path / "a.root", SIGMA_PB)
    for content in (None, "[1]", json.dumps({"run": 7})):
        if content is not None:
            (tmp_path / "a.json").write_text(content)
        assert (
            table(open_sample("x", [file], theta=0.0, role="simulation"), tmp_path / "out")["warnings"] == []
        )


@pytest.mark.parametrize(
    "content", ["no JSON", '{"cross_section_pb": 2.0', "[" * 100_000, b"\xff\xfe{}", "9" * 5000]
)
def test_a_json_file_that_cannot_be_read_is_named(tmp_path: Path, content: str | bytes) -> None:
    file = with_weights(tmp_path / "a.root", SIGMA_PB)
    (tmp_path / "a.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    for on_bad_file in ("fail", "skip"):  # the events are good, so that nothing is left out
        with pytest.raises(EventWeightError, match=r"a\.json, which says .* is no readable JSON file"):
            open_sample("x", [file], theta=0.0, on_bad_file=on_bad_file)


def test_a_json_file_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    file = with_weights(tmp_path / "a.root", SIGMA_PB)
    (tmp_path / "a.json").symlink_to(tmp_path / "nowhere.json")
    with pytest.raises(EventWeightError, match=r"a\.json, which says .* is no readable JSON file"):
        open_sample("x", [file], theta=0.0)


def test_a_file_that_is_a_link_to_itself_is_left_out_where_that_is_wanted(tmp_path: Path) -> None:
    file = with_weights(tmp_path / "a.root", SIGMA_PB)
    (tmp_path / "loop.root").symlink_to(tmp_path / "loop.root")
    sample = open_sample("x", [file, tmp_path / "loop.root"], theta=0.0, on_bad_file="skip")
    assert [one.path.name for one in sample.skipped] == ["loop.root"]


@pytest.mark.parametrize("announced", [N - 1, N + 1, "40", 10**400])
def test_a_json_file_about_another_number_of_events_is_refused(tmp_path: Path, announced: object) -> None:
    file = with_weights(tmp_path / "a.root", SIGMA_PB)
    (tmp_path / "a.json").write_text(json.dumps({"n_events": announced}))
    with pytest.raises(EventWeightError, match=rf"a\.json says that .*a\.root has .* events, and it has {N}"):
        open_sample("x", [file], theta=0.0, on_bad_file="skip")
    (tmp_path / "a.json").write_text(json.dumps({"n_events": N}))
    assert open_sample("x", [file], theta=0.0).n_events == N


@pytest.mark.parametrize(
    ("normalisation", "accepted"), [("mean", False), ("file_sum", False), ("unit", False), ("sum", True)]
)
def test_what_the_json_file_of_one_of_two_files_says_is_checked(
    tmp_path: Path, normalisation: str, accepted: bool
) -> None:
    weight = {"mean": SIGMA_PB, "file_sum": SIGMA_PB / N, "sum": SIGMA_PB / N / 2, "unit": 1.0}[normalisation]
    files = [with_weights(tmp_path / name, weight) for name in ("a.root", "b.root")]
    known = {"theta": 0.0, "role": "simulation", "normalisation": normalisation}
    stated = {"cross_section_fb": 1000 * SIGMA_PB}
    (tmp_path / "a.json").write_text(json.dumps({"cross_section_pb": 1.0001 * SIGMA_PB}))
    table(open_sample("x", files, **known, **stated), tmp_path / "good")
    (tmp_path / "a.json").write_text(json.dumps({"cross_section_pb": 3 * SIGMA_PB}))
    sample = open_sample("x", files, **known, **stated)
    if accepted:  # the weights of one of them add up to half of what the sample stands for
        table(sample, tmp_path / "out")
    else:
        message = r"is 6\.1242 fb by the JSON files beside 1 of its 2 files"
        with pytest.raises(EventWeightError, match=message):
            table(sample, tmp_path / "out")


@pytest.mark.parametrize("error", [1e300, 1e9, 100.0])
def test_a_huge_error_of_the_cross_section_does_not_accept_everything(tmp_path: Path, error: float) -> None:
    file = with_weights(tmp_path / "a.root", SIGMA_PB)
    (tmp_path / "a.json").write_text(
        json.dumps({"cross_section_pb": 3 * SIGMA_PB, "cross_section_error_pb": error})
    )
    with pytest.raises(EventWeightError, match=r"the cross-section is 6\.1242 fb"):
        table(open_sample("x", [file], theta=0.0, role="simulation"), tmp_path / "out")


def test_the_cross_section_is_checked_within_the_error_of_the_mean_of_the_weights(tmp_path: Path) -> None:
    """Of N weights +-w three in four are positive: mean w / 2 = 2.0414 fb, its relative error sqrt(3 / N)."""
    file = with_weights(tmp_path / "a.root", 2 * SIGMA_PB * np.resize([1, 1, 1, -1], N))
    found = 1000 * SIGMA_PB
    # |expected - found| <= 0.02 expected + 5 errors
    largest = found * (1 + 5 * math.sqrt(3 / N)) / 0.98
    table(open_sample("x", [file], theta=0.0, cross_section_fb=0.999 * largest), tmp_path / "in")
    with pytest.raises(EventWeightError, match=r"add up to 2\.0414 fb, and the cross-section is 4\.94"):
        table(open_sample("x", [file], theta=0.0, cross_section_fb=1.001 * largest), tmp_path / "out")


def test_the_error_of_the_stated_cross_section_counts(tmp_path: Path) -> None:
    file = with_weights(tmp_path / "a.root", SIGMA_PB)
    for error, accepted in ((0.04, True), (0.01, False), (None, False)):
        (tmp_path / "a.json").write_text(
            json.dumps(
                {"cross_section_pb": 1.2 * SIGMA_PB, "cross_section_error_pb": error and error * SIGMA_PB}
            )
        )
        sample = open_sample("x", [file], theta=0.0, role="simulation")
        if accepted:
            table(sample, tmp_path / "out")
        else:
            with pytest.raises(EventWeightError, match=r"the cross-section is 2\.44968 fb"):
                table(sample, tmp_path / "out")


def test_units_with_a_known_cross_section_get_the_advice_that_fits(tmp_path: Path) -> None:
    file = with_weights(tmp_path / "a.root", 1.0)
    (tmp_path / "a.json").write_text(json.dumps({"cross_section_pb": SIGMA_PB}))
    with pytest.raises(
        EventWeightError, match=r"normalisation: unit with cross_section_fb: 2\.0414 would fit"
    ):
        table(open_sample("x", [file], theta=0.0), tmp_path / "out")
    table(
        open_sample("x", [file], theta=0.0, role="observed"), tmp_path / "data"
    )  # weights of data are not used


@pytest.mark.parametrize(
    ("weights", "normalisation", "fitting"),
    [
        (SIGMA_PB, "unit", "mean"),
        (SIGMA_PB, "sum", "mean"),
        (SIGMA_PB / N, "unit", "sum"),
        (1.0, "mean", "unit"),
    ],
)
def test_the_normalisation_that_would_fit_is_named(
    tmp_path: Path, weights: float, normalisation: Any, fitting: str
) -> None:
    file = with_weights(tmp_path / "a.root", weights)
    sample = open_sample(
        "x", [file], theta=0.0, normalisation=normalisation, cross_section_fb=1000 * SIGMA_PB
    )
    with pytest.raises(EventWeightError, match=f"; normalisation: {fitting} would fit"):
        table(sample, tmp_path / "out")


def test_the_json_file_beside_the_target_of_a_link_counts(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with_weights(store / "long.root", 3 * SIGMA_PB)
    names = [f"cHW_{point:g}" for point in POINTS]
    (store / "long.json").write_text(json.dumps({"cross_section_pb": SIGMA_PB, "weight_names": names}))
    link = tmp_path / "a.root"
    link.symlink_to(store / "long.root")
    sample = open_sample("x", [link], theta=0.0, weight_points={"cHW_-1": -1.0})
    assert sample.expected_cross_section_fb == pytest.approx(1000 * SIGMA_PB)
    assert sample.weight_points == (-1.0, *[None] * 6)


# --- the order of the weights
# -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "theta", "text"),
    [
        ((-1.0, -0.5, 0.5, 1.0, 0.2), 0.0, None),  # six points, not symmetric
        ((-1.0, -0.5, 0.5, 1.0), 0.0, "5 weights fit a polynomial of degree 4 in any order"),
        ((-1.0, -0.5, 0.5, 1.0, 2.0, -2.0), 0.0, "symmetric about 0"),
        ((-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, -2.0), 0.0, "symmetric about 0"),
        ((0.0, 1.0, 0.5, 1.5, 2.0, -1.0, 3.0), 1.0, "symmetric about 1"),
        ((0.0, 1.0, 0.5, 1.5, 2.0, -1.0, 3.0), None, "symmetric about 1"),
        ((0.0, 1.0, 0.5, 1.5, 2.0, -1.0, 3.0), 0.2, None),
        ((-1.0, -0.5, None, 0.5, 1.0, 2.0, -2.0), 0.0, "symmetric about 0"),
        ((None, None), 0.0, None),
        ((), 0.0, None),
    ],
)
def test_an_order_that_cannot_be_checked_is_known(
    tmp_path: Path, points: tuple[float | None, ...], theta: float | None, text: str | None
) -> None:
    file = open_sample("x", [write_lhef(tmp_path / "a.root", stop=2)]).files
    found = unchecked_order(file, points, theta)
    assert found is None if text is None else text in str(found)


def test_symmetric_points_in_reverse_do_close_and_only_the_warning_tells(tmp_path: Path) -> None:
    points = (-1.0, -0.5, None, None, None, 0.5, 1.0)
    for order in (points, points[::-1]):
        file = write_lhef(tmp_path / "a.root", stop=20)
        summary = table(open_sample("x", [file], theta=0.0, weight_points=order), tmp_path / "out")
        assert any(
            "the order of weight_points cannot be checked" in warning for warning in summary["warnings"]
        )


def test_names_that_say_the_points_settle_the_order(tmp_path: Path) -> None:
    file = write_lhef(tmp_path / "a.root", stop=2)
    symmetric = (-1.0, -0.5, -0.1, 0.1, 0.5, 1.0)
    for names, text in (
        ([f"cHW_{point:g}" for point in symmetric], None),
        ([f"cHW_{point:g}" for point in symmetric[::-1]], "are in another order"),
        (["a", "b", "c", "d", "e", "f"], "symmetric about 0"),
        ([f"rwgt_{i}" for i in range(6)], "symmetric about 0"),
        (["cHW_1"], "symmetric about 0"),
    ):
        (tmp_path / "a.json").write_text(json.dumps({"weight_names": names}))
        found = open_sample("x", [file], theta=0.0, weight_points=symmetric).order
        assert found is None if text is None else text in str(found), names
    by_name = dict(zip(["a", "b", "c", "d", "e", "f"], symmetric, strict=True))
    (tmp_path / "a.json").write_text(json.dumps({"weight_names": list(by_name)}))
    assert open_sample("x", [file], theta=0.0, weight_points=by_name).order is None


def test_points_that_the_generator_wrote_beside_its_file_are_not_contradicted(tmp_path: Path) -> None:
    file = write_lhef(tmp_path / "a.root", stop=2)
    symmetric = [-1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 2.0]
    (tmp_path / "a.json").write_text(json.dumps({"weight_points": symmetric}))
    assert open_sample("x", [file], theta=0.0, weight_points=symmetric).order is None
    open_sample("x", [file], theta=0.0, weight_points=[-1.0, None, -0.1, 0.1, 0.5, 1.0, 2.0])
    with pytest.raises(
        EventWeightError, match=r"weights belong to -1, -0\.5, .* other values or another order"
    ):
        open_sample("x", [file], theta=0.0, weight_points=symmetric[::-1])


def test_names_of_weights_have_to_be_clear(tmp_path: Path) -> None:
    first, second = (
        write_lhef(tmp_path / f"{name}.root", start=i, stop=i + 2) for i, name in enumerate("ab")
    )
    (tmp_path / "a.json").write_text(json.dumps({"weight_names": ["up", "down", "up"]}))
    with pytest.raises(EventWeightError, match="has twice the weight up; it has up, down, up"):
        open_sample("x", [first], weight_points={"up": 1.0})
    (tmp_path / "a.json").write_text(json.dumps({"weight_names": ["up", "down"]}))
    (tmp_path / "b.json").write_text(json.dumps({"weight_names": ["down", "up"]}))
    for points in ({"up": 1.0, "down": -1.0}, (1.0, -1.0)):
        with pytest.raises(EventWeightError, match="weights in different orders"):
            open_sample("x", [first, second], weight_points=points)
    broken = tmp_path / "names.json"
    broken.write_text("{")
    with pytest.raises(
        EventWeightError, match=r"names\.json, named under weight_names, should be a JSON file"
    ):
        open_sample("x", [first], weight_points={"up": 1.0}, weight_names=broken)


def test_names_of_variations_are_as_many_as_the_weights(tmp_path: Path) -> None:
    """A name too few at the beginning would shift all places."""
    file = write_lhef(tmp_path / "a.root", stop=5)
    for names, fits in (
        (["a", "b", "c", "d", "e", "up", "down"], True),
        (["b", "c", "d", "e", "up", "down"], False),
    ):
        (tmp_path / "a.json").write_text(json.dumps({"weight_names": names}))
        sample = open_sample("x", [file], theta=0.0, variations={"scale": ("up", "down")})
        if fits:
            table(sample, tmp_path / "out")
        else:
            with pytest.raises(EventWeightError, match=r"has 7 weights per event .* names 6 weights"):
                table(sample, tmp_path / "out")
