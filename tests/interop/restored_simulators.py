"""Simulators that are stopped, go on in another object, and are compared; names those that differ.

Runs where gymnasium's MuJoCo and ALE are; what it needs of pgest is there too.
"""

import sys

import ale_py
import gymnasium
import numpy as np
from gymnasium import wrappers

import pgest

gymnasium.register_envs(ale_py)

MUJOCO = (
    "Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum",
    "InvertedPendulum", "Pusher", "Reacher", "Swimmer", "Walker2d",
)  # fmt: skip


def stacked():
    env = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.25)
    env = wrappers.AtariPreprocessing(env, frame_skip=4, screen_size=84)
    return wrappers.RecordEpisodeStatistics(wrappers.FrameStackObservation(env, 4))


def makers():
    for name in MUJOCO:
        yield name, lambda name=name: gymnasium.make(f"{name}-v5", max_episode_steps=50)
    for name in ("Breakout", "Pong", "Seaquest"):
        yield name, lambda name=name: gymnasium.make(f"ALE/{name}-v5")
    yield "memory of Pong", lambda: gymnasium.make("ALE/Pong-v5", obs_type="ram")
    try:
        import cv2  # noqa: F401
    except ImportError:
        return
    yield "stacked frames", stacked


def step(env, action):
    """What a step shows, and the reset after it where the episode ended."""
    result = env.step(action)
    ended = result[2] or result[3]
    return [*result[:4], *([env.reset()[0]] if ended else [])]


def goes_on(make, timesteps=70):
    first, second = pgest.RestorableEnv(make()), pgest.RestorableEnv(make())
    first.reset(seed=3)
    second.reset(seed=8)
    first.action_space.seed(1)
    actions = [first.action_space.sample() for _ in range(2 * timesteps)]
    for action in actions[:timesteps]:
        step(first, action)
    state = first.get_state()
    second.set_state(state)
    if second.get_state() != state:
        return False
    pairs = ((step(first, action), step(second, action)) for action in actions[timesteps:])
    return all(
        len(one) == len(other) and all(map(np.array_equal, one, other)) for one, other in pairs
    )


def main():
    found = {name: goes_on(make) for name, make in makers()}
    print(*found, sep=", ")
    sys.exit(", ".join(name for name, equal in found.items() if not equal) or 0)


if __name__ == "__main__":
    main()
