"""Agents for the tests of training, and how far they are."""

import pgest
from tests import model_fns


def make_agent(
    model_fn=model_fns.policy_gradient, memory=None, seed=0, jit_compile=False, **arguments
):
    """A silent agent that updates after 64 timesteps, unless told otherwise."""
    config = pgest.RunConfig(
        tf_random_seed=seed, log_step_count_steps=None, jit_compile=jit_compile
    )
    memory = pgest.BatchMemory(batch_size=64) if memory is None else memory
    return pgest.PGAgent(model_fn, memory, config=config, **arguments)


def counters(agent):
    """Steps, timesteps and episodes so far."""
    return agent.global_step, agent.global_timestep, agent.global_episode
