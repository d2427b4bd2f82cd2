"""pgest's `evaluate`, of 20 episodes; one environment is given by its id."""

from __future__ import annotations

import dataclasses

from support import serving

import pgest
from contestants import long_poles


class Evaluator:
    """An agent that goes on evaluating.

    Args:
      work: what to do.
    """

    def __init__(self, work: serving.Work):
        config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None)
        if hasattr(config, "evaluate_in_copies"):  # the other version may know none
            config = dataclasses.replace(config, evaluate_in_copies=True)
        self._agent = pgest.PGAgent(pgest.models.PPO(), pgest.RolloutMemory(16), config=config)
        self._env = long_poles.ID
        if work.num_envs > 1:
            self._env = pgest.make(long_poles.ID, num_envs=work.num_envs)
        self._episodes = work.episodes
        self.timesteps = 0

    def train(self, timesteps: int) -> None:
        """Evaluates once."""
        del timesteps
        results = self._agent.evaluate(self._env, episodes=self._episodes)
        self.timesteps += round(results["length_mean"] * results["episodes"])

    def recent_return(self) -> float | None:
        """Nothing is learnt here."""
        return None


if __name__ == "__main__":
    serving.serve(Evaluator)
