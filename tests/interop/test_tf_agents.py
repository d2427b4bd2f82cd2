"""pgest's exports in TF-Agents' own class, and TF-Agents' exports in pgest's."""

import json
import types

import numpy as np
import pytest
import tensorflow as tf

from pgest.policies import ready_made, time_steps
from pgest.saved_policies import (
    async_policy_saver,
    eager_policy,
    loader,
    policy_saver,
    triggers,
)
from tests.interop import own_environments
from tests.saved_policies import saved_policy_models as models

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STEPS = 6
SEED = 7


@pytest.fixture(scope="module", autouse=True)
def tf_agents():
    try:
        return own_environments.TF_AGENTS.python()
    except own_environments.NotAvailableError as reason:
        pytest.skip(f"no TF-Agents: {reason}")


POLICIES = {
    "feed_forward_discrete": (models.DiscretePolicy, {}),
    "box": (models.BoxPolicy, {}),
    "squashed_box": (models.BoxPolicy, {"family": "squashed"}),
    "beta_box": (models.BoxPolicy, {"family": "beta"}),
    "recurrent": (models.RecurrentPolicy, {}),
    "dict_masked": (models.DictPolicy, {}),
    "log_probability": (models.DiscretePolicy, {"emit_log_probability": True}),
}


def play(policy, observations):
    """What the live policy does, step by step, with the seeds that the other side uses."""
    results, state = {}, policy.get_initial_state(1)
    for at in range(STEPS):
        observation = tf.nest.map_structure(lambda leaf, at=at: leaf[at : at + 1], observations)
        if at in (0, 3):
            time_step = time_steps.restart(observation, batch_size=1)
        else:
            time_step = time_steps.transition(observation, np.float32([0.5]))
        step = policy.action(time_step, state, seed=[SEED, at])
        state = step.state
        for number, leaf in enumerate(tf.nest.flatten(step.action)):
            results[f"action/{number}/{at}"] = leaf.numpy()[0]
        for number, leaf in enumerate(tf.nest.flatten(step.state)):
            results[f"state/{number}/{at}"] = leaf.numpy()
    return results


def change(policy, factor):
    for variable in policy.variables():
        variable.assign(variable * factor + 0.05)


def open_in_tf_agents(tmp_path, export, policy, checkpoints=(), materialize=None, seeded=True):
    observations = models.observation_of(policy, STEPS)
    leaves = tf.nest.flatten(observations)
    np.savez(tmp_path / "in.npz", **{str(at): leaf for at, leaf in enumerate(leaves)})
    job = {
        "export": str(export),
        "observations": str(tmp_path / "in.npz"),
        "checkpoints": [str(path) for path in checkpoints],
        "materialize": materialize and [str(path) for path in materialize],
        "seeded": seeded,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    result = tmp_path / "out.npz"
    own_environments.TF_AGENTS.run("open_pgest_policy.py", str(tmp_path / "job.json"), str(result))
    return observations, np.load(result)


def assert_same(results, word, wanted):
    for name, value in wanted.items():
        np.testing.assert_allclose(
            results[f"{word}/{name}"], value, rtol=1e-5, atol=1e-5, err_msg=f"{word}/{name}"
        )


@pytest.mark.parametrize("portable", [False, True], ids=["", "portable"])
@pytest.mark.parametrize("name", POLICIES)
def test_tf_agents_opens_acts_and_updates(tmp_path, name, portable):
    make, options = POLICIES[name]
    policy = make(**options)
    step = tf.Variable(3, dtype=tf.int64)
    metadata = {"score": tf.Variable(1.5), "count": tf.Variable(2.5)}
    saver = policy_saver.PolicySaver(policy, train_step=step, metadata=metadata, portable=portable)
    saver.save(tmp_path / "policy")
    observations = models.observation_of(policy, STEPS)
    wanted = [play(policy, observations)]
    change(policy, -0.5)
    step.assign(100)
    metadata["score"].assign(9.5)
    saver.save_checkpoint(tmp_path / "policy_checkpoint_0000000100")
    wanted.append(play(policy, observations))
    _, results = open_in_tf_agents(
        tmp_path, tmp_path / "policy", policy, [tmp_path / "policy_checkpoint_0000000100"]
    )
    assert_same(results, "exported", wanted[0])
    assert_same(results, "0", wanted[1])
    assert int(results["exported/train_step"]) == 3
    assert int(results["0/train_step"]) == int(results["0/path_step"]) == 100
    assert float(results["exported/metadata/score"]) == 1.5
    assert float(results["0/metadata/score"]) == 9.5
    assert float(results["0/metadata/count"]) == 2.5
    for number, variable in enumerate(policy.variables()):
        np.testing.assert_array_equal(results[f"0/variable/{number}"], variable.numpy())
    if "dict" not in name:
        assert "BoundedArraySpec" in str(results["specs"][0])


def test_tf_agents_opens_what_the_trigger_wrote(tmp_path):
    policy = models.DiscretePolicy()
    agent = types.SimpleNamespace(policy=ready_made.GreedyPolicy(policy), collect_policy=policy)
    step = tf.Variable(0, dtype=tf.int64)
    observations = models.observation_of(policy, STEPS)
    wanted = {}
    with triggers.PolicySavedModelTrigger(
        tmp_path / "policies", agent, step, interval=10, async_saving=True
    ) as trigger:
        for value in (10, 20):
            change(policy, -0.7)
            step.assign(value)
            trigger(value)
            trigger.flush()
            wanted[value] = play(agent.policy, observations)
    checkpoints = [
        tmp_path / "policies/checkpoints" / f"policy_checkpoint_{n:010d}" for n in (20, 10)
    ]
    for kind in ("greedy_policy", "collect_policy", "policy"):
        _, results = open_in_tf_agents(
            tmp_path,
            tmp_path / "policies" / kind,
            policy,
            checkpoints,
            seeded=kind != "greedy_policy",
        )
        assert int(results["0/train_step"]) == int(results["0/path_step"]) == 20
        assert int(results["1/train_step"]) == 10
        if kind == "greedy_policy":
            assert_same(results, "0", wanted[20])
            assert_same(results, "1", wanted[10])


def test_tf_agents_opens_an_asynchronous_export(tmp_path):
    policy = models.RecurrentPolicy()
    saver = policy_saver.PolicySaver(policy, train_step=tf.Variable(4, dtype=tf.int64))
    observations = models.observation_of(policy, STEPS)
    wanted = play(policy, observations)
    with async_policy_saver.AsyncPolicySaver(saver) as saving:
        saving.save(tmp_path / "policy")
        change(policy, -1.0)
    _, results = open_in_tf_agents(tmp_path, tmp_path / "policy", policy)
    assert_same(results, "exported", wanted)
    assert int(results["exported/train_step"]) == 4


def test_tf_agents_materializes_with_metadata(tmp_path):
    policy = models.DiscretePolicy()
    score = tf.Variable(1.0)
    saver = policy_saver.PolicySaver(policy, metadata={"score": score})
    saver.save(tmp_path / "policy")
    change(policy, -0.5)
    score.assign(2.0)
    saver.save_checkpoint(tmp_path / "checkpoint_7")
    paths = [tmp_path / "policy", tmp_path / "checkpoint_7", tmp_path / "whole"]
    observations, results = open_in_tf_agents(tmp_path, "", policy, materialize=paths)
    assert_same(results, "exported", play(policy, observations))
    assert float(results["exported/metadata/score"]) == 2.0


@pytest.mark.parametrize("kind", ["feed_forward", "recurrent"])
def test_pgest_opens_an_export_of_tf_agents(tmp_path, kind):
    own_environments.TF_AGENTS.run("write_tf_agents_policy.py", kind, str(tmp_path))
    wanted = np.load(tmp_path / "results.npz")
    policy = eager_policy.SavedModelPyTFEagerPolicy(tmp_path / "policy", load_specs_from_pbtxt=True)

    def check(word):
        state = policy.get_initial_state()
        for at, observation in enumerate(wanted["observations"]):
            first = at in (0, 3)
            time_step = policy.time_step(observation, first=first)
            step = policy.distribution(time_step, state)
            np.testing.assert_allclose(
                step.action.logits_parameter(), wanted[f"{word}/logits/{at}"], rtol=1e-4, atol=1e-5
            )
            action = policy.action(time_step, state)
            assert action.action.dtype == np.int64 and 0 <= action.action <= 2
            state = action.state
        for number, variable in enumerate(policy.variables()):
            np.testing.assert_array_equal(variable, wanted[f"{word}/variable/{number}"])

    check("exported")
    assert policy.get_train_step() == 5 and policy.get_metadata()["score"] == 1.5
    with pytest.raises(ValueError, match="seed: the export .* takes none"):
        policy.action(policy.time_step(wanted["observations"][0]), policy.get_initial_state(), 1)
    checkpoint = tmp_path / "checkpoints" / "policy_checkpoint_0000000012"
    policy.update_from_checkpoint(checkpoint)
    check("updated")
    assert policy.get_train_step() == 12 and policy.get_metadata()["score"] == 2.5
    # TF-Agents writes a checkpoint's metadata where no SavedModel finds them; ours does not mind.
    loader.materialize_saved_model(tmp_path / "policy", checkpoint, tmp_path / "whole")
    policy = loader.load_policy(tmp_path / "whole", step=None)
    check("updated")
    assert policy.get_metadata()["score"] == 2.5 and policy.get_metadata()["count"] == 3
