"""The state of a Python object, and of the simulators of gymnasium, as bytes and back.

What can be kept is plain: numbers, text, arrays, lists, dicts, random generators, and objects of
them. Of simulators, MuJoCo's data and the machine of ALE.
"""

from __future__ import annotations

import collections
import enum
import functools
import json
import random
import types
from collections.abc import Callable, Collection
from typing import Any

import gymnasium
import numpy as np

# What belongs to how an environment was made, and to how it is shown: it stays as it is.
_FIXED_TYPES = (
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, type,
    functools.partial, np.dtype, np.ufunc, property,
    gymnasium.envs.registration.EnvSpec,
)  # fmt: skip
_FIXED_MODULES = ("mujoco", "gymnasium.envs.mujoco.mujoco_rendering", "ale_py", "pygame")
# Of MuJoCo's data: what stands in memory that each step lays out anew.
_EACH_STEP = ("_", "efc_", "efm_", "iefc_", "island", "map_", "dof_island", "tree_island")
_PLAIN = (bool, int, float, str)
_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class NotPlainError(TypeError):
    """Something that can neither be kept nor be left as it is; the message says where."""


def pack(thing: Any, ignored: Collection[str] = ()) -> bytes:
    """The state of an object.

    Args:
        thing: An object with attributes.
        ignored: Names of attributes, at whatever depth, that stay as they are.

    Raises:
        NotPlainError: Something in it is nothing that can be kept.
    """
    keeping = _Keeping(ignored)
    tree = keeping.keep(thing, type(thing).__name__)
    header = json.dumps([tree, [[a.dtype.str, a.shape] for a in keeping.arrays]]).encode()
    parts = [len(header).to_bytes(8, "little"), header, *(a.tobytes() for a in keeping.arrays)]
    return b"".join(parts)


def unpack(state: bytes, thing: Any) -> None:
    """Brings an object of the same kind to the state that `pack` gave.

    Raises:
        ValueError: The state is of another kind of object.
    """
    start = 8 + int.from_bytes(state[:8], "little")
    tree, described = json.loads(state[8:start])
    arrays = []
    for name, shape in described:
        dtype = np.dtype(name)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(state[start : start + size], dtype).reshape(shape))
        start += size
    try:
        _Bringing(arrays).bring(tree, thing)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"the state is not one of {thing}: {error!r}") from error


class _Keeping:
    """Takes one object apart."""

    def __init__(self, ignored: Collection[str]) -> None:
        self.arrays: list[np.ndarray] = []
        self._ignored = frozenset(ignored)
        self._seen: set[int] = set()

    def keep(self, value: Any, path: str) -> Any:
        """Something that JSON holds; arrays by their number."""
        if value is None or type(value) in _PLAIN:
            return value
        if _is_fixed(value):
            return {"fixed": None}
        for fits, kind in _SIMULATORS:
            if fits(value):
                return {kind.__name__: self.keep(kind.read(value), path)}
        if isinstance(value, (np.ndarray, np.generic, bytes)):
            return self._numbers(value, path)
        if isinstance(value, enum.Enum):
            return {"member": value.name}
        container = self._container(value, path)
        if container is not None:
            return container
        return self._object(value, path)

    def _numbers(self, value: Any, path: str) -> Any:
        if isinstance(value, bytes):
            return {"bytes": self._array(np.frombuffer(value, np.uint8))}
        if isinstance(value, np.generic):
            return {"number": self._array(np.asarray(value))}
        if value.dtype.hasobject:
            rows = [self.keep(item, f"{path}[{at}]") for at, item in enumerate(value.ravel())]
            return {"objects": [list(value.shape), rows]}
        return {"array": self._array(value)}

    def _array(self, array: np.ndarray) -> int:
        self.arrays.append(array)
        return len(self.arrays) - 1

    def _container(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            pairs = [
                [self.keep(key, path), self.keep(item, f"{path}[{key!r}]")]
                for key, item in value.items()
            ]
            return {"dict": pairs}
        for name, kind in _CONTAINERS.items():
            if type(value) is kind:
                items = sorted(value, key=repr) if name.endswith("set") else value
                return {name: [self.keep(item, f"{path}[{n}]") for n, item in enumerate(items)]}
        if isinstance(value, collections.deque):
            items = [self.keep(item, f"{path}[{at}]") for at, item in enumerate(value)]
            return {"deque": [value.maxlen, items]}
        return None

    def _object(self, value: Any, path: str) -> Any:
        if id(value) in self._seen:
            return {"fixed": None}
        self._seen.add(id(value))
        generator = _generator_state(value)
        if generator is not None:
            return {"generator": self.keep(generator, path)}
        if isinstance(value, gymnasium.Space):  # its bounds stay; it may be drawn from
            inside = {"_np_random": value._np_random, "spaces": getattr(value, "spaces", None)}
        elif hasattr(value, "__dict__") and type(value).__module__ != "builtins":
            inside = vars(value)
        else:
            raise NotPlainError(
                f"{path} is a {type(value).__module__}.{type(value).__qualname__}, whose state "
                f"cannot be kept. If nothing depends on it, pass ignore=({path.split('.')[-1]!r},)."
            )
        kept = {
            name: self.keep(item, f"{path}.{name}")
            for name, item in inside.items()
            if name not in self._ignored
        }
        return {"object": kept}


class _Bringing:
    """Puts a state into the objects that are there."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self._arrays = arrays

    def bring(self, kept: Any, now: Any) -> Any:
        """What is to stand where `now` stands: the same object where it can take its state."""
        if not isinstance(kept, dict):
            return kept
        ((kind, what),) = kept.items()
        if kind == "fixed":
            return now
        if kind in _SIMULATORS_BY_NAME:
            _SIMULATORS_BY_NAME[kind].write(now, self.bring(what, None))
            return now
        if kind in _CONTAINERS:
            return self._bring_container(what, now, kind)
        return getattr(self, f"_bring_{kind}")(what, now)

    def _bring_array(self, number: int, now: Any) -> np.ndarray:
        array = self._arrays[number]
        if (
            isinstance(now, np.ndarray)
            and now.flags.writeable
            and (now.shape, now.dtype) == (array.shape, array.dtype)
        ):
            now[...] = array  # others may hold it too
            return now
        return array.copy()

    def _bring_number(self, number: int, now: Any) -> Any:
        return self._arrays[number][()]

    def _bring_bytes(self, number: int, now: Any) -> bytes:
        return self._arrays[number].tobytes()

    def _bring_objects(self, what: Any, now: Any) -> np.ndarray:
        shape, rows = what
        same = isinstance(now, np.ndarray) and now.dtype.hasobject and list(now.shape) == shape
        old = now.ravel() if same else [None] * len(rows)
        array = np.empty(len(rows), object)
        for at, row in enumerate(rows):
            array[at] = self.bring(row, old[at])
        return array.reshape(shape)

    def _bring_member(self, name: str, now: Any) -> Any:
        return type(now)[name]

    def _bring_dict(self, pairs: list[Any], now: Any) -> Any:
        old = now if isinstance(now, dict) else {}
        new = {}
        for kept_key, kept in pairs:
            key = self.bring(kept_key, None)
            new[key] = self.bring(kept, old.get(key) if _lasts(kept) else None)
        if isinstance(now, dict):  # its own kind, a default dict say; others may hold it too
            now.clear()
            now.update(new)
            return now
        return new

    def _bring_container(self, items: list[Any], now: Any, kind: str) -> Any:
        old = list(now) if isinstance(now, (list, tuple)) else []
        old += [None] * (len(items) - len(old))
        # Two places may hold one array now and two then: arrays are new ones.
        new = [
            self.bring(kept, before if _lasts(kept) else None)
            for kept, before in zip(items, old, strict=False)
        ]
        return _CONTAINERS[kind](new)

    def _bring_deque(self, what: Any, now: Any) -> Any:
        longest, items = what
        return collections.deque(self._bring_container(items, now, "list"), longest)

    def _bring_generator(self, state: Any, now: Any) -> Any:
        _set_generator(now, self.bring(state, None))
        return now

    def _bring_object(self, kept: dict[str, Any], now: Any) -> Any:
        if isinstance(now, gymnasium.Space):
            if isinstance(kept["_np_random"], dict):
                now._np_random = self.bring(kept["_np_random"], now.np_random)
            self.bring(kept["spaces"], getattr(now, "spaces", None))
            return now
        inside = vars(now)
        for name, value in kept.items():
            before = inside.get(name)
            after = self.bring(value, before)
            if after is not before:
                inside[name] = after
        return now


def _lasts(kept: Any) -> bool:
    """Whether it is brought to an object that is there, which nothing else can make."""
    return isinstance(kept, dict) and not {"array", "objects"} & kept.keys()


def _is_fixed(value: Any) -> bool:
    if isinstance(value, _FIXED_TYPES):
        return True
    if any(fits(value) for fits, _ in _SIMULATORS):
        return False
    module = type(value).__module__
    is_env = isinstance(value, (gymnasium.Env, gymnasium.vector.VectorEnv))
    return not is_env and any(
        module == name or module.startswith(f"{name}.") for name in _FIXED_MODULES
    )


def _generator_state(value: Any) -> Any:
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, random.Random):
        return value.getstate()
    return None


def _set_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


class _MuJoCo:
    """MuJoCo's `MjData`, with what the last step computed: some environments read it."""

    @staticmethod
    def fits(value: Any) -> bool:
        return type(value).__name__ == "MjData" and type(value).__module__.startswith("mujoco")

    @staticmethod
    def read(data: Any) -> dict[str, Any]:
        # Those of contacts and constraints have another size in each step.
        fresh = type(data)(data.model)
        state: dict[str, Any] = {"time": data.time}
        for name in dir(fresh):
            value = None if name.startswith(_EACH_STEP) else getattr(data, name, None)
            if isinstance(value, np.ndarray) and value.size == getattr(fresh, name).size > 0:
                state[name] = value
        return state

    @staticmethod
    def write(data: Any, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name == "time":
                data.time = value
            else:
                getattr(data, name)[...] = value


class _Atari:
    """ALE's machine, with its own random numbers. Its screen is drawn by the next step."""

    @staticmethod
    def fits(value: Any) -> bool:
        return type(value).__name__ == "ALEInterface" and type(value).__module__.startswith("ale")

    @staticmethod
    def read(ale: Any) -> bytes:
        return ale.cloneSystemState().serialize()

    @staticmethod
    def write(ale: Any, state: bytes) -> None:
        kind: Any = type(ale.cloneSystemState())
        whole = kind.__new__(kind)
        whole.__setstate__(state)
        ale.restoreSystemState(whole)


_SIMULATORS: tuple[tuple[Callable[[Any], bool], Any], ...] = (
    (_MuJoCo.fits, _MuJoCo),
    (_Atari.fits, _Atari),
)
_SIMULATORS_BY_NAME = {kind.__name__: kind for _, kind in _SIMULATORS}
