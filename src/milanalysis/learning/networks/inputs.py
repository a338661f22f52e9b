"""Preparation of raw features for a network: invariants, and the moments for standardising them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from milanalysis.errors import ConfigError
from milanalysis.learning.networks.backend import keras, tf
from milanalysis.parameters import Float32Array, FloatArray

__all__ = ["Columns", "SymmetricInputs", "moments"]

_PRODUCT_SCALE = 1e4
"""Unit of products of transverse momenta [GeV^2]."""


@keras.saving.register_keras_serializable(package="milanalysis")
class SymmetricInputs(keras.layers.Layer):
    """Features that do not change under the symmetries of a proton-proton collision.

    Rotations about the beam and the exchange of the two beams leave the physics as it is. The leading quark
    defines the frame: its azimuth becomes zero, and it has the larger pseudorapidity. By name, a feature

    - ``*_phi`` becomes cosine and sine of its azimuth relative to ``q0_phi`` (which is dropped itself);
    - ``dphi_*`` (azimuth of the object at larger eta minus the other's) becomes its cosine and sine;
    - ``*_eta`` changes its sign if ``q0_eta < q1_eta``; so do the sines of ``dphi_*``, whose ordering turns
      round;
    - ``*_pt``, ``*_e``, ``*_m``, ``met``, ``m_*``, ``pt_*`` become the logarithm of their value in GeV, and
      not less than ``ln 0.001``;
    - anything else stays.

    With ``reflection`` all sines change their sign where that of ``q1_phi`` is negative. With ``products``
    there are two
    more: ``q0_pt q1_pt`` and the same times the cosine of the azimuth between them, in units of (100 GeV)^2.
    """

    NEEDS = ("q0_eta", "q1_eta", "q0_phi")
    NEEDS_TOO = ("q1_phi", "q0_pt", "q1_pt")

    def __init__(
        self,
        feature_names: Sequence[str],
        *,
        reflection: bool = False,
        products: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.feature_names = tuple(feature_names)
        self.reflection, self.products = reflection, products
        needs = (*self.NEEDS, *(self.NEEDS_TOO if reflection or products else ()))
        missing = [name for name in needs if name not in self.feature_names]
        if missing:
            msg = (
                f"network.inputs: symmetric needs the features {', '.join(needs)}, and the table has no "
                f"{', '.join(missing)}; use `inputs: {{kind: standard}}`"
            )
            raise ConfigError(msg)
        groups: dict[str, list[int]] = {"log": [], "eta": [], "phi": [], "dphi": [], "other": []}
        for column, name in enumerate(self.feature_names):
            if name != "q0_phi":
                groups[_kind_of(name)].append(column)
        self._groups = {kind: np.array(columns, dtype=np.int32) for kind, columns in groups.items()}
        self._positions = {name: self.feature_names.index(name) for name in needs}

    def call(self, features: Any) -> Any:
        """Return the invariant features, shape ``(n_bags, bag_size, n_invariant)``."""
        column = {name: features[..., i : i + 1] for name, i in self._positions.items()}
        one = tf.ones_like(column["q0_eta"])
        sign = tf.where(column["q0_eta"] < column["q1_eta"], -one, one)
        pick = {name: tf.gather(features, columns, axis=-1) for name, columns in self._groups.items()}
        azimuth = pick["phi"] - column["q0_phi"]
        side, extra = one, []
        if self.reflection:
            side = tf.where(tf.sin(column["q1_phi"] - column["q0_phi"]) < 0, -one, one)
        if self.products:
            product = column["q0_pt"] * column["q1_pt"] / _PRODUCT_SCALE
            extra = [product, product * tf.cos(column["q1_phi"] - column["q0_phi"])]
        return tf.concat(
            [
                tf.math.log(tf.maximum(pick["log"], 1e-3)),
                sign * pick["eta"],
                tf.cos(azimuth),
                side * tf.sin(azimuth),
                tf.cos(pick["dphi"]),
                sign * side * tf.sin(pick["dphi"]),
                pick["other"],
                *extra,
            ],
            axis=-1,
        )

    def get_config(self) -> dict[str, Any]:
        """Return what is needed to make the layer again."""
        return {
            **super().get_config(),
            "feature_names": list(self.feature_names),
            "reflection": self.reflection,
            "products": self.products,
        }


def _kind_of(name: str) -> str:
    """Return which transformation a feature gets, by its name."""
    if name.startswith("dphi_"):
        return "dphi"
    if name.endswith("_phi"):
        return "phi"
    if name.endswith("_eta"):
        return "eta"
    if name.endswith(("_pt", "_e", "_m")) or name.startswith(("m_", "pt_")) or name == "met":
        return "log"
    return "other"


@keras.saving.register_keras_serializable(package="milanalysis")
class Columns(keras.layers.Layer):
    """Some neighbouring columns of the inputs: the features, or the parameter values behind them."""

    def __init__(self, first: int, last: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.last = first, last

    def call(self, inputs: Any) -> Any:
        """Return columns ``first`` to ``last``, the last one not included."""
        return inputs[..., self.first : self.last]

    def get_config(self) -> dict[str, Any]:
        """Return what is needed to make the layer again."""
        return {**super().get_config(), "first": self.first, "last": self.last}


def moments(features: Float32Array) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of each feature; 1 is the variance of one that is constant up to rounding."""
    mean = features.mean(axis=0, dtype=np.float64)
    variance = features.var(axis=0, dtype=np.float64)
    rounding = (1e-6 * np.abs(features).max(axis=0, initial=0.0).astype(np.float64)) ** 2
    return mean, np.where(variance <= rounding, 1.0, variance)
