"""`tf.compat.v1.get_variable` while a model_fn is called: refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from pgest.variables import store as variable_store


@contextlib.contextmanager
def refused(store: variable_store.VariableStore) -> Iterator[None]:
    """Refuses `get_variable` inside, unless it asks for reuse.

    It keeps names of its own for the whole process, so that each later call of the model_fn, of
    other agents too, would find the name taken.
    """

    def get_variable(getter: Callable[..., tf.Variable], name: str, **kwargs: Any) -> tf.Variable:
        store.check_free(name)
        if not kwargs.get("reuse"):
            raise ValueError(f"model_fn asked for {name!r} with get_variable: no mode shares it.")
        return getter(name=name, **kwargs)

    # The getter is asked in scopes that the model_fn opens, too.
    with tf.compat.v1.variable_scope(
        tf.compat.v1.get_variable_scope(), custom_getter=get_variable, auxiliary_name_scope=False
    ):
        yield
