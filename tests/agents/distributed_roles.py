"""What a chief, a worker and an evaluator run, each of them: training that evaluations end.

python -m tests.agents.distributed_roles DIRECTORY
"""

import json
import os
import pathlib
import sys

import tensorflow as tf

import pgest
from tests.agents import distributed_cases


def main(directory):
    kind, index = pgest.RunConfig().task_type, pgest.RunConfig().task_id
    trains = kind != "evaluator"
    config = pgest.RunConfig(
        model_dir=str(directory / "run"),
        save_checkpoints_steps=16,
        keep_checkpoint_max=2,
        tf_random_seed=1,
        train_distribute=tf.distribute.MultiWorkerMirroredStrategy() if trains else None,
    )
    agent = pgest.PGAgent(
        pgest.models.A2C(**distributed_cases.SMALL), pgest.RolloutMemory(16), config=config
    )
    train_spec = pgest.TrainSpec(
        pgest.make("CartPole-v1", 2),
        max_steps=100_000,  # more than the test has time for
        hooks=[pgest.stop_if_higher_hook(agent, "return_mean", 0.0, min_steps=48)],
    )
    exporters = [pgest.BestExporter(), pgest.LatestExporter(), pgest.FinalExporter()]
    eval_spec = pgest.EvalSpec(
        "CartPole-v1", episodes=2, exporters=exporters, throttle_secs=0, start_delay_secs=0
    )
    results, exports = pgest.train_and_evaluate(agent, train_spec, eval_spec)
    report = {"step": agent.global_step, "results": results, "exports": exports}
    (directory / f"{kind}.{index}.json").write_text(
        json.dumps({**report, "why": agent.stop_reason, "pid": os.getpid()})
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
