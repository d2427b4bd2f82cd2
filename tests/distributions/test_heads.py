"""distributions.action_head: spaces of every kind, masks, names, first values."""

import math

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from pgest import distributions
from tests.distributions.distribution_families import SEED, close, normal

NESTED = spaces.Dict(
    {
        "jump": spaces.Discrete(3, start=5),
        "keys": spaces.MultiBinary([2, 2]),
        "move": spaces.Tuple(
            (
                spaces.MultiDiscrete([2, 3]),
                spaces.Box(-2, np.array([[1.0], [3.0]], np.float32), (2, 1), np.float32),
            )
        ),
    }
)
ACTION_SPACES = [
    spaces.Discrete(4),
    spaces.MultiDiscrete([3, 2, 5]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Box(-1, 1, (3,)),
    spaces.Box(-1, 1, ()),
    spaces.Box(0, 2, (2, 3)),
    NESTED,
]


def without_starts(space, action):
    """Actions that count from 0 to what the space counts."""
    if isinstance(space, spaces.Dict):
        return {key: without_starts(child, action[key]) for key, child in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(without_starts(*pair) for pair in zip(space.spaces, action, strict=True))
    return action + space.start if isinstance(space, spaces.Discrete) else action


class TestActionHead:
    @pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
    @pytest.mark.parametrize("box", ["squashed_gaussian", "beta"])
    def test_actions_are_elements_of_the_space(self, space, box):
        distribution = distributions.action_head(space, normal([7, 5]), box=box)
        assert distribution.batch_shape == [7]
        for action in (distribution.sample(seed=SEED), distribution.mode()):
            for row in range(7):
                one = tf.nest.map_structure(lambda part, row=row: part.numpy()[row], action)
                assert space.contains(without_starts(space, one))

    def test_a_gaussian_has_one_variable_of_its_own(self):
        space = spaces.Box(-1, 1, (3,))
        distribution = distributions.action_head(space, normal([7, 5]), initial_std=0.5)
        close(distribution.stddev(), np.full([7, 3], 0.5))

    def test_a_state_dependent_deviation_begins_where_told(self):
        space = spaces.Box(-1, 1, (3,))
        distribution = distributions.action_head(
            space, tf.zeros([7, 5]), state_dependent_std=True, initial_std=0.5
        )
        close(distribution.stddev(), np.full([7, 3], 0.5))

    def test_the_first_policy_is_nearly_uniform(self):
        distribution = distributions.action_head(spaces.Discrete(4), normal([50, 64]))
        assert (distribution.entropy().numpy() > 0.99 * math.log(4)).all()

    def test_names_follow_the_space(self):
        with tf.Graph().as_default() as graph:
            distributions.action_head(NESTED, tf.zeros([1, 4]), name="pi")
            names = {variable.name for variable in graph.get_collection("trainable_variables")}
        assert {"pi_jump/kernel:0", "pi_move_1_log_std:0", "pi_move_0/bias:0"} <= names

    def test_masks_of_a_nest(self):
        mask = {
            "jump": np.array([[False, True, False]]),
            "move": (np.array([[1, 0, 0, 0, 1]]), None),
        }
        distribution = distributions.action_head(NESTED, normal([1, 4]), action_mask=mask)
        draws = distribution.sample(100, seed=SEED)
        assert set(draws["jump"].numpy().ravel()) == {1}
        assert {tuple(row) for row in draws["move"][0].numpy()[:, 0]} == {(0, 2)}

    def test_a_mask_for_what_cannot_be_masked(self):
        with pytest.raises(ValueError, match="Box.* cannot be masked"):
            distributions.action_head(
                spaces.Box(-1, 1, (2,)), normal([1, 4]), action_mask=np.ones([1, 2], bool)
            )

    def test_a_mask_for_an_unknown_part(self):
        with pytest.raises(ValueError, match=r"mask has \['jmp'\]"):
            distributions.action_head(NESTED, normal([1, 4]), action_mask={"jmp": None})

    @pytest.mark.parametrize(
        "space",
        [spaces.Text(3), spaces.Box(0, 255, (2,), np.uint8), spaces.Sequence(spaces.Discrete(2))],
    )
    def test_a_space_without_a_head(self, space):
        with pytest.raises(TypeError, match="no distribution for actions of.*Known are Discrete"):
            distributions.action_head(space, normal([1, 4]))

    def test_an_unknown_family(self):
        with pytest.raises(ValueError, match="box must be one of.*'beta'.*got 'normal'"):
            distributions.action_head(spaces.Box(-1, 1, (2,)), normal([1, 4]), box="normal")


def test_a_real_environments_action_is_accepted():
    env = gymnasium.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    distribution = distributions.action_head(
        env.action_space, tf.constant(observation[None]), box="squashed_gaussian"
    )
    env.step(distribution.sample(seed=SEED).numpy()[0])
    env.close()


@pytest.mark.parametrize("initial_std", [8.0, math.exp(2), 1e-9])
@pytest.mark.parametrize("box", ["gaussian", "squashed_gaussian"])
def test_an_initial_std_from_which_no_gradient_leads(initial_std, box):
    space = spaces.Dict(push=spaces.Box(-1, 1, (2,)))

    def head(**settings):
        return distributions.action_head(
            space, tf.zeros([1, 3]), box=box, initial_std=initial_std, **settings
        )

    with pytest.raises(ValueError, match=r"initial_std is .* clipped to 2\.1e-09 … 7\.39"):
        head(state_dependent_std=True)
    head()  # a variable of its own is not clipped


def test_an_initial_std_of_nothing():
    with pytest.raises(ValueError, match="initial_std is 0; expected a positive number"):
        distributions.action_head(spaces.Box(-1, 1, (1,)), tf.zeros([1, 3]), initial_std=0)
