"""Independent random streams from one seed.

A stream is named by what it is for, so its numbers do not depend on the number of workers, the order in
which work is done, or how often an interrupted run was taken up again.
"""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["stream", "stream_seed"]


def _entropy(seed: int, names: tuple[str | int, ...]) -> np.random.SeedSequence:
    """Return the seed sequence of the stream with these names."""
    if seed < 0:
        msg = f"a seed is a non-negative integer, not {seed}"
        raise ValueError(msg)
    key = [zlib.crc32(name.encode()) if isinstance(name, str) else int(name) for name in names]
    return np.random.SeedSequence(seed, spawn_key=tuple(key))


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random stream of one purpose.

    Args:
        seed: the root seed of the analysis, non-negative.
        names: what the stream is for, for example ``"simulate", "reference", 3``.

    Returns:
        A generator whose numbers depend on nothing but the arguments.

    Example:
        >>> bool(stream(1, "train", 0).random() == stream(1, "train", 0).random())
        True
        >>> bool(stream(1, "train", 0).random() == stream(1, "train", 1).random())
        False
    """
    return np.random.default_rng(_entropy(seed, names))


def stream_seed(seed: int, *names: str | int) -> int:
    """Return a 31-bit integer seed, for libraries that take nothing else."""
    return int(_entropy(seed, names).generate_state(1)[0] >> 1)
