"""What makes one output of a bag of events: symmetry, additivity, and the file, for every form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from milanalysis.config import (
    AttentionPoolConfig,
    DeepSetPoolConfig,
    ListPoolConfig,
    MeanPoolConfig,
    NetworkConfig,
    SortedListPoolConfig,
    SumPoolConfig,
)
from milanalysis.errors import BagSizeMismatchError, ConfigError
from milanalysis.learning.networks.network import EventNetwork, build_network, read_network, write_network

# Keras converts TensorFlow variables with np.array(), and these do not know numpy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

NAMES = ("a", "b", "c", "d")
BAG_SIZE = 7
POOLINGS = {
    "mean": MeanPoolConfig(),
    "sum": SumPoolConfig(),
    "deep_set": DeepSetPoolConfig(hidden=(5,)),
    "attention": AttentionPoolConfig(units=3),
    "list": ListPoolConfig(),
    "sorted_list": SortedListPoolConfig(by="c"),
}


def features(n_events: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, size=(n_events, 4)).astype(np.float32)


def network_of(kind: str, n_theta: int = 0, **options):
    config = NetworkConfig(hidden=(6, 5), pooling=POOLINGS[kind])
    settings = {
        "pooled": True,
        "training_features": features(500),
        "seed": 1,
        "bag_size": BAG_SIZE,
        **options,
    }
    return build_network(config, NAMES, 3, n_theta=n_theta, **settings)


def n_trainable(network) -> int:
    return sum(int(np.prod(weights.shape)) for weights in network.trainable_variables)


@pytest.mark.parametrize("kind", [kind for kind in POOLINGS if kind != "list"])
def test_the_order_of_events_in_a_bag_does_not_matter(kind: str):
    """Up to the rounding of float32 in a sum of seven numbers of order one."""
    network = EventNetwork(network_of(kind))
    bags = features(3 * BAG_SIZE).reshape(3, BAG_SIZE, 4)
    shuffled = bags[:, np.random.default_rng(2).permutation(BAG_SIZE)]
    np.testing.assert_allclose(network(shuffled), network(bags), rtol=0, atol=3e-6)


def test_the_order_of_events_matters_to_a_list():
    network = EventNetwork(network_of("list"))
    bags = features(3 * BAG_SIZE).reshape(3, BAG_SIZE, 4)
    assert np.abs(network(bags[:, ::-1]) - network(bags)).max() > 0.01


@pytest.mark.parametrize("kind", POOLINGS)
def test_the_network_knows_whether_it_is_additive(kind: str):
    """Two bags and their union: outputs of events alone, times their share, add up to those of the bag."""
    config = NetworkConfig(pooling=POOLINGS[kind])
    assert config.is_additive == (kind in {"mean", "sum"})
    if kind in {"list", "sorted_list"}:
        return
    network = EventNetwork(network_of(kind))
    bags = features(3 * BAG_SIZE).reshape(3, BAG_SIZE, 4)
    alone = network.events(bags.reshape(-1, 4)).reshape(3, BAG_SIZE, 3)
    share = config.event_share(BAG_SIZE) if config.is_additive else 1 / BAG_SIZE
    difference = np.abs(network(bags) - share * alone.sum(axis=1)).max()
    assert difference < 3e-6 if config.is_additive else difference > 1e-3


def test_the_share_of_an_event_depends_on_the_pooling():
    assert NetworkConfig().event_share(50) == 1 / 50
    assert NetworkConfig(pooling=SumPoolConfig()).event_share(50) == 1
    for kind in ("deep_set", "attention", "list", "sorted_list"):
        with pytest.raises(BagSizeMismatchError, match=f"{kind} pooling.*whole bags"):
            NetworkConfig(pooling=POOLINGS[kind]).event_share(50)


def test_a_sum_with_a_sigmoid_is_the_fixed_head_of_per_instance_classifiers():
    """Eq. (32) of arXiv:2101.07263: F = exp(sum Phi) / (1 + exp(sum Phi)), Phi being one event's output."""
    network = EventNetwork(network_of("sum"))
    bags = features(3 * BAG_SIZE).reshape(3, BAG_SIZE, 4)
    phi = network.events(bags.reshape(-1, 4)).reshape(3, BAG_SIZE, 3).sum(axis=1)
    np.testing.assert_allclose(1 / (1 + np.exp(-network(bags))), np.exp(phi) / (1 + np.exp(phi)), atol=2e-6)


def test_a_sum_starts_where_a_mean_starts():
    """Same seed, so the same weights; the bias of the mean is zero in the beginning."""
    bags = features(3 * BAG_SIZE).reshape(3, BAG_SIZE, 4)
    mean, total = (EventNetwork(network_of(kind))(bags) for kind in ("mean", "sum"))
    np.testing.assert_allclose(total, mean, atol=3e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean", 11_137),
        ("sum", 11_136),
        ("deep_set", 11_137 + 64 * 64 + 3 * 64),
        ("attention", 11_137 + 64 * 64 + 64),
        ("list", 11_137 + 6 * 36 * 64),
        ("sorted_list", 11_137 + 6 * 36 * 64),
    ],
)
def test_parameters_are_as_many_as_the_layers_have(kind: str, expected: int):
    """36 features, one output, three layers of 64; a list of seven events has 6 x 36 more inputs."""
    pooling = {
        "deep_set": DeepSetPoolConfig(),
        "attention": AttentionPoolConfig(),
        "sorted_list": SortedListPoolConfig(by="x3"),
    }.get(kind, POOLINGS[kind])
    network = build_network(
        NetworkConfig(pooling=pooling),
        [f"x{i}" for i in range(36)],
        1,
        pooled=True,
        training_features=np.ones((5, 36), dtype=np.float32),
        seed=1,
        bag_size=BAG_SIZE,
    )
    assert n_trainable(network) == expected


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_network_survives_the_file_and_is_traced_once(kind: str, tmp_path: Path):
    network = network_of(kind, n_theta=1)
    write_network(network, tmp_path / "member-00.keras")
    again = EventNetwork(read_network(tmp_path / "member-00.keras"))
    events = np.concatenate([features(4 * BAG_SIZE), np.full((4 * BAG_SIZE, 1), 0.5, np.float32)], axis=1)
    bags = events.reshape(4, BAG_SIZE, 5)
    np.testing.assert_array_equal(again(bags), EventNetwork(network)(bags))
    assert again.n_features == 5
    for n_bags in (0, 1, 3):
        assert again(bags[:n_bags]).shape == (n_bags, 3)


@pytest.mark.parametrize("kind", ["list", "sorted_list"])
def test_a_list_refuses_bags_of_another_size(kind: str):
    network = EventNetwork(network_of(kind))
    with pytest.raises(BagSizeMismatchError, match="list of 7 events and was given bags of 6"):
        network(features(12).reshape(2, 6, 4))


def test_sorted_events_are_in_descending_order_of_their_feature():
    network = network_of("sorted_list")
    ordered = network.get_layer("sorted")(features(BAG_SIZE)[None]).numpy()[0]
    np.testing.assert_array_equal(ordered[:, 2], np.sort(features(BAG_SIZE)[:, 2])[::-1])
    assert sorted(map(tuple, ordered)) == sorted(map(tuple, features(BAG_SIZE)))


def test_equal_seeds_make_equal_attention():
    keys = [
        network_of("attention", seed=seed).get_layer("attention").keys.value.numpy() for seed in (5, 5, 6)
    ]
    np.testing.assert_array_equal(keys[0], keys[1])
    assert not np.allclose(keys[0], keys[2])


def test_what_cannot_be_built_is_said():
    with pytest.raises(ConfigError, match="adds up its events by itself has no use for sum pooling"):
        network_of("sum", pooled=False)
    with pytest.raises(ConfigError, match="list has to know the bag size"):
        network_of("list", bag_size=None)
    config = NetworkConfig(pooling=SortedListPoolConfig(by="met"))
    with pytest.raises(ConfigError, match="no feature 'met' to sort events by; there are a, b, c, d"):
        build_network(config, NAMES, 1, pooled=True, training_features=features(5), seed=1, bag_size=BAG_SIZE)
