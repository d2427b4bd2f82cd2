"""Trains with W&B (offline) and MLflow (a local database), and prints what they have afterwards.

Run in the environment `trackers`, with a directory to write to.
"""

import collections
import json
import os
import pathlib
import shutil
import struct
import sys

import mlflow
import numpy as np
from wandb.proto import wandb_internal_pb2

import pgest
from pgest.hooks import plots


def wandb_records(directory):
    """The records in the files of offline runs, in order; LevelDB's log format without checks."""
    for path in sorted(pathlib.Path(directory).glob("wandb/offline-run*/run-*.wandb")):
        data, place, parts = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            left = 32768 - place % 32768
            if left < 7:
                place += left
                continue
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            if kind == 0:
                break
            parts += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part
                yield wandb_internal_pb2.Record.FromString(parts)
                parts = b""


def wandb_contents(directory):
    found = collections.defaultdict(list)
    for record in wandb_records(directory):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["runs"].append(record.run.run_id)
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            found["config"].append({k: v for k, v in config.items() if k != "_wandb"})
        elif kind == "history":
            row = {".".join(item.nested_key) or item.key: json.loads(item.value_json)
                   for item in record.history.item}  # fmt: skip
            found["rows"].append({k: v for k, v in row.items() if not k.startswith("_")})
        elif kind == "metric" and record.metric.glob_name:
            found["axes"].append([record.metric.glob_name, record.metric.step_metric])
        elif kind == "artifact":
            names = [entry.path for entry in record.artifact.manifest.contents]
            found["artifacts"].append([record.artifact.type, sorted(names)])
        elif kind == "exit":
            found["exits"].append(record.exit.exit_code)
    return found


def mlflow_contents(uri):
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = []
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id], order_by=["start_time"]):
            run_id = run.info.run_id
            metrics = {
                name: [[m.step, m.value] for m in client.get_metric_history(run_id, name)]
                for name in run.data.metrics
            }
            names = [file.path for file in client.list_artifacts(run_id, "policy")]
            found.append(
                {
                    "experiment": experiment.name,
                    "name": run.info.run_name,
                    "status": run.info.status,
                    "params": run.data.params,
                    "metrics": metrics,
                    "artifacts": names,
                }
            )
    return found


class Copies(pgest.BaseMonitor):
    """Copies the model_dir, as a kill an update after its newest checkpoint would leave it."""

    def __init__(self, path):
        self.path = path

    def after_run(self, context):
        if context.step == 5:
            context.finish_checkpoint()
            shutil.copytree(context.model_dir, self.path)


class Fails(pgest.BaseMonitor):
    def after_run(self, context):
        raise RuntimeError("on purpose")


def new_agent(directory):
    config = pgest.RunConfig(tf_random_seed=0, save_summary_steps=2, jit_compile=False)
    model = pgest.models.VPG(hidden_sizes=(4,))
    return pgest.PGAgent(model, pgest.RolloutMemory(20), None, directory, config)


def hooks_of(directory, uri):
    init = {"project": "tests", "dir": str(directory), "mode": "offline", "config": {"mine": 1}}
    return [
        pgest.EvaluationHook("CartPole-v1", pgest.Every(steps=3), episodes=1),
        pgest.WandbHook(**init),
        pgest.MlflowHook(experiment="tests", run_name="a run", tracking_uri=uri),
        pgest.CheckpointSaverHook(pgest.Every(steps=4)),
    ]


def main(directory):
    directory = pathlib.Path(directory)
    os.chdir(directory)  # MLflow keeps artifacts in the working directory
    uri = f"sqlite:///{directory}/mlflow.db"
    hooks = hooks_of(directory, uri)
    agent = new_agent(directory / "run")
    agent.train("CartPole-v1", max_steps=8, hooks=[*hooks, Copies(directory / "killed")])
    found = {
        "wandb": wandb_contents(directory),
        "mlflow": mlflow_contents(uri),
        "ids": [hook.run_id for hook in hooks[1:3]],
        "return": hooks[0].best.mean_return,
    }
    # What the killed run had logged is there; it goes on from step 4.
    hooks = hooks_of(directory, uri)
    new_agent(directory / "killed").train("CartPole-v1", max_steps=8, hooks=hooks)
    found["again"] = {
        "wandb": wandb_contents(directory),
        "mlflow": mlflow_contents(uri),
        "ids": [hook.run_id for hook in hooks[1:3]],
    }
    other = f"sqlite:///{directory}/failed.db"
    try:
        new_agent(directory / "failed").train(
            "CartPole-v1", max_steps=8, hooks=[*hooks_of(directory / "f", other), Fails()]
        )
    except RuntimeError:
        pass
    found["failed"] = [
        wandb_contents(directory / "f")["exits"],
        mlflow_contents(other)[0]["status"],
    ]
    print("\n" + json.dumps(found))


def interquartile():
    """The IQM and its interval of rliable, where the versions that it needs are."""
    from rliable import metrics

    scores = np.random.default_rng(0).normal(size=(9, 3)).cumsum(axis=1)
    means, ranges = plots.interquartile(scores)
    wanted = [metrics.aggregate_iqm(scores[:, None, [column]]) for column in range(3)]
    low, high = ranges
    print("\n" + json.dumps([means.tolist(), wanted, low.tolist(), high.tolist()]))


if __name__ == "__main__":
    interquartile() if sys.argv[1] == "iqm" else main(sys.argv[1])
