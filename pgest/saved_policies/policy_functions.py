"""The functions of an exported policy, traced: what a SavedModel offers as attributes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pgest import specs
from pgest.distributions import portable
from pgest.policies.tf_policies import TFPolicy
from pgest.policies.time_steps import PolicyStep
from pgest.saved_policies import loadable_distributions, lookup_tables
from pgest.specs import checks, nests

_LOGGER = logging.getLogger(__name__)

SEED_SPEC = tf.TensorSpec([2], tf.int32, name="seed")
# The second seed of the raw random op; any number but 0, which would mean "from entropy".
_SECOND_SEED = 1

InputFn = tuple[Callable[..., Any], nests.Nest]


def plain(spec: nests.Nest, batch_size: int | None) -> nests.Nest:
    """Unbounded specs with a batch axis: what a function is traced on."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([batch_size, *leaf.shape], leaf.dtype, leaf.name), spec
    )


def plain_state(spec: nests.Nest) -> nests.Nest:
    """Dicts, lists and tuples in place of what `tf.Module` wraps them in."""
    return tf.nest.map_structure(lambda leaf: leaf, spec)


class PolicyFunctions:
    """Traces the functions of a policy once, when made.

    Args:
      policy: the policy.
      batch_size: int, or None for any.
      seed: int that fixes the sequence of sampled actions, or None.
      input_fn_and_spec: a function of one nest that gives (time_step, policy_state), and the
        specs of that nest.
      as_parameters: whether `distribution` gives parameters as tensors, not TFP objects.

    Attributes:
      action, distribution, get_initial_state: traced `tf.function`s.
      input_specs: positional arguments of `action`, with batch axis.
      takes_seed: whether `action` has a trace with a `seed`.
      tables: the lookup tables that they read.
    """

    def __init__(
        self,
        policy: TFPolicy,
        *,
        batch_size: int | None,
        seed: int | None,
        input_fn_and_spec: InputFn | None,
        as_parameters: bool,
    ) -> None:
        self._policy = policy
        self._batch_size = batch_size
        self._seed = seed
        self._input_fn = None if input_fn_and_spec is None else input_fn_and_spec[0]
        self._as_parameters = as_parameters
        self.is_stateful = bool(tf.nest.flatten(policy.policy_state_spec))
        if input_fn_and_spec is None:
            inputs: tuple = (policy.time_step_spec, plain_state(policy.policy_state_spec))
        else:
            inputs = (specs.from_spec(input_fn_and_spec[1]),)
        self.input_specs = plain(inputs, batch_size)
        if not policy.variables():
            # Let the policy make its variables with the seeds that are set, before `_act` hides
            # them from ops that would freeze them.
            tf.function(self._step, autograph=False).get_concrete_function(self.input_specs, None)
        self.action, self.concrete_action = self._trace_action()
        self.distribution, concrete_distribution = self._trace_distribution()
        self.get_initial_state = self._trace_initial_state()
        self.tables = lookup_tables.tables_of(
            (self.concrete_action, concrete_distribution), policy.name
        )

    def architecture(self) -> str:
        """A fingerprint of what `action` computes; the weights do not count."""
        parts = [digest(self.concrete_action), *map(lookup_tables.digest, self.tables)]
        return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()

    def variables(self) -> list[tf.Variable]:
        """The policy's variables, then those that only its traces know."""
        found = list(self._policy.variables())
        known = {id(variable) for variable in found}
        handles = [id(handle) for handle in self.concrete_action.captured_inputs]
        further = [v for v in self.concrete_action.variables if id(v) not in known]
        # A graph gives its variables in no fixed order, its captured handles in that of the trace.
        further.sort(key=lambda v: handles.index(id(v.handle)) if id(v.handle) in handles else -1)
        return found + further

    def _time_step_and_state(self, inputs: tuple) -> tuple[Any, Any]:
        if self._input_fn is None:
            return inputs[0], inputs[1]
        converted = self._input_fn(inputs[0])
        wanted = (self._policy.time_step_spec, plain_state(self._policy.policy_state_spec))
        try:
            nests.check_same_structure(wanted, converted, what="input_fn's result")
            checks.check_spec(converted, wanted, what="input_fn's result")
        except TypeError as error:
            raise ValueError(f"Tensor is incompatible with spec. {error}") from error
        except ValueError as error:
            raise ValueError(f"Tensor is incompatible with spec. {error}") from error
        return converted

    def _step(self, inputs: tuple, seed: Any) -> PolicyStep:
        time_step, policy_state = self._time_step_and_state(inputs)
        if seed is None and self._seed is not None:
            seed = _seed_sequence(self._seed)
        return self._policy.action(time_step, policy_state, seed=seed)

    def _act(self, inputs: tuple, seed: Any) -> PolicyStep:
        # An op that takes TensorFlow's global seed while it is traced would replay one sequence
        # in every process that loads the file.
        tf.compat.v1.get_default_graph().seed = None
        return self._step(inputs, seed)

    def _trace_action(self) -> tuple[Any, Any]:
        if self._input_fn is None:

            @tf.function(autograph=False)
            def action(time_step: Any, policy_state: Any = (), seed: Any = None) -> PolicyStep:
                return self._act((time_step, policy_state), seed)
        else:

            @tf.function(autograph=False)
            def action(example: Any, seed: Any = None) -> PolicyStep:
                return self._act((example,), seed)

        concrete = action.get_concrete_function(*self.input_specs)
        _refuse_python(concrete)
        try:
            action.get_concrete_function(*self.input_specs, seed=SEED_SPEC)
            self.takes_seed = True
        except (TypeError, ValueError, NotImplementedError) as error:
            self.takes_seed = False
            _LOGGER.warning(
                "%s does not take a tensor as its seed (%s): the export samples, but its action "
                "has no seed argument.",
                self._policy.name,
                error,
            )
        return action, concrete

    def _trace_distribution(self) -> tuple[Any, Any]:
        def distribute(inputs: tuple) -> PolicyStep:
            time_step, policy_state = self._time_step_and_state(inputs)
            step = self._policy.distribution(time_step, policy_state)
            convert = loadable_distributions.as_loadable
            if self._as_parameters:
                convert = portable.parameters
            return step._replace(action=tf.nest.map_structure(convert, step.action))

        function = self._distribution_function(distribute)
        try:
            concrete = function.get_concrete_function(*self.input_specs)
        except (NotImplementedError, TypeError) as error:
            message = f"{self._policy.name} cannot export its distribution: {error}"
            _LOGGER.warning(message)

            def refuse(inputs: tuple) -> tuple:
                # Raised when the function is called: whoever only acts can load the file.
                with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), [message])]):
                    return tf.nest.map_structure(tf.identity, inputs)

            function = self._distribution_function(refuse)
            concrete = function.get_concrete_function(*self.input_specs)
        return function, concrete

    def _distribution_function(self, function: Callable[[tuple], Any]) -> Any:
        if self._input_fn is None:

            @tf.function(autograph=False)
            def distribution(time_step: Any, policy_state: Any = ()) -> Any:
                return function((time_step, policy_state))
        else:

            @tf.function(autograph=False)
            def distribution(example: Any) -> Any:
                return function((example,))

        return distribution

    def _trace_initial_state(self) -> Any:
        policy, fixed = self._policy, self._batch_size
        if fixed is None:

            @tf.function(autograph=False)
            def get_initial_state(batch_size: Any) -> Any:
                return plain_state(policy.get_initial_state(batch_size))

            get_initial_state.get_concrete_function(tf.TensorSpec([], tf.int32, "batch_size"))
        else:

            @tf.function(autograph=False)
            def get_initial_state(batch_size: Any = fixed) -> Any:
                return plain_state(policy.get_initial_state(batch_size))

            get_initial_state.get_concrete_function()
        return get_initial_state


def _seed_sequence(seed: int) -> tf.Tensor:
    """A seed [2] that differs from call to call, in a sequence that `seed` fixes."""
    limits = tf.int32
    return tf.raw_ops.RandomUniformInt(
        shape=[2],
        minval=tf.constant(limits.min, tf.int32),
        maxval=tf.constant(limits.max, tf.int32),
        seed=int(seed) % 2**63,
        seed2=_SECOND_SEED,
    )


def _refuse_python(concrete: Any) -> None:
    graph = concrete.graph.as_graph_def()
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    found = sorted({node.op for body in bodies for node in body if "PyFunc" in node.op})
    if found:
        raise ValueError(
            f"The policy runs Python code ({', '.join(found)}), which exists only in this process "
            "and cannot be written to a file; write it with TensorFlow ops."
        )


def digest(concrete: Any) -> str:
    """A fingerprint of a traced function: its ops, wiring and constants, no weights or names.

    Two processes that trace the same code get the same one.
    """
    graph = concrete.graph.as_graph_def()
    tokens = _body_tokens(graph.node, [])
    for function in graph.library.function:
        arguments = [argument.name for argument in function.signature.input_arg]
        tokens += _body_tokens(function.node_def, arguments)
    tokens += [f"{tensor.dtype.name}{tensor.shape}" for tensor in concrete.inputs]
    # A graph gives its variables in no fixed order.
    tokens += sorted(f"{variable.dtype.name}{variable.shape}" for variable in concrete.variables)
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()


def _body_tokens(nodes: Any, arguments: list[str]) -> list[str]:
    """One line for each op; inputs are named by their positions, since names carry counters."""
    names = [*arguments, *(node.name for node in nodes)]
    positions = {name: position for position, name in enumerate(names)}
    lines = []
    for node in nodes:
        inputs = [name.removeprefix("^").partition(":")[0] for name in node.input]
        # The order of control inputs follows the names.
        sources = sorted(positions[name] for name in inputs)
        attributes = [
            f"{key}={value.SerializeToString(deterministic=True).hex()}"
            for key, value in sorted(node.attr.items())
            if not key.startswith("_")
            and key not in _UNSTABLE_ATTRIBUTES
            and value.WhichOneof("value") not in ("func", "list")
        ]
        lines.append(f"{node.op}({sources}) {attributes}")
    return lines


_UNSTABLE_ATTRIBUTES = {"config", "config_proto", "shared_name", "container", "executor_type"}
