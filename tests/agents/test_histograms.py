"""Histograms and the graph that a run leaves for TensorBoard where they are asked for."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

import pgest
from tests import model_fns


def train(directory, memory, env="CartPole-v1", steps=None, **update):
    config = pgest.RunConfig(
        tf_random_seed=0, save_histograms=True, save_graph=True, save_summary_steps=1
    )
    agent = pgest.PGAgent(model_fns.policy_gradient, memory, update, directory, config)
    agent.train(env, timesteps=48)
    events = event_accumulator.EventAccumulator(str(directory), {"tensors": 0}).Reload()
    return agent, events


def histograms(events):
    """(step, how many values, their sum to the width of a bucket) by tag."""
    found = {}
    for tag in events.Tags()["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "histograms":
            rows = [(e.step, tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
            found[tag] = [(step, row) for step, row in rows]
    return found


def test_weights_gradients_and_actions_once_an_update(tmp_path):
    """Also where an update has several steps, and XLA compiles it."""
    agent, events = train(tmp_path, pgest.RolloutMemory(16), minibatch_size=8, epochs=2)
    assert agent.global_step == 12
    found = histograms(events)
    trained = [name for name in agent.get_variable_names() if name.startswith("dense")]
    assert len(trained) == 4
    expected = {f"{kind}/{name}" for kind in ("weights", "gradients") for name in trained}
    assert set(found) == expected | {"actions"}
    for tag, points in found.items():
        assert [step for step, _ in points] == [16, 32, 48], tag
        size = 16 if tag == "actions" else agent.get_variable_value(tag.partition("/")[2]).size
        for _, buckets in points:  # left, right, count
            assert buckets[:, 2].sum() == size
    _, last = found["weights/dense/kernel"][0]
    assert last[0, 0] < 0 < last[-1, 1]
    _, actions = found["actions"][0]
    assert (actions[0, 0], actions[-1, 1]) == (0.0, 1.0)


@pytest.mark.slow
def test_they_are_no_part_of_the_model(tmp_path):
    agent, _ = train(tmp_path / "with", pgest.BatchMemory(16))
    config = pgest.RunConfig(tf_random_seed=0, save_summary_steps=1)
    plain = pgest.PGAgent(
        model_fns.policy_gradient, pgest.BatchMemory(16), None, tmp_path / "without", config
    )
    plain.train("CartPole-v1", timesteps=48)
    wanted, found = model_fns.weights(plain), model_fns.weights(agent)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_the_graph_of_a_step_is_there_once(tmp_path):
    agent, events = train(tmp_path, pgest.BatchMemory(16))
    assert events.Tags()["graph"]
    names = {node.name for node in events.Graph().node}
    assert any(name == "model_fn/dense/MatMul" for name in names)
    assert any("gradients" in name for name in names)
    again, _ = train(tmp_path, pgest.BatchMemory(16))
    assert again.global_timestep == 2 * agent.global_timestep
    graphs = [
        event
        for path in tmp_path.glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        if event.HasField("graph_def")
    ]
    assert len(graphs) == 1


def test_in_the_graph_there_are_none_which_is_told(tmp_path):
    env = pgest.graph_environments.CartPole(num_envs=2)
    with pytest.warns(UserWarning, match="save_histograms writes nothing while"):
        _, events = train(tmp_path, pgest.RolloutMemory(8), env)
    assert not histograms(events) and events.Tags()["graph"]


@pytest.mark.parametrize("name", ["save_histograms", "save_graph"])
def test_another_type_is_refused(name):
    with pytest.raises(TypeError, match=f"RunConfig.{name} is 1; expected True or False"):
        pgest.RunConfig(**{name: 1})
