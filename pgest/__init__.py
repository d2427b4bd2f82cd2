"""pgest: policy gradients the Estimator way, on today's TensorFlow."""

from pgest.agent import PGAgent
from pgest.environment_view import EnvironmentFailure
from pgest.environments import make
from pgest.episodes import EpisodeStatistics
from pgest.memory import BatchMemory, RolloutMemory
from pgest.model_fn import EstimatorSpec, Modes
from pgest.optimization import minimize
from pgest.run_config import RunConfig
from pgest.update_config import UpdateConfig
from pgest.variables import get_global_episode, get_global_step, get_global_timestep, scope

__version__ = "0.1.0"
