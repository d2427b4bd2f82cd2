"""Weights that are not finite, and runs that end in an unusual way."""

import logging

import numpy as np
import pytest

import pgest
from tests import model_fns


def make_agent(model_dir, **arguments):
    return pgest.PGAgent(
        model_fns.policy_gradient,
        pgest.BatchMemory(batch_size=32),
        model_dir=model_dir,
        config=pgest.RunConfig(tf_random_seed=0, jit_compile=False),
        **arguments,
    )


def test_save_checkpoint_writes_no_weights_that_are_not_finite(tmp_path, caplog):
    agent = make_agent(tmp_path)
    agent.train("CartPole-v1", steps=2)
    good = agent.latest_checkpoint()
    bias = agent.model.store.variables["dense/bias"]
    bias.assign(np.full(bias.shape, np.nan, np.float32))
    with caplog.at_level(logging.WARNING):
        assert agent.save_checkpoint() is None
    assert "NaN or infinity in variables dense/bias" in caplog.text and good in caplog.text
    assert agent.latest_checkpoint() == good
    again = make_agent(tmp_path)
    again.train("CartPole-v1", steps=1)
    assert again.global_step == 3


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
def test_all_hooks_end_and_the_last_checkpoint_is_written(tmp_path, error):
    ended = []

    class Ends(pgest.BaseMonitor):
        def end(self, context):
            ended.append(context.step)

    class Exits(pgest.BaseMonitor):
        def end(self, context):
            raise error

    agent = make_agent(tmp_path)
    with pytest.raises(type(error)):
        agent.train("CartPole-v1", steps=2, hooks=[Exits(), Ends()])
    assert ended == [2]
    assert make_agent(tmp_path).latest_checkpoint().endswith("-2")


def test_arrays_among_the_params(tmp_path):
    params = {"mean": np.zeros(4), "units": np.array(8), "rates": {"one": np.float32(0.5)}}
    agent = make_agent(tmp_path, params=params)
    agent.train("CartPole-v1", steps=1)
    assert agent.global_step == 1
