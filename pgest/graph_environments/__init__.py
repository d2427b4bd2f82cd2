"""Environments as pure TensorFlow functions, to train inside one compiled program."""

from pgest.graph_environments.acrobot import Acrobot
from pgest.graph_environments.breakout import Breakout, BreakoutState
from pgest.graph_environments.cart_pole import CartPole
from pgest.graph_environments.graph_environment import (
    EnvironmentState,
    EpisodeProgress,
    GraphEnvironment,
    Transition,
)
from pgest.graph_environments.gymnasium_view import GraphVectorEnv, as_gymnasium
from pgest.graph_environments.mountain_car import MountainCar, MountainCarContinuous
from pgest.graph_environments.pendulum import Pendulum
from pgest.graph_environments.wrappers import (
    FrameStack,
    GraphWrapper,
    RescaleAction,
    RewardScale,
    StickyActions,
    TimeLimit,
    TransformObservation,
)

__all__ = [
    "Acrobot",
    "Breakout",
    "BreakoutState",
    "CartPole",
    "EnvironmentState",
    "EpisodeProgress",
    "FrameStack",
    "GraphEnvironment",
    "GraphVectorEnv",
    "GraphWrapper",
    "MountainCar",
    "MountainCarContinuous",
    "Pendulum",
    "RescaleAction",
    "RewardScale",
    "StickyActions",
    "TimeLimit",
    "Transition",
    "TransformObservation",
    "as_gymnasium",
]
