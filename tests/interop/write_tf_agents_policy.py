"""Run by TF-Agents' Python: exports policies with TF-Agents, and what they do, for pgest to open.

Arguments: "feed_forward" or "recurrent", and the directory to write to.
"""

import os
import sys


def main(kind, directory):
    import numpy as np
    import tensorflow as tf
    from tf_agents.networks import actor_distribution_network, actor_distribution_rnn_network
    from tf_agents.policies import actor_policy, policy_saver
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import time_step as ts

    tf.random.set_seed(1)
    observation_spec = tf.TensorSpec([4], tf.float32, "observation")
    action_spec = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2, "action")
    time_step_spec = ts.time_step_spec(observation_spec)
    if kind == "recurrent":
        network = actor_distribution_rnn_network.ActorDistributionRnnNetwork(
            observation_spec, action_spec, lstm_size=(6,)
        )
    else:
        network = actor_distribution_network.ActorDistributionNetwork(
            observation_spec, action_spec, fc_layer_params=(8,)
        )
    network.create_variables()
    policy = actor_policy.ActorPolicy(time_step_spec, action_spec, actor_network=network)
    train_step = tf.Variable(5, dtype=tf.int64)
    metadata = {"score": tf.Variable(1.5), "count": tf.Variable(3, dtype=tf.int64)}
    saver = policy_saver.PolicySaver(policy, train_step=train_step, metadata=metadata)
    saver.save(os.path.join(directory, "policy"))
    observations = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    results = {"observations": observations}

    def describe(word):
        state = policy.get_initial_state(1)
        for at, observation in enumerate(observations):
            make = ts.restart if at in (0, 3) else ts.transition
            arguments = {"batch_size": 1} if at in (0, 3) else {"reward": tf.constant([0.5])}
            time_step = make(tf.constant(observation[None]), **arguments)
            step = policy.distribution(time_step, state)
            state = step.state
            results[f"{word}/logits/{at}"] = step.action.logits_parameter().numpy()[0]
        for number, variable in enumerate(policy.variables()):
            results[f"{word}/variable/{number}"] = variable.numpy()

    describe("exported")
    for variable in policy.variables():
        variable.assign(variable * -0.5 + 0.1)
    train_step.assign(12)
    metadata["score"].assign(2.5)
    saver.save_checkpoint(os.path.join(directory, "checkpoints", "policy_checkpoint_0000000012"))
    describe("updated")
    np.savez(os.path.join(directory, "results.npz"), **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
