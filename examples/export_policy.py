"""Trains on CartPole-v1 and exports the policy twice: while it trains, and at the end.

    python examples/export_policy.py --model-dir runs/exported

Afterwards `runs/exported/policies` holds the policies and the last few checkpoints (open them with
examples/play_with_numpy.py), and `runs/exported/export` a SavedModel that plain TensorFlow opens
(examples/play_saved_policy.py, examples/tflite_policy.py).
"""

import argparse
import os

import pgest


def main():
    """Trains, exports, says what is where."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", default="runs/exported")
    parser.add_argument("--max-timesteps", type=int, default=100_000)
    parser.add_argument("--save-steps", type=int, default=100, help="steps between two saves")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    agent = pgest.PGAgent(
        # The learning rate falls to zero at the end of the run: the policy that is reached stays.
        pgest.models.PPO(learning_rate=pgest.schedules.linear(1e-3, 0.0), entropy_weight=0.0),
        memory=pgest.RolloutMemory(horizon=128),
        optimizer_params={"epochs": 10, "minibatch_size": 256},
        config=pgest.RunConfig(model_dir=arguments.model_dir, tf_random_seed=arguments.seed),
    )
    # Exports once, when the run begins; then small checkpoints, in a thread, and one at the end.
    saver = pgest.PolicySaverHook(pgest.Every(steps=arguments.save_steps), keep_max=3)
    agent.train(
        pgest.make("CartPole-v1", num_envs=8), max_timesteps=arguments.max_timesteps, hooks=[saver]
    )
    print(f"Checkpoints of the steps {pgest.saved_steps(arguments.model_dir)}")

    # The graph of an export and the weights of a checkpoint, as one SavedModel to hand on.
    policies = os.path.join(arguments.model_dir, "policies")
    step = pgest.saved_steps(policies)[-1]
    whole = os.path.join(arguments.model_dir, f"policy_of_step_{step}")
    if not os.path.exists(whole):
        checkpoint = os.path.join(policies, "checkpoints", f"policy_checkpoint_{step:010d}")
        pgest.materialize_saved_model(os.path.join(policies, "greedy_policy"), checkpoint, whole)
    print(f"Whole policy of the last step in {whole}")

    # Without TensorFlow Probability inside: observation in, action out.
    path = agent.export_saved_model(os.path.join(arguments.model_dir, "export"))
    print(f"Portable export in {path}")


if __name__ == "__main__":
    main()
