"""`PolicySaver`: a policy as a SavedModel, and checkpoints that update it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.policies.tf_policies import TFPolicy
from pgest.policies.time_steps import PolicyStep
from pgest.saved_policies import (
    directories,
    exported_module,
    policy_functions,
    portable_signatures,
    saver_arguments,
    signature_functions,
    snapshots,
    specs_proto,
)
from pgest.specs import nests

DESCRIPTION_FILE = "policy.json"

Path = str | os.PathLike[str]


class PolicySaver:
    """Saves a `TFPolicy` as a SavedModel that TensorFlow loads without pgest.

    All functions are traced when the saver is made; the saver holds the policy's live variables,
    so one saver made before training serves every later save. The SavedModel has the attributes
    `action(time_step, policy_state=(), seed=None)`, `distribution(time_step, policy_state=())`,
    `get_initial_state(batch_size)`, `get_train_step()`, `get_metadata()`, `model_variables`,
    `train_step` and `metadata`, and the flat signatures `action`, `get_initial_state`,
    `get_train_step` and `get_metadata`.

    A loaded `action` without `seed` samples afresh in every call and every process; with one
    (int32 `[2]`) it is a function of its arguments.

    A SavedModel is a program: load only what comes from someone you trust.

    Args:
      policy: the policy.
      batch_size: the batch size that the export works with; None for any.
      use_nest_path_signatures: whether flat names come from the structure of the specs
        ("0/observation"); else the specs' own names are used, which must be there and unique.
      seed: int that fixes the sequence of actions that a loaded `action` samples without a seed of
        its own; for tests.
      train_step: `tf.Variable` whose value is saved; -1 is saved if None.
      input_fn_and_spec: (function, specs); `action` and `distribution` then take one argument of
        these specs, which the function turns into (time_step, policy_state).
      metadata: `tf.Variable`s by name, saved along.
      portable: no tensorflow-probability type in the file: `distribution` gives a dict of
        parameters, and there are the signatures of `portable_signatures` as well.

    Raises:
      TypeError: `policy` is no `TFPolicy`, or one that cannot be saved; `metadata` is no dict of
        `tf.Variable`s; `seed` is no int.
      ValueError: `batch_size` is neither None nor a positive int; `train_step` is no variable;
        names are missing or collide; `input_fn_and_spec` does not give what the policy takes.

    Example:

        saver = PolicySaver(agent.collect_policy, train_step=agent.global_step)
        saver.save("exports/policy")
        ...
        saver.save_checkpoint("exports/checkpoints/policy_checkpoint_0000000100")
    """

    def __init__(  # noqa: PLR0913 - the signature is TF-Agents'
        self,
        policy: TFPolicy,
        batch_size: int | None = None,
        use_nest_path_signatures: bool = True,
        seed: int | None = None,
        train_step: tf.Variable | None = None,
        input_fn_and_spec: policy_functions.InputFn | None = None,
        metadata: Mapping[str, tf.Variable] | None = None,
        *,
        portable: bool = False,
    ) -> None:
        if not isinstance(policy, TFPolicy):
            raise TypeError(
                f"policy is not a TFPolicy.  Saw: {type(policy)}; give agent.policy or "
                "agent.collect_policy."
            )
        if policy.export_obstacle is not None:
            raise TypeError(policy.export_obstacle)
        self._batch_size = saver_arguments.checked_batch_size(batch_size)
        self._metadata = saver_arguments.checked_metadata(metadata)
        self._train_step = saver_arguments.checked_train_step(train_step)
        self._portable = portable
        self._seed = saver_arguments.checked_seed(seed)
        self._lock = threading.RLock()
        self._graph_file: bytes | None = None
        self._writer = snapshots.CheckpointWriter()
        self._reader = snapshots.Reader()
        self._registered: list[str] = []
        self._registered_variables: dict[str, tf.Variable] = {}
        self._specs = signature_functions.named_specs(
            policy, use_nest_path_signatures, input_fn_and_spec
        )
        self._specs_text = specs_proto.to_text(
            {
                "collect_data_spec": policy.collect_data_spec,
                "policy_state_spec": policy_functions.plain_state(policy.policy_state_spec),
            }
        )
        self._functions = policy_functions.PolicyFunctions(
            policy,
            batch_size=self._batch_size,
            seed=self._seed,
            input_fn_and_spec=input_fn_and_spec,
            as_parameters=portable,
        )
        self._variables = self._functions.variables()
        with exported_module.without_remarks():
            self._signatures = self._flat_signatures(policy)
        self._module = exported_module.make(
            self._functions, self._variables, self._train_step, self._metadata
        )
        self._architecture: str | None = None

    @property
    def policy(self) -> tf.Module:
        """The module that is saved: what a loaded SavedModel looks like."""
        return self._module

    @property
    def signatures(self) -> dict[str, Any]:
        """The flat signatures, as traced `tf.function`s by name."""
        return dict(self._signatures)

    @property
    def action_input_spec(self) -> tuple[nests.Nest, ...]:
        """Specs of the inputs of `action`: (time_step_spec, policy_state_spec), or (spec,)."""
        return self._specs.inputs

    @property
    def policy_step_spec(self) -> PolicyStep:
        """Specs of the output of `action`."""
        return self._specs.step

    @property
    def policy_state_spec(self) -> nests.Nest:
        """Specs of the output of `get_initial_state`."""
        return self._specs.state

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """The variables that are saved as `model_variables`, in this order."""
        return tuple(self._variables)

    @property
    def architecture(self) -> str:
        """A fingerprint of what the policy computes; the weights do not count."""
        if self._architecture is None:
            self._architecture = self._functions.architecture()
        return self._architecture

    def get_train_step(self) -> np.ndarray:
        """The present train step, a numpy integer."""
        return self._train_step.numpy()

    def get_metadata(self) -> dict[str, np.ndarray]:
        """The present metadata, numpy values by name."""
        return snapshots.as_numpy(self._metadata)

    def register_function(
        self,
        name: str,
        fn: Callable[[Any], Any],
        input_spec: nests.Nest,
        outer_dims: Sequence[int | None] = (None,),
    ) -> None:
        """Adds a function of one (nested) argument as an attribute of the SavedModel.

        Args:
          name: the attribute.
          fn: Python function or `tf.function`.
          input_spec: nest of specs of its argument.
          outer_dims: axes in front of every spec.

        Raises:
          ValueError: there is an attribute of that name.
        """
        self._check_free(name)
        spec = specs.add_outer_dims(specs.from_spec(input_spec), outer_dims)
        function = tf.function(fn)
        concrete = function.get_concrete_function(
            tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), spec)
        )
        self._register(name, function, concrete.variables, None)

    def register_signatures(self, signatures: Mapping[str, Any]) -> None:
        """Adds flat signatures.

        Args:
          signatures: traced `tf.function`s of tensors to dicts of tensors, by name.

        Raises:
          ValueError: there is a signature of such a name.
        """
        taken = sorted(set(signatures) & set(self._signatures))
        if taken:
            raise ValueError(f"The policy already has the signatures {', '.join(taken)}.")
        with self._lock:
            self._signatures = {**self._signatures, **signatures}
            self._graph_file = None

    def register_concrete_function(self, name: str, fn: Any, assets: Any = None) -> None:
        """Adds a function that was traced already as an attribute of the SavedModel.

        Args:
          name: the attribute. `name__variables_0` and so on hold the variables that `fn` uses.
          fn: a traced `tf.function`, or a concrete function. Of a `tf.function` only variables
            are found that it reaches by its closure, its globals or its object.
          assets: trackable objects (such as `tf.saved_model.Asset`) that `fn` needs, as
            `name__assets`.

        Raises:
          ValueError: there is an attribute of that name, or `fn` was never traced.
          TypeError: `fn` is a plain Python function.
        """
        self._check_free(name)
        if isinstance(fn, tf.types.experimental.ConcreteFunction):
            variables = list(fn.variables)
        elif isinstance(fn, tf.types.experimental.GenericFunction):
            if fn.experimental_get_tracing_count() == 0:
                raise ValueError(
                    f"{name}: got a tf.function that was never traced, expected one with a trace; "
                    "call it, or its get_concrete_function, before."
                )
            variables = saver_arguments.variables_in_reach(fn.python_function)
        else:
            raise TypeError(
                f"{name}: got {fn!r} of type {type(fn).__name__}, expected a traced tf.function; "
                "register_function takes Python functions."
            )
        self._register(name, fn, variables, assets)

    def save(self, export_dir: Path, options: tf.saved_model.SaveOptions | None = None) -> None:
        """Saves the policy as a SavedModel; the directory appears complete or not at all.

        Args:
          export_dir: the directory; an earlier export in it is replaced.
          options: for `tf.saved_model.save`.

        Raises:
          tf.errors.FailedPreconditionError: `export_dir` is a file.
          OSError, tf.errors.OpError: the file system refuses; an earlier export is untouched.
        """
        with self._lock, directories.appearing(export_dir) as staging:
            self._write_saved_model(staging, options)
            self._write_companions(staging)

    def save_checkpoint(
        self, export_dir: Path, options: tf.train.CheckpointOptions | None = None
    ) -> None:
        """Saves the variables, to update a loaded policy with (or to complete a graph with).

        Args:
          export_dir: the directory; `variables/variables.*` are written in it.
          options: for `tf.train.Checkpoint.write`.

        Raises: as `save`.
        """
        self.write_checkpoint(self.snapshot(), export_dir, options)

    def snapshot(
        self, values: snapshots.Values | None = None, metadata: snapshots.Metadata | None = None
    ) -> snapshots.Snapshot:
        """The present values, for `write` and others to save later; see `snapshots.Reader`."""
        own = {id(variable) for variable in self._variables}
        # What is among the model's variables is found there.
        further = {name: v for name, v in self._registered_variables.items() if id(v) not in own}
        metadata = self._metadata if metadata is None else metadata
        return self._reader.take(self._variables, self._train_step, metadata, further, values)

    def write(
        self,
        snapshot: snapshots.Snapshot,
        export_dir: Path,
        options: tf.saved_model.SaveOptions | None = None,
    ) -> None:
        """As `save`, with the values of a snapshot, from any thread."""
        with self._lock, directories.appearing(export_dir) as staging:
            if self._graph_file is None or options is not None:
                self._write_saved_model(staging, options)
                directories.remove_files(os.path.join(staging, "variables"))
                directories.remove_files(os.path.join(staging, "fingerprint.pb"))
            else:
                # The graph does not change between saves; only its variables do.
                directories.write_file(os.path.join(staging, "saved_model.pb"), self._graph_file)
                os.mkdir(os.path.join(staging, "assets"))
            self._writer.write_variables(snapshot, staging)
            self._write_companions(staging)

    def write_checkpoint(
        self,
        snapshot: snapshots.Snapshot,
        export_dir: Path,
        options: tf.train.CheckpointOptions | None = None,
    ) -> None:
        """As `save_checkpoint`, with the values of a snapshot, from any thread."""
        self._writer.write(snapshot, export_dir, options)

    def matches(self, export_dir: Path) -> bool:
        """Whether a directory holds an export that computes what this one would.

        Specs, ops, constants, variables and metadata are compared, weights are not.
        """
        path = os.fspath(export_dir)
        try:
            with open(os.path.join(path, DESCRIPTION_FILE), encoding="utf-8") as file:
                description = json.load(file)
            with open(os.path.join(path, specs_proto.FILE_NAME), encoding="utf-8") as file:
                specs_text = file.read()
        except (OSError, ValueError):
            return False
        return description == self._description() and specs_text == self._specs_text

    def share_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Saves these variables as `model_variables`; the policy's own must be among them.

        So several policies over overlapping variables have them at the same positions, and one
        checkpoint updates any of them.

        Raises:
          ValueError: one of the policy's variables is missing.
        """
        given = {id(variable) for variable in variables}
        missing = [variable.name for variable in self._variables if id(variable) not in given]
        if missing:
            raise ValueError(f"variables: {missing} of the policy are missing; add them.")
        self._variables = list(variables)
        self._module.model_variables = self._variables
        self._graph_file = None

    def _flat_signatures(self, policy: TFPolicy) -> dict[str, Any]:
        # First, for what converts an export takes the first signature where it is told none.
        made = portable_signatures.make(policy, self._batch_size) if self._portable else {}
        made |= signature_functions.flat_signatures(self._functions, self._specs, self._batch_size)
        made["get_train_step"] = signature_functions.train_step_signature(self._train_step)
        made["get_metadata"] = signature_functions.metadata_signature(self._metadata)
        return made

    def _write_saved_model(self, staging: str, options: Any) -> None:
        with exported_module.without_remarks():
            tf.saved_model.save(self._module, staging, signatures=self._signatures, options=options)
        has_assets = os.path.isdir(os.path.join(staging, "assets")) and os.listdir(
            os.path.join(staging, "assets")
        )
        if options is None and not has_assets:
            with open(os.path.join(staging, "saved_model.pb"), "rb") as file:
                self._graph_file = file.read()

    def _write_companions(self, staging: str) -> None:
        text = json.dumps(self._description(), indent=2) + "\n"
        directories.write_file(os.path.join(staging, DESCRIPTION_FILE), text)
        # Last: whoever waits for a policy waits for this file.
        directories.write_file(os.path.join(staging, specs_proto.FILE_NAME), self._specs_text)

    def _description(self) -> dict[str, Any]:
        return {
            "format": 1,
            "batch_size": self._batch_size,
            "portable": self._portable,
            "seed": self._seed,
            "architecture": self.architecture,
            "variables": [
                f"{variable.dtype.name}{list(variable.shape)}" for variable in self._variables
            ],
            "metadata": sorted(self._metadata),
            "functions": sorted(self._registered),
        }

    def _check_free(self, name: str) -> None:
        if hasattr(self._module, name):
            raise ValueError(f"Policy already has an attribute registered with: {name}")

    def _register(self, name: str, function: Any, variables: Sequence[Any], assets: Any) -> None:
        with self._lock:
            self._registered.append(name)
            setattr(self._module, name, function)
            for position, variable in enumerate(variables):
                self._registered_variables[f"{name}__variables_{position}"] = variable
                setattr(self._module, f"{name}__variables_{position}", variable)
            if assets is not None:
                setattr(self._module, f"{name}__assets", assets)
            self._graph_file = None
