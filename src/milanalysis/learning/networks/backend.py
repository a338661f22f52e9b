"""Keras and TensorFlow, imported quietly and in the right order; modules of networks import them here."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["KERAS_BACKEND"] = "tensorflow"  # the training step and the compiled call are TensorFlow's
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__all__ = ["keras", "tf", "use_one_thread"]

logger = logging.getLogger(__name__)


@contextmanager
def _silenced_standard_error() -> Iterator[None]:
    """Keep TensorFlow's greeting off the terminal: it is written before any log level counts."""
    with tempfile.TemporaryFile() as sink:
        saved = os.dup(2)
        try:
            os.dup2(sink.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


with _silenced_standard_error():
    import keras
    import tensorflow as tf


def use_one_thread() -> None:
    """Let TensorFlow use one thread, in a process that is one of several workers.

    Has to come before TensorFlow has computed anything in this process; afterwards it changes nothing.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        logger.debug("TensorFlow has already computed something in this process and keeps its threads")
