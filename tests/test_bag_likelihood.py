"""The bag processor, on the genuine file, against direct evaluation on the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milanalysis.config import (
    CosineScheduleConfig,
    FuturesExecutorConfig,
    GridConfig,
    IterativeExecutorConfig,
    ModelConfig,
    MulticlassTaskConfig,
    NetworkConfig,
    PolynomialTaskConfig,
    TrainingConfig,
)
from milanalysis.errors import BagSizeMismatchError, InputFileError
from milanalysis.events.files.samples import Sample, open_sample
from milanalysis.events.processing.processors import load_processor, run_processor
from milanalysis.events.processing.tables_of_samples import make_tables
from milanalysis.events.tables import EventTable, Split
from milanalysis.learning.models.stored import load_model
from milanalysis.learning.training.jobs import train_member, training_jobs, write_manifest
from milanalysis.parameters import parameter_points
from milanalysis.ratios.bags import partition
from milanalysis.ratios.terms import concatenate_terms, load_terms

# Keras converts TensorFlow variables with np.array(), and these do not know numpy 2's copy keyword yet.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

GENUINE = Path(__file__).parent / "data" / "vbf_hww_sm.lhef.root"
PROCESSORS = Path(__file__).parents[1] / "processors"
POINTS = (-1.0, -0.5, -0.1, 0.1, 0.2, 0.5, 1.0)
GRID = GridConfig(n_points=5).points()
BAG = 7
EDGES = np.array([-np.inf, -0.01, 0.0, 0.02, np.inf])

TINY = TrainingConfig(
    batch_events=280, steps_per_epoch=5, max_epochs=2, validation_events=280, schedule=CosineScheduleConfig()
)
MODELS = {
    "polynomial": ModelConfig(
        title="",
        task=PolynomialTaskConfig(),
        network=NetworkConfig(hidden=(5,), activation="silu", batch_norm=False, dropout=0.0, l2=0.0),
        training=TINY,
    ),
    "bags": ModelConfig(
        title="",
        bag_size=BAG,
        task=MulticlassTaskConfig(grid=GridConfig(n_points=5)),
        network=NetworkConfig(hidden=(5,)),
        training=TINY,
    ),
}


@pytest.fixture(scope="module")
def sample() -> Sample:
    return open_sample("sm", [GENUINE], theta=0.0, weight_points=POINTS, seed=5)


@pytest.fixture(scope="module")
def table(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> EventTable:
    directory = tmp_path_factory.mktemp("table")
    features = load_processor(PROCESSORS / "features.py")()
    make_tables(features, sample, directory, executor=IterativeExecutorConfig(), chunk_size=1000)
    return EventTable.read(directory / "events.parquet")


@pytest.fixture(scope="module")
def models(table: EventTable, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Hardly trained models: what they say is nonsense, and has to be the same nonsense everywhere."""
    directory = tmp_path_factory.mktemp("models")
    table.write(directory / "events.parquet")
    jobs = training_jobs(
        MODELS, tables=[directory / "events.parquet"], reference=np.zeros(1), seed=1, directory=directory
    )
    for job in jobs:
        train_member(job)
        write_manifest([job])
    return {label: directory / label for label in MODELS}


@pytest.fixture(scope="module")
def evaluate(sample: Sample, models: dict[str, Path]) -> Callable[..., dict[str, Any]]:
    """Run the bag processor over the genuine file."""

    def run(
        scratch: Path | None = None,
        chunk_size: int = 1000,
        executor: IterativeExecutorConfig | FuturesExecutorConfig = IterativeExecutorConfig(),  # noqa: B008
        **options: Any,
    ) -> dict[str, Any]:
        settings = {"models": models, "theta": GRID, "bag_size": 10, "splits": tuple(Split), **options}
        processor = load_processor(PROCESSORS / "bag_likelihood.py")(
            load_processor(PROCESSORS / "features.py")(), **settings
        )
        return run_processor(processor, sample, executor=executor, chunk_size=chunk_size, scratch=scratch)

    return run


def joined(by_chunk: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([by_chunk[chunk] for chunk in sorted(by_chunk)])


def joined_terms(by_chunk: dict[str, str]):
    return concatenate_terms([load_terms(Path(by_chunk[chunk])) for chunk in sorted(by_chunk)])


@pytest.mark.parametrize(("label", "bag_size"), [("bags", BAG), ("polynomial", 10)])
def test_log_ratios_of_bags_are_those_of_direct_evaluation(
    evaluate, table: EventTable, models: dict[str, Path], label: str, bag_size: int
):
    """One chunk has the bags of the whole table; the network is evaluated in float32, 1e-6 per output."""
    output = evaluate()
    bags, remainder = partition(table, np.arange(len(table)), bag_size)
    direct = load_model(models[label]).log_ratio(bags, GRID)
    np.testing.assert_allclose(joined(output["bags"][label]), direct, atol=1e-5)
    assert output["counts"][label] == {
        "n_selected": 1000,
        "n_bagged": bags.index.size,
        "n_remainder": len(remainder),
    }


@pytest.mark.parametrize(("chunk_size", "bag_size"), [(1000, 10), (333, 10), (333, 400)])
def test_every_selected_event_is_in_one_bag_or_in_the_remainder(evaluate, chunk_size: int, bag_size: int):
    """In the last case no chunk has enough events for one bag."""
    output = evaluate(chunk_size=chunk_size, bag_size=bag_size)
    for label, size in (("bags", BAG), ("polynomial", bag_size)):
        counts = output["counts"][label]
        assert counts["n_selected"] == output["cutflow"].n_selected == 1000
        assert counts["n_bagged"] + counts["n_remainder"] == 1000
        assert counts["n_bagged"] == size * len(joined(output["bags"][label]))


def test_bags_and_remainder_make_up_the_log_ratio_of_the_dataset(
    evaluate, table: EventTable, models: dict[str, Path], tmp_path: Path
):
    """142 bags and 6 events add up in float32 networks; each term is good to 1e-6."""
    output = evaluate(tmp_path)
    terms = joined_terms(output["terms"]["bags"])
    remainder = np.arange(1000 - 1000 % BAG, 1000)
    total = joined(output["bags"]["bags"]).sum(axis=0) + terms.log_ratio(remainder, GRID)
    direct = load_model(models["bags"]).terms(table).log_ratio(np.arange(1000), GRID)
    np.testing.assert_allclose(total, direct, atol=1e-3)


def test_scores_are_in_the_order_of_the_table_whatever_the_chunks(
    evaluate, table: EventTable, models: dict[str, Path], tmp_path: Path
):
    output = evaluate(tmp_path, chunk_size=270, splits=(Split.TEST,))
    rows = table.rows(Split.TEST)
    np.testing.assert_array_equal(joined(output["event_id"]), table.event_id[rows])
    for label in MODELS:
        direct = load_model(models[label]).terms(table.take(rows)).per_event(GRID)
        np.testing.assert_allclose(joined_terms(output["terms"][label]).per_event(GRID), direct, atol=1e-5)


def test_workers_and_their_order_do_not_matter(evaluate, tmp_path: Path):
    here = evaluate(tmp_path / "here", chunk_size=270)
    there = evaluate(
        tmp_path / "there", chunk_size=270, executor=FuturesExecutorConfig(workers=2), one_thread=True
    )
    assert here["counts"] == there["counts"]
    for label in MODELS:
        np.testing.assert_allclose(joined(here["bags"][label]), joined(there["bags"][label]), atol=1e-5)
        assert len(joined_terms(there["terms"][label])) == 1000


def test_models_that_know_a_grid_are_evaluated_there(evaluate):
    output = evaluate(theta=parameter_points([0.0, 0.3]))
    known = {label: next(iter(points.values())).tolist() for label, points in output["points"].items()}
    assert known["polynomial"] == [[0.0], [0.3]]
    assert known["bags"] == GRID.tolist()
    assert {one.shape[1] for one in output["bags"]["bags"].values()} == {len(GRID)}


def test_a_model_that_is_not_there_is_named(evaluate, tmp_path: Path):
    with pytest.raises(InputFileError, match="nothing"):
        evaluate(models={"nothing": tmp_path / "nothing"})


def test_the_network_in_the_processor_keeps_to_its_bag_size(table: EventTable, models: dict[str, Path]):
    with pytest.raises(BagSizeMismatchError):
        load_model(models["bags"]).log_ratio(partition(table, np.arange(100), 10)[0], GRID)
