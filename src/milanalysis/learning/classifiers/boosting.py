"""Boosted trees of XGBoost and LightGBM, as a `milanalysis.learning.classifiers.classifier.Classifier`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milanalysis.config import LightGBMConfig, XGBoostConfig
from milanalysis.files.provenance import atomic_path
from milanalysis.learning.classifiers.classifier import LabelledEvents, Rounds, in_blocks
from milanalysis.parameters import Float32Array, FloatArray

__all__ = ["LightGBMClassifier", "XGBoostClassifier", "boost_lightgbm", "boost_xgboost"]


@dataclass(frozen=True, eq=False)
class XGBoostClassifier:
    """Boosted trees of XGBoost.

    Attributes:
        booster: an ``xgboost.Booster``.

    Source:
        Chen and Guestrin, arXiv:1603.02754.
    """

    booster: Any

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the logits for bags of one event, shape ``(n_bags, n_outputs)``."""
        return self.events(features[:, 0])

    def events(self, features: Float32Array) -> FloatArray:
        """Return the logits for events, shape ``(n_events, n_outputs)``."""
        return in_blocks(
            lambda block: self.booster.inplace_predict(block, predict_type="margin", validate_features=False),
            features,
        )

    def write(self, path: Path) -> None:
        """Write the trees in XGBoost's binary JSON."""
        with atomic_path(path) as temporary:
            self.booster.save_model(temporary)


def boost_xgboost(
    model: XGBoostConfig,
    training: LabelledEvents,
    validation: LabelledEvents,
    n_classes: int,
    seed: int,
    rounds: Rounds,
) -> tuple[XGBoostClassifier, int]:
    """Add trees of XGBoost until the validation events say that it is enough."""
    import xgboost

    class Record(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
            del model, epoch
            (loss,), (validation_loss,) = (list(evals_log[name].values()) for name in ("train", "validation"))
            return rounds.add(loss[-1], validation_loss[-1])

    objective = {"objective": "binary:logistic", "eval_metric": "logloss"}
    if n_classes > 2:
        objective = {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": str(n_classes)}
    settings = {
        **objective,
        "eta": model.learning_rate,
        "max_depth": model.depth,
        "lambda": model.l2,
        "tree_method": "hist",
        "nthread": 1,
        "seed": seed,
        "verbosity": 0,
    }
    data = xgboost.QuantileDMatrix(training.features, label=training.classes, nthread=1)
    held_out = xgboost.QuantileDMatrix(validation.features, label=validation.classes, ref=data, nthread=1)
    booster = xgboost.train(
        settings,
        data,
        num_boost_round=model.max_rounds,
        evals=[(data, "train"), (held_out, "validation")],
        verbose_eval=False,
        callbacks=[Record()],
    )[: rounds.best_epoch + 1]
    leaves = sum(tree.count("leaf=") for tree in booster.get_dump())
    return XGBoostClassifier(booster), leaves


@dataclass(frozen=True, eq=False)
class LightGBMClassifier:
    """Boosted trees of LightGBM.

    Attributes:
        booster: a ``lightgbm.Booster``.

    Source:
        Ke et al., Advances in Neural Information Processing Systems 30 (2017) 3146.
    """

    booster: Any

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the logits for bags of one event, shape ``(n_bags, n_outputs)``."""
        return self.events(features[:, 0])

    def events(self, features: Float32Array) -> FloatArray:
        """Return the logits for events, shape ``(n_events, n_outputs)``."""
        return in_blocks(lambda block: self.booster.predict(block, raw_score=True, num_threads=1), features)

    def write(self, path: Path) -> None:
        """Write the trees in LightGBM's text format."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.booster.model_to_string())


def boost_lightgbm(
    model: LightGBMConfig,
    training: LabelledEvents,
    validation: LabelledEvents,
    n_classes: int,
    seed: int,
    rounds: Rounds,
) -> tuple[LightGBMClassifier, int]:
    """Add trees of LightGBM until the validation events say that it is enough."""
    import lightgbm

    def record(environment: Any) -> None:
        losses = {result[0]: result[2] for result in environment.evaluation_result_list}
        if rounds.add(float(losses["train"]), float(losses["validation"])):
            raise lightgbm.callback.EarlyStopException(rounds.best_epoch, environment.evaluation_result_list)

    settings = {
        "objective": "binary" if n_classes == 2 else "multiclass",
        "metric": "binary_logloss" if n_classes == 2 else "multi_logloss",
        "num_class": 1 if n_classes == 2 else n_classes,
        "learning_rate": model.learning_rate,
        "num_leaves": model.leaves,
        "min_data_in_leaf": model.events_per_leaf,
        "lambda_l2": model.l2,
        "num_threads": 1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(training.features, label=training.classes, params=settings)
    held_out = lightgbm.Dataset(
        validation.features, label=validation.classes, reference=data, params=settings
    )
    trained = lightgbm.train(
        settings,
        data,
        num_boost_round=model.max_rounds,
        valid_sets=[data, held_out],
        valid_names=["train", "validation"],
        callbacks=[record],
    )
    booster = lightgbm.Booster(model_str=trained.model_to_string(num_iteration=rounds.best_epoch + 1))
    leaves = sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"])
    return LightGBMClassifier(booster), leaves
