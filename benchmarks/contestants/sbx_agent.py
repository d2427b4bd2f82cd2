"""SBX, Stable-Baselines3's algorithms in JAX: the same environments, buffers and callbacks."""

from __future__ import annotations

import sbx
from support import serving

from contestants import stable_baselines


class Trainer(stable_baselines.Trainer):
    """The same, with SBX's learner."""

    library = sbx


if __name__ == "__main__":
    serving.serve(Trainer)
