from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from milanalysis.config import NetworkConfig, StandardInputsConfig, SymmetricInputsConfig
from milanalysis.errors import ConfigError, InputFileError
from milanalysis.events.features import TABLE1
from milanalysis.learning.networks.inputs import SymmetricInputs
from milanalysis.learning.networks.network import EventNetwork, build_network, read_network, write_network

# Keras converts TensorFlow variables with np.array(), and these do not know numpy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

TINY = NetworkConfig(hidden=(6, 5))


def features(n_events: int, n_features: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, size=(n_events, n_features)).astype(np.float32)


def tiny_network(*, pooled: bool = True, n_outputs: int = 3, config: NetworkConfig = TINY, seed: int = 1):
    names = [f"x{i}" for i in range(4)]
    return build_network(config, names, n_outputs, pooled=pooled, training_features=features(500), seed=seed)


def collision(n_events: int, seed: int = 3) -> np.ndarray:
    """Random numbers in the places of the 36 features."""
    rng = np.random.default_rng(seed)
    columns = []
    for name in TABLE1:
        if name.startswith("dphi") or name.endswith("phi"):
            columns.append(rng.uniform(-np.pi, np.pi, n_events))
        elif name.endswith("eta"):
            columns.append(rng.normal(0, 2, n_events))
        elif name.endswith(("up", "down", "electron", "positron")):
            columns.append(rng.integers(2, size=n_events))
        else:
            columns.append(rng.exponential(100, n_events))
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.mark.parametrize(("n_theta", "expected"), [(0, 11_137), (1, 11_201)])
def test_the_default_network_has_as_many_parameters_as_the_paper_says(n_theta: int, expected: int):
    network = build_network(
        NetworkConfig(), TABLE1, 1, pooled=True, training_features=collision(10), seed=1, n_theta=n_theta
    )
    assert sum(int(np.prod(weights.shape)) for weights in network.trainable_variables) == expected
    assert network.output_shape == (None, 1)


@pytest.mark.parametrize("inputs", [StandardInputsConfig(), SymmetricInputsConfig()])
def test_parameter_values_reach_the_network_as_they_are(inputs: StandardInputsConfig | SymmetricInputsConfig):
    """They are behind the standardised features; these are what they are without a parameter."""
    config = NetworkConfig(hidden=(6,), inputs=inputs)
    data = collision(50)
    theta = np.full((50, 2), [0.3, -2.0], dtype=np.float32)
    with_theta = build_network(config, TABLE1, 1, pooled=True, training_features=data, seed=1, n_theta=2)
    without = build_network(config, TABLE1, 1, pooled=True, training_features=data, seed=1)
    joined = keras.Model(with_theta.inputs[0], with_theta.get_layer("with_theta").output)
    alone = keras.Model(without.inputs[0], without.get_layer("standard").output)
    found = joined(np.concatenate([data, theta], axis=1)[None]).numpy()
    np.testing.assert_array_equal(found[..., -2:], theta[None])
    np.testing.assert_array_equal(found[..., :-2], alone(data[None]).numpy())


def test_a_hidden_layer_is_dense_batch_norm_activation_dropout():
    names = [layer.name for layer in tiny_network().layers]
    assert names == [
        "features", "standard",
        "hidden_0", "batch_norm_0", "activation_0", "dropout_0",
        "hidden_1", "batch_norm_1", "activation_1", "dropout_1",
        "mean_over_bag", "output",
    ]  # fmt: skip


def test_what_is_switched_off_is_not_there():
    plain = NetworkConfig(hidden=(6,), batch_norm=False, dropout=0.0, l2=0.0)
    network = tiny_network(config=plain)
    assert [layer.name for layer in network.layers][1:-2] == ["standard", "hidden_0", "activation_0"]
    network(features(5)[None])
    assert network.losses == []


def test_l2_acts_on_hidden_kernels_and_nothing_else():
    network = tiny_network(config=NetworkConfig(hidden=(6, 5), l2=0.5))
    network(features(5)[None])
    expected = sum(
        0.5 * np.square(network.get_layer(f"hidden_{i}").kernel.value.numpy()).sum() for i in range(2)
    )
    assert float(sum(network.losses)) == pytest.approx(expected, rel=1e-5)


def test_inputs_are_standardised_to_mean_zero_and_variance_one():
    network = tiny_network()
    data = features(500)
    standard = network.get_layer("standard")(data[None]).numpy()[0]
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standard.var(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_a_constant_feature_stays_finite_and_small(offset: float):
    data = features(500)
    data[:, 2] = offset + offset * 1e-7 * np.random.default_rng(1).normal(size=500)
    network = build_network(TINY, ["a", "b", "c", "d"], 1, pooled=True, training_features=data, seed=1)
    assert np.abs(network.get_layer("standard")(data[None]).numpy()[0][:, 2]).max() < 1e-3


def test_the_pooled_network_is_the_mean_over_its_events():
    """The linear output layer commutes with the mean; float32 leaves 1e-6 of outputs of order one."""
    network = EventNetwork(tiny_network())
    bags = features(35).reshape(5, 7, 4)
    by_event = network.events(bags.reshape(35, 4)).reshape(5, 7, 3)
    np.testing.assert_allclose(network(bags), by_event.mean(axis=1), atol=2e-6)


def test_the_order_of_events_in_a_bag_does_not_matter():
    network = EventNetwork(tiny_network())
    bag = features(9)
    shuffled = bag[np.random.default_rng(2).permutation(9)]
    np.testing.assert_allclose(network(bag[None]), network(shuffled[None]), atol=2e-6)


def test_an_event_network_gives_a_row_per_event_whatever_else_is_in_the_bag():
    network = EventNetwork(tiny_network(pooled=False, n_outputs=4))
    outputs = network(features(12).reshape(3, 4, 4))
    assert outputs.shape == (3, 4, 4)
    np.testing.assert_allclose(outputs.reshape(12, 4), network.events(features(12)), atol=2e-6)


def test_large_inputs_are_worked_on_in_blocks_and_none_is_fine(monkeypatch: pytest.MonkeyPatch):
    network = EventNetwork(tiny_network())
    bags = features(60).reshape(20, 3, 4)
    whole = network(bags)
    monkeypatch.setattr("milanalysis.learning.networks.network._EVENTS_PER_CALL", 10)
    np.testing.assert_allclose(network(bags), whole, atol=2e-6)
    assert network(bags[:0]).shape == (0, 3)


def test_dropout_and_batch_norm_act_event_by_event():
    """Dropping the same units for a whole bag would leave equal events equal; they are not in training."""
    network = tiny_network(pooled=False, config=NetworkConfig(hidden=(40,), batch_norm=False, dropout=0.5))
    same = np.repeat(features(1), 8, axis=0)[None]
    outputs = network(same, training=True).numpy()[0]
    assert len(np.unique(outputs[:, 0])) == 8


def test_equal_seeds_make_equal_networks_and_global_seeds_do_not_count():
    keras.utils.set_random_seed(1)
    first = tiny_network(seed=5)
    keras.utils.set_random_seed(2)
    again, other = tiny_network(seed=5), tiny_network(seed=6)
    for one, two in zip(first.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.value.numpy(), two.value.numpy())
    kernels = [network.get_layer("hidden_0").kernel.value.numpy() for network in (first, other)]
    assert not np.allclose(*kernels)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_network_survives_the_file(symmetric: bool, tmp_path: Path):
    data = collision(50)
    inputs = SymmetricInputsConfig(reflection=True, products=True)
    config = NetworkConfig(hidden=(6,), inputs=inputs) if symmetric else TINY
    network = build_network(config, TABLE1, 3, pooled=True, training_features=data, seed=1)
    write_network(network, tmp_path / "member-00.keras")
    again = read_network(tmp_path / "member-00.keras")
    np.testing.assert_array_equal(EventNetwork(again).events(data), EventNetwork(network).events(data))
    assert [path.name for path in tmp_path.iterdir()] == ["member-00.keras"]


@pytest.mark.parametrize("content", [None, b"", b"not a zip file", b"PK\x03\x04 truncated"])
def test_a_file_that_is_not_a_network_is_named(content: bytes | None, tmp_path: Path):
    path = tmp_path / "member-00.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"member-00\.keras"):
        read_network(path)


def test_a_truncated_network_is_named(tmp_path: Path):
    path = tmp_path / "member-00.keras"
    write_network(tiny_network(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputFileError, match=r"member-00\.keras is not a readable"):
        read_network(path)


def rotated(data: np.ndarray, angle: float) -> np.ndarray:
    out = data.copy()
    for i, name in enumerate(TABLE1):
        if name.endswith("_phi"):
            out[:, i] = np.angle(np.exp(1j * (data[:, i] + angle)))
    return out


def mirrored(data: np.ndarray) -> np.ndarray:
    """Reflection of z alone: pseudorapidities change sign and dphi with the ordering."""
    out = data.copy()
    for i, name in enumerate(TABLE1):
        if name.endswith("_eta") or name.startswith("dphi_"):
            out[:, i] = -data[:, i]
    return out


def test_symmetric_inputs_do_not_change_under_rotations_and_reflection_of_the_beam():
    """Angles in float32 are good to 4e-7, cosines and sines with them."""
    layer = SymmetricInputs(TABLE1)
    data = collision(200)
    invariant = layer(data[None]).numpy()
    np.testing.assert_allclose(layer(rotated(data, 0.7)[None]).numpy(), invariant, atol=2e-6)
    np.testing.assert_allclose(layer(mirrored(data)[None]).numpy(), invariant, atol=2e-6)


def reflected(data: np.ndarray) -> np.ndarray:
    """Reflection of azimuths."""
    out = data.copy()
    for i, name in enumerate(TABLE1):
        if name.endswith("_phi") or name.startswith("dphi_"):
            out[:, i] = -data[:, i]
    return out


def test_symmetric_inputs_do_not_change_under_reflection_of_azimuths_if_they_shall_not():
    data = collision(200)
    layer = SymmetricInputs(TABLE1, reflection=True, products=True)
    invariant = layer(data[None]).numpy()
    for change in (reflected, mirrored, lambda events: rotated(events, 0.7)):
        np.testing.assert_allclose(layer(change(data)[None]).numpy(), invariant, rtol=1e-5, atol=2e-6)
    plain = SymmetricInputs(TABLE1)
    assert np.max(np.abs(plain(reflected(data)[None]) - plain(data[None]))) > 0.1
    # Nothing is lost: up to the signs that were taken out it is the same as without.
    np.testing.assert_allclose(np.abs(invariant[..., :-2]), np.abs(plain(data[None])), atol=2e-6)


def test_products_are_those_of_the_transverse_momenta_of_the_quarks():
    data = collision(50)
    column = dict(zip(TABLE1, data.T.astype(float), strict=True))
    product = column["q0_pt"] * column["q1_pt"] / 1e4
    found = SymmetricInputs(TABLE1, products=True)(data[None]).numpy()[0, :, -2:]
    np.testing.assert_allclose(found[:, 0], product, rtol=1e-5)
    scalar = product * np.cos(column["q1_phi"] - column["q0_phi"])
    np.testing.assert_allclose(found[:, 1], scalar, rtol=1e-5, atol=1e-5 * product.max())


def test_symmetric_inputs_keep_everything_else():
    """36 features: 4 azimuths (relative to that of q0) and 2 differences become two numbers each."""
    layer = SymmetricInputs(TABLE1)
    assert layer(collision(7)[None]).shape == (1, 7, 36 - 1 + 4 + 2)


def test_symmetric_inputs_need_quarks():
    with pytest.raises(ConfigError, match="q0_eta"):
        SymmetricInputs(["l0_pt", "met"])
    with pytest.raises(ConfigError, match="no q1_phi, q0_pt, q1_pt;"):
        SymmetricInputs(["q0_eta", "q1_eta", "q0_phi"], reflection=True)
