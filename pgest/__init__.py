"""pgest: policy gradients the Estimator way, on today's TensorFlow.

Start with a `model_fn` that returns an `EstimatorSpec` (or a ready-made one, `models.PPO()`), and a
`PGAgent` that trains it on an environment. The names, in the order in which one meets them:

Agent and contract
    PGAgent, EstimatorSpec, Modes, RunConfig, UpdateConfig, EpisodeStatistics, WorkerLostError,
    train_and_evaluate, TrainSpec, EvalSpec, Exporter, BestExporter, LatestExporter, FinalExporter

Inside a model_fn
    minimize, scope, get_global_step, get_global_timestep, get_global_episode,
    get_observation_space, get_action_space, mean_over_workers

Memories
    BatchMemory, RolloutMemory

Hooks
    BaseMonitor, RunContext, Every, Limits, Evaluation, CheckpointSaverHook,
    CheckpointSaverListener, CSVLoggerHook, EvaluationHook, FinalOpsHook, HistoryHook,
    JSONLinesHook, LoggingTensorHook, MlflowHook, NanTensorHook, NanLossDuringTrainingError,
    OptunaPruningHook, ProfilerHook, ProgressBarHook, StepCounterHook, StopAtEpisodeHook,
    StopAtStepHook, StopAtTimestepHook, StopOnNoImprovementHook, StopOnReturnHook,
    SummarySaverHook, VideoHook, WandbHook, stop_if_higher_hook, stop_if_lower_hook,
    stop_if_no_increase_hook, stop_if_no_decrease_hook

Figures
    plot_runs

Models and what they are built of, as modules
    models, networks, distributions, losses, returns, normalization, schedules (and Schedule), hooks

Environments
    make, measure_environments, EnvironmentSpeed, EnvironmentFailure, RestorableEnv,
    RestorableVectorEnv, graph_environments

What users of TF-Agents look for; training needs none of it
    TFPolicy, GreedyPolicy, RandomTFPolicy, PyPolicy, RandomPyPolicy, TFPyPolicy,
    TimeStep, StepType, PolicyStep, Trajectory, restart, transition, termination, truncation,
    time_step_spec, time_step_from_observation,
    PolicySaver, AsyncPolicySaver, PolicySaverHook, PolicySavedModelTrigger, IntervalTrigger,
    SavedModelPyTFEagerPolicy, load_policy, saved_steps, materialize_saved_model, evaluate, specs
"""

import typing

from pgest.contract import start_up  # noqa: F401 - first, since it imports TensorFlow

# isort: split
from pgest import (
    distributions,
    graph_environments,
    hooks,
    losses,
    models,
    networks,
    normalization,
    returns,
    schedules,
    specs,
)
from pgest.agents.agent import PGAgent
from pgest.agents.policy_evaluation import evaluate
from pgest.agents.training_and_evaluation import EvalSpec, TrainSpec, train_and_evaluate
from pgest.contract import foreign_names
from pgest.contract.episodes import EpisodeStatistics
from pgest.contract.model_fn import EstimatorSpec, Modes
from pgest.contract.run_config import RunConfig
from pgest.contract.update_config import UpdateConfig
from pgest.environments.making import make
from pgest.environments.restorable import RestorableEnv, RestorableVectorEnv
from pgest.environments.speeds import EnvironmentSpeed, measure_environments
from pgest.environments.view import EnvironmentFailure
from pgest.hooks import (
    BaseMonitor,
    CheckpointSaverHook,
    CheckpointSaverListener,
    CSVLoggerHook,
    Evaluation,
    EvaluationHook,
    Every,
    FinalOpsHook,
    HistoryHook,
    JSONLinesHook,
    Limits,
    LoggingTensorHook,
    MlflowHook,
    NanLossDuringTrainingError,
    NanTensorHook,
    OptunaPruningHook,
    ProfilerHook,
    ProgressBarHook,
    RunContext,
    StepCounterHook,
    StopAtEpisodeHook,
    StopAtStepHook,
    StopAtTimestepHook,
    StopOnNoImprovementHook,
    StopOnReturnHook,
    SummarySaverHook,
    VideoHook,
    WandbHook,
    plot_runs,
    stop_if_higher_hook,
    stop_if_lower_hook,
    stop_if_no_decrease_hook,
    stop_if_no_increase_hook,
)
from pgest.memory.memory import BatchMemory, RolloutMemory
from pgest.policies.py_policies import PyPolicy, RandomPyPolicy
from pgest.policies.ready_made import GreedyPolicy, RandomTFPolicy, TFPolicy
from pgest.policies.tf_py_policy import TFPyPolicy
from pgest.policies.time_steps import (
    PolicyStep,
    StepType,
    TimeStep,
    Trajectory,
    restart,
    termination,
    time_step_from_observation,
    time_step_spec,
    transition,
    truncation,
)
from pgest.saved_policies.async_policy_saver import AsyncPolicySaver
from pgest.saved_policies.eager_policy import SavedModelPyTFEagerPolicy
from pgest.saved_policies.exporters import BestExporter, Exporter, FinalExporter, LatestExporter
from pgest.saved_policies.loader import load_policy, materialize_saved_model, saved_steps
from pgest.saved_policies.policy_saver import PolicySaver
from pgest.saved_policies.policy_saver_hook import PolicySaverHook
from pgest.saved_policies.triggers import IntervalTrigger, PolicySavedModelTrigger
from pgest.schedules import Schedule
from pgest.variables.optimization import minimize
from pgest.variables.sharing import (
    get_action_space,
    get_global_episode,
    get_global_step,
    get_global_timestep,
    get_observation_space,
    scope,
)
from pgest.variables.workers import WorkerLostError, mean_over_workers

__version__ = "0.1.0"

__all__ = [
    "AsyncPolicySaver",
    "BaseMonitor",
    "BatchMemory",
    "CSVLoggerHook",
    "BestExporter",
    "CheckpointSaverHook",
    "CheckpointSaverListener",
    "EnvironmentFailure",
    "EnvironmentSpeed",
    "EpisodeStatistics",
    "EstimatorSpec",
    "EvalSpec",
    "Evaluation",
    "EvaluationHook",
    "Every",
    "Exporter",
    "FinalExporter",
    "FinalOpsHook",
    "GreedyPolicy",
    "HistoryHook",
    "IntervalTrigger",
    "JSONLinesHook",
    "LatestExporter",
    "Limits",
    "LoggingTensorHook",
    "MlflowHook",
    "Modes",
    "NanLossDuringTrainingError",
    "NanTensorHook",
    "OptunaPruningHook",
    "PGAgent",
    "PolicySavedModelTrigger",
    "PolicySaver",
    "PolicySaverHook",
    "PolicyStep",
    "ProfilerHook",
    "ProgressBarHook",
    "PyPolicy",
    "RandomPyPolicy",
    "RandomTFPolicy",
    "RestorableEnv",
    "RestorableVectorEnv",
    "RolloutMemory",
    "RunConfig",
    "RunContext",
    "SavedModelPyTFEagerPolicy",
    "Schedule",
    "StepCounterHook",
    "StepType",
    "StopAtEpisodeHook",
    "StopAtStepHook",
    "StopAtTimestepHook",
    "StopOnNoImprovementHook",
    "StopOnReturnHook",
    "SummarySaverHook",
    "TFPolicy",
    "TFPyPolicy",
    "TimeStep",
    "TrainSpec",
    "Trajectory",
    "UpdateConfig",
    "VideoHook",
    "WandbHook",
    "WorkerLostError",
    "__version__",
    "distributions",
    "evaluate",
    "get_action_space",
    "get_global_episode",
    "get_global_step",
    "get_global_timestep",
    "get_observation_space",
    "graph_environments",
    "hooks",
    "load_policy",
    "losses",
    "make",
    "materialize_saved_model",
    "mean_over_workers",
    "measure_environments",
    "minimize",
    "models",
    "networks",
    "normalization",
    "plot_runs",
    "restart",
    "returns",
    "saved_steps",
    "schedules",
    "scope",
    "specs",
    "stop_if_higher_hook",
    "stop_if_lower_hook",
    "stop_if_no_decrease_hook",
    "stop_if_no_increase_hook",
    "termination",
    "time_step_from_observation",
    "time_step_spec",
    "train_and_evaluate",
    "transition",
    "truncation",
]


if not typing.TYPE_CHECKING:  # a type checker knows every name

    def __getattr__(name):
        raise foreign_names.absent(name)
