"""Environments in Ray actors, on this machine or on others, as one vector of gymnasium's.

pip install ray
python examples/ray_environments.py
"""

import os
import sys

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody

import gymnasium
import numpy as np
import ray
from gymnasium.vector import VectorEnv, utils


class Runner:
    """The environments of one actor; each begins anew in the step that ends its episode."""

    def __init__(self, make, count):
        self._envs = [make() for _ in range(count)]

    def reset(self, seeds):
        """First observations and infos."""
        return [env.reset(seed=seed) for env, seed in zip(self._envs, seeds, strict=True)]

    def step(self, actions):
        """Observation, info, reward, terminated and truncated of each environment."""
        return [self._step(env, action) for env, action in zip(self._envs, actions, strict=True)]

    def _step(self, env, action):
        observation, *outcome, info = env.step(action)
        if any(outcome[1:]):
            first, begun = env.reset()
            observation, info = first, {**begun, "final_obs": observation, "final_info": info}
        return observation, info, *outcome


class RayVectorEnv(VectorEnv):
    """`size` environments that `make` makes in each actor; `options` are Ray's for an actor.

    One that dies is replaced, as standard error says; its episodes are truncated, with a reward 0.
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}

    def __init__(self, make, actors, size, **options):
        self.num_envs, self._size, example = actors * size, size, make()
        self.single_observation_space = example.observation_space
        self.single_action_space = example.action_space
        self.observation_space = utils.batch_space(example.observation_space, self.num_envs)
        self.action_space = utils.batch_space(example.action_space, self.num_envs)
        self._start = lambda: ray.remote(Runner).options(**options).remote(make, size)
        self.actors = [self._start() for _ in range(actors)]

    def reset(self, *, seed=None, options=None):
        """Begins episodes in all of them."""
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + at for at in range(self.num_envs)]
        return self._together(sum(ray.get(self._calls("reset", list(seed))), []))[:2]

    def step(self, actions):
        """Steps all of them, actors side by side."""
        calls = self._calls("step", list(utils.iterate(self.action_space, actions)))
        rows = sum((self._result(at, call) for at, call in enumerate(calls)), [])
        observations, infos, *outcome = self._together(rows)
        return observations, *map(np.array, outcome), infos

    def _calls(self, method, items):
        starts = zip(self.actors, range(0, self.num_envs, self._size), strict=True)
        return [getattr(one, method).remote(items[at : at + self._size]) for one, at in starts]

    def _result(self, at, call):
        try:
            return ray.get(call)
        except ray.exceptions.RayActorError as error:
            reason = str(error).splitlines()[0]
            print(f"Actor {at} is replaced, its episodes are dropped: {reason}", file=sys.stderr)
        self.actors[at] = self._start()
        begun = ray.get(self.actors[at].reset.remote([None] * self._size))
        return [
            (first, {**info, "final_obs": final, "final_info": {}}, 0.0, False, True)
            for (first, info), final in zip(begun, self._last[at * self._size :], strict=False)
        ]

    def _together(self, rows):
        self._last, each_info, *outcome = zip(*rows, strict=True)
        empty, infos = utils.create_empty_array(self.single_observation_space, self.num_envs), {}
        for number, info in enumerate(each_info):
            infos = self._add_info(infos, info, number)
        return utils.concatenate(self.single_observation_space, self._last, empty), infos, *outcome

    def close_extras(self, **kwargs):
        """Ends the actors."""
        list(map(ray.kill, self.actors))


def main():
    import pgest  # not above: actors need no TensorFlow

    ray.init(include_dashboard=False)
    env = RayVectorEnv(lambda: gymnasium.make("CartPole-v1"), actors=2, size=4, num_cpus=1)
    agent = pgest.PGAgent(pgest.models.PPO(), memory=pgest.RolloutMemory(horizon=128))
    agent.train(env, max_timesteps=20_480)
    print(agent.global_timestep, "timesteps,", agent.evaluate("CartPole-v1")["return_mean"])
    env.close()


if __name__ == "__main__":
    main()
