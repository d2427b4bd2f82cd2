"""Plays with what PolicySaverHook wrote: numpy in, numpy out, in two ways.

python examples/export_policy.py --model-dir runs/exported
python examples/play_with_numpy.py runs/exported --episodes 5
"""

import argparse

import gymnasium

import pgest


def play(act, env, episodes):
    """The mean return of `act`, a function of (observation, whether an episode begins)."""
    total = 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=1000 + episode)
        first, ended = True, False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(act(observation, first))
            total += float(reward)
            first, ended = False, terminated or truncated
    return total / episodes


def main():
    """Loads policies and plays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="model_dir of the run, or a directory of policies")
    parser.add_argument("--episodes", type=int, default=5)
    arguments = parser.parse_args()
    env = gymnasium.make("CartPole-v1")

    # The short way: a player takes observations and remembers the state of a recurrent policy.
    for step in (None, *pgest.saved_steps(arguments.directory)):
        policy = pgest.load_policy(arguments.directory, step)
        player = policy.player()
        mean = play(player, env, arguments.episodes)
        print(f"Step {policy.get_train_step():>5}: mean return {mean:.1f}")

    # Step by step, as TF-Agents has it: time steps, policy steps, a state that is handed on.
    policy = pgest.load_policy(arguments.directory, kind="collect_policy")
    observation, _ = env.reset(seed=1000)
    time_step, state = pgest.restart(observation), policy.get_initial_state()
    total = 0.0
    while not time_step.is_last():
        step = policy.action(time_step, state, seed=int(total))  # without a seed: another each time
        state = step.state
        observation, reward, terminated, truncated, _ = env.step(step.action)
        total += float(reward)
        if terminated:
            time_step = pgest.termination(observation, reward)
        elif truncated:
            time_step = pgest.truncation(observation, reward)
        else:
            time_step = pgest.transition(observation, reward)
    print(f"An exploring episode: return {total:.0f}, log-probability of the last action "
          f"{step.info.log_probability:.3f}")  # fmt: skip
    print("Metadata:", {name: int(value) for name, value in policy.get_metadata().items()})


if __name__ == "__main__":
    main()
