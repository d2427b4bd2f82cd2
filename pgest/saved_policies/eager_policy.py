"""`SavedModelPyTFEagerPolicy`: a saved policy with numpy on both sides."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import nests, seeds, spec_checks, specs, time_steps
from pgest.py_policies import PyPolicy
from pgest.saved_policies import called_graphs, directories, specs_proto
from pgest.time_steps import PolicyStep, TimeStep

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
      ValueError: specs are missing, or do not describe what the SavedModel takes.
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
        self._model_path = os.fspath(model_path)
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
        self._signature = _Signature(self._policy)
        self._graphs: dict[bool, _ActionGraph] = {}
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

    def get_train_step(self) -> np.int64:
        """The train step that was saved (or restored last); -1 where there was none."""
        return self._policy.get_train_step().numpy()

    def get_metadata(self) -> dict[str, np.ndarray]:
        """The metadata that were saved (or restored last)."""
        return {name: value.numpy() for name, value in self._policy.get_metadata().items()}

    def variables(self) -> list[np.ndarray]:
        """The present values of the model's variables. (`model_variables` are the variables.)"""
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
        path = os.fspath(checkpoint_path)
        prefix = os.path.join(path, "variables", "variables")
        held = _all_variables(self._policy)
        with self._lock:
            before = [variable.read_value() for variable in held]
            try:
                _restore(self._policy, prefix)
            except tf.errors.NotFoundError:
                raise
            except (AssertionError, ValueError, tf.errors.OpError) as error:
                for variable, value in zip(held, before, strict=True):
                    variable.assign(value)
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

    def player(self, seed: int | None = None) -> Player:
        """A function of observations that plays; see `Player`."""
        return Player(self, seed)

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: Any = None
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
                f"batch_size: got {batch_size}, but the policy was exported with batch_size={fixed}."
            )
        state = tf.nest.flatten(state)
        return tf.nest.pack_sequence_as(self.policy_state_spec, [leaf.numpy() for leaf in state])

    def _action_graph(self, seeded: bool) -> _ActionGraph:
        if seeded not in self._graphs:
            if seeded and not self._signature.takes_seed:
                raise ValueError(
                    f"seed: the export {self._model_path!r} takes none (TF-Agents' exports do "
                    "not); act without a seed, or export the policy with pgest."
                )
            self._graphs[seeded] = _ActionGraph(self, seeded)
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
      policy: the policy.
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
        """An episode begins with the next observation."""
        self._state: Any = None

    def __call__(self, observation: nests.Nest) -> nests.Nest:
        """The action for an observation, in the environment's terms."""
        first = self._state is None
        time_step = self._policy.time_step(observation, first)
        if first:
            rows = np.shape(time_step.step_type)
            self._state = self._policy.get_initial_state(rows[0] if rows else None)
        seed = None
        if self._generator is not None:
            seed = self._generator.integers(-(2**31), 2**31, 2).astype(np.int32)
        step = self._policy.action(time_step, self._state, seed)
        self._state = step.state
        return step.action


class _Signature:
    """What the `action` of a loaded SavedModel takes."""

    def __init__(self, policy: Any) -> None:
        arguments = [
            concrete.structured_input_signature for concrete in policy.action.concrete_functions
        ]
        first = arguments[0][0][0]
        self.takes_example = type(first).__name__ != "TimeStep"
        self.example_spec = first if self.takes_example else None
        self.takes_seed = any(
            isinstance(leaf, tf.TensorSpec) and tuple(leaf.shape) == (2,) and leaf.dtype == tf.int32
            for positional, keywords in arguments
            for leaf in (*positional[1:], keywords.get("seed"))
        )
        leading = tf.nest.flatten(first)[0].shape
        self.batch_size = None if leading.rank in (None, 0) else leading[0]


class _ActionGraph:
    """The `action` of a loaded policy as one op on flat arrays."""

    def __init__(self, policy: SavedModelPyTFEagerPolicy, seeded: bool) -> None:
        self._squeeze = policy._batch_time_steps
        signature = policy._signature
        fixed = signature.batch_size
        if self._squeeze:
            rows = 1 if fixed is None else fixed
        else:
            rows = fixed
        self._rows = rows
        if self._squeeze and rows != 1:
            self._squeeze_error = (
                f"The policy was exported with batch_size={fixed} and takes {fixed} time steps at "
                "once: open it with batch_time_steps=False."
            )
        else:
            self._squeeze_error = ""
        if signature.takes_example:
            first = _without_batch(signature.example_spec)
            state_spec: nests.Nest = ()
        else:
            first, state_spec = policy.time_step_spec, policy.policy_state_spec
        self._takes_example = signature.takes_example
        self._nest = (first, state_spec)
        self._readers = _readers(first, "example" if self._takes_example else "time_step", False)
        self._readers += _readers(state_spec, "policy_state", True)
        self._seeded = seeded
        input_specs = [
            tf.TensorSpec([rows, *reader.spec.shape], reader.spec.dtype) for reader in self._readers
        ]
        if seeded:
            input_specs.append(tf.TensorSpec([2], tf.int32, "seed"))
        loaded = policy._policy

        def act(*leaves: tf.Tensor) -> list[tf.Tensor]:
            keywords = {"seed": leaves[-1]} if seeded else {}
            inputs = self.pack(leaves[:-1] if seeded else leaves)
            step = loaded.action(*inputs, **keywords)
            return tf.nest.flatten((step.action, step.state, step.info))

        self._call = _checked_trace(act, input_specs, policy._model_path)
        self._takes_seed = seeded and self._call.used[-1]
        counts = [len(tf.nest.flatten(part)) for part in policy.policy_step_spec]
        self._state_slice = slice(counts[0], counts[0] + counts[1])
        self._pack_action = _packer(policy.action_spec)
        self._pack_state = _packer(policy.policy_state_spec)
        self._pack_info = _packer(policy.info_spec)
        self._readers_used = [
            (reader, used) for reader, used in zip(self._readers, self._call.used, strict=False)
        ]

    def __call__(self, time_step: Any, policy_state: nests.Nest, seed: Any) -> PolicyStep:
        leaves = [
            array
            for array, (_, used) in zip(
                self.read(time_step, policy_state), self._readers_used, strict=True
            )
            if used
        ]
        if self._takes_seed:
            leaves.append(_as_pair(seed))
        outputs = [tensor.numpy() for tensor in self._call(leaves)]
        states = outputs[self._state_slice]
        others = outputs[: self._state_slice.start], outputs[self._state_slice.stop :]
        if self._squeeze:
            others = tuple([a.reshape(a.shape[1:]) for a in part] for part in others)
        action, info = others
        return PolicyStep(self._pack_action(action), self._pack_state(states), self._pack_info(info))

    def read(self, time_step: Any, policy_state: nests.Nest) -> list[np.ndarray]:
        """The leaves as batched arrays of the specs' dtypes, or an error of one line."""
        if self._squeeze_error:
            raise ValueError(self._squeeze_error)
        try:
            arrays = [
                reader.take(policy_state if reader.is_state else time_step)
                for reader in self._readers
            ]
        except (AttributeError, KeyError, IndexError, TypeError):
            self._explain(time_step, policy_state)
            raise
        rows = self._rows
        fitted = []
        for reader, array in zip(self._readers, arrays, strict=True):
            if self._squeeze and not reader.is_state:
                fitted.append(reader.fit(array, ())[None])
            else:
                array = reader.fit(array, (rows,))
                rows = array.shape[0]
                fitted.append(array)
        return fitted

    def _explain(self, time_step: Any, policy_state: nests.Nest) -> None:
        """Raises ValueError that names where a structure is wrong."""
        what = "example" if self._takes_example else "time_step"
        pruned = nests.prune_extra_keys(self._nest[0], time_step)
        nests.check_same_structure(self._nest[0], pruned, what=what)
        if tf.nest.flatten(self._nest[1]) and not tf.nest.flatten(policy_state):
            raise ValueError(
                f"policy_state: got {policy_state!r}, but the policy has a state; start from "
                "policy.get_initial_state(), go on with PolicyStep.state."
            )
        nests.check_same_structure(self._nest[1], policy_state, what="policy_state")

    def pack(self, leaves: Sequence[Any]) -> tuple:
        """The arguments of the loaded `action`, of flat leaves."""
        first, state = tf.nest.pack_sequence_as(self._nest, list(leaves))
        return (first,) if self._takes_example else (first, state)

    def warm_up(self) -> None:
        """Runs once on zeros, so that the first action costs no more than any other."""
        leaves = [
            np.zeros([self._rows or 1, *reader.spec.shape], reader.spec.dtype)
            for reader, used in self._readers_used
            if used
        ]
        self._call(leaves)


class _LeafReader:
    """Takes one leaf out of a nest and makes an array of its spec of it."""

    def __init__(
        self, path: str, take: Callable[[Any], Any], spec: specs.ArraySpec, is_state: bool
    ) -> None:
        self.take = take
        self.spec = spec
        self.is_state = is_state
        self._path = path
        self._shape = tuple(spec.shape)
        self._dtype = spec.dtype

    def fit(self, value: Any, outer_dims: tuple[int | None, ...]) -> np.ndarray:
        """The value as an array with these axes in front, None for any length."""
        if type(value) is np.ndarray and value.dtype == self._dtype:
            shape = value.shape
            if shape == self._shape if not outer_dims else (
                shape[1:] == self._shape and len(shape) > 0 and outer_dims[0] in (None, shape[0])
            ):
                return value
        if tf.is_tensor(value):
            value = value.numpy()
        return spec_checks.cast_to_spec(
            value, self.spec, what=self._path, outer_dims=outer_dims
        )


def _readers(spec: nests.Nest, what: str, is_state: bool) -> list[_LeafReader]:
    leaves = tf.nest.flatten(spec)
    return [
        _LeafReader(path, take, leaf, is_state)
        for (path, take), leaf in zip(called_graphs.reader(spec, what), leaves, strict=True)
    ]


def _without_batch(spec: nests.Nest) -> nests.Nest:
    return tf.nest.map_structure(
        lambda leaf: specs.ArraySpec(leaf.shape[1:], leaf.dtype.as_numpy_dtype, leaf.name), spec
    )


def _packer(spec: nests.Nest) -> Callable[[list[Any]], nests.Nest]:
    """A function that packs flat leaves like `spec`; the common cases cost nothing."""
    children = nests.children(spec)
    if children is None:
        return lambda leaves: leaves[0]
    if not children:
        return lambda leaves: spec
    return lambda leaves: tf.nest.pack_sequence_as(spec, leaves)


def _as_pair(seed: Any) -> np.ndarray:
    if type(seed) is np.ndarray and seed.dtype == np.int32 and seed.shape == (2,):
        return seed
    return seeds.as_seed(seed).numpy()


def _outcome(leaf: Any, squeeze: bool) -> Any:
    """An array of a tensor; a distribution without its batch axis where that is asked for."""
    if tf.is_tensor(leaf):
        return called_graphs.to_numpy(leaf, squeeze)
    return leaf[0] if squeeze else leaf


def _checked_trace(
    function: Callable[..., Any], input_specs: Sequence[tf.TensorSpec], path: str
) -> called_graphs.CalledGraph:
    try:
        return called_graphs.CalledGraph(function, input_specs)
    except ValueError as error:
        if "matching concrete function" not in str(error):
            raise
        shown = ", ".join(f"{spec.dtype.name}{list(spec.shape)}" for spec in input_specs)
        raise ValueError(
            f"The SavedModel {path!r} does not take what the specs describe ({shown}); load the "
            "specs from the file with load_specs_from_pbtxt=True."
        ) from error


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
