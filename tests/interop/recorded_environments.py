"""Environments of other packages, each of which writes down what it does.

A row of a record is one action that an environment took: `state` (what was observed before),
`action`, `reward`, `terminated`, `truncated`, `next` (what was observed then, the last observation
of an episode where it ended), and `action_mask` where there is one; a list for each environment.
"""

from __future__ import annotations

import pathlib
import re

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

LENGTH = 12  # of episodes, at most
DOCUMENTED = pathlib.Path(__file__).parent.parent.parent / "docs" / "environments.md"


def copied(nest):
    if isinstance(nest, dict):
        return {key: copied(part) for key, part in nest.items()}
    return np.array(nest)


class Recorded(gymnasium.Wrapper):
    """One environment."""

    def __init__(self, env):
        super().__init__(env)
        self.record = [[]]

    def reset(self, **arguments):
        observation, info = self.env.reset(**arguments)
        self._last = copied(observation), copied(info.get("action_mask", ()))
        return observation, info

    def step(self, action):
        (state, mask), taken = self._last, copied(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._last = copied(observation), copied(info.get("action_mask", ()))
        row = {"state": state, "action": taken, "reward": reward, "next": self._last[0]}
        row |= {"terminated": terminated, "truncated": truncated, "action_mask": mask}
        self.record[0].append(row)
        return observation, reward, terminated, truncated, info


class Recording:
    """Takes the place of a vector environment's own methods; its class stays what pgest knows."""

    def __init__(self, env, mode):
        self.env, self.mode = env, mode
        self.last = [None] * env.num_envs
        self.ended = np.zeros(env.num_envs, bool)
        self._reset, self._step = env.reset, env.step
        env.record = [[] for _ in range(env.num_envs)]
        env.reset, env.step = self.reset, self.step
        self._steps = False
        if hasattr(env, "recv"):  # an EnvPool's: what comes between two steps are resets
            self._recv, env.recv = env.recv, self.recv

    def observed(self, observations, numbers):
        for row, number in enumerate(numbers):
            self.last[number] = copied(observations[row])

    def reset(self, **arguments):
        result = self._reset(**arguments)
        self.observed(result[0], range(self.env.num_envs))
        self.ended[:] = False
        return result

    def step(self, actions, *rest):
        taken = np.array(actions)
        self._steps = True
        result = self._step(actions, *rest)
        self._steps = False
        observations, rewards, terminated, truncated, infos = result
        done = np.logical_or(terminated, truncated)
        for number in range(self.env.num_envs):
            if self.mode is AutoresetMode.NEXT_STEP and self.ended[number]:
                continue  # it has reset, whatever the action
            last = self.mode is AutoresetMode.SAME_STEP and done[number]
            following = infos["final_obs"][number] if last else observations[number]
            row = {"state": self.last[number], "action": taken[number], "next": copied(following)}
            row |= {"terminated": terminated[number], "truncated": truncated[number]}
            self.env.record[number].append(row | {"reward": rewards[number]})
        self.observed(observations, range(self.env.num_envs))
        self.ended[:] = done
        return result

    def recv(self, *rest, **named):
        result = self._recv(*rest, **named)
        if not self._steps:
            numbers = result[-1]["env_id"]
            self.observed(result[0], numbers)
            self.ended[numbers] = False
        return result


def recorded_vector(env, mode):
    Recording(env, mode)
    return env


def minigrid():
    import minigrid  # noqa: F401
    from minigrid.wrappers import ImgObsWrapper

    return Recorded(ImgObsWrapper(gymnasium.make("MiniGrid-Empty-5x5-v0", max_steps=LENGTH)))


def highway():
    import highway_env

    gymnasium.register_envs(highway_env)
    return Recorded(gymnasium.make("highway-fast-v0", config={"duration": LENGTH}))


def ale(autoreset_mode=AutoresetMode.NEXT_STEP):
    from ale_py.vector_env import AtariVectorEnv

    settings = {"img_height": 36, "img_width": 36, "max_num_frames_per_episode": 4 * LENGTH}
    env = AtariVectorEnv("breakout", num_envs=2, autoreset_mode=autoreset_mode, **settings)
    return recorded_vector(env, autoreset_mode)


def ale_same_step():
    return ale(AutoresetMode.SAME_STEP)


def envpool():
    import envpool as pools

    env = pools.make_gymnasium("CartPole-v1", num_envs=2, max_episode_steps=LENGTH)
    return recorded_vector(env, AutoresetMode.NEXT_STEP)


def maze():
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    return Recorded(gymnasium.make("PointMaze_UMaze-v3", max_episode_steps=LENGTH))


def pettingzoo():
    """Two games of three agents, by the adapter that the documentation gives."""
    import supersuit
    from pettingzoo.sisl import pursuit_v5

    game = pursuit_v5.parallel_env(max_cycles=LENGTH, n_pursuers=3, n_evaders=2)
    agents = supersuit.concat_vec_envs_v1(supersuit.pettingzoo_env_to_vec_env_v1(game), 2)
    [program] = re.findall(
        r"```python\n(import gymnasium[^`]*class FromSuperSuit.*?)```", DOCUMENTED.read_text(), re.S
    )
    names = {}
    exec(program, names)
    return recorded_vector(names["FromSuperSuit"](agents), AutoresetMode.SAME_STEP)


def mo_gymnasium():
    import mo_gymnasium as mo

    env = mo.make("deep-sea-treasure-v0", max_episode_steps=LENGTH)
    return Recorded(mo.wrappers.LinearReward(env, weight=np.array([0.7, 0.3])))


def dm_control():
    import shimmy

    gymnasium.register_envs(shimmy)
    env = gymnasium.make("dm_control/cartpole-balance-v0", max_episode_steps=LENGTH)
    return Recorded(env)


def taxi():
    return Recorded(gymnasium.make("Taxi-v4", max_episode_steps=LENGTH))


_ALL = (minigrid, highway, ale, ale_same_step, envpool, maze)
_ALL += (pettingzoo, mo_gymnasium, dm_control, taxi)
MAKERS = {maker.__name__: maker for maker in _ALL}
