"""One of several workers of pgest, or one alone, on the core that WORKER_CORE names."""

from __future__ import annotations

import functools
import os

os.sched_setaffinity(0, {int(os.environ["WORKER_CORE"])})  # before TensorFlow counts the cores

import tensorflow as tf  # noqa: E402

strategy = tf.distribute.MultiWorkerMirroredStrategy() if "TF_CONFIG" in os.environ else None

# It uses TensorFlow, and the strategy has to come first.
from support import serving  # noqa: E402

from contestants import pgest_agent  # noqa: E402

if __name__ == "__main__":
    serving.serve(functools.partial(pgest_agent.Trainer, train_distribute=strategy))
