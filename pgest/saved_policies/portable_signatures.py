"""The signatures of a portable export: a bare observation in, an action out, built-in ops only.

  `serving_default`  observation -> the action of highest probability
  `sample`           observation, noise -> a sampled action; the noise is uniform in [0, 1),
                     float32 `[B, n]`, made by the caller: no op of the file draws anything

A single observation is called "observation", leaves of a nest "observation/<path>". A recurrent
policy also takes "policy_state" (or "policy_state/<path>") and returns "state" (or "state/<path>").
The time steps are taken to be in the middle of an episode: start with `get_initial_state`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from pgest import specs
from pgest.distributions import portable
from pgest.environments import actions
from pgest.policies.tf_policies import TFPolicy
from pgest.policies.time_steps import PolicyStep, StepType, TimeStep
from pgest.specs import nests

SERVING_DEFAULT = "serving_default"
SAMPLE = "sample"


def make(policy: TFPolicy, batch_size: int | None) -> dict[str, Any]:
    """The signatures of a policy, traced.

    `sample` is missing where the policy has no distribution in built-in ops, or nothing to draw
    (a greedy policy); without a distribution `serving_default` does what `policy.action` does.

    Args:
      policy: the policy.
      batch_size: int, or None for any.
    """
    inputs = FlatInputs(policy, batch_size)
    size = _noise_size(policy, inputs)

    @tf.function(autograph=False, input_signature=inputs.specs)
    def serving_default(*leaves: tf.Tensor) -> dict[str, tf.Tensor]:
        time_step, policy_state = inputs.unpack(leaves)
        if size is None:
            return inputs.outputs(policy.action(time_step, policy_state))
        return inputs.outputs(_take(policy, time_step, policy_state, portable.mode))

    serving_default.get_concrete_function()
    made = {SERVING_DEFAULT: serving_default}
    if size:
        made[SAMPLE] = _sample_signature(policy, inputs, size)
    return made


def further(
    policy: TFPolicy,
    names: Sequence[str],
    function: Callable[[TimeStep, nests.Nest], Mapping[str, Any]],
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Signatures of a bare observation for other outputs than actions.

    Args:
      policy: what tells the inputs.
      names: of the signatures.
      function: from (time_step, policy_state) to the outputs of each, a tensor or a dict of them.
      batch_size: int, or None for any.
    """
    inputs = FlatInputs(policy, batch_size)

    def signature(name: str) -> Any:
        @tf.function(autograph=False, input_signature=inputs.specs)
        def outputs(*leaves: tf.Tensor) -> dict[str, tf.Tensor]:
            found = function(*inputs.unpack(leaves))[name]
            return dict(found) if isinstance(found, Mapping) else {"output": found}

        outputs.get_concrete_function()
        return outputs

    return {name: signature(name) for name in names}


def _sample_signature(policy: TFPolicy, inputs: FlatInputs, size: int) -> Any:
    noise_spec = tf.TensorSpec([inputs.batch_size, size], tf.float32, "noise")

    @tf.function(autograph=False, input_signature=[*inputs.specs, noise_spec])
    def sample(*leaves: tf.Tensor) -> dict[str, tf.Tensor]:
        time_step, policy_state = inputs.unpack(leaves[:-1])
        rest = leaves[-1]

        def draw(distribution: Any) -> tf.Tensor:
            nonlocal rest
            wanted = portable.noise_size(distribution)
            noise, rest = rest[:, :wanted], rest[:, wanted:]
            return portable.sample_with_noise(distribution, noise)

        return inputs.outputs(_take(policy, time_step, policy_state, draw))

    sample.get_concrete_function()
    return sample


class FlatInputs:
    """Flat inputs and outputs of the signatures of one policy."""

    def __init__(self, policy: TFPolicy, batch_size: int | None) -> None:
        self._policy = policy
        self.batch_size = batch_size
        state_spec = tf.nest.map_structure(lambda leaf: leaf, policy.policy_state_spec)
        named = (
            specs.with_path_names(policy.time_step_spec.observation, "observation"),
            specs.with_path_names(state_spec, "policy_state"),
        )
        self._nest = named
        self.specs = [
            tf.TensorSpec([batch_size, *leaf.shape], leaf.dtype, leaf.name)
            for leaf in tf.nest.flatten(named)
        ]

    def unpack(self, leaves: tuple[tf.Tensor, ...]) -> tuple[TimeStep, nests.Nest]:
        """A time step in the middle of an episode, and the policy state."""
        observation, policy_state = tf.nest.pack_sequence_as(self._nest, leaves)
        size = self.batch_size
        rows = tf.shape(leaves[0])[:1] if size is None else tf.constant([size])
        spec = self._policy.time_step_spec
        reward = tf.nest.map_structure(
            lambda leaf: tf.zeros(tf.concat([rows, leaf.shape.as_list()], 0), leaf.dtype),
            spec.reward,
        )
        step_type = tf.fill(rows, tf.constant(StepType.MID, tf.int32))
        return TimeStep(step_type, reward, tf.ones(rows, tf.float32), observation), policy_state

    def outputs(self, step: PolicyStep) -> dict[str, tf.Tensor]:
        """The leaves of action and state by their paths."""
        leaves = nests.flatten_with_paths({"action": step.action, "state": step.state})
        return {nests.signature_name(path): leaf for path, leaf in leaves}


def _take(
    policy: TFPolicy,
    time_step: TimeStep,
    policy_state: nests.Nest,
    choose: Callable[[Any], tf.Tensor],
) -> PolicyStep:
    """The step of a policy whose action `choose` makes of its distribution."""
    step = policy.distribution(time_step, policy_state)
    action = tf.nest.map_structure(
        lambda spec, distribution: _to_spec(policy, spec, choose(distribution)),
        policy.action_spec,
        step.action,
    )
    return step._replace(action=action)


def _to_spec(policy: TFPolicy, spec: tf.TensorSpec, action: tf.Tensor) -> tf.Tensor:
    bounded = policy.clip and specs.is_bounded(spec)
    bounds = (spec.minimum, spec.maximum) if bounded else ()
    if spec.dtype.is_integer and action.dtype.is_floating:
        return actions.to_integers(action, spec.dtype, *bounds)
    return actions.clip_to(action, spec.dtype, *bounds) if bounded else tf.cast(action, spec.dtype)


def _noise_size(policy: TFPolicy, inputs: FlatInputs) -> int | None:
    """The noise numbers a row takes; None where the distribution has no form in built-in ops."""
    sizes: list[int] = []

    @tf.function(autograph=False)
    def probe(*leaves: tf.Tensor) -> None:
        step = policy.distribution(*inputs.unpack(leaves))
        for distribution in tf.nest.flatten(step.action):
            sizes.append(portable.noise_size(distribution))

    try:
        probe.get_concrete_function(*inputs.specs)
    except (NotImplementedError, TypeError):
        return None
    return sum(sizes)
