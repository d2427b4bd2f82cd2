"""Run by TF-Agents' Python: opens an export of pgest with TF-Agents' own class and acts.

Arguments: a JSON file of the job, and the .npz file to write.
"""

import json
import sys


def main(job_file, result_file):
    import numpy as np
    import tensorflow as tf
    from tf_agents.policies import policy_loader, py_tf_eager_policy
    from tf_agents.trajectories import time_step as ts

    with open(job_file) as file:
        job = json.load(file)
    if job.get("materialize"):
        policy_loader.materialize_saved_model(*job["materialize"])
        policy = policy_loader.load(job["materialize"][2])
    else:
        policy = py_tf_eager_policy.SavedModelPyTFEagerPolicy(
            job["export"], load_specs_from_pbtxt=True
        )
    observations = np.load(job["observations"])
    leaves = [observations[str(at)] for at in range(len(observations.files))]
    results = {}

    def play(word):
        state = policy.get_initial_state(batch_size=1)
        for at in range(len(leaves[0])):
            observation = tf.nest.pack_sequence_as(
                policy.time_step_spec.observation, [leaf[at] for leaf in leaves]
            )
            step_type = np.int32(0 if at in (0, 3) else 1)
            time_step = ts.TimeStep(
                np.asarray(step_type), np.float32(0.5), np.float32(1.0), observation
            )
            if job["seeded"]:
                step = policy.action(time_step, state, seed=tf.constant([7, at]))
            else:
                step = policy.action(time_step, state)
            state = step.state
            for number, leaf in enumerate(tf.nest.flatten(step.action)):
                results[f"{word}/action/{number}/{at}"] = leaf
            for number, leaf in enumerate(tf.nest.flatten(step.state)):
                results[f"{word}/state/{number}/{at}"] = np.asarray(leaf)
        results[f"{word}/train_step"] = policy.get_train_step()
        for name, value in policy.get_metadata().items():
            results[f"{word}/metadata/{name}"] = np.asarray(value)
        for number, variable in enumerate(policy.variables()):
            results[f"{word}/variable/{number}"] = variable.numpy()

    play("exported")
    for number, checkpoint in enumerate(job["checkpoints"]):
        policy.update_from_checkpoint(checkpoint)
        results[f"{number}/path_step"] = policy.get_train_step_from_last_restored_checkpoint_path()
        play(str(number))
    specs = tf.nest.flatten((policy.action_spec, policy.time_step_spec.observation))
    results["specs"] = np.asarray([repr(spec) for spec in specs])
    np.savez(result_file, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
