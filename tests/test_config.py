"""The YAML of an analysis: what is accepted, and how clearly the rest is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from milanalysis.config import FitPDFConfig, GridConfig, load_config
from milanalysis.errors import ConfigError
from milanalysis.files.records import to_plain

ROOT = Path(__file__).parents[1]
MINIMAL = {
    "name": "small",
    "seed": 1,
    "luminosity_fb": 100,
    "samples": {
        "sm": {"kind": "generate", "role": "simulation", "theta": 0, "events": 10},
        "data": {"kind": "files", "role": "observed", "files": ["data.root"]},
    },
    "models": {"bag": {"title": "a bag", "task": {"kind": "multiclass"}}},
    "templates": {"discriminant": {"model": "bag", "theta": 0.5}},
}


def written(directory: Path, **changes: object) -> Path:
    path = directory / "analysis.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return path


@pytest.mark.parametrize(
    "path", sorted((ROOT / "analysis_configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_shipped_analysis_is_valid_and_its_processors_exist(path):
    config = load_config(path)
    assert config.processing.features.is_file()
    assert config.processing.bag_likelihood.is_file()


def test_defaults_are_those_of_the_paper(tmp_path):
    config = load_config(written(tmp_path))
    network = config.models["bag"].network
    assert network.hidden == (64, 64, 64)
    assert (network.activation, network.batch_norm, network.dropout, network.l2) == ("elu", True, 0.1, 1e-3)
    assert config.models["bag"].training.batch_events == 80_000
    assert config.generator.cuts.leptons is None
    assert config.generator.pdf == FitPDFConfig()
    np.testing.assert_array_equal(GridConfig().points()[:, 0], np.round(np.arange(-10, 11) / 10, 1))


def test_paths_are_relative_to_the_file_wherever_the_command_is_run(tmp_path, monkeypatch):
    path = written(tmp_path)
    monkeypatch.chdir("/")
    assert load_config(path).samples["data"].files == ((tmp_path / "data.root").resolve(),)


def test_a_config_survives_being_written_out_with_all_defaults(tmp_path):
    config = load_config(written(tmp_path))
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(to_plain(config)))
    assert load_config(again) == config


def test_numbers_in_scientific_notation_that_yaml_takes_for_text_are_numbers(tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text().replace("luminosity_fb: 100", "luminosity_fb: 1e2"))
    assert load_config(path).luminosity_fb == 100.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("010", 10.0),
        ("+1E2", 100.0),
        (".5", 0.5),
        ("7.", 7.0),
        ("1_000", 1000.0),
        ("1:30", None),
        ("0x10", None),
        ("true", None),
        ("yes", None),
        (".inf", None),
        ("-.inf", None),
        (".nan", None),
        ("2026-11-27", None),
        ("[1]", None),
        ("9" * 5000, None),
        ("!!bool maybe", None),
        ("!!timestamp x", None),
        ("~", None),
    ],
)
def test_a_number_is_what_people_mean_by_it_or_is_refused(tmp_path, text, found):
    path = written(tmp_path)
    path.write_text(path.read_text().replace("luminosity_fb: 100", f"luminosity_fb: {text}"))
    if found is not None:
        assert load_config(path).luminosity_fb == found
        return
    with pytest.raises(ConfigError, match=r"(?s)analysis\.yaml.*(luminosity_fb|not valid YAML)"):
        load_config(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": True}, ["seed: true is no number"]),
        (
            {
                "samples": {
                    **MINIMAL["samples"],
                    "files": {
                        "kind": "files",
                        "role": "simulation",
                        "files": ["x.root"],
                        "weight_points": {"a": True},
                    },
                }
            },
            ["weight_points.a: true is no number"],
        ),
        ({"truth": {"auc_at": [0.1, False]}}, ["truth.auc_at: false is no number"]),
        ({"processing": {"executor": {"kind": "futures", "workers": True}}}, ["workers: true is no number"]),
        (
            {"processing": {"chunk_size": 100, "chunk_multiple": 101}},
            ["processing", "chunk_multiple", "at most 100 events", "enlarge chunk_size"],
        ),
        ({"sede": 3}, ["sede", "no such key"]),
        ({"seed": "many"}, ["seed", "integer", "'many'"]),
        ({"seed": -1}, ["seed", "greater than or equal to 0"]),
        ({"name": "a/b"}, ["name", "file name"]),
        ({"luminosity_fb": 0}, ["luminosity_fb", "greater than 0"]),
        ({"luminosity_fb": float("inf")}, ["luminosity_fb", "finite"]),
        ({"samples": {"sm": MINIMAL["samples"]["sm"]}}, ["role: observed"]),
        ({"templates": {"discriminant": {"model": "bog", "theta": 1}}}, ["'bog'", "bag"]),
        (
            {"models": {"bag": {"title": "t", "task": {"kind": "multiclas"}}}},
            ["models.bag.task", "multiclas"],
        ),
        (
            {"models": {"bag": {"title": "t", "task": {"kind": "multiclass", "theta": 1}}}},
            ["theta", "no such key"],
        ),
        (
            {
                "models": {
                    "bag": {"title": "t", "task": {"kind": "multiclass", "grid": {"low": -1, "n_points": 2}}}
                }
            },
            ["models.bag.task.grid", "grid point"],
        ),
        (
            {
                "models": {
                    "bag": {
                        "title": "t",
                        "task": {"kind": "multiclass", "grid": {"low": 1, "high": -1}},
                    }
                }
            },
            ["models.bag.task", "below high"],
        ),
        ({"models": {**MINIMAL["models"], "exact": MINIMAL["models"]["bag"]}}, ["models.exact", "label"]),
        (
            {
                "models": {
                    "bag": {
                        **MINIMAL["models"]["bag"],
                        "bag_size": 2,
                        "background": {"sample": "zz", "contamination": 1},
                    }
                }
            },
            ["models.bag.background.sample", "'zz'", "role: background"],
        ),
        ({"templates": {"discriminant": {"model": "bag", "theta": 0.25}}}, ["discriminant.theta", "0.25"]),
        ({"coverage": {"theta": 5}}, ["coverage.theta", "parameter.high"]),
        ({"split": {"train": 0.5, "validation": 0.2, "test": 0.2}}, ["split", "add up to 1"]),
        ({"parameter": {"reference": 3.0}}, ["parameter", "between"]),
        (
            {
                "parameter": {"reference": 0.5},
                "models": {"bag": {"title": "t", "task": {"kind": "polynomial"}}},
            },
            ["models.bag.task", "polynomial learns ratios relative to their value at 0", "0.5"],
        ),
        (
            {"samples": {"zz": {"kind": "generate_zz", "role": "simulation", "events": 10}}},
            ["samples.zz", "'background' or 'observed'", "'simulation'"],
        ),
        ({"exact": {"visible": "perhaps"}}, ["exact.visible", "'automatic'"]),
        ({"truth": {"points": 10}}, ["truth.points", "100000"]),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_was_expected(tmp_path, changes, words):
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["name: [", "- a\n- b\n", "", "\x00"])
def test_what_is_not_a_mapping_in_yaml_is_refused_by_name(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config(path)


def test_a_key_that_is_written_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "analysis.yaml"
    path.write_text("name: twice\nseed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match=r"(?s)'seed' is there twice.*line 3"):
        load_config(path)


def test_a_missing_or_unreadable_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("model", "theta", "words"),
    [
        ({"kind": "multiclass"}, 5.0, "in the range of the parameter (-1 to 1)"),
        ({"kind": "polynomial", "theta_range": 0.3}, 0.5, "of the training of models.bag (-0.3 to 0.3)"),
    ],
)
def test_a_discriminant_lies_where_its_model_was_trained(tmp_path, model, theta, words):
    path = written(
        tmp_path,
        models={"bag": {"title": "a bag", "task": model}},
        templates={"discriminant": {"model": "bag", "theta": theta}},
    )
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert words in str(refused.value)
