"""`pgest.evaluate`: how good a policy is that no agent trains, or that was exported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.agents import evaluator, loops, prediction, shares
from pgest.contract import episodes as episodes_lib
from pgest.environments import making
from pgest.memory import memory as memory_lib
from pgest.policies.py_policies import PyPolicy
from pgest.policies.tf_policies import TFPolicy
from pgest.policies.tf_py_policy import TFPyPolicy
from pgest.policies.time_steps import StepType, TimeStep
from pgest.saved_policies import loader
from pgest.saved_policies.eager_policy import SavedModelPyTFEagerPolicy
from pgest.specs import nests
from pgest.tracing import acting
from pgest.variables import counters as counters_lib


def evaluate(policy: Any, env: Any, episodes: int = 10, *, seed: int = 0) -> dict[str, float]:
    """Plays episodes with a policy and says how good they were.

    Args:
      policy: a `TFPolicy`, a `PyPolicy` (its time steps come without a batch axis, one environment
        after another), what `load_policy` opened, or a directory that it can open. Of an export of
        `PGAgent.export_saved_model`, or what `tf.saved_model.load` made of it, the greedy
        signature `serving_default` plays. An agent evaluates itself: `agent.evaluate(env)`.
      env: as for `PGAgent.train`. Where it offers action masks, an observation of the policy is
        `{"observation": ..., "action_mask": ...}`, as that of an agent's policies.
      episodes: how many; shared out among the environments of a vector.
      seed: of the environments that pgest makes and of policies that sample: equal seeds play
        equal episodes.

    Returns:
      `return_mean`, `_std`, `_min`, `_max`, the like for `length`, and `episodes`.

    Raises:
      TypeError: `policy` is none of these.
      ValueError: its observations are not the environment's, or `episodes` is not positive.

    Example:

        results = pgest.evaluate("runs/cartpole/policies", "CartPole-v1", episodes=20)
        print(results["return_mean"])
    """
    memory_lib.check_size("episodes", episodes)
    view = making.view(prediction.on_host(env, episodes), seed=seed)
    try:
        view.reset(0)
        view.observe()
        actor = _PolicyActor(_acting(policy, view.num_envs, seed), view.num_envs)
        wanted = shares.Shares(episodes, view.num_envs)
        finished: list[episodes_lib.EpisodeStatistics] = []

        def ended(together: list[episodes_lib.EpisodeStatistics]) -> None:
            for statistics in together:
                if wanted.left[statistics.env_index] > 0:
                    finished.append(statistics)
                    if not wanted.ended(statistics.env_index):
                        view.rest(statistics.env_index)

        loop = loops.HostLoop(actor, view, None, counters_lib.Counters())
        loop.collect(lambda: not wanted.left.any(), ended)
    finally:
        if view is not env:
            view.close()
        else:  # one that the user made with pgest.make stays open, and begins anew
            for index in range(view.num_envs):
                view.rest(index)
    return evaluator.statistics(finished)


# From observations, resets [B] and a timestep to actions.
_Act = Callable[[Any, np.ndarray, int], Any]


class _PolicyActor:
    """A policy where the loop expects the acting program of a model."""

    predicts_value = False
    recurrent = False  # as far as the loop knows

    def __init__(self, act: _Act, num_envs: int):
        self._act = act
        self.num_envs = num_envs
        self.program = self

    def reads(self, variable: tf.Variable) -> bool:
        """No policy reads a counter of an agent."""
        del variable
        return False

    def initial_state(self) -> Any:
        """Nothing: see `__call__`."""
        return ()

    def __call__(
        self,
        observation: Any,
        timestep: int,
        mask: Any = None,
        policy_state: Any = (),
        reset: np.ndarray | None = None,
    ) -> acting.Acted:
        """Acts on observations `[B, ...]`; the state of a policy that remembers stays inside."""
        if mask is not None:
            observation = {"observation": observation, "action_mask": mask}
        first = np.zeros([self.num_envs], np.bool_) if reset is None else reset
        action = tf.nest.map_structure(np.asarray, self._act(observation, first, timestep))
        return acting.Acted(action, action, {}, ())


def _acting(policy: Any, num_envs: int, seed: int) -> _Act:
    if isinstance(policy, (str, os.PathLike)):
        policy = _opened(os.fspath(policy))
    if isinstance(policy, TFPolicy):
        return _tensor_policy(policy, num_envs, seed)
    if isinstance(policy, PyPolicy):
        batched = isinstance(policy, SavedModelPyTFEagerPolicy) and not policy.batch_time_steps
        return (_batched if batched else _one_by_one)(policy, num_envs, seed)
    signatures = getattr(policy, "signatures", None)
    if isinstance(signatures, Mapping) and "serving_default" in signatures:
        return _signature(signatures["serving_default"], num_envs)
    raise TypeError(
        f"policy is {type(policy).__name__}; expected a TFPolicy, a PyPolicy, a directory that "
        "pgest.load_policy opens, or a loaded SavedModel with the signature serving_default. An "
        "agent evaluates itself: agent.evaluate(env)."
    )


def _opened(directory: str) -> Any:
    """What a directory holds; of a portable export the signature, whose actions are greedy."""
    if os.path.exists(os.path.join(directory, "saved_model.pb")):
        loaded = tf.saved_model.load(directory)
        if "serving_default" in loaded.signatures:
            return loaded
    return loader.load_policy(directory)


def _tensor_policy(policy: TFPolicy, num_envs: int, seed: int) -> _Act:
    compiled = tf.function(policy.action, autograph=False)
    blank = specs.zero_spec_nest(policy.time_step_spec, [num_envs])
    state = policy.get_initial_state(num_envs)
    seeded = not isinstance(policy, TFPyPolicy) or _takes_seed(policy.py_policy)

    def act(observation: Any, first: np.ndarray, timestep: int) -> Any:
        nonlocal state
        time_step = blank._replace(
            step_type=tf.constant(_step_types(first)),
            discount=tf.ones_like(blank.discount),
            observation=_fitted(blank.observation, observation, tf.convert_to_tensor),
        )
        now = tf.constant([seed, timestep], tf.int32) if seeded else None
        step = compiled(time_step, state, now)
        state = step.state
        return step.action

    return act


def _batched(policy: PyPolicy, num_envs: int, seed: int) -> _Act:
    blank = specs.zero_spec_nest(policy.time_step_spec, [num_envs])
    return _python_rows(policy, blank, seed, policy.get_initial_state(num_envs))


def _python_rows(policy: PyPolicy, blank: TimeStep, seed: int, state: Any) -> _Act:
    """Acts on what has the axes of `blank`."""
    seeded = _takes_seed(policy)

    def act(observation: Any, first: np.ndarray, timestep: int) -> Any:
        nonlocal state
        time_step = blank._replace(
            step_type=_step_types(first),
            discount=np.ones_like(blank.discount),
            observation=_fitted(blank.observation, observation, np.asarray),
        )
        seeds = {"seed": (seed, timestep)} if seeded else {}
        step = policy.action(time_step, state, **seeds)
        state = step.state
        return step.action

    return act


def _takes_seed(policy: PyPolicy) -> bool:
    try:
        policy.require_seed()
    except TypeError:
        return False
    return True


def _one_by_one(policy: PyPolicy, num_envs: int, seed: int) -> _Act:
    """A policy without a batch axis: a state and a seed an environment."""
    blank = specs.zero_spec_nest(policy.time_step_spec)

    def row(index: int) -> _Act:
        return _python_rows(policy, blank, seed + index, policy.get_initial_state())

    rows = [row(index) for index in range(num_envs)]

    def act(observation: Any, first: np.ndarray, timestep: int) -> Any:
        actions = []
        for index in range(num_envs):
            if first[index]:
                rows[index] = row(index)
            own = tf.nest.map_structure(lambda leaf, index=index: leaf[index], observation)
            actions.append(rows[index](own, first[index], timestep))
        return tf.nest.map_structure(lambda *leaves: np.stack(leaves), *actions)

    return act


def _signature(function: Any, num_envs: int) -> _Act:
    """The signature of a portable export: leaves by their paths, a state where it remembers."""
    inputs = function.structured_input_signature[1]
    states = {name: spec for name, spec in inputs.items() if name.startswith("policy_state")}
    state = {name: np.zeros([num_envs, *spec.shape[1:]]) for name, spec in states.items()}

    def act(observation: Any, first: np.ndarray, timestep: int) -> Any:
        nonlocal state
        del timestep
        leaves = nests.flatten_with_paths({"observation": observation})
        given = {nests.signature_name(path): leaf for path, leaf in leaves}
        for name, value in state.items():
            start = first.reshape([num_envs] + [1] * (value.ndim - 1))
            given[name] = np.where(start, np.zeros_like(value), value)
        if set(given) != set(inputs):
            raise ValueError(
                f"The export takes {', '.join(sorted(inputs))}; the environment's observations "
                f"give {', '.join(sorted(given))}. It was exported for another environment."
            )
        outputs = function(
            **{name: tf.cast(value, inputs[name].dtype) for name, value in given.items()}
        )
        state = {name: outputs[name.replace("policy_state", "state", 1)].numpy() for name in states}
        return _actions(outputs)

    return act


def _actions(outputs: Mapping[str, tf.Tensor]) -> Any:
    """The action of a signature; a nest of dicts by the paths of its leaves."""
    if "action" in outputs:
        return outputs["action"]
    prefix = "action/"
    names = [name for name in outputs if name.startswith(prefix)]
    return {name.removeprefix(prefix): outputs[name] for name in names}


def _fitted(expected: Any, observation: Any, convert: Callable[..., Any]) -> Any:
    """The observation in the dtypes of the policy's."""
    try:
        return tf.nest.map_structure(
            lambda spec, leaf: convert(leaf, spec.dtype), expected, observation
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The policy's observations are not the environment's: it expects "
            f"{tf.nest.map_structure(lambda leaf: (leaf.dtype, leaf.shape), expected)} and was "
            f"given {tf.nest.map_structure(np.shape, observation)}."
        ) from error


def _step_types(first: Any) -> np.ndarray:
    return np.where(first, StepType.FIRST, StepType.MID).astype(np.int32)
