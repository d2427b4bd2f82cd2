"""Of which environments an evaluation makes copies."""

import contextlib
import dataclasses

import gymnasium
import pytest

import pgest
from pgest.environments import making, side_by_side
from tests.agents.copied_environments import Made, SteadyEnv, Unknown, agent_of, plain


@pytest.mark.parametrize(
    "name",
    ["Acrobot", "CartPole", "MountainCar", "MountainCarContinuous", "Pendulum"]
    + ["Blackjack", "CliffWalking", "Taxi"],
)
def test_what_is_known_has_copies_by_its_id_and_the_same_results(name, played_together):
    newest = max(spec.version for spec in gymnasium.registry.values() if spec.name == name)
    short, spec = f"Short{name}-v0", gymnasium.spec(f"{name}-v{newest}")
    spec = dataclasses.replace(spec, id=short, max_episode_steps=30)
    gymnasium.register(
        **{
            field.name: getattr(spec, field.name)
            for field in dataclasses.fields(spec)
            if field.init
        }
    )
    model = pgest.models.A2C(hidden_sizes=(8,))
    try:
        agents = [agent_of(model, evaluate_in_copies=wish) for wish in (None, False)]
        results = [agent.evaluate(short, episodes=9) for agent in agents]
    finally:
        del gymnasium.registry[short]
    assert results[0] == results[1]
    assert played_together == [9]


@pytest.fixture
def played_together(monkeypatch):
    """How many environments each evaluation in copies had, that did not turn out to be alone."""
    numbers, follow = [], side_by_side.SideBySide.follow_from_seeds

    def followed(together):
        numbers.append(together.num_envs)
        assert follow(together)
        return True

    monkeypatch.setattr(side_by_side.SideBySide, "follow_from_seeds", followed)
    return numbers


def test_unasked_nothing_of_a_users_is_copied():
    """Neither an id nor a factory of theirs, nor a known environment that a factory changes."""
    made = Made(lambda: SteadyEnv(length=3))
    known = Made(lambda: gymnasium.make("CartPole-v1", max_episode_steps=5))
    gymnasium.register("Made-v0", made)
    try:
        for env in ("Made-v0", made, known):
            agent_of(plain, evaluate_in_copies=None).evaluate(env, episodes=4)
    finally:
        del gymnasium.registry["Made-v0"]
    assert len(made.envs) == 2
    assert len(known.envs) == 1


@pytest.mark.parametrize("wish", [None, True])
def test_what_shows_itself_is_not_copied(wish):
    env = pgest.make("CartPole-v1", render_mode="rgb_array", seed=0)
    with env, making.view("CartPole-v1", seed=0) as dark:
        assert not side_by_side.may_be_copied(env, wish)
        assert side_by_side.may_be_copied(dark, wish)
        assert not side_by_side.may_be_copied(dark, False)


@pytest.mark.parametrize("why", ["one object", "a licence for one", "a recorder"])
def test_what_cannot_be_copied_is_played_alone(why, tmp_path):
    made = []

    def make():
        if why == "one object" and made:
            return made[0]
        if why == "a licence for one" and made:
            raise OSError("in use")
        env = SteadyEnv(length=3)
        if why == "a recorder":
            env = gymnasium.wrappers.NormalizeReward(env)
        made.append(env)
        return env

    agent = agent_of(plain)
    with pytest.warns(UserWarning) if why == "a recorder" else contextlib.nullcontext():
        assert agent.evaluate(make, episodes=4)["length_mean"] == 3
    assert len(made) == 1
    assert made[0].unwrapped.closed == 1


def test_there_are_never_more_than_32():
    made = Made(lambda: SteadyEnv(length=2))
    assert agent_of(plain).evaluate(made, episodes=100)["episodes"] == 100
    assert len(made.envs) == 32
    assert [env.closed for env in made.envs] == [1] * len(made.envs)


@pytest.mark.parametrize(
    "wrapped",
    [Unknown, lambda env: gymnasium.wrappers.TransformReward(env, lambda reward: reward)],
    ids=["a wrapper of a user's", "a function of a user's"],
)
def test_what_is_unknown_is_not_copied(wrapped):
    made = Made(lambda: wrapped(SteadyEnv(length=3)))
    agent_of(plain).evaluate(made, episodes=4)
    assert len(made.envs) == 1


def test_what_gymnasium_makes_of_such_functions_is_copied():
    wrap = gymnasium.wrappers.ClipReward
    made = Made(lambda: wrap(SteadyEnv(length=3), min_reward=-1.0, max_reward=1.0))
    agent_of(plain).evaluate(made, episodes=4)
    assert len(made.envs) > 1
