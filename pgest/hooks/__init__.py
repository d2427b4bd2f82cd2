"""Hooks: what happens besides learning while a run goes on."""

from pgest.hooks.best_checkpoint import BestCheckpoint
from pgest.hooks.checkpointing import CheckpointSaverHook, CheckpointSaverListener
from pgest.hooks.defaults import default_hooks
from pgest.hooks.early_stopping import (
    stop_if_higher_hook,
    stop_if_lower_hook,
    stop_if_no_decrease_hook,
    stop_if_no_increase_hook,
)
from pgest.hooks.evaluation import EvaluationHook
from pgest.hooks.final_ops import FinalOpsHook
from pgest.hooks.history import HistoryHook
from pgest.hooks.intervals import Every
from pgest.hooks.limits import Limits
from pgest.hooks.monitor import BaseMonitor, Evaluation, RunContext
from pgest.hooks.nan import NanLossDuringTrainingError, NanTensorHook
from pgest.hooks.plots import plot_runs
from pgest.hooks.profiling import ProfilerHook
from pgest.hooks.progress import ProgressBarHook
from pgest.hooks.pruning import OptunaPruningHook
from pgest.hooks.reporting import LoggingTensorHook
from pgest.hooks.row_files import CSVLoggerHook, JSONLinesHook
from pgest.hooks.run_pages import write_hparams
from pgest.hooks.speed import StepCounterHook
from pgest.hooks.stopping import (
    StopAtEpisodeHook,
    StopAtStepHook,
    StopAtTimestepHook,
    StopOnNoImprovementHook,
    StopOnReturnHook,
)
from pgest.hooks.summaries import EVALUATION_TAGS, TAGS, SummarySaverHook
from pgest.hooks.trackers import MlflowHook, WandbHook
from pgest.hooks.videos import VideoHook

__all__ = [
    "EVALUATION_TAGS",
    "TAGS",
    "BaseMonitor",
    "BestCheckpoint",
    "CSVLoggerHook",
    "CheckpointSaverHook",
    "CheckpointSaverListener",
    "Evaluation",
    "EvaluationHook",
    "Every",
    "FinalOpsHook",
    "HistoryHook",
    "JSONLinesHook",
    "Limits",
    "LoggingTensorHook",
    "MlflowHook",
    "NanLossDuringTrainingError",
    "NanTensorHook",
    "OptunaPruningHook",
    "ProfilerHook",
    "ProgressBarHook",
    "RunContext",
    "StepCounterHook",
    "StopAtEpisodeHook",
    "StopAtStepHook",
    "StopAtTimestepHook",
    "StopOnNoImprovementHook",
    "StopOnReturnHook",
    "SummarySaverHook",
    "VideoHook",
    "WandbHook",
    "default_hooks",
    "plot_runs",
    "stop_if_higher_hook",
    "stop_if_lower_hook",
    "stop_if_no_decrease_hook",
    "stop_if_no_increase_hook",
    "write_hparams",
]
