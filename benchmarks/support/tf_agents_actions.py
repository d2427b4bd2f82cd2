"""Run by TF-Agents' Python: acts with TF-Agents' own class, so many actions for each line read.

Arguments: the directory of an export, and "greedy", "sampled" (then the export is made first, with
TF-Agents) or "open". Each number on the standard input is answered by a line when so many actions
from numpy to numpy are done.
"""

import sys


def export(directory, kind):
    import tensorflow as tf
    from tf_agents.networks import actor_distribution_network
    from tf_agents.policies import actor_policy, greedy_policy, policy_saver
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import time_step as ts

    observation_spec = tf.TensorSpec([4], tf.float32, "observation")
    action_spec = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1, "action")
    network = actor_distribution_network.ActorDistributionNetwork(
        observation_spec, action_spec, fc_layer_params=(64, 64), activation_fn=tf.tanh
    )
    network.create_variables()
    policy = actor_policy.ActorPolicy(
        ts.time_step_spec(observation_spec), action_spec, actor_network=network
    )
    if kind == "greedy":
        policy = greedy_policy.GreedyPolicy(policy)
    policy_saver.PolicySaver(policy).save(directory)


def main(directory, kind):
    if kind != "open":
        export(directory, kind)
    import numpy as np
    from tf_agents.policies import py_tf_eager_policy
    from tf_agents.trajectories import time_step as ts

    policy = py_tf_eager_policy.SavedModelPyTFEagerPolicy(directory, load_specs_from_pbtxt=True)
    time_step = ts.transition(np.float32([0.01, 0.02, 0.03, 0.04]), np.float32(1.0))
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            policy.action(time_step)
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
