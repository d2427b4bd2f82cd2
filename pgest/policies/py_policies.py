"""Policies in Python: numpy in, numpy out. For scripted experts, random play and planners."""

import inspect
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.policies import contracts, time_steps
from pgest.policies.contracts import Splitter
from pgest.policies.time_steps import PolicyStep, TimeStep, Trajectory
from pgest.specs import nests, sampling, seeds


class PyPolicy:
    """A policy in Python; the base of all of them.

    A subclass calls `super().__init__` and implements `_action(time_step, policy_state)`, with a
    third parameter `seed=None` if it draws random numbers; and, where zeros do not do,
    `_get_initial_state(batch_size)`. Public methods are not for overriding. Whether arrays carry a
    batch axis is up to the subclass: nothing is checked here, since an environment step must stay
    cheap. `TFPyPolicy` checks.

    Args:
      time_step_spec: `TimeStep` of specs; tensor specs become array specs.
      action_spec: nest of specs.
      policy_state_spec: nest of specs of what the policy remembers; () for none.
      info_spec: nest of specs of what else comes with an action.
      observation_and_action_constraint_splitter: from an observation to (observation, mask).

    Raises:
      ValueError: `time_step_spec` is no `TimeStep`, or a subclass overrides a public member.

    >>> class Left(PyPolicy):
    ...     def _action(self, time_step, policy_state):
    ...         return PolicyStep(np.int64(0), policy_state)
    >>> spec = time_steps.time_step_spec(specs.ArraySpec((4,), np.float32))
    >>> left = Left(spec, specs.BoundedArraySpec((), np.int64, 0, 1))
    >>> int(left.action(time_steps.restart(np.zeros(4, np.float32))).action)
    0
    """

    _specs: PolicyStep | None = None

    def __init__(
        self,
        time_step_spec: TimeStep,
        action_spec: nests.Nest,
        policy_state_spec: nests.Nest = (),
        info_spec: nests.Nest = (),
        observation_and_action_constraint_splitter: Splitter | None = None,
    ) -> None:
        contracts.refuse_overrides(type(self), PyPolicy)
        if not isinstance(time_step_spec, TimeStep):
            raise ValueError(
                f"time_step_spec: got {time_step_spec!r} of type {type(time_step_spec).__name__}, "
                "expected a TimeStep of specs; make one with time_steps.time_step_spec(...)."
            )
        self._time_step_spec = specs.to_array_spec(time_step_spec)
        self._specs = specs.to_array_spec(PolicyStep(action_spec, policy_state_spec, info_spec))
        self._splitter = observation_and_action_constraint_splitter
        parameters = inspect.signature(self._action).parameters
        self._takes_seed = "seed" in parameters or any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
        )

    def action(
        self, time_step: TimeStep, policy_state: nests.Nest = (), seed: seeds.Seed | None = None
    ) -> PolicyStep:
        """The next action.

        Args:
          time_step: `TimeStep` of arrays.
          policy_state: nest of arrays, from `get_initial_state` or the last `PolicyStep`.
          seed: None, or an int or two int32 numbers for the same action every time; `_action`
            gets a non-negative int of 64 bits in either case.

        Returns:
          `PolicyStep` of the action, the state for the next call, and info.

        Raises:
          RuntimeError: the subclass did not call `super().__init__`.
          TypeError: a seed for a policy whose `_action` takes none, or something else than a seed.
        """
        self._promised  # noqa: B018 - raises where super().__init__ was skipped
        if seed is None:
            return self._action(time_step, policy_state)
        self.require_seed()
        return self._action(time_step, policy_state, seed=seeds.as_int(seed))

    def get_initial_state(self, batch_size: int | None = None) -> nests.Nest:
        """The state to start from: nest like `policy_state_spec`.

        Args:
          batch_size: int; None for a state without a batch axis.
        """
        size = contracts.as_batch_size(batch_size)
        if not tf.nest.flatten(self.policy_state_spec):
            return self.policy_state_spec
        return self._get_initial_state(size)

    def require_seed(self) -> None:
        """Raises TypeError where `_action` has no parameter `seed`."""
        self._promised  # noqa: B018
        if not self._takes_seed:
            raise TypeError(
                f"{type(self).__name__}._action takes no seed, but got one; give it a parameter "
                "seed=None, or act without a seed."
            )

    @property
    def time_step_spec(self) -> TimeStep:
        """Array specs of the time steps that the policy takes."""
        self._promised  # noqa: B018
        return self._time_step_spec

    @property
    def action_spec(self) -> nests.Nest:
        """Array specs of the actions."""
        return self._promised.action

    @property
    def policy_state_spec(self) -> nests.Nest:
        """Array specs of the policy state; () for none."""
        return self._promised.state

    @property
    def info_spec(self) -> nests.Nest:
        """Array specs of the info."""
        return self._promised.info

    @property
    def policy_step_spec(self) -> PolicyStep:
        """Array specs of what `action` returns."""
        return self._promised

    @property
    def trajectory_spec(self) -> Trajectory:
        """Array specs of what is recorded when the policy plays."""
        return time_steps.trajectory_spec(self.time_step_spec, self.action_spec, self.info_spec)

    @property
    def collect_data_spec(self) -> Trajectory:
        """The same as `trajectory_spec`."""
        return self.trajectory_spec

    @property
    def observation_and_action_constraint_splitter(self) -> Splitter | None:
        """The function from an observation to (observation, action mask), or None."""
        self._promised  # noqa: B018
        return self._splitter

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: int | None = None
    ) -> PolicyStep:
        """The next action; for subclasses to write."""
        raise NotImplementedError(f"{type(self).__name__} does not implement _action.")

    def _get_initial_state(self, batch_size: Any) -> nests.Nest:
        """Zeros; for subclasses to replace."""
        outer_dims = () if batch_size is None else (batch_size,)
        return specs.zero_spec_nest(self.policy_state_spec, outer_dims)

    @property
    def _promised(self) -> PolicyStep:
        if self._specs is None:
            raise RuntimeError(
                f"{type(self).__name__}.__init__ did not call super().__init__(time_step_spec, "
                "action_spec, ...); call it first."
            )
        return self._specs


class RandomPyPolicy(PyPolicy):
    """Acts at random: uniform within finite bounds (see `specs.sampling`), whatever it sees.

    Args:
      time_step_spec: `TimeStep` of specs.
      action_spec: nest of specs; integers need bounds.
      policy_state_spec: nest of specs; the state is handed on untouched.
      info_spec: nest of specs; the info is random within them.
      seed: None, or an int that fixes the sequence of actions.
      outer_dims: axes of the actions in front of their specs; None takes those of the time step.
      observation_and_action_constraint_splitter: from an observation to (observation, mask); only
        actions that the mask allows are drawn.

    Raises:
      ValueError: for an integer leaf without bounds.

    >>> spec = time_steps.time_step_spec(specs.ArraySpec((4,), np.float32))
    >>> policy = RandomPyPolicy(spec, specs.BoundedArraySpec((), np.int64, 2, 2))
    >>> policy.action(time_steps.restart(np.zeros((3, 4), np.float32), batch_size=3)).action
    array([2, 2, 2])
    """

    def __init__(
        self,
        time_step_spec: TimeStep,
        action_spec: nests.Nest,
        policy_state_spec: nests.Nest = (),
        info_spec: nests.Nest = (),
        seed: int | None = None,
        outer_dims: tuple[int, ...] | None = None,
        observation_and_action_constraint_splitter: Splitter | None = None,
    ) -> None:
        super().__init__(
            time_step_spec,
            action_spec,
            policy_state_spec,
            info_spec,
            observation_and_action_constraint_splitter,
        )
        for path, spec in nests.flatten_with_paths((self.action_spec, self.info_spec)):
            sampling.check_sampled(path, spec)
        self._generator = np.random.default_rng(seed)
        self._outer_dims = outer_dims

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: int | None = None
    ) -> PolicyStep:
        generator = self._generator if seed is None else np.random.default_rng(seed)
        outer_dims = self._outer_dims
        if outer_dims is None:
            outer_dims = np.shape(time_step.step_type)
        mask = None
        splitter = self.observation_and_action_constraint_splitter
        if splitter is not None:
            _, mask = splitter(time_step.observation)
        action = sampling.sample_arrays(self.action_spec, generator, outer_dims, mask)
        info = sampling.sample_arrays(self.info_spec, generator, outer_dims)
        return PolicyStep(action, policy_state, info)
