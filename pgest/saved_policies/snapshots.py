"""The values of a policy at one moment, and checkpoints of them."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from pgest.saved_policies import called_graphs, directories

# Values by name; and variables whose values stand for those at the positions.
Metadata = Mapping[str, tf.Tensor | np.ndarray]
Values = Mapping[int, tf.Variable]

_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What the variables of a policy held at one moment.

    Attributes:
      variables: values of the model's variables.
      names: their names.
      trainable: whether each is trainable.
      train_step: value of the train step.
      metadata: values by name, tensors or arrays.
      registered: values of the variables of registered functions, by attribute.
    """

    variables: tuple[tf.Tensor, ...]
    names: tuple[str, ...]
    trainable: tuple[bool, ...]
    train_step: tf.Tensor
    metadata: Metadata
    registered: Mapping[str, tf.Tensor] = dataclasses.field(default_factory=dict)

    @property
    def step(self) -> int:
        """The train step as an int."""
        return int(self.train_step.numpy())


class Reader:
    """Takes the values of variables, in the caller's thread, by one op: the training waits for it.

    A tensor that was read from a variable never changes: an update of the variable that happens
    while the tensor lives writes into a new buffer. So a snapshot copies nothing by itself, and
    costs the next update one copy of the variables that are still held.
    """

    def __init__(self) -> None:
        self._sources: list[tf.Variable] = []
        self._read: called_graphs.CalledGraph | None = None
        self._described: tuple[tf.Variable, ...] = ()
        self._names: tuple[str, ...] = ()
        self._trainable: tuple[bool, ...] = ()

    def take(
        self,
        variables: Sequence[tf.Variable],
        train_step: tf.Variable,
        metadata: Mapping[str, tf.Variable] | Metadata,
        registered: Mapping[str, tf.Variable] | None = None,
        values: Values | None = None,
    ) -> Snapshot:
        """The present values.

        Args:
          variables: the model's variables, in the order of the exported `model_variables`.
          train_step: integer scalar.
          metadata: variables by name, or values, which are taken as they are.
          registered: variables by attribute.
          values: for some positions, the variable whose value is taken instead.
        """
        registered = registered or {}
        sources = [(values or {}).get(at, variable) for at, variable in enumerate(variables)]
        live = [name for name, value in metadata.items() if isinstance(value, tf.Variable)]
        read = [*sources, train_step, *(metadata[name] for name in live), *registered.values()]
        found = iter(self._values(read))
        self._describe(variables)
        return Snapshot(
            variables=tuple(next(found) for _ in variables),
            names=self._names,
            trainable=self._trainable,
            train_step=next(found),
            metadata={**metadata, **{name: next(found) for name in live}},
            registered={name: next(found) for name in registered},
        )

    def _describe(self, variables: Sequence[tf.Variable]) -> None:
        if not _are_same(variables, self._described):
            self._described = tuple(variables)
            self._names = tuple(variable.name.partition(":")[0] for variable in variables)
            self._trainable = tuple(bool(variable.trainable) for variable in variables)

    def _values(self, sources: list[tf.Variable]) -> list[tf.Tensor]:
        if self._read is None or not _are_same(sources, self._sources):
            self._sources = sources
            self._read = called_graphs.CalledGraph(
                lambda: [variable.read_value() for variable in sources], []
            )
        return self._read([])


def _are_same(these: Sequence[tf.Variable], those: Sequence[tf.Variable]) -> bool:
    return len(these) == len(those) and all(map(operator.is_, these, those))


class CheckpointWriter:
    """Writes snapshots of one policy.

    The values hang below the root and below its child `policy`: the first makes the files the
    variables part of a SavedModel, the second lets TF-Agents update a loaded policy from them.

    What `tf.train.Checkpoint` spends its time on is the graph of objects, which is the same in
    each checkpoint of a policy: it is taken from the first one. From then on a checkpoint is one
    op, which leaves Python to the training thread.
    """

    def __init__(self) -> None:
        self._layout: tuple | None = None
        self._format: dict[str, tf.Tensor] = {}

    def write(
        self,
        snapshot: Snapshot,
        export_dir: str | os.PathLike[str],
        options: tf.train.CheckpointOptions | None = None,
    ) -> None:
        """Writes a checkpoint directory; it appears complete or not at all."""
        contents = directories.CHECKPOINT_CONTENTS if options is None else None
        with directories.appearing(export_dir, contents) as staging:
            self.write_variables(snapshot, staging, options)

    def write_variables(
        self,
        snapshot: Snapshot,
        directory: str,
        options: tf.train.CheckpointOptions | None = None,
    ) -> None:
        """Writes `directory/variables/variables.*`."""
        prefix = os.path.join(directory, "variables", "variables")
        layout = (snapshot.names, tuple(snapshot.metadata), tuple(snapshot.registered))
        with tf.init_scope(), tf.device("CPU"):
            if options is None and self._layout == layout:
                tf.raw_ops.SaveV2(
                    prefix=prefix,
                    tensor_names=self._format["names"],
                    shape_and_slices=self._format["slices"],
                    tensors=[*_by_key(snapshot).values(), self._format["objects"]],
                )
                return
            _checkpoint(snapshot).write(prefix, options=options)
            objects = tf.train.load_checkpoint(prefix).get_tensor(_OBJECTS)
            names = [*(f"{key}{_SUFFIX}" for key in _by_key(snapshot)), _OBJECTS]
            self._format = {
                "names": tf.constant(names),
                "slices": tf.constant([""] * len(names)),
                "objects": tf.constant(objects),
            }
            self._layout = layout


def _checkpoint(snapshot: Snapshot) -> tf.train.Checkpoint:
    variables = [
        tf.Variable(value, trainable=trainable, name=name)
        for value, trainable, name in zip(
            snapshot.variables, snapshot.trainable, snapshot.names, strict=True
        )
    ]
    train_step = tf.Variable(snapshot.train_step, trainable=False, name="train_step")
    metadata = {name: tf.Variable(value) for name, value in snapshot.metadata.items()}
    registered = {name: tf.Variable(value) for name, value in snapshot.registered.items()}
    policy = tf.Module()
    policy.model_variables = variables
    policy.train_step = train_step
    policy.metadata = metadata
    for name, variable in registered.items():
        setattr(policy, name, variable)
    return tf.train.Checkpoint(
        policy=policy,
        model_variables=variables,
        train_step=train_step,
        metadata=metadata,
        **registered,
    )


def _by_key(snapshot: Snapshot) -> dict[str, tf.Tensor]:
    """The values by the keys that `_checkpoint` gives them."""
    return {
        **{f"model_variables/{at}": value for at, value in enumerate(snapshot.variables)},
        "train_step": snapshot.train_step,
        **{f"metadata/{_escaped(name)}": value for name, value in snapshot.metadata.items()},
        **{_escaped(name): value for name, value in snapshot.registered.items()},
    }


def _escaped(name: str) -> str:
    """A name as a part of a checkpoint's key."""
    return name.replace(".", "..").replace("/", ".S")


def shapes(path: str | os.PathLike[str]) -> list[tuple[int, ...]] | None:
    """The shapes of the model's variables in an export or a checkpoint; None where unreadable."""
    prefix = os.path.join(os.fspath(path), "variables", "variables")
    try:
        found = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError):
        return None
    by_position = {}
    for key, shape in found.items():
        parts = key.split("/")
        if parts[0] == "model_variables" and parts[1].isdecimal():
            by_position[int(parts[1])] = tuple(shape)
    return [by_position[position] for position in sorted(by_position)]


def as_numpy(values: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
    """Tensors or variables by name as numpy arrays."""
    return {name: value.numpy() for name, value in values.items()}
