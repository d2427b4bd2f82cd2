"""What TensorBoard says of a run besides its curves: hyper-parameters, settings, how it ended."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import schedules
from pgest.hooks import monitor

TEXT_TAG = "run"
_LIBRARIES = ("pgest", "tensorflow", "tf-keras", "tensorflow-probability", "gymnasium", "numpy")
_LONG = 200  # characters, beyond which a column of a table is of no use
_CLOCKS_END = {"progress": 1.0}


def write_hparams(
    writer: tf.summary.SummaryWriter, params: Mapping[str, Any], *, model_dir: str | None = None
) -> dict[str, bool | int | float | str]:
    """Writes hyper-parameters for the HParams page of TensorBoard.

    Nested mappings are flattened ("update.epochs"). The page shows bools, numbers and texts (numpy
    scalars count as what they hold); of tuples, lists, None and schedules it shows how they are
    written, of functions the name. Other objects, and what is very long, are left out.

    Args:
      writer: the run's summary writer.
      params: by name.
      model_dir: of the run; the page calls the row by its last part. Without it, the row has a hash
        for a name, and is the mean over all runs of the same hyper-parameters.

    Returns:
      What was written.

    Example:
      >>> writer = tf.summary.create_noop_writer()
      >>> write_hparams(writer, {"rate": 0.01, "net": {"units": (64, 64)}, "clip": None, "x": set})
      {'rate': 0.01, 'net.units': '(64, 64)', 'clip': 'None', 'x': 'set'}
    """
    # Importing the plugin takes a while, and few processes write hyper-parameters.
    from tensorboard.plugins.hparams import api

    flat = flattened(params)
    if flat:
        with writer.as_default(step=0), tf.summary.record_if(True):
            api.hparams(flat, trial_id=None if model_dir is None else _trial(model_dir))
    return flat


def write_end(context: monitor.RunContext) -> None:
    """Writes for the HParams page that the run has ended, and whether it failed."""
    from tensorboard.plugins.hparams import api_pb2, summary

    writer = context.summary_writer
    if writer is None or not context.hyperparameters:
        return
    status = api_pb2.STATUS_SUCCESS if context.error is None else api_pb2.STATUS_FAILURE
    end = summary.session_end_pb(status).SerializeToString()
    with context.writing_summaries(), writer.as_default(step=0), tf.summary.record_if(True):
        tf.summary.experimental.write_raw_pb(end)


def write_text(context: monitor.RunContext) -> None:
    """Writes the text page: settings, versions and the command, where the run begins."""
    writer = context.summary_writer
    if writer is None:
        return
    with (
        context.writing_summaries(),
        writer.as_default(step=context.timestep),
        tf.summary.record_if(True),
    ):
        tf.summary.text(TEXT_TAG, described(context.hyperparameters, context.config))


def described(params: Mapping[str, Any], config: Any = None) -> str:
    """Settings, versions and the command of this process, as Markdown.

    Args:
      params: hyper-parameters by name.
      config: a `RunConfig`, or None.
    """
    command = shlex.join([os.path.basename(sys.executable), *sys.orig_argv[1:]])
    tables: dict[str, Mapping[str, Any]] = {
        "Settings": flattened(params),
        "RunConfig": {} if config is None else flattened(vars(config)),
        "Versions": _versions(),
    }
    parts = [f"    {command.splitlines()[0]}"]
    for title, rows in tables.items():
        if rows:
            lines = [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
            parts.append("\n".join([f"| {title} | |", "|---|---|", *lines]))
    return "\n\n".join(parts)


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version(), "system": platform.platform()}
    for name in _LIBRARIES:
        # A library may be installed under another name, as tensorflow-cpu.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def flattened(params: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """What tables can show of hyper-parameters; see `write_hparams`."""
    flat: dict[str, bool | int | float | str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{prefix}{name}."))
            continue
        shown = _shown(value)
        if shown is not None:
            flat[f"{prefix}{name}"] = shown
    return flat


def _shown(value: Any) -> bool | int | float | str | None:
    """A value as a table shows it; None where it has nothing to show."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.item() if value.ndim == 0 else value.tolist()
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, schedules.Schedule):
        text = f"{float(value.function(0.0)):g} at first, by {value.clock}"
        if value.clock in _CLOCKS_END:
            end = float(value.function(_CLOCKS_END[value.clock]))
            text = f"{float(value.function(0.0)):g} to {end:g} by {value.clock}"
    elif isinstance(value, str):
        text = value
    elif callable(value):
        text = getattr(value, "__name__", repr(value))
    else:
        text = repr(value)
    is_of_use = len(text) <= _LONG and " at 0x" not in text and text != "<lambda>"
    return text if is_of_use else None


def _trial(model_dir: str) -> str:
    """A run's name on the HParams page: what tells it from others comes first.

    That is two folders, since `pgest train` calls its runs seed0, seed1, …; the page shows little
    more of a name than that.

    >>> _trial("/data/runs/ppo-CartPole-v1/seed0")
    'ppo-CartPole-v1/seed0 (/data/runs)'
    """
    folder, name = os.path.split(os.path.abspath(model_dir))
    above, within = os.path.split(folder)
    return f"{os.path.join(within, name)} ({above})"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
