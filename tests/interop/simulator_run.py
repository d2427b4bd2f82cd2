"""Trains on a simulator in a model_dir up to so many timesteps; prints a digest of the weights."""

import hashlib
import logging
import sys

import ale_py
import gymnasium

import pgest

gymnasium.register_envs(ale_py)


def main(name, model_dir, timesteps):
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    env = pgest.RestorableEnv(gymnasium.make(name))
    config = pgest.RunConfig(
        tf_random_seed=1,
        log_step_count_steps=None,
        save_summary_steps=None,
        save_checkpoints_steps=2,
        jit_compile=False,
    )
    model_fn = pgest.models.PPO(hidden_sizes=(8,))
    update = {"epochs": 1, "minibatch_size": 16}
    agent = pgest.PGAgent(model_fn, pgest.RolloutMemory(32), update, model_dir, config)
    agent.train(env, max_timesteps=int(timesteps))
    digest = hashlib.sha256()
    for variable in sorted(agent.get_variable_names()):
        digest.update(agent.get_variable_value(variable).tobytes())
    print("weights", digest.hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
