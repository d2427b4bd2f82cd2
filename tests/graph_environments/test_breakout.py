"""Breakout against its rules, played by hand and by a plain Python game."""

import numpy as np
import pytest
import tensorflow as tf

from pgest import graph_environments

PADDLE, BALL, TRAIL, BRICKS = range(4)
STAY, LEFT, RIGHT = range(3)


class PlainBreakout:
    """The same rules on a grid, one game, one branch after another."""

    def __init__(self, side):
        self.row, self.column = 3, 9 * side
        self.down, self.right = True, side == 0
        self.trail = (self.row, self.column)
        self.paddle = 4
        self.wall = np.zeros((10, 10), bool)
        self.wall[1:4] = True
        self.striking = False

    def step(self, action):
        if action == LEFT and self.paddle > 0:
            self.paddle -= 1
        if action == RIGHT and self.paddle < 9:
            self.paddle += 1
        self.trail = (self.row, self.column)
        row = self.row + (1 if self.down else -1)
        column = self.column + (1 if self.right else -1)
        if not 0 <= column <= 9:
            self.right = not self.right
            column = min(max(column, 0), 9)
        reward, over, met = 0, False, False
        if row < 0:
            row, self.down = 0, True
        elif self.wall[row, column]:
            met = True
            if not self.striking:
                reward = 1
                self.wall[row, column] = False
                row, self.down = self.row, not self.down
        elif row == 9:
            if not self.wall.any():
                self.wall[1:4] = True
            if self.column == self.paddle:
                row, self.down = self.row, False
            elif column == self.paddle:
                row, self.down = self.row, False
                self.right = not self.right
            else:
                over = True
        self.striking = met
        self.row, self.column = row, column
        return reward, over

    def image(self):
        image = np.zeros((10, 10, 4))
        image[9, self.paddle, PADDLE] = 1
        image[self.row, self.column, BALL] = 1
        image[(*self.trail, TRAIL)] = 1
        image[..., BRICKS] = self.wall
        return image


def game(**changes):
    """One game, ball on the left, with some of its state replaced."""
    env = graph_environments.Breakout(num_envs=1)
    state = env.start(tf.constant([0, 0]))._replace(
        ball_column=tf.constant([0]), trail_column=tf.constant([0]), column_step=tf.constant([1])
    )
    tensors = {name: tf.constant([value]) for name, value in changes.items()}
    return env, state._replace(**tensors)


def play(env, state, *actions):
    for action in actions:
        state, reward, terminated = env.advance(state, tf.constant([action]), tf.constant([0, 0]))
    values = {name: value.numpy()[0] for name, value in state._asdict().items()}
    return state, values, float(reward[0]), bool(terminated[0])


def recorded_games(steps):
    """Plays inside one program, mostly chasing the ball, so that a wall gets cleared at times."""
    env = graph_environments.Breakout(num_envs=1, max_episode_steps=None)
    rng = np.random.default_rng(0)
    noise = tf.constant(np.where(rng.random(steps) < 0.97, -1, rng.integers(3, size=steps)))

    @tf.function(jit_compile=True, autograph=False)
    def run():
        def body(timestep, state, arrays):
            ball, paddle = state.simulation.ball_column, state.simulation.paddle
            chase = tf.where(ball < paddle, LEFT, tf.where(ball > paddle, RIGHT, STAY))
            wanted = tf.cast(noise[timestep], tf.int32)
            action = tf.where(wanted < 0, chase, wanted)
            state, given = env.step(state, action, tf.stack([1, timestep]))
            side = tf.equal(state.simulation.ball_column, 9)
            written = (
                action,
                side,
                given.next_observation,
                given.observation,
                given.reward,
                given.terminated,
            )
            arrays = [a.write(timestep, x[0]) for a, x in zip(arrays, written, strict=True)]
            return timestep + 1, state, arrays

        dtypes = (tf.int32, tf.bool, tf.float32, tf.float32, tf.float32, tf.bool)
        arrays = [tf.TensorArray(dtype, steps) for dtype in dtypes]
        start = env.initial(tf.constant([0, 0]))
        *_, arrays = tf.while_loop(lambda t, *_: t < steps, body, (0, start, arrays))
        return tf.equal(start.simulation.ball_column[0], 9), [a.stack() for a in arrays]

    return tf.nest.map_structure(lambda x: x.numpy(), run())


def test_long_games_are_those_of_the_rules():
    side, (actions, sides, images, acted_on, rewards, overs) = recorded_games(4000)
    plain = PlainBreakout(side)
    total = games = refills = 0
    for timestep, action in enumerate(actions):
        bricks = plain.wall.sum()
        reward, over = plain.step(action)
        refills += plain.wall.sum() > bricks
        np.testing.assert_array_equal(images[timestep], plain.image())
        assert (rewards[timestep], overs[timestep]) == (reward, over)
        total += reward
        if over:
            games += 1
            plain = PlainBreakout(sides[timestep])
        np.testing.assert_array_equal(acted_on[timestep], plain.image())
    assert games >= 3 and total > 100 and refills >= 1


def test_the_first_image_shows_paddle_ball_trail_and_three_rows():
    env, state = game()
    image = env.observe(state)[0].numpy()
    assert np.argwhere(image[..., PADDLE]).tolist() == [[9, 4]]
    assert np.argwhere(image[..., BALL]).tolist() == [[3, 0]]
    assert np.argwhere(image[..., TRAIL]).tolist() == [[3, 0]]
    assert image[..., BRICKS].sum(axis=1).tolist() == [0, 10, 10, 10, 0, 0, 0, 0, 0, 0]


def test_the_ball_flies_along_a_diagonal_and_leaves_a_trail():
    env, state = game()
    _, values, reward, over = play(env, state, STAY)
    assert (values["ball_row"], values["ball_column"]) == (4, 1)
    assert (values["trail_row"], values["trail_column"]) == (3, 0)
    assert (reward, over) == (0.0, False)


def test_the_paddle_stops_at_the_walls():
    env, state = game(paddle=0)
    assert play(env, state, LEFT)[1]["paddle"] == 0
    env, state = game(paddle=9)
    assert play(env, state, RIGHT)[1]["paddle"] == 9


def test_side_walls_reflect():
    env, state = game(ball_row=6, ball_column=9)
    _, values, *_ = play(env, state, STAY)
    assert (values["ball_row"], values["ball_column"], values["column_step"]) == (7, 9, -1)


def test_the_ceiling_reflects():
    env, state = game(ball_row=0, row_step=-1, ball_column=4)
    _, values, *_ = play(env, state, STAY)
    assert (values["ball_row"], values["ball_column"], values["row_step"]) == (0, 5, 1)


def test_a_brick_breaks_reflects_and_pays_one():
    env, state = game(ball_row=4, row_step=-1, ball_column=4)
    state, values, reward, _ = play(env, state, STAY)
    assert reward == 1.0
    assert (values["ball_row"], values["ball_column"], values["row_step"]) == (4, 5, 1)
    bricks = env.observe(state)[0, ..., BRICKS].numpy()
    assert bricks[3, 5] == 0 and bricks.sum() == 29


def test_a_brick_met_right_after_another_is_flown_through():
    env, state = game(ball_row=4, row_step=-1, ball_column=4, striking=True)
    _, values, reward, _ = play(env, state, STAY)
    assert reward == 0.0
    assert (values["ball_row"], values["row_step"], values["striking"]) == (3, -1, True)


@pytest.mark.parametrize(("paddle", "column_step"), [(4, 1), (5, -1)])
def test_the_paddle_sends_the_ball_back_by_the_side_it_is_hit_on(paddle, column_step):
    env, state = game(ball_row=8, ball_column=4, paddle=paddle)
    _, values, _, over = play(env, state, STAY)
    assert not over
    assert (values["row_step"], values["column_step"]) == (-1, column_step)
    assert values["ball_row"] == 8


def test_the_game_is_over_where_the_ball_gets_past_the_paddle():
    env, state = game(ball_row=8, ball_column=4, paddle=6)
    assert play(env, state, STAY)[3]
    assert not play(env, state, LEFT)[3]


def test_a_cleared_wall_is_set_up_again_at_the_bottom():
    env, state = game(ball_row=8, ball_column=4, paddle=4, bricks=0)
    assert play(env, state, STAY)[1]["bricks"] == 2**30 - 1
    env, state = game(ball_row=6, ball_column=4, paddle=4, bricks=0)
    assert play(env, state, STAY)[1]["bricks"] == 0


def test_games_start_on_both_sides():
    env = graph_environments.Breakout(num_envs=1000)
    columns = env.start(tf.constant([3, 4])).ball_column.numpy()
    assert set(columns) == {0, 9}
    assert 400 < (columns == 9).sum() < 600


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool"])
def test_observations_have_the_asked_dtype(dtype):
    env = graph_environments.Breakout(num_envs=2, observation_dtype=dtype)
    observation = env.observation(env.initial(tf.constant([0, 0])))
    assert observation.dtype == dtype
    assert env.observation_space.contains(observation.numpy()[0])


def test_an_unknown_observation_dtype_is_an_error():
    with pytest.raises(ValueError, match="observation_dtype='int8': expected 'float32', 'uint8'"):
        graph_environments.Breakout(observation_dtype="int8")
