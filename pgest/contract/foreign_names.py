"""Arguments that other libraries have under other names: one hint each, instead of "unexpected"."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# Episodes that nobody asks for by accident.
_LARGE = 10_000
_UPDATE = "PGAgent(..., optimizer_params={{{}}})"
_MODEL = "pgest.models.PPO({}), and so for every ready-made model"
_EVERY = "every=pgest.Every({})"
# Where a name of another library went; what is written there, not what it means.
HINTS = {
    "gamma": _UPDATE.format("'discount': 0.99"),
    "discount": _UPDATE.format("'discount': 0.99"),
    "lam": _UPDATE.format("'gae_lambda': 0.95"),
    "gae_lambda": _UPDATE.format("'gae_lambda': 0.95"),
    "n_epochs": _UPDATE.format("'epochs': 10"),
    "epochs": _UPDATE.format("'epochs': 10"),
    "batch_size": _UPDATE.format("'minibatch_size': 64") + ", or BatchMemory(batch_size=2000)",
    "minibatch_size": _UPDATE.format("'minibatch_size': 64"),
    "target_kl": _UPDATE.format("'target_kl': 0.02"),
    "normalize_advantage": _UPDATE.format("'normalize_advantage': False"),
    "n_steps": "PGAgent(..., memory=pgest.RolloutMemory(horizon=2048))",
    "horizon": "PGAgent(..., memory=pgest.RolloutMemory(horizon=2048))",
    "ent_coef": _MODEL.format("entropy_weight=0.01"),
    "vf_coef": _MODEL.format("value_weight=0.5"),
    "clip_range": "pgest.models.PPO(clip_ratio=0.2)",
    "clip_range_vf": _MODEL.format("value_clip_range=0.2"),
    "max_grad_norm": _MODEL.format("clip_norm=0.5"),
    "lr": _MODEL.format("learning_rate=3e-4") + "; a model_fn of your own makes its optimizer",
    "learning_rate": _MODEL.format("learning_rate=3e-4") + "; your own model_fn: params={...}",
    "use_sde": _MODEL.format("noise_interval=4, initial_std=0.135"),
    "sde_sample_freq": _MODEL.format("noise_interval=4"),
    "net_arch": _MODEL.format("hidden_sizes=(64, 64)"),
    "policy_kwargs": _MODEL.format("hidden_sizes=(64, 64), activation='tanh'"),
    "n_envs": "pgest.make('CartPole-v1', num_envs=8), as the environment of train",
    "num_envs": "pgest.make('CartPole-v1', num_envs=8), as the environment of train",
    "env": "agent.train(env, timesteps=100_000): train and evaluate take the environment",
    "seed": "PGAgent(..., config=pgest.RunConfig(tf_random_seed=0))",
    "random_seed": "PGAgent(..., config=pgest.RunConfig(tf_random_seed=0))",
    "total_timesteps": "agent.train(env, timesteps=100_000)",
    "total_steps": "agent.train(env, timesteps=100_000)",
    "num_timesteps": "agent.train(env, timesteps=100_000)",
    "callback": "agent.train(env, ..., hooks=[...]), each a pgest.BaseMonitor",
    "callbacks": "agent.train(env, ..., hooks=[...]), each a pgest.BaseMonitor",
    "progress_bar": "agent.train(env, ..., hooks=[pgest.ProgressBarHook()])",
    "verbose": "agent.train(env, ..., hooks=[pgest.ProgressBarHook()]); lines are logged under "
    "the name 'pgest': logging.basicConfig(level='INFO') shows them",
    "log_interval": "PGAgent(..., config=pgest.RunConfig(log_step_count_steps=100))",
    "tensorboard_log": "PGAgent(..., model_dir='runs/name')",
    "n_eval_episodes": "agent.evaluate(env, episodes=20)",
    "num_eval_episodes": "agent.evaluate(env, episodes=20)",
    "eval_env": "agent.train(..., hooks=[pgest.EvaluationHook(env, pgest.Every(steps=10))])",
    "deterministic": "agent.evaluate(env, greedy=True)",
    "render": "gymnasium.make('CartPole-v1', render_mode='human'), as the environment",
    "input_fn": "an environment in its place: agent.train(env, ...), agent.evaluate(env, ...)",
    "steps": "agent.train(env, steps=1000); an evaluation counts agent.evaluate(env, episodes=20)",
    "hooks": "EstimatorSpec(prediction_hooks=[...]); train and evaluate take hooks=[...]",
    "saving_listeners": "agent.train(..., hooks=[pgest.CheckpointSaverHook(every, listeners)])",
    "scaffold": "not needed: variables are initialised and saved by the agent; start from others "
    "with PGAgent(..., warm_start_from='runs/before')",
    "session_config": "RunConfig(intra_op_parallelism_threads=1); there is no session",
    "serving_input_receiver_fn": "agent.export_saved_model('exports'): the observation space says "
    "what is served",
    "hidden_units": _MODEL.format("hidden_sizes=(64, 64)"),
    "graph_fn": "the `network` of a class Mine(pgest.models.VPG) of yours, or layers in a model_fn",
    "num_states": "pgest.get_observation_space(), inside a model_fn",
    "num_actions": "pgest.get_action_space(), inside a model_fn",
    "is_continuous": "what the action space says by itself",
    "every_n_steps": _EVERY.format("steps=100"),
    "every_n_iter": _EVERY.format("steps=100"),
    "every_n_secs": _EVERY.format("seconds=60"),
    "save_steps": _EVERY.format("steps=100"),
    "save_secs": _EVERY.format("seconds=600"),
    "run_every_secs": "not needed: the hook looks at each evaluation once",
    "run_every_steps": "not needed: the hook looks at each evaluation once",
    "eval_dir": "name='...', of the evaluations to look at",
    "at_end": "not needed: a last line follows at the end",
    "checkpoint_dir": "PGAgent(..., model_dir='runs/name')",
    "output_dir": "PGAgent(..., model_dir='runs/name')",
    "loss_tensor": "not needed: it looks at the loss and at every other metric",
}
# Names of other libraries that are looked for in this package, and what is there.
SUCCESSORS = {
    "Estimator": "pgest.PGAgent",
    "ModeKeys": "pgest.Modes",
    "SessionRunHook": "pgest.BaseMonitor",
    "SessionRunContext": "pgest.RunContext",
    "SecondOrStepTimer": "pgest.Every",
    "WarmStartSettings": "PGAgent(..., warm_start_from='runs/before')",
    "Agent": "pgest.PGAgent",
    "TRPOAgent": "pgest.PGAgent(pgest.models.TRPO())",
    "PGModel": "a model_fn of your own, or pgest.models.VPG",
    "VPGModel": "pgest.models.VPG",
    "TRPOModel": "pgest.models.TRPO",
    "GymEnvironment": "an id, as in agent.train('CartPole-v1', ...); pgest.make, gymnasium.make",
    "RLExperiment": "pgest.train_and_evaluate(agent, pgest.TrainSpec(...), pgest.EvalSpec(...))",
    "Memory": "pgest.BatchMemory",
    "VPG": "pgest.models.VPG",
    "A2C": "pgest.models.A2C",
    "PPO": "pgest.models.PPO",
    "TRPO": "pgest.models.TRPO",
    "make_vec_env": "pgest.make('CartPole-v1', num_envs=8)",
    "evaluate_policy": "pgest.evaluate",
}


def hints(names: Iterable[str]) -> str:
    """A sentence for each of the names that has one; "" for none.

    >>> hints(["gamma", "nonsense"])
    " gamma is PGAgent(..., optimizer_params={'discount': 0.99})."
    """
    return "".join(f" {name} is {HINTS[name]}." for name in names if name in HINTS)


def absent(name: str) -> AttributeError:
    """What `pgest.<name>` raises where there is no such name.

    >>> str(absent("ModeKeys"))
    "module 'pgest' has no attribute 'ModeKeys'. It is pgest.Modes."
    """
    hint = f". It is {SUCCESSORS[name]}." if name in SUCCESSORS else ""
    return AttributeError(f"module 'pgest' has no attribute {name!r}{hint}")


def told(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose TypeError for an unknown keyword says where a foreign name went."""
    parameters = inspect.signature(function).parameters
    known = set(parameters)
    name = function.__qualname__.removesuffix(".__init__")
    keywords_alone = len([p for p in parameters.values() if p.kind is not p.KEYWORD_ONLY]) == 1

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not known.issuperset(kwargs):
            check(name, known, kwargs)
        if keywords_alone and len(args) > 1:
            raise TypeError(
                f"{name} got {', '.join(map(repr, args[1:]))} without a keyword; it takes keywords "
                "alone. The spaces choose the network (hidden_sizes says how large), and the "
                "environment goes to agent.train(env, timesteps=100_000)."
            )
        return function(*args, **kwargs)

    return call


def told_train(function: Callable[P, R]) -> Callable[P, R]:
    """`told`, for `train(env, episodes, ...)`: a large number without a name is told as well.

    The ancestor's signature makes it episodes; elsewhere a bare number counts timesteps.
    """
    call = told(function)

    @functools.wraps(call)
    def train(*args: P.args, **kwargs: P.kwargs) -> R:
        number = args[2] if len(args) > 2 else None
        if isinstance(number, int) and number >= _LARGE:
            warnings.warn(
                f"train(env, {number}) trains for {number:,} episodes. Write timesteps={number} "
                f"for so many actions, or episodes={number} if they are meant.",
                stacklevel=2,
            )
        return call(*args, **kwargs)

    return train


def check(name: str, known: Iterable[str], given: Iterable[str]) -> None:
    """Raises `TypeError` with hints where `given` has names that are not known.

    Args:
      name: of what was called.
      known: its parameters.
      given: names of the keywords passed to it.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        expected = ", ".join(sorted(set(known) - {"self"}))
        raise TypeError(f"{name} has no {', '.join(unknown)}; it takes {expected}.{hints(unknown)}")


def told_fields(cls: type[T]) -> type[T]:
    """A class of keyword-only or named fields, such as a dataclass, with hints as in `told`."""
    setattr(cls, "__init__", told(cls.__init__))  # noqa: B010 - mypy takes no other way
    return cls
