"""Wrappers whose statistics no checkpoint holds are told, wherever they stand."""

import warnings

import gymnasium
import pytest

from pgest.environments import making

Normalize = gymnasium.wrappers.NormalizeObservation


def wrapped():
    return gymnasium.wrappers.ClipReward(Normalize(gymnasium.make("CartPole-v1")), -1, 1)


@pytest.mark.parametrize("num_envs", [1, 2])
def test_a_factory_and_an_environment(num_envs):
    with pytest.warns(UserWarning, match="NormalizeObservation, whose running statistics no"):
        making.make(wrapped, num_envs).close()
    with pytest.warns(UserWarning, match=r"pgest.models.PPO\(normalize_observation=True\)"):
        making.view(wrapped(), seed=0)


def test_vectors():
    inner = gymnasium.vector.SyncVectorEnv([wrapped, wrapped])
    with pytest.warns(UserWarning, match="NormalizeObservation"):
        making.view(inner, seed=0)
    plain = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        making.view(plain, seed=0)
    outer = gymnasium.wrappers.vector.NormalizeReward(plain)
    with pytest.warns(UserWarning, match=r"NormalizeReward.*normalize_reward=True"):
        making.view(outer, seed=0)
