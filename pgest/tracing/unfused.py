"""Steps on batches of any size, for none of which TensorFlow is to keep a program."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class Unfused:
    """A traced function, to be called in graphs, whose products of matrices are not fused.

    TensorFlow fuses a product with what follows. On CPUs the fused ones are oneDNN's, which makes a
    program for each size of a batch and keeps a thousand of each kind: 0.24 MB a size for two
    hidden layers. Products that are not fused keep nothing, and take less time where sizes vary.

    Args:
      function: of tensors.
      *specs: nests of their specs.

    Attributes:
      concrete: the traced function.
    """

    def __init__(self, function: Any, *specs: Any) -> None:
        # Of the graph that calls it no part, and so optimised by itself.
        alone = {"_noinline": True}
        self.concrete = tf.function(
            function, autograph=False, experimental_attributes=alone
        ).get_concrete_function(*specs)

    def __call__(self, *arguments: Any) -> Any:
        """Calls it in the graph being traced, which keeps the options of this moment."""
        options = tf.config.optimizer
        before = options.get_experimental_options().get("remapping")
        options.set_experimental_options({"remapping": False})
        try:
            return self.concrete(*arguments)
        finally:
            options.set_experimental_options({"remapping": before})
