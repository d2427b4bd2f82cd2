"""What `export_saved_model` writes, opened in processes that know nothing of pgest."""

import os
import subprocess
import sys
import textwrap

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import pgest
from tests import model_fns


def make_agent(model_fn, env, memory=None, **arguments):
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None, jit_compile=False)
    memory = pgest.BatchMemory(batch_size=32) if memory is None else memory
    agent = pgest.PGAgent(model_fn, memory, config=config, **arguments)
    return agent.train(env, steps=1)


def with_outputs(features, labels, mode, params):
    spec = model_fns.actor_critic(features, labels, mode, params)
    if mode != pgest.Modes.PREDICT:
        return spec
    value = spec.predictions["value"]
    return pgest.EstimatorSpec(
        mode,
        spec.predictions,
        distribution=spec.distribution,
        export_outputs={"value": value, "both": {"v": value, "twice": 2.0 * value}},
    )


class Offset(gymnasium.ActionWrapper):
    """CartPole whose actions are 5 and 6."""

    action_space = gymnasium.spaces.Discrete(2, start=5)

    def action(self, action):
        assert self.action_space.contains(action)
        return action - 5


@pytest.mark.slow
def test_a_process_without_pgest_loads_and_acts(tmp_path):
    agent = make_agent(model_fns.actor_critic, "CartPole-v1")
    path = agent.export_saved_model(tmp_path)
    assert os.path.basename(path).isdigit()
    observations = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
    np.save(tmp_path / "observations.npy", observations)
    script = textwrap.dedent(f"""
        import numpy as np, sys, tensorflow as tf
        policy = tf.saved_model.load({path!r}).signatures["serving_default"]
        observations = np.load({str(tmp_path / "observations.npy")!r})
        actions = policy(observation=tf.constant(observations))["action"].numpy()
        assert "pgest" not in sys.modules and "tensorflow_probability" not in sys.modules
        print(actions.tolist())
    """)
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    expected = [int(row["action"]) for row in agent.predict(observations)]
    assert eval(printed) == expected


def test_export_outputs_are_signatures(tmp_path):
    agent = make_agent(with_outputs, "CartPole-v1")
    loaded = tf.saved_model.load(agent.export_saved_model(tmp_path))
    observation = np.ones([2, 4], np.float32)
    expected = [row["value"] for row in agent.predict(observation)]
    value = loaded.signatures["value"](observation=tf.constant(observation))["output"]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    both = loaded.signatures["both"](observation=tf.constant(observation))
    np.testing.assert_allclose(both["twice"], 2.0 * both["v"])
    with pytest.raises(ValueError, match="'gs://bucket' is an address of a remote file system"):
        agent.export_saved_model("gs://bucket")


def test_actions_are_the_environments_own(tmp_path):
    agent = make_agent(model_fns.policy_gradient, Offset(gymnasium.make("CartPole-v1")))
    loaded = tf.saved_model.load(agent.export_saved_model(tmp_path))
    observations = tf.constant(np.random.default_rng(0).normal(size=(64, 4)), tf.float32)
    actions = loaded.signatures["serving_default"](observation=observations)["action"].numpy()
    assert set(actions.tolist()) == {5, 6}
    time_step = pgest.restart(observations, batch_size=64)
    np.testing.assert_array_equal(agent.policy.action(time_step).action.numpy(), actions)
    sampled = agent.collect_policy.action(time_step, seed=1)
    assert set(sampled.action.numpy().tolist()) == {5, 6}
    assert (sampled.info.log_probability.numpy() < 0).all()


def test_a_recurrent_policy_carries_its_state(tmp_path):
    agent = make_agent(model_fns.recurrent, "CartPole-v1", pgest.RolloutMemory(horizon=8))
    loaded = tf.saved_model.load(agent.export_saved_model(tmp_path))
    state = loaded.get_initial_state(2)
    observation = np.ones([2, 4], np.float32)
    step = loaded.action(pgest.restart(tf.constant(observation), batch_size=2), state)
    assert step.action.shape == [2]
    assert not np.allclose(tf.nest.flatten(step.state)[0], 0.0)


def test_policies_need_an_environment_to_be_known():
    agent = pgest.PGAgent(model_fns.policy_gradient, pgest.BatchMemory(8))
    with pytest.raises(RuntimeError, match=r"check\(env\)"):
        agent.policy  # noqa: B018


def test_policies_are_over_the_live_variables():
    agent = make_agent(model_fns.policy_gradient, "CartPole-v1")
    variables = {v.name.split(":")[0]: v for v in agent.policy.variables()}
    agent.train("CartPole-v1", steps=1)
    for name, variable in variables.items():
        np.testing.assert_array_equal(variable.numpy(), agent.get_variable_value(name))


def test_eager_calls_use_the_models_variables_each_time():
    agent = make_agent(model_fns.policy_gradient, "CartPole-v1")
    time_step = pgest.restart(tf.ones([2, 4]), batch_size=2)
    first = agent.raw_policy.distribution(time_step).action.logits.numpy()
    second = agent.raw_policy.distribution(time_step).action.logits.numpy()
    np.testing.assert_array_equal(first, second)
    assert (agent.policy.action(time_step).action.numpy() == first.argmax(axis=-1)).all()


def test_a_directory_that_tensorflow_cannot_read_from_is_refused(tmp_path):
    agent = make_agent(model_fns.policy_gradient, "CartPole-v1")
    with pytest.raises(ValueError, match=r"export_dir_base is .*takes \* \? \[ \\ for patterns"):
        agent.export_saved_model(tmp_path / "lr[0.1]")
    assert not os.listdir(tmp_path)


def test_a_policy_that_is_not_built_says_what_builds_it(tmp_path):
    agent = pgest.PGAgent(model_fns.policy_gradient, pgest.BatchMemory(batch_size=32))
    for ask in (lambda: agent.policy, lambda: agent.export_saved_model(tmp_path)):
        with pytest.raises(RuntimeError, match=r"train first, or call agent\.check\(env\)"):
            ask()


def test_the_first_signature_is_the_one_that_servers_take(tmp_path):
    agent = make_agent(with_outputs, "CartPole-v1")
    path = agent.export_saved_model(tmp_path, batch_size=3)
    signatures = tf.saved_model.load(path).signatures
    assert next(iter(signatures)) == "serving_default"
    for name in ("serving_default", "sample", "value"):
        inputs = signatures[name].structured_input_signature[1]
        assert inputs["observation"].shape == [3, 4], name
    with pytest.raises(ValueError, match="batch_size"):
        agent.export_saved_model(tmp_path, batch_size=0)


@pytest.mark.slow
def test_a_checkpoint_is_exported_by_an_agent_that_has_not_trained(tmp_path):
    trained = make_agent(model_fns.policy_gradient, "CartPole-v1", model_dir=tmp_path / "run")
    first = trained.latest_checkpoint()
    trained.train("CartPole-v1", steps=2)
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)

    def fresh():
        memory = pgest.BatchMemory(batch_size=32)
        return pgest.PGAgent(model_fns.policy_gradient, memory, model_dir=tmp_path / "run")

    def logits(path):
        policy = tf.saved_model.load(path)
        time_step = pgest.restart(tf.constant(observations), batch_size=50)
        return policy.distribution(time_step).action["logits"].numpy()

    agent = fresh()
    newest = agent.export_saved_model(tmp_path / "exports", env="CartPole-v1")
    wanted = logits(trained.export_saved_model(tmp_path / "exports"))
    np.testing.assert_array_equal(logits(newest), wanted)
    old = fresh().export_saved_model(
        tmp_path / "exports", env=gymnasium.make("CartPole-v1"), checkpoint_path=first
    )
    wanted_old = logits(trained.export_saved_model(tmp_path / "exports", checkpoint_path=first))
    np.testing.assert_array_equal(logits(old), wanted_old)
    assert not np.array_equal(wanted, wanted_old)
    # It goes on as any other.
    agent.train("CartPole-v1", steps=1)
    assert agent.global_step == 4
    with pytest.raises(RuntimeError, match="export_saved_model.*env=env"):
        fresh().export_saved_model(tmp_path / "exports")
