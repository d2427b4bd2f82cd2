"""Steps on batches of any size are optimised without fusing, and nothing else is."""

import pytest
import tensorflow as tf
from google.protobuf import json_format

import pgest
from pgest.tracing import unfused
from tests import model_fns

OFF = "OFF"


def remapping(node):
    """What a node that calls a function says about fusing; None: nothing."""
    config = tf.compat.v1.ConfigProto.FromString(node.attr["config_proto"].s)
    options = json_format.MessageToDict(config.graph_options.rewrite_options)
    return options.get("remapping")


def calls(concrete):
    """The nodes that call functions, nested ones too, and the attributes of what they call."""
    definition = concrete.graph.as_graph_def()
    library = {function.signature.name: function for function in definition.library.function}
    nodes = [*definition.node, *(node for f in library.values() for node in f.node_def)]
    return [
        (node, library[node.attr["f"].func.name].attr)
        for node in nodes
        if "PartitionedCall" in node.op
    ]


@pytest.mark.parametrize("before", [None, True, False])
def test_a_call_is_not_fused_and_the_options_are_as_they_were(before):
    options = tf.config.optimizer
    options.set_experimental_options({"remapping": before})
    try:
        known = options.get_experimental_options()
        double = unfused.Unfused(lambda x: 2.0 * x, tf.TensorSpec([None]))
        traced = tf.function(lambda x: double(x) + 1.0).get_concrete_function(tf.TensorSpec([None]))
        ((node, attributes),) = calls(traced)
        assert remapping(node) == OFF and attributes["_noinline"].b
        assert options.get_experimental_options() == known
        assert traced(tf.constant([1.0, 2.0])).numpy().tolist() == [3.0, 5.0]
    finally:
        options.set_experimental_options({"remapping": None})


@pytest.mark.parametrize(
    ("memory", "wanted"),
    [(pgest.BatchMemory(batch_size=16), True), (pgest.RolloutMemory(8), False)],
)
def test_the_steps_of_whole_episodes_are(memory, wanted):
    config = pgest.RunConfig(tf_random_seed=0, jit_compile=False)
    agent = pgest.PGAgent(model_fns.policy_gradient, memory, config=config)
    agent.train("CartPole-v1", steps=1)
    found = [remapping(node) for node, _ in calls(agent._trainer._updater._program.concrete)]
    assert (OFF in found) == wanted
