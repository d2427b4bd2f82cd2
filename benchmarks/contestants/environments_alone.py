"""EnvPool stepping alone: actions drawn beforehand, nobody looks at what comes back."""

from __future__ import annotations

import envpool
import numpy as np
from support import serving


class Trainer:
    """Steps; it learns nothing.

    Args:
      work: what to do.
    """

    def __init__(self, work: serving.Work):
        self._env = envpool.make_gymnasium(work.environment, num_envs=work.num_envs, seed=0)
        self._env.reset()
        self._actions = np.random.default_rng(0).integers(2, size=[64, work.num_envs])
        self._actions = self._actions.astype(np.int32)
        self.timesteps = 0

    def train(self, timesteps: int) -> None:
        """Takes so many more."""
        step, actions = self._env.step, self._actions
        for index in range(timesteps // actions.shape[1]):
            step(actions[index % 64])
        self.timesteps += timesteps // actions.shape[1] * actions.shape[1]

    def recent_return(self) -> None:
        """Of no policy."""
        return None


if __name__ == "__main__":
    serving.serve(Trainer)
