"""Whether a model_fn writes summaries of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


class SummaryWatch(tf.summary.SummaryWriter):
    """A writer that writes nothing, and sees whether anybody wanted to write.

    Attributes:
      asked: whether a `tf.summary` function was called while it watched.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, `tf.summary` functions put nothing into the graph being traced."""
        with self.as_default(step=0), tf.summary.record_if(self._ask):
            yield

    def _ask(self) -> bool:
        self.asked = True
        return False

    def init(self) -> None:
        """Nothing: no file is opened."""

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
