"""Lookup tables in exports: static ones go along, others are refused."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from pgest import specs


def table_of(values):
    keys = tf.range(len(values), dtype=tf.int64)
    initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.constant(values, tf.int64))
    return tf.lookup.StaticHashTable(initializer, -1)


class TablePolicy(pgest.TFPolicy):
    """Looks the action up, and adds a variable."""

    def __init__(self, table):
        super().__init__(
            pgest.time_step_spec(tf.TensorSpec([], tf.int64)),
            specs.BoundedTensorSpec((), tf.int64, 0, 9),
        )
        self.table = table
        self.offset = tf.Variable(0, dtype=tf.int64)

    def _action(self, time_step, policy_state, seed):
        return pgest.PolicyStep(self.table.lookup(time_step.observation) + self.offset)


def test_a_static_table_goes_along_and_checkpoints_update_beside_it(tmp_path):
    policy = TablePolicy(table_of([4, 2, 7]))
    step = tf.Variable(3, dtype=tf.int64)
    with pgest.AsyncPolicySaver(pgest.PolicySaver(policy, train_step=step)) as saver:
        # The second is written from the graph of the first.
        for name in ("first", "second"):
            saver.save(tmp_path / name, blocking=True)
        policy.offset.assign(1)
        saver.save_checkpoint(tmp_path / "policy_checkpoint_3")
    for name in ("first", "second"):
        loaded = pgest.load_policy(tmp_path / name)
        actions = [int(loaded.action(pgest.restart(np.int64(at))).action) for at in range(3)]
        assert actions == [4, 2, 7]
        loaded.update_from_checkpoint(tmp_path / "policy_checkpoint_3")
        assert loaded.action(pgest.restart(np.int64(2))).action == 8
    whole = tmp_path / "whole"
    pgest.materialize_saved_model(tmp_path / "second", tmp_path / "policy_checkpoint_3", whole)
    assert pgest.load_policy(whole, step=None).action(pgest.restart(np.int64(1))).action == 3


def test_an_export_with_other_words_is_another_architecture(tmp_path):
    pgest.PolicySaver(TablePolicy(table_of([4, 2, 7]))).save(tmp_path / "policy")
    assert pgest.PolicySaver(TablePolicy(table_of([4, 2, 7]))).matches(tmp_path / "policy")
    assert not pgest.PolicySaver(TablePolicy(table_of([4, 2, 6]))).matches(tmp_path / "policy")


def test_a_table_that_changes_is_refused():
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)
    with pytest.raises(TypeError, match="reads from MutableHashTable, whose contents are not part"):
        pgest.PolicySaver(TablePolicy(table))


def test_a_table_of_a_file_becomes_an_asset(tmp_path):
    (tmp_path / "words").write_text("4\n2\n7\n")
    initializer = tf.lookup.TextFileInitializer(
        str(tmp_path / "words"),
        tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
        tf.int64, tf.lookup.TextFileIndex.WHOLE_LINE,
    )  # fmt: skip
    policy = TablePolicy(tf.lookup.StaticHashTable(initializer, -1))
    pgest.PolicySaver(policy).save(tmp_path / "policy")
    (tmp_path / "words").unlink()
    loaded = pgest.load_policy(tmp_path / "policy")
    assert loaded.action(pgest.restart(np.int64(1))).action == 2


@pytest.mark.filterwarnings("ignore:XLA cannot compile acting")
def test_a_model_fn_with_a_table_is_exported(tmp_path):
    table = table_of([3, 5])

    def model_fn(features, labels, mode):
        side = table.lookup(tf.cast(features["state"][:, :1] > 0, tf.int64))
        # Always the action 1, whatever the table is initialised with; 0 without the table.
        logits = tf_keras.layers.Dense(2, use_bias=False)(tf.zeros([tf.shape(side)[0], 1]))
        logits += tf.cast(side, tf.float32) * [0.0, 1.0]
        distribution = tfp.distributions.Categorical(logits=logits)
        if mode == pgest.Modes.PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
        train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(1e-3))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    agent = pgest.PGAgent(model_fn, pgest.BatchMemory(episodes=1))
    agent.train(gymnasium.make("CartPole-v1"), steps=1)
    loaded = tf.saved_model.load(agent.export_saved_model(tmp_path))
    served = loaded.signatures["serving_default"](observation=tf.zeros([2, 4]))
    assert served["action"].numpy().tolist() == [1, 1]
