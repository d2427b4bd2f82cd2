"""A compiled program: traced once for its signature, with XLA where XLA takes it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from pgest.tracing import equal_programs, feeding

_CACHE = re.compile(r"--tf_xla_persistent_cache_directory=(\S+)")
# Ops that XLA drops without a word: a check that the user wrote would never fire.
_DROPPED_BY_XLA = ("Assert", "CheckNumerics", "CheckNumericsV2")


class Program:
    """One Python function as one TensorFlow function of flat tensors.

    Args:
      function: takes tensors of `signature`, returns a nest of tensors.
      signature: nests of `tf.TensorSpec`, one a positional argument.
      name: for messages.
      jit_compile: True, False, or "auto": with XLA, and without where XLA refuses. What XLA has
        compiled for an equal program is not compiled again.

    Attributes:
      run_flat: runs it on the leaves of its arguments; returns the leaves of its result. Numpy
        arrays of exactly the signature's shape and dtype are the quickest.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signature: Sequence[Any],
        name: str,
        jit_compile: bool | str,
    ):
        self._function = function
        self._signature = list(signature)
        self._name = name
        self._jit_compile = jit_compile
        self.traces = 0
        self._captured: Sequence[tf.Tensor] = ()
        self._inference: Any = None
        self.concrete = self._trace(bool(jit_compile))
        self.run_flat: Callable[[Sequence[Any]], Sequence[tf.Tensor]] = self._first_run
        if jit_compile == "auto":
            self._warn_of_dropped_checks()

    @property
    def jit_compiled(self) -> bool:
        """Whether XLA compiles it."""
        return bool(self._jit_compile)

    @property
    def structured_outputs(self) -> Any:
        """What it returns, as symbolic tensors."""
        return self.concrete.structured_outputs

    def __call__(self, *arguments: Any) -> Any:
        """Runs it. Arguments are nests of tensors or arrays of the signature."""
        outputs = self.run_flat(tf.nest.flatten(arguments))
        return tf.nest.pack_sequence_as(self.concrete.structured_outputs, outputs)

    def reads(self, variable: tf.Variable) -> bool:
        """Whether the program reads or writes a variable that was made outside of it."""
        return id(variable.handle) in self._captured_ids

    def redirect(self, variables: Sequence[tf.Variable], others: Sequence[tf.Variable]) -> None:
        """From here on reads and writes `others` in place of `variables`.

        Args:
          variables: that were made outside of the program, which has run before.
          others: as many, of the same dtypes and shapes.

        Raises:
          RuntimeError: this TensorFlow binds a program to its variables.
        """
        if not hasattr(self.concrete.inference_fn, "call_flat"):  # pragma: no cover (see _prepared)
            raise RuntimeError(
                f"RunConfig(overlap_updates=True): got TensorFlow {tf.__version__}, which cannot "
                "train copies of the weights; expected 2.21. Install that, or leave "
                "overlap_updates out."
            )
        handles = {
            id(variable.handle): other.handle
            for variable, other in zip(variables, others, strict=True)
        }
        self._captured = [handles.get(id(captured), captured) for captured in self._captured]
        self.run_flat = self._prepared()

    def _first_run(self, leaves: Sequence[Any]) -> Sequence[tf.Tensor]:
        """XLA compiles at the first call; nothing has run yet where it refuses."""
        key = equal_programs.key_of(self.concrete) if self._jit_compile else None
        self._inference = equal_programs.known(key) or self._inference
        self.run_flat = self._prepared()
        try:
            outputs = self.run_flat(leaves)
        except (
            tf.errors.InvalidArgumentError,
            tf.errors.UnimplementedError,
            tf.errors.InternalError,
            tf.errors.OutOfRangeError,
            tf.errors.DataLossError,
        ) as error:
            if self._jit_compile:
                _check_cache(error, self._name)
            if self._jit_compile != "auto" or not _refused(error):
                raise
            warnings.warn(
                f"XLA cannot compile {self._name} and it runs uncompiled, several times slower: "
                f"{_reason(error)}. RunConfig(jit_compile=False) silences this.",
                stacklevel=4,
            )
            self._jit_compile = False
            self.concrete = self._trace(False)
            self.run_flat = self._prepared()
            return self.run_flat(leaves)
        equal_programs.keep(key, self._inference)
        return outputs

    def _prepared(self) -> Callable[[Sequence[Any]], Sequence[tf.Tensor]]:
        """What runs the concrete function on the leaves of its arguments.

        A concrete function binds its arguments to a Python signature each time it is called, which
        takes longer than running a small program; the function inside it takes tensors as they are.
        """
        concrete, signature = self.concrete, self._signature
        specs = tf.nest.flatten(signature)
        feeds = feeding.feeds(specs, share=bool(self._jit_compile))
        call_flat = getattr(self._inference, "call_flat", None)
        if call_flat is None:  # pragma: no cover (a TensorFlow without it)

            def call_flat(*tensors: tf.Tensor) -> Sequence[tf.Tensor]:
                arguments = tf.nest.pack_sequence_as(signature, tensors[: len(specs)])
                return tf.nest.flatten(concrete(*arguments))

        captured = self._captured

        def run(leaves: Sequence[Any]) -> Sequence[tf.Tensor]:
            tensors = [feed(leaf) for feed, leaf in zip(feeds, leaves, strict=True)]
            return call_flat(*tensors, *captured) or ()

        return run

    def _trace(self, jit_compile: bool) -> Any:
        self.traces += 1
        function = tf.function(
            self._function,
            input_signature=self._signature,
            jit_compile=jit_compile,
            autograph=False,
        )
        concrete = function.get_concrete_function()
        self._inference = concrete.inference_fn  # or that of an equal program
        self._captured = concrete.captured_inputs
        self._captured_ids = {id(captured) for captured in self._captured}
        return concrete

    def _warn_of_dropped_checks(self) -> None:
        dropped = sorted({op for op in operation_types(self.concrete) if op in _DROPPED_BY_XLA})
        if dropped:
            warnings.warn(
                f"{self._name} holds {', '.join(dropped)} (from tf.debugging), which XLA leaves "
                "out: those checks will not fire. RunConfig(jit_compile=False) keeps them.",
                stacklevel=4,
            )


def convolves(concrete: Any) -> bool:
    """Whether there are convolutions in it.

    In a loop on the CPU, XLA has code of its own for them that takes forty times as long as
    TensorFlow's; outside of one it calls the same library.
    """
    kinds = ("conv2d", "conv3d")  # DepthwiseConv2dNative among them
    return any(kind in op.lower() for op in operation_types(concrete) for kind in kinds)


def operation_types(concrete: Any) -> set[str]:
    """The types of all operations of a concrete function, of nested functions too."""
    definition = concrete.graph.as_graph_def()
    types = {node.op for node in definition.node}
    for function in definition.library.function:
        types |= {node.op for node in function.node_def}
    return types


def _check_cache(error: tf.errors.OpError, name: str) -> None:
    """Raises `RuntimeError` where XLA's persistent cache gave it a part of a file.

    XLA does not compile anew then (TensorFlow 2.21), and its message names no file.
    """
    found = _CACHE.search(os.environ.get("TF_XLA_FLAGS", ""))
    read = isinstance(error, (tf.errors.OutOfRangeError, tf.errors.DataLossError))
    if found and (read or "serialized" in str(error).lower()):
        raise RuntimeError(
            f"XLA cannot read what {found[1]!r} (TF_XLA_FLAGS) holds of {name}: "
            f"{' '.join(str(error).split())[:200]}. A process that was ended while it wrote has "
            "left a part of a file, or one is writing now. Delete that directory's files while no "
            "process uses it, and they are compiled again."
        ) from error


def _refused(error: tf.errors.OpError) -> bool:
    text = str(error)
    return any(
        sign in text
        for sign in ("XLA", "compil", "Compil", "unsupported", "not supported", "compile-time")
    )


def _reason(error: tf.errors.OpError) -> str:
    """The part of XLA's message that names the op."""
    text = " ".join(str(error).split())
    named = re.search(r"unsupported operations[^:]*: ?([^.]*)", text)
    return (named.group(0) if named else text)[:300]
