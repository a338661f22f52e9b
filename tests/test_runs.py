from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from milanalysis.config import (
    BackgroundConfig,
    CosineScheduleConfig,
    GridConfig,
    ModelConfig,
    MulticlassTaskConfig,
    NetworkConfig,
    PlateauScheduleConfig,
    PolynomialTaskConfig,
    TrainingConfig,
)
from milanalysis.errors import FitError, InputFileError, ModelMismatchError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import read_json
from milanalysis.learning.models.stored import Manifest, cached_model, load_model
from milanalysis.learning.training import jobs as runs
from milanalysis.learning.training.jobs import TrainingJob, train_member, train_models, training_jobs
from milanalysis.ratios.bags import partition
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.toys import QuadraticEFT

# Keras converts TensorFlow variables with np.array(), and these do not know numpy 2's copy keyword yet.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

REFERENCE = np.zeros(1)
TINY = TrainingConfig(
    batch_events=200,
    steps_per_epoch=3,
    max_epochs=2,
    validation_events=200,
    schedule=CosineScheduleConfig(),
)
MODELS = {
    "polynomial": ModelConfig(
        title="polynomial per-event",
        task=PolynomialTaskConfig(),
        members=2,
        network=NetworkConfig(hidden=(5,), activation="silu", batch_norm=False, dropout=0.0, l2=0.0),
        training=TINY,
    ),
    "bags": ModelConfig(
        title="multiclass bag",
        bag_size=10,
        task=MulticlassTaskConfig(grid=GridConfig(n_points=3)),
        network=NetworkConfig(hidden=(5,)),
        training=TINY,
    ),
}


def small_table() -> EventTable:
    return QuadraticEFT(information=0.3).table(np.random.default_rng(1), 1000)


def jobs_in(directory: Path, table: EventTable | None = None) -> list[TrainingJob]:
    """Write the table as two files and describe the training of all members on it."""
    table = table or small_table()
    half = len(table) // 2
    paths = [directory / "first.parquet", directory / "second.parquet"]
    table.take(np.arange(half)).write(paths[0])
    table.take(np.arange(half, len(table))).write(paths[1])
    return training_jobs(MODELS, tables=paths, reference=REFERENCE, seed=7, directory=directory / "models")


def in_this_process(jobs: list[TrainingJob]) -> None:
    for job in jobs:
        train_member(job)
    for label in MODELS:
        runs.write_manifest([job for job in jobs if job.label == label])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, trained in processes of their own."""
    directory = tmp_path_factory.mktemp("runs")
    train_models(jobs_in(directory), workers=2)
    return directory / "models"


def copied(directory: Path, target: Path) -> Path:
    target.mkdir()
    for path in directory.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_model_is_a_network_a_record_and_metrics_per_member_and_a_manifest(models: Path):
    members = [f"member-{i:02d}{suffix}" for i in (0, 1) for suffix in (".csv", ".json", ".keras")]
    assert sorted(path.name for path in (models / "polynomial").iterdir()) == ["manifest.json", *members]


def test_the_manifest_says_what_the_model_is_and_where_it_came_from(models: Path):
    manifest = Manifest.read(models / "polynomial")
    assert manifest.label == "polynomial"
    assert manifest.model == MODELS["polynomial"]
    assert manifest.feature_names == small_table().feature_names
    table = small_table()
    assert manifest.table_sha256 == table.take(table.rows(Split.TRAIN, Split.VALIDATION)).digest
    assert (manifest.seed, manifest.reference) == (7, (0.0,))
    assert {"python", "numpy", "keras"} <= manifest.versions.keys()
    record = manifest.members[1]
    assert record.n_parameters == 12 * 5 + 5 + 5 * 4 + 4
    assert record.n_epochs == 2
    assert len(record.normalisation) == 5


def test_a_loaded_model_is_the_mean_of_its_members(models: Path):
    terms = load_model(models / "polynomial").terms(small_table())
    assert isinstance(terms, PolynomialTerms)
    assert terms.polynomials.shape == (2, 1000, 5)
    assert not np.allclose(terms.polynomials[0], terms.polynomials[1])


def test_bags_and_their_events_agree_in_a_loaded_model(models: Path):
    """The network works in float32: 1e-6 on logits of order one, times the bag size of 10 in no place."""
    ratio = load_model(models / "bags")
    bags, _ = partition(small_table(), np.arange(1000), 10)
    grid = GridConfig(n_points=3).points()
    terms = ratio.terms(small_table())
    assert isinstance(terms, GridTerms)
    np.testing.assert_allclose(terms.log_ratio(bags.index, grid), ratio.log_ratio(bags, grid), atol=5e-6)


def test_trained_here_or_in_other_processes_the_model_is_the_same(models: Path, tmp_path: Path):
    """Up to the threads of this process, which may add in another order."""
    jobs = [job for job in jobs_in(tmp_path) if job.label == "bags"]
    train_member(jobs[0])
    runs.write_manifest(jobs)
    np.testing.assert_allclose(
        load_model(tmp_path / "models" / "bags").terms(small_table()).values,
        load_model(models / "bags").terms(small_table()).values,
        atol=1e-5,
    )


def test_a_trained_member_is_not_trained_again_but_a_changed_one_is(tmp_path: Path):
    job = next(job for job in jobs_in(tmp_path) if job.label == "bags")
    epochs: list[int] = []

    def count(epoch) -> None:
        epochs.append(epoch.epoch)

    train_member(job, count)
    train_member(job, count)
    assert epochs == [0, 1]
    assert not job.file(".checkpoint.npz").exists()
    job.file(".keras").write_bytes(b"something else")
    train_member(job, count)
    assert epochs == [0, 1, 0, 1]
    train_member(replace(job, seed=8), count)
    assert epochs == [0, 1] * 3


def test_members_trained_on_different_tables_are_not_a_model(tmp_path: Path):
    jobs = [job for job in jobs_in(tmp_path) if job.label == "polynomial"]
    for job in jobs:
        job.file(".json").parent.mkdir(parents=True, exist_ok=True)
        job.file(".json").write_text(json.dumps({"table_sha256": str(job.member), "feature_names": []}))
    with pytest.raises(ModelMismatchError, match="different tables"):
        runs.write_manifest(jobs)


def test_a_model_is_required_to_be_what_the_analysis_says(models: Path):
    manifest = Manifest.read(models / "bags")
    model, features = MODELS["bags"], small_table().feature_names
    manifest.require(replace(model, title="renamed"), REFERENCE, features)
    for changed, point, names, what in (
        (replace(model, bag_size=20), REFERENCE, features, "bag_size 10 and the analysis has 20"),
        (model, np.array([0.1]), features, "reference"),
        (model, REFERENCE, features[::-1], "features"),
        (replace(model, task=MulticlassTaskConfig()), REFERENCE, features, "task"),
    ):
        with pytest.raises(ModelMismatchError, match=what):
            manifest.require(changed, point, names)


@pytest.mark.parametrize("content", [None, "", "{}", '{"label": 3}'])
def test_a_directory_without_a_manifest_is_not_a_model(content: str | None, tmp_path: Path):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputFileError, match=r"manifest\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_an_unreadable_network_is_named(content: bytes | None, models: Path, tmp_path: Path):
    broken = copied(models / "bags", tmp_path / "bags")
    (broken / "member-00.keras").unlink()
    if content is not None:
        (broken / "member-00.keras").write_bytes(content)
    with pytest.raises(InputFileError, match=r"bags/member-00\.keras"):
        load_model(broken)


def test_a_network_that_is_not_that_of_the_manifest_is_refused(models: Path, tmp_path: Path):
    mixed = copied(models / "polynomial", tmp_path / "polynomial")
    (mixed / "member-00.keras").write_bytes((mixed / "member-01.keras").read_bytes())
    with pytest.raises(ModelMismatchError, match=r"member-00\.keras is not the network"):
        load_model(mixed)


def test_a_manifest_that_lacks_a_network_is_refused(models: Path, tmp_path: Path):
    directory = copied(models / "polynomial", tmp_path / "polynomial")
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["members"][0]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelMismatchError, match="lists 1 networks and its model has 2"):
        load_model(directory)


def test_a_model_is_loaded_once_per_process_until_it_changes(models: Path, tmp_path: Path):
    directory = copied(models / "bags", tmp_path / "bags")
    first = cached_model(directory)
    assert cached_model(directory) is first
    manifest = directory / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert cached_model(directory) is not first
    with pytest.raises(InputFileError):
        cached_model(tmp_path / "nothing")


def test_an_error_in_another_process_arrives_as_it_was_raised(tmp_path: Path):
    jobs = [job for job in jobs_in(tmp_path) if job.label == "polynomial"]
    plateau = PlateauScheduleConfig(initial=1e30, final=1e30)
    wild = [replace(job, model=replace(job.model, training=replace(TINY, schedule=plateau))) for job in jobs]
    with pytest.raises(FitError, match="diverged in epoch 0"):
        train_models(wild, workers=1)
    assert not (tmp_path / "models" / "polynomial" / "manifest.json").exists()


def test_the_background_of_a_model_is_read_and_is_part_of_what_it_was_trained_on(tmp_path: Path):
    signal, other = small_table(), small_table()
    other = replace(other, event_weights=np.zeros((len(other), 4)), event_id=other.event_id + 10**6)
    paths = [tmp_path / "signal.parquet", tmp_path / "zz.parquet"]
    for table, path in zip((signal, other), paths, strict=True):
        table.write(path)
    background = BackgroundConfig(sample="zz", contamination=0.25)
    clean = MODELS["bags"]
    models = {"clean": clean, "contaminated": replace(clean, background=background)}
    jobs = training_jobs(
        models,
        tables=paths[:1],
        reference=REFERENCE,
        seed=7,
        directory=tmp_path / "models",
        backgrounds={"zz": paths[1]},
    )
    about = {}
    for job in jobs:
        train_member(job)
        about[job.label] = read_json(job.file(".json"))
    digests = {job.label: job.training_files.open(tmp_path).digest for job in jobs}
    assert digests == {label: entry["table_sha256"] for label, entry in about.items()}
    assert digests["clean"] != digests["contaminated"]
