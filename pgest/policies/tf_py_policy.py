"""`TFPyPolicy`: a policy written in Python as a `TFPolicy`, inside of graphs too."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.policies.py_policies import PyPolicy
from pgest.policies.tf_policies import TFPolicy
from pgest.policies.time_steps import PolicyStep, TimeStep
from pgest.specs import checks, nests


class TFPyPolicy(TFPolicy):
    """Exposes a Python policy as a policy in TensorFlow, eager or inside of a `tf.function`.

    One rule for the batch axis. If `py_policy_is_batched`, time step, state, action and info go
    in and out as they are, [B, ...]. If not, the leading axis of time step and state must be 1 and
    is taken away, and action, state and info get it back.

    What the Python policy returns is checked against its specs; arrays are cast where no number is
    lost. In eager mode its errors come through as they are; inside of a graph TensorFlow turns
    them into a `tf.errors.OpError` with the Python message in it.

    The policy runs in this Python process, one call at a time (TensorFlow may execute parts of a
    graph in parallel; a lock is held): it cannot be exported (`export_obstacle` says so), compiled
    by XLA or run on another machine. It has no variables, no distribution, and does not clip; the
    Python policy sees `FIRST` time steps and resets its state itself.

    Args:
      policy: the Python policy.
      py_policy_is_batched: whether it works on batches; see above.
      name: the name of this policy; "tf_py_policy" if None.

    Raises:
      TypeError: `policy` is no `PyPolicy`.

    >>> from pgest.policies import py_policies, time_steps
    >>> spec = time_steps.time_step_spec(specs.ArraySpec((4,), np.float32))
    >>> expert = py_policies.RandomPyPolicy(spec, specs.BoundedArraySpec((), np.int64, 2, 2))
    >>> policy = TFPyPolicy(expert)
    >>> act = tf.function(policy.action)
    >>> act(time_steps.restart(tf.zeros((1, 4)), batch_size=1)).action.numpy()
    array([2])
    """

    def __init__(
        self, policy: PyPolicy, py_policy_is_batched: bool = False, name: str | None = None
    ) -> None:
        if not isinstance(policy, PyPolicy):
            raise TypeError(
                "Input policy should implement py_policies.PyPolicy, but saw "
                f"{type(policy).__name__}."
            )
        super().__init__(
            specs.from_spec(policy.time_step_spec),
            specs.from_spec(policy.action_spec),
            specs.from_spec(policy.policy_state_spec),
            specs.from_spec(policy.info_spec),
            clip=False,
            automatic_state_reset=False,
            observation_and_action_constraint_splitter=(
                policy.observation_and_action_constraint_splitter
            ),
            name=name,
        )
        self._py_policy = policy
        self._py_policy_is_batched = py_policy_is_batched
        self._lock = threading.RLock()
        self._export_obstacle = (
            f"{self.name} runs the Python policy {type(policy).__name__}, which exists only in "
            "this process and cannot be written to a file; save a policy made of TensorFlow ops."
        )

    @property
    def py_policy(self) -> PyPolicy:
        """The Python policy."""
        return self._py_policy

    @property
    def py_policy_is_batched(self) -> bool:
        """Whether the Python policy works on batches."""
        return self._py_policy_is_batched

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: tf.Tensor | None
    ) -> PolicyStep:
        if seed is not None:
            self._py_policy.require_seed()
        outer_dims = tuple(time_step.step_type.shape)
        if not self._py_policy_is_batched:
            if len(outer_dims) != 1 or outer_dims[0] not in (1, None):
                raise ValueError(
                    f"{self.name}: got time steps of outer shape {outer_dims}, expected (1,); "
                    "py_policy_is_batched=True hands batches on to the Python policy."
                )
            outer_dims = (1,)
        inputs = (time_step, policy_state, () if seed is None else (seed,))
        return self._in_python(self._act, inputs, self.policy_step_spec, outer_dims)

    def _get_initial_state(self, batch_size: int | tf.Tensor | None) -> nests.Nest:
        inputs = () if batch_size is None else (batch_size,)
        size = None if nests.is_tensor(batch_size) else batch_size
        if not (self._py_policy_is_batched or size in (None, 1)):
            _refuse_batch_size(self.name, size)
        return self._in_python(
            self._start, inputs, self.policy_state_spec, (size,) if inputs else ()
        )

    def _act(self, inputs: nests.Nest) -> PolicyStep:
        """The Python side of `_action`: arrays in, arrays out."""
        time_step, policy_state, seed = inputs
        arguments = {"seed": seed[0]} if seed else {}
        outer_dims = np.shape(time_step.step_type)
        if not self._py_policy_is_batched:
            time_step, policy_state = nests.unbatch_nest((time_step, policy_state))
            outer_dims = ()
        step = self._py_policy.action(time_step, policy_state, **arguments)
        step = checks.cast_to_spec(
            step,
            self._py_policy.policy_step_spec,
            what=f"what {type(self._py_policy).__name__} returned",
            outer_dims=outer_dims,
        )
        return step if self._py_policy_is_batched else nests.batch_nest(step)

    def _start(self, inputs: nests.Nest) -> nests.Nest:
        """The Python side of `_get_initial_state`: a batch size in, arrays out."""
        size = int(inputs[0]) if inputs else None
        if not (self._py_policy_is_batched or size in (None, 1)):
            _refuse_batch_size(self.name, size)
        rows = size if self._py_policy_is_batched else None
        state = checks.cast_to_spec(
            self._py_policy.get_initial_state(rows),
            self._py_policy.policy_state_spec,
            what=f"the initial state of {type(self._py_policy).__name__}",
            outer_dims=() if rows is None else (rows,),
        )
        return nests.batch_nest(state) if size is not None and rows is None else state

    def _in_python(
        self,
        function: Callable[[nests.Nest], nests.Nest],
        inputs: nests.Nest,
        spec: nests.Nest,
        outer_dims: Sequence[int | None],
    ) -> nests.Nest:
        """Calls a function of arrays on tensors, now or (inside of a graph) at every execution.

        Args:
          function: from a nest of arrays like `inputs` to a nest of arrays like `spec`.
          inputs: nest of tensors.
          spec: nest of tensor specs.
          outer_dims: static axes in front of the results.
        """

        def call(*arrays: np.ndarray) -> list[np.ndarray]:
            with self._lock:
                result = function(tf.nest.pack_sequence_as(inputs, arrays))
                # Copies: a tensor may share memory with the array that it is made of, and the
                # Python policy may go on writing to its own.
                return [np.array(leaf) for leaf in tf.nest.flatten(result)]

        leaf_specs = tf.nest.flatten(spec)
        tensors = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(inputs)]
        if tf.executing_eagerly():
            leaves = [tf.constant(leaf) for leaf in call(*(tensor.numpy() for tensor in tensors))]
        else:
            leaves = tf.numpy_function(call, tensors, [leaf.dtype for leaf in leaf_specs])
            for leaf, leaf_spec in zip(leaves, leaf_specs, strict=True):
                leaf.set_shape([*outer_dims, *leaf_spec.shape])
        return tf.nest.pack_sequence_as(spec, leaves)


def _refuse_batch_size(name: str, size: int | None) -> None:
    raise ValueError(
        f"{name}: got batch_size {size}, expected 1 or None; py_policy_is_batched=True hands "
        "batches on to the Python policy."
    )
