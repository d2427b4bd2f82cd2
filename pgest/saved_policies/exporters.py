"""Exporters: which evaluated weights become SavedModels, and how many of those are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from pgest.contract import callers
from pgest.hooks import intervals
from pgest.saved_policies import directories
from pgest.variables import whole_files

Results = Mapping[str, float]

_RECORD = "best_results.json"


class Exporter:
    """What `train_and_evaluate` calls after each evaluation; derive from it for one of your own.

    Args:
      name: of the directory, `model_dir/export/<name>`.

    Raises:
      ValueError: the name cannot be a directory's.
    """

    def __init__(self, name: str):
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ValueError(
                f"{type(self).__name__} takes a name that can be a directory's; got {name!r}."
            )
        self._name = name

    @property
    def name(self) -> str:
        """The name of the exporter and of its directory."""
        return self._name

    def export(
        self,
        agent: Any,
        export_path: str,
        checkpoint_path: str | None,
        eval_result: Results,
        is_the_final_export: bool,
    ) -> str | None:
        """Exports, or not.

        Args:
          agent: the `PGAgent`.
          export_path: this exporter's directory.
          checkpoint_path: of the weights that were evaluated.
          eval_result: what `PGAgent.evaluate` returned.
          is_the_final_export: whether training has ended. The last evaluation may be shown twice:
            after it, and once it turns out to be the last.

        Returns:
          The path of the SavedModel; None where nothing was exported.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override export.")


class FinalExporter(Exporter):
    """Exports once, when training has ended.

    Args:
      name: see `Exporter`.

    Example:
      >>> FinalExporter("final").name
      'final'
    """

    def __init__(self, name: str = "final"):
        super().__init__(name)

    def export(
        self,
        agent: Any,
        export_path: str,
        checkpoint_path: str | None,
        eval_result: Results,
        is_the_final_export: bool,
    ) -> str | None:
        """Exports at the end."""
        if not is_the_final_export:
            return None
        path: str = agent.export_saved_model(export_path, checkpoint_path=checkpoint_path)
        return path


class LatestExporter(Exporter):
    """Exports after each evaluation, and keeps the newest few.

    Args:
      name: see `Exporter`.
      exports_to_keep: how many; None keeps all.

    Raises:
      ValueError: the number is not positive.
      TypeError: it is no integer.

    Example:
      >>> LatestExporter(exports_to_keep=1).name
      'latest'
    """

    def __init__(self, name: str = "latest", exports_to_keep: int | None = 5):
        super().__init__(name)
        self._keep = _checked(type(self).__name__, exports_to_keep)
        self._newest: tuple[str | None, str] | None = None

    def export(
        self,
        agent: Any,
        export_path: str,
        checkpoint_path: str | None,
        eval_result: Results,
        is_the_final_export: bool,
    ) -> str | None:
        """Exports, unless this checkpoint was the last that it exported."""
        if self._newest is None or self._newest[0] != checkpoint_path:
            path = agent.export_saved_model(export_path, checkpoint_path=checkpoint_path)
            self._newest = checkpoint_path, path
            _sweep(export_path, self._keep)
        return self._newest[1]


class BestExporter(Exporter):
    """Exports whenever an evaluation is better than all before it, and keeps the newest few.

    The results of the best one stand in `best_results.json` beside the exports, so that a later
    run measures itself against them.

    Args:
      name: see `Exporter`.
      compare_fn: `compare_fn(best_eval_result, current_eval_result)` says whether the current one
        is better; by default a higher mean return is. Not every key need be in both.
      exports_to_keep: how many; None keeps all.

    Raises:
      ValueError: the number is not positive.
      TypeError: it is no integer, or `compare_fn` cannot be called.

    Example:
      >>> exporter = BestExporter(compare_fn=lambda best, now: now["loss"] < best["loss"])
    """

    def __init__(
        self,
        name: str = "best",
        compare_fn: Callable[[Results, Results], bool] | None = None,
        exports_to_keep: int | None = 5,
    ):
        super().__init__(name)
        if compare_fn is not None and not callable(compare_fn):
            raise TypeError(
                f"BestExporter takes compare_fn(best_eval_result, current_eval_result); got "
                f"{compare_fn!r} of type {type(compare_fn).__name__}."
            )
        self._is_better = _higher_return if compare_fn is None else compare_fn
        self._keep = _checked(type(self).__name__, exports_to_keep)

    def export(
        self,
        agent: Any,
        export_path: str,
        checkpoint_path: str | None,
        eval_result: Results,
        is_the_final_export: bool,
    ) -> str | None:
        """Exports where the result is better than the best before it."""
        best = _read(export_path)
        if best is not None and not self._is_better(best, eval_result):
            return None
        path: str = agent.export_saved_model(export_path, checkpoint_path=checkpoint_path)
        # After the export: killed in between, the next one as good is exported again.
        results = {name: float(value) for name, value in eval_result.items()}
        text = json.dumps(results, indent=2, sort_keys=True)
        whole_files.write_text(os.path.join(export_path, _RECORD), f"{text}\n")
        _sweep(export_path, self._keep)
        return path


def _higher_return(best: Results, current: Results) -> bool:
    return current["return_mean"] > best["return_mean"]


def _read(export_path: str) -> Results | None:
    """The results of the best export; None where there is none yet, or where they are damaged."""
    path = os.path.join(export_path, _RECORD)
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return {name: float(value) for name, value in json.load(file).items()}
    except (ValueError, TypeError, AttributeError) as error:  # bytes, JSON, or what it holds
        callers.warn(
            f"{path!r} does not hold the results of an export ({type(error).__name__}: {error}): "
            "this evaluation counts as the best so far, and replaces it."
        )
        return None


def _checked(exporter: str, keep: int | None) -> int | None:
    return (
        None if keep is None else intervals.positive_count(f"{exporter}(exports_to_keep=…)", keep)
    )


def _sweep(export_path: str, keep: int | None) -> None:
    """Removes all but the newest exports; they are named by the second of their making."""
    if keep is None:
        return
    stamps = sorted(int(name) for name in os.listdir(export_path) if name.isdecimal())
    for stamp in stamps[:-keep]:
        directories.remove(os.path.join(export_path, str(stamp)))
