"""The compiled acting program: observations in; actions and predictions out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.contract import model_fn
from pgest.distributions import fitting
from pgest.environments import actions
from pgest.tracing import model as model_lib
from pgest.tracing import programs
from pgest.variables import workers as workers_lib

Modes = model_fn.Modes
# Names that the memory stores, or that labels are made under: a prediction would be overwritten.
_RESERVED = frozenset(
    "state action reward terminated truncated reset action_mask policy_state cut bootstrap_value "
    "env_index done discount_reward advantage value_target".split()
)


class _PolicyStateFound(Exception):
    """The first trace found that the model is recurrent; it is traced again with the state."""

    def __init__(self, spec: Any):
        super().__init__()
        self.spec = spec


class Acted(NamedTuple):
    """What one acting call gave, a row an environment.

    Attributes:
      action: what the distribution gave, numpy nest `[B, ...]`.
      environment_action: the same in the environment's terms.
      predictions: numpy by name, `[B, ...]`; `log_prob` among them.
      policy_state: the next recurrent state, a nest of tensors, or ().
    """

    action: Any
    environment_action: Any
    predictions: dict[str, Any]
    policy_state: Any

    def rows(self) -> Iterator[dict[str, Any]]:
        """Actions and predictions of one environment after another, by name."""
        rows = {
            "action": self.action,
            "environment_action": self.environment_action,
            **self.predictions,
        }
        if all(isinstance(value, np.ndarray) for value in rows.values()):
            for row in zip(*rows.values(), strict=True):  # packing takes as long as many a program
                yield dict(zip(rows, row, strict=True))
        else:
            for leaves in zip(*tf.nest.flatten(rows), strict=True):
                yield tf.nest.pack_sequence_as(rows, leaves)


class Actor:
    """Acts for `num_envs` environments at once.

    Args:
      model: the model.
      observation_space: of one environment.
      action_space: of one environment.
      num_envs: B; None takes any number of rows, without XLA, which compiles for each anew.
      mask_spec: a nest of specs of the action mask of one environment, or None.
      explore: sample from the distribution; False takes its mode.

    Attributes:
      outputs: specs of what acting gives: `action` and `predictions`, each leaf `[B, ...]`.
      recurrent: whether the model carries a policy state.
    """

    # Whether the model is told of these environments and their timesteps as those of its training.
    _trains = True

    def __init__(
        self,
        model: model_lib.Model,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        num_envs: int | None,
        mask_spec: Any = None,
        explore: bool = True,
    ):
        self._model = model
        model.store.spaces = (observation_space, action_space)
        if explore and self._trains and num_envs is not None:
            model.store.num_envs = num_envs
        self._action_space = action_space
        self._explore = explore
        self.num_envs = num_envs
        self.observation_spec = _batched(specs.observation_spec(observation_space), num_envs)
        self.mask_spec = None if mask_spec is None else _batched(mask_spec, num_envs)
        self.mode = Modes.PREDICT
        self.state_spec: Any = ()
        self.recurrent = False
        self.keeps_timestep = False
        self.outputs: dict[str, Any] = {}
        self._num_arrays = 0
        try:
            self.program = self._trace()
        except _PolicyStateFound as found:
            self.state_spec, self.recurrent = found.spec, found.spec != ()
            self.program = self._trace()
        timestep = model.counters.variables["global_timestep"]
        if explore and self._trains and self.program.reads(timestep):
            # Keeping the variable right costs time at each call, so it is not done for nothing.
            self.keeps_timestep = True
            self.program = self._trace()
        model.store.adopt(list(self.program.concrete.variables))
        self._places = tf.nest.pack_sequence_as(
            self.outputs, list(range(len(tf.nest.flatten(self.outputs))))
        )
        self._state_places = tf.nest.pack_sequence_as(
            self.state_spec, list(range(len(tf.nest.flatten(self.state_spec))))
        )
        self._observes_nest = isinstance(self.observation_spec, (dict, tuple))
        self._check_predictions(self.outputs["predictions"])

    @property
    def predicts_value(self) -> bool:
        """Whether there is a `value` to bootstrap from where an episode is cut."""
        return "value" in self.outputs["predictions"]

    def initial_state(self, rows: int | None = None) -> Any:
        """The policy state at the start of an episode: zeros `[B, ...]`, or ().

        Args:
          rows: B, where the actor takes any number of rows.
        """
        rows = self.num_envs if rows is None else rows
        return tf.nest.map_structure(
            lambda spec: tf.zeros([rows, *spec.shape[1:]], spec.dtype), self.state_spec
        )

    def __call__(
        self,
        observation: Any,
        timestep: int,
        mask: Any = None,
        policy_state: Any = (),
        reset: np.ndarray | None = None,
    ) -> Acted:
        """Acts on observations `[B, ...]`; `timestep` seeds the sampling."""
        leaves = tf.nest.flatten(observation) if self._observes_nest else [observation]
        if mask is not None and self.mask_spec is not None:
            leaves += [mask] if isinstance(mask, np.ndarray) else tf.nest.flatten(mask)
        if self.recurrent:
            leaves.append(reset)
        return self._act(leaves, policy_state, timestep)

    def _act(self, leaves: list[Any], policy_state: Any, timestep: int) -> Acted:
        """Acts on the leaves of what stands in rows; the policy state comes before `reset`."""
        if self.recurrent:
            leaves[-1:-1] = tf.nest.flatten(policy_state)
        outputs = self.program.run_flat([*leaves, timestep])
        arrays = [output.numpy() for output in outputs[: self._num_arrays]]
        return self._acted(arrays, outputs[self._num_arrays :])

    def _acted(self, arrays: list[np.ndarray], following: Sequence[tf.Tensor]) -> Acted:
        places = self._places
        action = environment_action = _at(arrays, places["action"])
        if "environment_action" in places:
            environment_action = _at(arrays, places["environment_action"])
        predictions = {
            name: arrays[place] if place.__class__ is int else _at(arrays, place)
            for name, place in places["predictions"].items()
        }
        state = _at(following, self._state_places) if following else ()
        return Acted(action, environment_action, predictions, state)

    def _trace(self) -> programs.Program:
        signature = [self.observation_spec, self.mask_spec, self.state_spec]
        signature.append(tf.TensorSpec([self.num_envs], tf.bool))
        # An episode's start matters to a recurrent model alone.
        self._present = [True, self.mask_spec is not None, self.recurrent, self.recurrent]
        signature = [
            part for part, present in zip(signature, self._present, strict=True) if present
        ]
        signature.append(tf.TensorSpec([], tf.int64))
        return programs.Program(self._run, signature, "acting", jit_compile=self._jit_compile)

    @property
    def _jit_compile(self) -> bool | str:
        return self.num_envs is not None and self._model.config.jit_compile

    def _run(self, *arguments: Any) -> tuple[list[tf.Tensor], Any]:
        given = iter(arguments)
        observation, mask, state, reset = (
            next(given) if present else None for present in self._present
        )
        timestep = next(given)
        if self.keeps_timestep:
            # For exploration that model_fn anneals; evaluation must not move it.
            self._model.counters.variables["global_timestep"].assign(timestep)
        outputs = self.graph(observation, mask, state, reset, timestep)
        policy_state = outputs.pop("policy_state")
        if outputs["environment_action"] is outputs["action"]:
            del outputs["environment_action"]  # it need not be copied twice
        self.outputs = tf.nest.map_structure(tf.TensorSpec.from_tensor, outputs)
        arrays = tf.nest.flatten(outputs)
        self._num_arrays = len(arrays)
        return arrays, policy_state

    def graph(
        self, observation: Any, mask: Any, state: Any, reset: Any, timestep: tf.Tensor
    ) -> dict[str, Any]:
        """Acts in the graph being traced.

        Returns:
          `action`, `environment_action` (the same object where they do not differ),
          `predictions` and `policy_state`.
        """
        if self.recurrent:
            state = reset_rows(state, reset)
        spec = self._spec(observation, mask, state, timestep)
        seed = sampling_seed(self._model.read_seed(), timestep)
        if self._workers is not None:
            seed = tf.random.experimental.stateless_fold_in(seed, self._workers.rank)
        return self._outputs(spec, seed)

    def values(
        self, observation: Any, mask: Any, state: Any, timestep: tf.Tensor | int = 0
    ) -> tf.Tensor:
        """The values `[B]` of observations amid episodes, in the graph being traced."""
        spec = self._spec(observation, mask, state, tf.cast(timestep, tf.int64))
        return tf.reshape(spec.predictions["value"], [self.num_envs])

    @property
    def _workers(self) -> workers_lib.Workers | None:
        return self._model.workers if self._trains else None

    def _spec(
        self, observation: Any, mask: Any, state: Any, timestep: tf.Tensor
    ) -> model_fn.EstimatorSpec:
        features = {"state": observation}
        if mask is not None:
            features["action_mask"] = mask
        if self.recurrent:
            features["policy_state"] = state
        count, rank = (1, 0) if self._workers is None else (self._workers.count, self._workers.rank)
        # Told to what draws once in a while; a program for any number of rows counts nothing.
        if self.num_envs is not None:
            self._model.store.acting = (timestep, self.num_envs * count, rank)
        try:
            return self._call(features)
        finally:
            self._model.store.acting = None

    def _call(self, features: dict[str, Any]) -> model_fn.EstimatorSpec:
        try:
            spec, _ = self._model.call(features, None, self.mode)
        except KeyError as error:
            if self.recurrent or error.args[:1] not in (("policy_state",), ("reset",)):
                raise
            raise ValueError(
                f"model_fn read features[{error.args[0]!r}], which is absent at the first trace, "
                "when the shape of the policy state is not known, and `reset` is absent while "
                "acting: use features.get(...) and start from zeros where it gives None; "
                "pgest.networks.unroll does both."
            ) from error
        if spec.policy_state is not None and not self.recurrent:
            raise _PolicyStateFound(self._state_spec(spec.policy_state))
        if self.mode is Modes.PREDICT and spec.distribution is None and self._explore:
            # Only a model that cannot say how it explores is asked in a mode of its own.
            self.mode = Modes.COLLECT
            spec, _ = self._model.call(features, None, self.mode)
        return spec

    def _outputs(self, spec: model_fn.EstimatorSpec, seed: tf.Tensor) -> dict[str, Any]:
        predictions = {
            name: tf.nest.map_structure(tf.convert_to_tensor, value)
            for name, value in spec.predictions.items()
            if name != "results" or spec.distribution is None
        }
        distribution = spec.distribution
        if distribution is None:
            action = predictions.pop("results")
        else:
            fitting.check_fits(self._action_space, distribution)
            action = distribution.sample(seed=seed) if self._explore else distribution.mode()
            # Of greedy actions too: losses of EVAL read it. And of a copy: TensorFlow Probability
            # remembers what a sample was made of; TRAIN, which gets it alone, rounds otherwise.
            copied = tf.nest.map_structure(tf.identity, action)
            predictions.setdefault("log_prob", _checked_log_prob(distribution.log_prob(copied)))
        environment_action = actions.environment_action(self._action_space, action)
        leaves = zip(tf.nest.flatten(action), tf.nest.flatten(environment_action), strict=True)
        if all(left is right for left, right in leaves):
            environment_action = action
        return {
            "action": action,
            "environment_action": environment_action,
            "predictions": predictions,
            "policy_state": () if spec.policy_state is None else spec.policy_state,
        }

    def _state_spec(self, state: Any) -> Any:
        """The specs of a policy state, `[B, ...]`."""

        def leaf_spec(leaf: Any) -> tf.TensorSpec:
            leaf = tf.convert_to_tensor(leaf)
            return tf.TensorSpec([self.num_envs, *leaf.shape[1:]], leaf.dtype)

        return tf.nest.map_structure(leaf_spec, state)

    def _check_predictions(self, predictions: dict[str, Any]) -> None:
        for name, value in predictions.items():
            if name in _RESERVED:
                raise ValueError(
                    f"model_fn predicts {name!r}, a name that the memory or the labels use "
                    "themselves: rename it."
                )
            for leaf in tf.nest.flatten(value):
                if leaf.shape.rank == 0 or leaf.shape[0] not in (None, self.num_envs):
                    raise ValueError(
                        f"predictions[{name!r}] has shape {leaf.shape}; expected the batch of "
                        f"{self.num_envs} first: one row an environment."
                    )
        value = predictions.get("value")
        if value is not None and (value.shape.rank not in (1, None) or value.dtype != tf.float32):
            raise ValueError(
                f"predictions['value'] is {value.dtype.name} of shape {value.shape}; expected "
                f"float32, one number an environment, {(self.num_envs,)}. A value head of one unit "
                "gives [B, 1]: drop its last axis with tf.squeeze(value, axis=-1)."
            )


class EvaluationActor(Actor):
    """Acts in an evaluation or a prediction, exploring or not: no timestep of it is the model's."""

    _trains = False


def _checked_log_prob(log_prob: tf.Tensor) -> tf.Tensor:
    """One number an environment; more would be broadcast against advantages, without a word."""
    if log_prob.shape.rank not in (1, None):
        ndims = log_prob.shape.rank - 1
        raise ValueError(
            f"log_prob of an action has shape {log_prob.shape}; expected one number an "
            f"environment, {log_prob.shape[:1]}: make the action's parts one event, with "
            f"tfd.Independent(distribution, reinterpreted_batch_ndims={ndims}) or "
            "tfd.MultivariateNormalDiag."
        )
    return log_prob


def sampling_seed(seed: int | tf.Tensor, timestep: tf.Tensor) -> tf.Tensor:
    """The stateless int32 `[2]` seed of sampling at `timestep`; no generator has to be saved."""
    low = tf.cast(timestep % 2**31, tf.int32)
    high = tf.cast(timestep // 2**31, tf.int32)
    return tf.stack([tf.bitwise.bitwise_xor(tf.cast(seed, tf.int32), high), low])


def reset_rows(state: Any, reset: tf.Tensor) -> Any:
    """The policy state with zeros in the rows where an episode starts."""

    def rows(leaf: tf.Tensor) -> tf.Tensor:
        shape = [-1] + [1] * (leaf.shape.rank - 1)
        return tf.where(tf.reshape(reset, shape), tf.zeros_like(leaf), leaf)

    return tf.nest.map_structure(rows, state)


def _batched(spec: Any, num_envs: int | None) -> Any:
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([num_envs, *leaf.shape], leaf.dtype), spec
    )


def _at(arrays: Sequence[Any], places: Any) -> Any:
    """The array at a place, or a nest of arrays at a nest of places."""
    if places.__class__ is int:
        return arrays[places]
    # `tf.nest` takes a tenth of a millisecond for what these two do at once.
    if places.__class__ is dict:
        return {name: _at(arrays, place) for name, place in places.items()}
    if places.__class__ is tuple:
        return tuple(_at(arrays, place) for place in places)
    return tf.nest.map_structure(arrays.__getitem__, places)
