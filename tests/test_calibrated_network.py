"""A network after the paper's recipe on bags of 250 events, and what makes its intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from milanalysis.config import CosineScheduleConfig, ModelConfig, MulticlassTaskConfig, TrainingConfig
from milanalysis.events.tables import Split
from milanalysis.learning.models.stored import load_model
from milanalysis.learning.training.jobs import train_models, training_jobs
from milanalysis.parameters import Parameter
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.calibration.calibrations import CalibrationSample
from milanalysis.statistics.calibration.observable import learn_observable
from milanalysis.statistics.likelihood.interpolation import ParabolaWindow
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.repetition.datasets import draw
from milanalysis.statistics.repetition.pseudo_experiments import run

# Keras converts TensorFlow variables with np.array(), and these do not know numpy 2's copy keyword yet.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

N_EXPERIMENTS, N_EVENTS = 400, 1000


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Pseudo-experiments of events that neither network nor observable has seen, at two true values."""
    directory = tmp_path_factory.mktemp("network")
    table = QuadraticEFT(0.3).table(np.random.default_rng(250), 220_000, fractions=(0.5, 0.25, 0.25))
    table.write(directory / "events.parquet")
    model = ModelConfig(
        title="multiclass bag",
        bag_size=250,
        task=MulticlassTaskConfig(),  # network: that of the paper, dropout and L2 included
        training=TrainingConfig(
            batch_events=10_500,
            steps_per_epoch=100,
            max_epochs=2,
            validation_events=21_000,
            schedule=CosineScheduleConfig(),
        ),
    )
    jobs = training_jobs(
        {"bags": model},
        tables=[directory / "events.parquet"],
        reference=np.zeros(1),
        seed=1,
        directory=directory,
    )
    train_models(jobs, workers=1)
    validation, test = table.take(table.rows(Split.VALIDATION)), table.take(table.rows(Split.TEST))
    ratio, parameter = load_model(directory / "bags"), Parameter(name="c")
    contents = validation.weights_at(0.0) * validation.event_polynomials()
    sample = CalibrationSample(np.arange(len(validation)), contents, validation.event_id)
    observable = learn_observable(ratio.terms(validation), sample, parameter)
    raw = ShapeModel(ratio.terms(test), parameter, ParabolaWindow())
    models = {"raw": raw, "observable": observable.apply(raw)}
    found = {}
    for theta in (0.0, 0.2):
        weights = test.weights_at(theta)[:, 0]
        rows = draw(weights, N_EXPERIMENTS, N_EVENTS, np.random.default_rng(251))
        found[theta] = run(models, rows, theta_true=theta).methods
    return found


@pytest.mark.parametrize("theta", [0.0, 0.2])
def test_as_an_observable_it_covers_without_a_constant_tuned_on_what_it_is_quoted_on(judged, theta):
    methods = judged[theta]
    error = np.sqrt(0.6827 * 0.3173 / N_EXPERIMENTS)
    # 3 binomial standard deviations of 400 trials; the common fluctuation of the finite samples moves it by
    # far less
    assert methods["observable"].covers(theta).mean() == pytest.approx(0.6827, abs=3 * error)
    # as it is it does not cover: its log ratios are far too flat
    assert abs(methods["raw"].covers(theta).mean() - 0.6827) > 4 * error
