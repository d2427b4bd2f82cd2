"""When triggers fire, and what they export and save."""

import os
import types

import numpy as np
import pytest
import tensorflow as tf

from pgest.policies import ready_made
from pgest.saved_policies import directories, eager_policy, loader, triggers
from tests.saved_policies import saved_policy_models as models
from tests.saved_policies.trigger_fakes import checkpoint_names, make_agent, make_step

# --- IntervalTrigger -----------------------------------------------------------------------


def fired_at(trigger_of, values, **options):
    fired = []
    now = {}
    trigger = trigger_of(lambda: fired.append(now["value"]))
    for value in values:
        now["value"] = value
        trigger(value, **options)
    return fired


def test_interval_fires_when_at_least_the_interval_has_passed():
    def make(fn):
        return triggers.IntervalTrigger(10, fn)

    assert fired_at(make, [10, 15, 20, 33, 42, 43]) == [10, 20, 33, 43]
    assert fired_at(lambda fn: triggers.IntervalTrigger(10, fn, start=5), [10, 14, 15]) == [15]
    assert fired_at(lambda fn: triggers.IntervalTrigger(2.5, fn), [2, 2.5, 4.9, 5]) == [2.5, 5]


def test_forcing_fires_unless_the_value_is_the_last():
    def make(fn):
        return triggers.IntervalTrigger(10, fn)

    assert fired_at(make, [0, 3, 3, 4], force_trigger=True) == [3, 4]


@pytest.mark.parametrize("interval", [0, -1])
def test_no_interval_never_fires(interval):
    def make(fn):
        return triggers.IntervalTrigger(interval, fn)

    assert fired_at(make, [1, 100], force_trigger=True) == []


def test_reset_and_set_start():
    fired = []
    trigger = triggers.IntervalTrigger(10, lambda: fired.append(1), start=100)
    trigger(105)
    trigger.set_start(90)
    trigger(tf.constant(100))
    assert len(fired) == 1
    trigger(105)
    assert len(fired) == 1
    trigger.reset()  # back to 90, not to 100
    trigger(101)
    assert len(fired) == 2


def test_an_interval_is_not_used_up_by_a_failure():
    outcomes = [OSError("disk"), None]

    def save():
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    trigger = triggers.IntervalTrigger(10, save)
    with pytest.raises(OSError, match="disk"):
        trigger(10)
    trigger(11)
    assert outcomes == []


@pytest.mark.parametrize("interval", [None, "10", True])
def test_interval_must_be_a_number(interval):
    with pytest.raises(TypeError, match="interval: got"):
        triggers.IntervalTrigger(interval, lambda: None)


# --- PolicySavedModelTrigger ---------------------------------------------------------------


def fill(agent, step, value):
    for variable in agent.collect_policy.variables():
        variable.assign(tf.fill(variable.shape, float(value)))
    step.assign(value)


@pytest.mark.parametrize("async_saving", [False, True])
def test_exports_at_construction_then_checkpoints_that_update_all_three(tmp_path, async_saving):
    agent, step = make_agent(), make_step()
    trigger = triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, interval=10, async_saving=async_saving
    )
    assert sorted(os.listdir(tmp_path)) == ["collect_policy", "greedy_policy", "policy"]
    opened = {
        kind: eager_policy.SavedModelPyTFEagerPolicy(tmp_path / kind, load_specs_from_pbtxt=True)
        for kind in ("greedy_policy", "collect_policy", "policy")
    }
    for value in (5, 10, 15, 21):
        fill(agent, step, value)
        trigger(value)
        trigger.flush()
    trigger.close()
    names = [f"policy_checkpoint_{value:010d}" for value in (10, 21)]
    assert checkpoint_names(tmp_path) == names
    for policy in opened.values():
        for value, name in zip((10, 21), names, strict=True):
            policy.update_from_checkpoint(tmp_path / "checkpoints" / name)
            assert set(policy.variables()[0].ravel()) == {value}
            assert policy.get_train_step() == value
            assert policy.get_train_step_from_last_restored_checkpoint_path() == value


def test_the_name_is_the_train_steps_and_not_the_calls(tmp_path):
    agent, step = make_agent(), make_step(7)
    triggers.PolicySavedModelTrigger(tmp_path, agent, step, interval=10)(5000)
    assert checkpoint_names(tmp_path) == ["policy_checkpoint_0000000007"]


def test_an_asynchronous_name_is_the_step_inside(tmp_path):
    agent, step = make_agent(hidden=256), make_step()
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, interval=1, async_saving=True
    ) as trigger:
        for value in range(1, 40):
            fill(agent, step, value)
            trigger(value)
    names = checkpoint_names(tmp_path)
    assert names[-1] == "policy_checkpoint_0000000039"
    for name in names:
        path = str(tmp_path / "checkpoints" / name / "variables" / "variables")
        reader = tf.train.load_checkpoint(path)
        saved = int(reader.get_tensor("train_step/.ATTRIBUTES/VARIABLE_VALUE"))
        weights = reader.get_tensor("model_variables/0/.ATTRIBUTES/VARIABLE_VALUE")
        assert name == directories.checkpoint_name(saved)
        assert set(weights.ravel()) == {saved}


def test_interval_zero_exports_and_never_checkpoints(tmp_path):
    agent, step = make_agent(), make_step()
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, interval=0) as trigger:
        step.assign(10)
        trigger(10, force_trigger=True)
    assert sorted(os.listdir(tmp_path)) == ["collect_policy", "greedy_policy", "policy"]


def test_which_policies_are_exported(tmp_path):
    agent, step = make_agent(), make_step()
    triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, save_greedy_policy=False, save_collect_policy=False, portable=True
    )
    assert sorted(os.listdir(tmp_path)) == ["policy", "portable_policy"]


def test_keep_max_and_the_final_save(tmp_path):
    agent, step = make_agent(), make_step()
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, interval=2, keep_max=3) as trigger:
        for value in range(1, 10):
            fill(agent, step, value)
            trigger(value)
        assert checkpoint_names(tmp_path) == [directories.checkpoint_name(n) for n in (4, 6, 8)]
    assert checkpoint_names(tmp_path) == [directories.checkpoint_name(n) for n in (6, 8, 9)]
    for keep_max in (0, -1, True):
        with pytest.raises(ValueError, match="keep_max: got"):
            triggers.PolicySavedModelTrigger(tmp_path, agent, step, 2, keep_max=keep_max)


class Metric:
    def __init__(self, *results):
        self.results = list(results)

    def result(self):
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]


@pytest.mark.slow
@pytest.mark.parametrize("async_saving", [False, True])
def test_metadata_metrics(tmp_path, async_saving):
    agent, step = make_agent(), make_step()
    metrics = {
        "python": Metric(1.5),
        "tensor": Metric(tf.constant(2.5)),
        "count": Metric(np.int64(3)),
        "vector": Metric(np.float32([1, 2])),
    }
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, async_saving=async_saving, metadata_metrics=metrics
    ) as trigger:
        metrics["python"].results = [4.5]
        step.assign(1)
        trigger(1)
        trigger.flush()
        metrics["python"].results = [5.5]
    policy = loader.load_policy(tmp_path, step=None)
    assert policy.get_metadata()["python"] == 1.5
    np.testing.assert_array_equal(policy.get_metadata()["vector"], [1, 2])
    assert loader.load_policy(tmp_path).get_metadata()["python"] == 4.5
    assert loader.load_policy(tmp_path).get_metadata()["count"] == 3
    metrics["vector"].results = [np.float32([1, 2, 3])]
    with triggers.PolicySavedModelTrigger(
        tmp_path / "c", agent, step, 1, metadata_metrics=metrics
    ) as trigger:
        metrics["vector"].results = [np.float32([1])]
        step.assign(2)
        with pytest.raises(
            ValueError, match=r"gave float32\[1\], expected float32\[3\] as at first"
        ):
            trigger(2)
        metrics["vector"].results = [np.float64([1, 2, 3])]
    assert loader.load_policy(tmp_path / "c").get_metadata()["vector"].dtype == np.float32
    with pytest.raises(TypeError, match=r"metadata_metrics\['bad'\]: result\(\) gave 'x'"):
        triggers.PolicySavedModelTrigger(
            tmp_path / "b", agent, step, 1, metadata_metrics={"bad": Metric("x")}
        )


def test_a_metric_may_write_to_its_result_while_it_is_saved(tmp_path):
    agent, step = make_agent(), make_step()
    counts = np.zeros([3])
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, async_saving=True, metadata_metrics={"counts": Metric(counts)}
    ) as trigger:
        for value in range(1, 20):
            counts[:] = value
            step.assign(value)
            trigger(value)
            counts[:] = -1
    for name in checkpoint_names(tmp_path):
        value = int(name.rpartition("_")[2])
        metadata = loader.load_policy(tmp_path, step=value).get_metadata()
        assert set(metadata["counts"]) == {value}


def test_extra_functions_are_in_every_export_and_follow_checkpoints(tmp_path):
    agent, step = make_agent(), make_step()
    scale = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def scaled(x):
        return x * scale

    scaled(tf.constant(1.0))
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, extra_concrete_functions=[("scaled", scaled)]
    ):
        scale.assign(3.0)
        step.assign(1)
    for kind in ("policy", "collect_policy", "greedy_policy"):
        exported = loader.load_policy(tmp_path, step=None, kind=kind)
        assert float(exported.scaled(tf.constant(1.0))) == 2.0
        assert float(loader.load_policy(tmp_path, kind=kind).scaled(tf.constant(1.0))) == 3.0


@pytest.mark.slow
def test_a_collect_policy_with_more_variables_is_updated_too(tmp_path):
    class Exploring(ready_made.TFPolicy):
        """Has a variable of its own in front of the actor's."""

        def __init__(self, actor):
            super().__init__(actor.time_step_spec, actor.action_spec)
            self._a_temperature = tf.Variable(1.0, name="temperature")
            self._b_actor = actor

        def _distribution(self, time_step, policy_state):
            step = self._b_actor.distribution(time_step)
            logits = step.action.logits / self._a_temperature
            return step._replace(action=models.tfd.Categorical(logits=logits))

    actor = models.DiscretePolicy()
    collect = Exploring(actor)
    agent = types.SimpleNamespace(policy=ready_made.GreedyPolicy(actor), collect_policy=collect)
    step = make_step()
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, 1):
        collect._a_temperature.assign(3.0)
        for variable in actor.variables():
            variable.assign(variable * -2.0)
        step.assign(1)
    time_step = models.time_step_of(actor)
    batched = models.time_step_of(actor, 1)
    batched = batched._replace(observation=time_step.observation[None])
    for kind, live in (("collect_policy", collect), ("policy", actor)):
        found = loader.load_policy(tmp_path, kind=kind).distribution(time_step).action
        wanted = live.distribution(batched).action
        np.testing.assert_allclose(found.logits, wanted.logits[0], rtol=1e-5, atol=1e-6)


def test_post_process_policy(tmp_path):
    agent, step = make_agent(), make_step()
    averaged = models.DiscretePolicy(seed=9)
    agent.post_process_policy = lambda: averaged
    before = [variable.numpy() for variable in agent.collect_policy.variables()]
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, 1):
        step.assign(1)
    saved = loader.load_policy(tmp_path).variables()
    for found, wanted in zip(saved, averaged.variables(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for now, wanted in zip(agent.collect_policy.variables(), before, strict=True):
        np.testing.assert_array_equal(now, wanted)
    agent.post_process_policy = lambda: models.DiscretePolicy(hidden=3)
    with pytest.raises(ValueError, match="post_process_policy returned"):
        triggers.PolicySavedModelTrigger(tmp_path, agent, step, 1)(10)


def test_train_step_must_be_a_variable(tmp_path):
    with pytest.raises(ValueError, match="train_step must be a TensorFlow variable"):
        triggers.PolicySavedModelTrigger(tmp_path, make_agent(), 3, 1)
