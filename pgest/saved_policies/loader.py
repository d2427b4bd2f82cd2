"""Opening what a trigger or a saver wrote."""

from __future__ import annotations

import os
import shutil

import tensorflow as tf

from pgest.saved_policies import directories, eager_policy, policy_saver_hook, snapshots, triggers

_KINDS = (triggers.GREEDY_POLICY, triggers.RAW_POLICY, triggers.COLLECT_POLICY)
_READ_ATTEMPTS = 5


def load_policy(
    directory: eager_policy.Path,
    step: int | str | None = "latest",
    *,
    kind: str | None = None,
    batch_time_steps: bool = True,
) -> eager_policy.SavedModelPyTFEagerPolicy:
    """Opens a saved policy.

    Args:
      directory: what `PolicySavedModelTrigger` or `PolicySaverHook` wrote to (or the `model_dir`
        above it), or a single export.
      step: "latest" takes the newest checkpoint, if there is one; an int that of a step; None the
        weights that the policy was exported with.
      kind: "greedy_policy", "collect_policy", "policy" or "portable_policy"; the first that is
        there if None, the greedy one first.
      batch_time_steps: see `SavedModelPyTFEagerPolicy`.

    Raises:
      FileNotFoundError: there is no policy.
      ValueError: there is no checkpoint of that step.

    Example:

        policy = load_policy("runs/cartpole/policies")
        action = policy.player()(observation)
    """
    export, checkpoints = _locate(directories.local(directory), kind)
    policy = eager_policy.SavedModelPyTFEagerPolicy(
        export, load_specs_from_pbtxt=True, batch_time_steps=batch_time_steps
    )
    if step == "latest":
        _update_to_newest(policy, checkpoints)
    elif step is not None:
        found = directories.checkpoint_steps(checkpoints)
        if step not in found:
            raise ValueError(
                f"step: got {step!r}, expected 'latest', None or one of {sorted(found)}, the "
                f"checkpoints in {checkpoints!r}."
            )
        policy.update_from_checkpoint(found[int(step)])
    return policy


def materialize_saved_model(
    saved_model: eager_policy.Path, checkpoint: eager_policy.Path, output: eager_policy.Path
) -> None:
    """Puts the graph of an export and the values of a checkpoint together as one SavedModel.

    Args:
      saved_model: an export.
      checkpoint: a directory that `save_checkpoint` (or `save`) wrote.
      output: the directory to make; it appears complete or not at all.

    Raises:
      ValueError: `output` exists.
      FileNotFoundError: there is no export or no checkpoint.

    Example:

        base = "runs/cartpole/policies"
        checkpoint = f"{base}/checkpoints/policy_checkpoint_0000000100"
        materialize_saved_model(f"{base}/greedy_policy", checkpoint, "policy_of_step_100")
    """
    source = directories.local(saved_model)
    values = os.path.join(directories.local(checkpoint), "variables")
    if os.path.exists(output):
        raise ValueError(f"Output path already exists: {os.fspath(output)}")
    for needed in (os.path.join(source, "saved_model.pb"), os.path.join(values, "variables.index")):
        if not os.path.exists(needed):
            raise FileNotFoundError(f"{needed!r} does not exist; give an export and a checkpoint.")
    with directories.appearing(output) as staging:
        for name in sorted(directories.EXPORT_NAMES - {"variables", "fingerprint.pb"}):
            path = os.path.join(source, name)
            if os.path.isdir(path):
                shutil.copytree(path, os.path.join(staging, name))
            elif os.path.exists(path):
                shutil.copy2(path, os.path.join(staging, name))
        if not _write_with_metadata(os.path.join(values, "variables"), staging):
            shutil.copytree(values, os.path.join(staging, "variables"))


def _write_with_metadata(prefix: str, directory: str) -> bool:
    """Rewrites a checkpoint of TF-Agents, whose metadata a SavedModel does not find; else False."""
    reader = tf.train.load_checkpoint(prefix)
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    keys = [
        key.removesuffix(suffix)
        for key in reader.get_variable_to_shape_map()
        if key.endswith(suffix)
    ]
    hidden = [key for key in keys if key.startswith("policy/metadata/")]
    if not hidden:
        return False

    def value(key: str) -> tf.Tensor:
        return tf.constant(reader.get_tensor(key + suffix))

    count = sum(key.startswith("model_variables/") for key in keys)
    snapshots.CheckpointWriter().write_variables(
        snapshots.Snapshot(
            variables=tuple(value(f"model_variables/{position}") for position in range(count)),
            names=tuple(f"variable_{position}" for position in range(count)),
            trainable=(True,) * count,
            train_step=value("train_step"),
            metadata={key.removeprefix("policy/metadata/"): value(key) for key in hidden},
        ),
        directory,
    )
    return True


def _locate(directory: str, kind: str | None) -> tuple[str, str]:
    """The export to open, and the directory of the checkpoints that update it."""
    if os.path.exists(os.path.join(directory, "saved_model.pb")):
        above = os.path.dirname(os.path.abspath(directory))
        return directory, os.path.join(above, directories.CHECKPOINTS)
    nested = os.path.join(directory, policy_saver_hook.DIRECTORY)
    for base in (directory, nested):
        for name in (kind,) if kind is not None else _KINDS:
            if os.path.exists(os.path.join(base, name, "saved_model.pb")):
                return os.path.join(base, name), os.path.join(base, directories.CHECKPOINTS)
    wanted = kind or ", ".join(_KINDS)
    raise FileNotFoundError(
        f"{directory!r} holds no saved policy: expected saved_model.pb in it, or in one of "
        f"{wanted} below it."
    )


def _update_to_newest(policy: eager_policy.SavedModelPyTFEagerPolicy, checkpoints: str) -> None:
    for _ in range(_READ_ATTEMPTS):
        found = directories.checkpoint_steps(checkpoints)
        if not found:
            return
        path = found[max(found)]
        try:
            policy.update_from_checkpoint(path)
            return
        except (tf.errors.OpError, OSError, ValueError):
            # `keep_max` may have removed it meanwhile; then there is a newer one.
            if os.path.exists(path):
                raise
    raise OSError(f"Checkpoints in {checkpoints!r} vanish faster than they can be read.")


def saved_steps(directory: eager_policy.Path) -> list[int]:
    """The steps of the checkpoints that `load_policy` can open, oldest first.

    Args:
      directory: as for `load_policy`.

    Returns:
      Ints; [] where there is no checkpoint.

    Example:

        for step in saved_steps("runs/cartpole"):
            policy = load_policy("runs/cartpole", step)
    """
    base = os.fspath(directory)
    nested = os.path.join(base, policy_saver_hook.DIRECTORY)
    for path in (base, nested, os.path.dirname(os.path.abspath(base))):
        found = directories.checkpoint_steps(os.path.join(path, directories.CHECKPOINTS))
        if found:
            return list(found)
    return []
