"""Plays CartPole-v1 with an exported policy; needs tensorflow and gymnasium, not pgest.

python examples/play_saved_policy.py runs/cartpole/export --episodes 5
"""

import argparse
import os

import gymnasium
import tensorflow as tf


def newest_export(directory):
    """`directory` itself if it is an export, else the newest of the exports in it."""
    if os.path.exists(os.path.join(directory, "saved_model.pb")):
        return directory
    exports = [name for name in os.listdir(directory) if name.isdigit()]
    if not exports:
        raise SystemExit(
            f"{directory} holds no export: expected saved_model.pb or numbered exports"
        )
    return os.path.join(directory, max(exports, key=int))


def main():
    """Loads the policy and plays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="what agent.export_saved_model was given or returned")
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--render", action="store_true", help="shows the cart in a window")
    arguments = parser.parse_args()

    path = newest_export(arguments.directory)
    policy = tf.saved_model.load(path)
    act = policy.signatures["serving_default"]
    env = gymnasium.make("CartPole-v1", render_mode="human" if arguments.render else None)
    print(f"Loaded {path}")

    totals = []
    for episode in range(arguments.episodes):
        observation, _ = env.reset(seed=1000 + episode)
        total, ended = 0.0, False
        while not ended:
            action = act(observation=tf.constant(observation[None]))["action"]
            observation, reward, terminated, truncated, _ = env.step(int(action[0]))
            total += float(reward)
            ended = terminated or truncated
        totals.append(total)
        print(f"Episode {episode + 1}: return {total:.0f}")
    print(f"Mean return: {sum(totals) / len(totals):.1f}")


if __name__ == "__main__":
    main()
