"""What a run leaves for TensorBoard, read back from the event files."""

import glob
import re

import gymnasium
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

import pgest
from pgest.hooks import EVALUATION_TAGS, TAGS
from tests import model_fns


def read(directory):
    """Points by tag, as (step, value), over all event files of a directory in order."""
    points = {}
    for file in sorted(glob.glob(str(directory / "events*"))):
        events = event_accumulator.EventAccumulator(file, size_guidance={"tensors": 0}).Reload()
        for tag in events.Tags()["tensors"]:
            points.setdefault(tag, []).extend(
                (point.step, tf.make_ndarray(point.tensor_proto)) for point in events.Tensors(tag)
            )
    return points


def is_documented(tag, tags):
    patterns = [re.sub(r"<\w+>", ".+", re.escape(known).replace(r"\<", "<").replace(r"\>", ">"))
                for known in tags]  # fmt: skip
    return any(re.fullmatch(pattern, tag) for pattern in patterns)


def with_summaries(features, labels, mode, params):
    """The actor-critic, with a summary of its own in TRAIN."""
    spec = model_fns.actor_critic(features, labels, mode, params)
    if mode == pgest.Modes.TRAIN:
        tf.summary.histogram("mine/advantage", labels["advantage"])
    return spec


def make_agent(model_fn, model_dir, memory=None, jit_compile=False, **config):
    config = pgest.RunConfig(
        tf_random_seed=0, save_summary_steps=1, jit_compile=jit_compile, **config
    )
    memory = pgest.BatchMemory(batch_size=32) if memory is None else memory
    return pgest.PGAgent(
        model_fn, memory, model_dir=model_dir, config=config, params={"learning_rate": 3e-3}
    )


@pytest.mark.slow
def test_a_run_writes_documented_tags_against_timesteps_and_goes_on_after_a_restart(tmp_path):
    env = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))
    first = make_agent(model_fns.actor_critic, tmp_path, log_step_count_steps=1)
    first.train(env, max_steps=3)
    first.evaluate("CartPole-v1", episodes=1)
    second = make_agent(model_fns.actor_critic, tmp_path, log_step_count_steps=1)
    second.train("CartPole-v1", max_steps=5)
    points = read(tmp_path)
    hparams = {tag for tag in points if tag.startswith("_hparams_") or tag == "run"}
    assert hparams, "the HParams plugin has its entry"
    undocumented = [tag for tag in set(points) - hparams if not is_documented(tag, TAGS)]
    assert not undocumented
    assert {"loss", "loss/policy", "loss/value", "policy/entropy", "policy/kl", "gradient_norm",
            "learning_rate", "value/explained_variance", "episode/return", "episode/length",
            "episode/episode/r", "speed/timesteps_per_second"} <= set(points)  # fmt: skip
    steps = [step for step, _ in points["loss"]]
    assert steps == sorted(steps)
    assert steps[-1] == second.global_timestep
    assert len(steps) == 5, "one point an update, over both processes"
    own = {tag for tag in EVALUATION_TAGS if "<" not in tag}
    assert own == set(read(tmp_path / "eval"))


def test_another_x_axis(tmp_path):
    agent = make_agent(model_fns.policy_gradient, tmp_path)
    hook = pgest.SummarySaverHook(pgest.Every(steps=1), x_axis="global_step")
    agent.train("CartPole-v1", steps=2, hooks=[hook])
    assert [step for step, _ in read(tmp_path)["loss"]] == [1, 2]


@pytest.mark.parametrize("compiled", [False, True])
def test_summaries_inside_model_fn_also_where_the_update_is_compiled(tmp_path, compiled):
    memory = pgest.RolloutMemory(horizon=16) if compiled else pgest.BatchMemory(batch_size=16)
    agent = make_agent(with_summaries, tmp_path, memory, jit_compile=compiled)
    agent.train("CartPole-v1", steps=4)
    points = read(tmp_path)["mine/advantage"]
    assert len(points) >= 3
    assert points[-1][0] > 16
