"""`SavedModelPyTFEagerPolicy`: a saved policy with numpy on both sides."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.policies import time_steps
from pgest.policies.py_policies import PyPolicy
from pgest.policies.time_steps import PolicyStep, StepType, TimeStep
from pgest.saved_policies import action_graphs, directories, specs_proto
from pgest.specs import nests

# An export may be replaced while it is read; then it is read again.
_READ_ATTEMPTS = 5

Path = str | os.PathLike[str]


class SavedModelPyTFEagerPolicy(PyPolicy):
    """Acts with a SavedModel that `PolicySaver` (or TF-Agents) wrote: numpy in, numpy out.

    One rule for the batch axis. With `batch_time_steps` time steps go in without one, and actions,
    infos and distributions come out without one; else both have it. A policy state always has it:
    start from `get_initial_state()` and hand `PolicyStep.state` on. All leaves that come out are
    arrays, also of rank 0.

    Inputs are cast to the specs where no number is lost, dict keys that the specs do not know are
    dropped, and what does not fit is an error of one line.

    A SavedModel is a program: open only what comes from someone you trust.

    Args:
      model_path: directory of the SavedModel.
      time_step_spec: `TimeStep` of specs of what `action` takes; with `load_specs_from_pbtxt` they
        come from the file.
      action_spec: nest of specs.
      policy_state_spec: nest of specs.
      info_spec: nest of specs.
      load_specs_from_pbtxt: whether the specs that are not given come from `policy_specs.pbtxt`.
      use_tf_function: for TF-Agents' signature; a saved policy is a traced function in any case.
      batch_time_steps: whether time steps come without a batch axis; see above.

    Raises:
      ValueError: specs are missing, or do not describe what the SavedModel takes; or the path is
        an address of a remote file system.
      OSError: there is no SavedModel, or no `policy_specs.pbtxt`.

    Example:

        policy = SavedModelPyTFEagerPolicy("exports/policy", load_specs_from_pbtxt=True)
        play = policy.player()
        observation, _ = env.reset()
        observation, reward, terminated, truncated, _ = env.step(play(observation))
    """

    def __init__(  # noqa: PLR0913 - the signature is TF-Agents'
        self,
        model_path: Path,
        time_step_spec: TimeStep | None = None,
        action_spec: nests.Nest | None = None,
        policy_state_spec: nests.Nest = (),
        info_spec: nests.Nest = (),
        load_specs_from_pbtxt: bool = False,
        use_tf_function: bool = False,
        batch_time_steps: bool = True,
    ) -> None:
        del use_tf_function
        self._model_path = directories.local(model_path)
        self._batch_time_steps = batch_time_steps
        self._lock = threading.Lock()
        self._step_in_path: int | None = None
        if time_step_spec is None and not load_specs_from_pbtxt:
            raise ValueError(
                "To load a SavedModel policy you have to provide the specs, or enable loading "
                "from proto: load_specs_from_pbtxt=True."
            )
        if time_step_spec is not None and action_spec is None:
            raise ValueError("time_step_spec was given without action_spec; give both.")
        self._policy, specs_text = _read(self._model_path, time_step_spec is None)
        if time_step_spec is None:
            found = specs_proto.from_text(specs_text)
            data = found["collect_data_spec"]
            time_step_spec = TimeStep(data.step_type, data.reward, data.discount, data.observation)
            action_spec, info_spec = data.action, data.policy_info
            policy_state_spec = found["policy_state_spec"]
        super().__init__(time_step_spec, action_spec, policy_state_spec, info_spec)
        blank = specs.zero_spec_nest(self.time_step_spec)._replace(discount=np.ones((), np.float32))
        self._blank_time_steps = [
            blank._replace(step_type=step_type) for step_type in (StepType.MID, StepType.FIRST)
        ]
        self._signature = action_graphs.ActionSignature(self._policy)
        self._graphs: dict[bool, action_graphs.ActionGraph] = {}
        self._action_graph(seeded=False).warm_up()

    def distribution(self, time_step: TimeStep, policy_state: nests.Nest = ()) -> PolicyStep:
        """The distribution of the next action.

        Args:
          time_step: as for `action`.
          policy_state: as for `action`.

        Returns:
          `PolicyStep` whose action is a nest of TFP distributions; of a portable export, a dict of
          parameters (arrays). State and info are arrays.

        Raises:
          tf.errors.InvalidArgumentError: the policy that was saved had no distribution.
        """
        graph = self._action_graph(seeded=False)
        inputs = graph.read(time_step, policy_state)
        with self._lock:
            step = self._policy.distribution(*graph.pack([tf.constant(leaf) for leaf in inputs]))
        squeeze = self._batch_time_steps
        return PolicyStep(
            tf.nest.map_structure(lambda leaf: _outcome(leaf, squeeze), step.action),
            tf.nest.map_structure(lambda leaf: _outcome(leaf, False), step.state),
            tf.nest.map_structure(lambda leaf: _outcome(leaf, squeeze), step.info),
        )

    @property
    def batch_time_steps(self) -> bool:
        """Whether time steps come without a batch axis."""
        return self._batch_time_steps

    def get_train_step(self) -> np.int64:
        """The train step that was saved (or restored last); -1 where there was none."""
        return self._policy.get_train_step().numpy()

    def get_metadata(self) -> dict[str, np.ndarray]:
        """The metadata that were saved (or restored last)."""
        return {name: value.numpy() for name, value in self._policy.get_metadata().items()}

    def variables(self) -> list[np.ndarray]:
        """The present values of the model's variables; `model_variables` are the `tf.Variable`s."""
        return [variable.numpy() for variable in self._policy.model_variables]

    def get_train_step_from_last_restored_checkpoint_path(self) -> int | None:
        """The number at the end of the path restored last, as in `policy_checkpoint_0000000100`."""
        return self._step_in_path

    def update_from_checkpoint(self, checkpoint_path: Path) -> None:
        """Takes over weights, train step and metadata; all of them, or none where it fails.

        Args:
          checkpoint_path: a directory that `save_checkpoint` or `save` wrote.

        Raises:
          tf.errors.NotFoundError: there is no checkpoint.
          ValueError: it is of another policy.
        """
        path = directories.local(checkpoint_path)
        prefix = os.path.join(path, "variables", "variables")
        held = _all_variables(self._policy)
        with self._lock:
            before = [variable.read_value() for variable in held]
            try:
                _restore(self._policy, prefix)
            except Exception as error:
                for variable, value in zip(held, before, strict=True):
                    variable.assign(value)
                if isinstance(error, tf.errors.NotFoundError):
                    raise
                reason = str(error).strip().partition("\n")[0]
                raise ValueError(
                    f"The checkpoint {path!r} does not fit the policy {self._model_path!r}, which "
                    f"is as it was: {reason}"
                ) from error
            self._step_in_path = directories.step_in_name(path)

    def time_step(self, observation: nests.Nest, first: bool = False) -> TimeStep:
        """The time step of a bare observation, for `action`.

        Args:
          observation: what an environment returned.
          first: whether an episode begins with it.
        """
        return time_steps.time_step_from_observation(observation, self.time_step_spec, first=first)

    def _unchecked_time_step(self, observation: nests.Nest, first: bool) -> TimeStep:
        """As `time_step`, for `action`, which looks at the observation itself."""
        if not self._batch_time_steps:
            return self.time_step(observation, first)
        return self._blank_time_steps[first]._replace(observation=observation)

    def player(self, seed: int | None = None) -> Player:
        """A function of observations that plays; see `Player`."""
        return Player(self, seed)

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: int | None = None
    ) -> PolicyStep:
        graph = self._graphs.get(seed is not None)
        if graph is None:
            graph = self._action_graph(seeded=True)
        with self._lock:
            return graph(time_step, policy_state, seed)

    def _get_initial_state(self, batch_size: Any) -> nests.Nest:
        fixed = self._signature.batch_size
        if batch_size is None:
            batch_size = 1 if fixed is None else fixed
        if fixed is None:
            state = self._policy.get_initial_state(batch_size=tf.constant(batch_size, tf.int32))
        elif batch_size == fixed:
            state = self._policy.get_initial_state()
        else:
            raise ValueError(
                f"batch_size: got {batch_size}, but the export works with batch_size={fixed} only."
            )
        state = tf.nest.flatten(state)
        return tf.nest.pack_sequence_as(self.policy_state_spec, [leaf.numpy() for leaf in state])

    def _action_graph(self, seeded: bool) -> action_graphs.ActionGraph:
        if seeded not in self._graphs:
            if seeded and not self._signature.takes_seed:
                raise ValueError(
                    f"seed: the export {self._model_path!r} takes none (TF-Agents' exports do "
                    "not); act without a seed, or export the policy with pgest."
                )
            self._graphs[seeded] = action_graphs.ActionGraph(
                self._policy,
                self._signature,
                time_step_spec=self.time_step_spec,
                policy_step_spec=self.policy_step_spec,
                squeeze=self._batch_time_steps,
                seeded=seeded,
                path=self._model_path,
            )
        return self._graphs[seeded]

    def __getattr__(self, name: str) -> Any:
        # Whatever copies or inspects a half-made object must not end in a recursion.
        if name.startswith("_") or "_policy" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        try:
            return getattr(self._policy, name)
        except AttributeError:
            raise AttributeError(
                f"Neither {type(self).__name__} nor the SavedModel has an attribute {name!r}."
            ) from None


class Player:
    """Plays a policy observation by observation and remembers its state.

    Args:
      policy: the policy. Opened with `batch_time_steps=False` it plays a vector of environments.
      seed: makes the sequence of actions reproducible; None samples afresh.

    Example:

        play = policy.player()
        while not done:
            observation, reward, terminated, truncated, _ = env.step(play(observation))
            done = terminated or truncated
        play.reset()
    """

    def __init__(self, policy: SavedModelPyTFEagerPolicy, seed: int | None = None) -> None:
        self._policy = policy
        self._generator = None if seed is None else np.random.default_rng(seed)
        self.reset()

    def reset(self) -> None:
        """Episodes begin with the next observation."""
        self._state: Any = None

    def __call__(self, observation: nests.Nest, first: Any = False) -> nests.Nest:
        """The action for an observation, in the environment's terms.

        Args:
          observation: what the environment returned.
          first: whether an episode begins with it; of a vector of environments bool [B].
        """
        begins = self._state is None
        time_step = self._policy._unchecked_time_step(observation, begins)
        if begins:
            rows = np.shape(time_step.step_type)
            self._state = self._policy.get_initial_state(rows[0] if rows else None)
        elif np.any(first):
            step_type = np.where(first, StepType.FIRST, time_step.step_type)
            time_step = time_step._replace(step_type=step_type.astype(np.int32))
        seed = None
        if self._generator is not None:
            seed = int(self._generator.integers(2**62))
        step = self._policy.action(time_step, self._state, seed)
        self._state = step.state
        return step.action


def _outcome(leaf: Any, squeeze: bool) -> Any:
    """An array of a tensor; a distribution without its batch axis where that is asked for."""
    if tf.is_tensor(leaf):
        array = leaf.numpy()
        return array.reshape(array.shape[1:]) if squeeze else array
    return leaf[0] if squeeze else leaf


def _read(path: str, with_specs: bool) -> tuple[Any, str]:
    """The loaded SavedModel and the text of its specs, both of one export."""
    for attempt in range(_READ_ATTEMPTS):
        try:
            identity = os.stat(path).st_ino
            loaded = tf.saved_model.load(path)
            text = ""
            if with_specs:
                with open(os.path.join(path, specs_proto.FILE_NAME), encoding="utf-8") as file:
                    text = file.read()
            if os.stat(path).st_ino == identity:
                return loaded, text
        except (OSError, tf.errors.OpError):
            # A directory that is being replaced may be gone for a moment.
            if attempt == _READ_ATTEMPTS - 1 or not _was_replaced(path):
                raise
    raise OSError(f"{path!r} is replaced faster than it can be read; try again.")


def _was_replaced(path: str) -> bool:
    return os.path.exists(os.path.join(path, specs_proto.FILE_NAME))


def _restore(policy: Any, prefix: str) -> None:
    """Reads a checkpoint of either layout: values below the root, or below `policy`."""
    try:
        status = tf.train.Checkpoint(root=policy).read(prefix)
        status.assert_existing_objects_matched().expect_partial()
    except AssertionError:
        status = tf.train.Checkpoint(policy=policy).read(prefix)
        status.assert_existing_objects_matched().expect_partial()


def _all_variables(policy: Any) -> list[tf.Variable]:
    """Every variable that a checkpoint may assign."""
    found = {id(variable): variable for variable in policy.model_variables}
    for name in dir(policy):
        if not name.startswith("_"):
            for leaf in tf.nest.flatten(getattr(policy, name)):
                if isinstance(leaf, tf.Variable):
                    found[id(leaf)] = leaf
    return list(found.values())
