"""The module that becomes a SavedModel, and TensorFlow's remarks while it does."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from pgest.saved_policies import policy_functions

# TensorFlow says so for every class of every save; that a distribution needs TFP to be loaded is
# documented, and `portable=True` is for who cannot have it.
warnings.filterwarnings("ignore", message="Encoding a StructuredValue with type tfp")

_REMARK = "is not a valid tf.function parameter name"


def make(
    functions: policy_functions.PolicyFunctions,
    variables: Sequence[tf.Variable],
    train_step: tf.Variable,
    metadata: Mapping[str, tf.Variable],
) -> tf.Module:
    """The module with the attributes of an exported policy."""

    @tf.function(autograph=False, input_signature=())
    def get_train_step() -> tf.Tensor:
        return train_step.read_value()

    @tf.function(autograph=False, input_signature=())
    def get_metadata() -> dict[str, tf.Tensor]:
        return {name: variable.read_value() for name, variable in metadata.items()}

    for function in (get_train_step, get_metadata):
        function.get_concrete_function()
    module = tf.Module(name="policy")
    module.action = functions.action
    module.distribution = functions.distribution
    module.get_initial_state = functions.get_initial_state
    module.get_train_step = get_train_step
    module.get_metadata = get_metadata
    module.model_variables = variables
    module.train_step = train_step
    # A copy: what is assigned to a module becomes a wrapper, which a function cannot return.
    module.metadata = dict(metadata)
    if functions.tables:
        module.lookup_tables = list(functions.tables)
    return module


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Drops TensorFlow's warning about slashes in flat names: they are TF-Agents' names."""
    logger = logging.getLogger("absl")
    logger.addFilter(_is_no_remark)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_remark)


def _is_no_remark(record: Any) -> bool:
    return _REMARK not in str(record.msg)
