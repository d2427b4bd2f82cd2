"""Run by the simulators' Python: how many lives of Breakout an episode has that never plays.

The ball only moves after FIRE, so that lives are lost at all says that it is pressed.
"""

from pgest.commands import task_environments

VALUES = {"preprocessing": "atari", "frame_stack": 4}


def lives_lost(training):
    factory = task_environments.environment("ALE/Breakout-v5", VALUES, training=training)
    env = task_environments.made(factory)
    assert env.observation_space.shape == (4, 84, 84)
    env.reset(seed=0)
    lives, lost, ended = env.unwrapped.ale.lives(), 0, False
    for _ in range(2_000):
        *_, ended, _, info = env.step(0)
        lost, lives = lost + lives - info["lives"], info["lives"]
        if ended:
            break
    assert ended, "a life that is not served would not be lost"
    env.close()
    return lost


if __name__ == "__main__":
    print(f"{lives_lost(training=False)} lives, then {lives_lost(training=True)}")
