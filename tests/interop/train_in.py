"""Run by the environments' Python, with pgest: whole lives of agents in them.

Arguments: an empty directory, and the environments' names. In each an agent trains, is evaluated,
exported, and resumed by another agent, and what pgest stored is what the environment has written
down. Writes `<name>.json`, the number of timesteps stored an environment and run; or `<name>.txt`,
what went wrong.
"""

import json
import pathlib
import sys
import traceback
import warnings

import gymnasium
import numpy as np
import recorded_environments
import tensorflow as tf

import pgest

HORIZON = 16
UPDATES = (3, 2)  # of the first agent, and of the one that goes on


class Kept(pgest.RolloutMemory):
    """Keeps a copy of every row that it is given, a list for each environment."""

    def __init__(self):
        super().__init__(horizon=HORIZON)
        self.rows = []

    def step_vector(self, values, acted=None):
        """Keeps it."""
        num_envs = len(values["terminated"])
        self.rows = self.rows or [[] for _ in range(num_envs)]
        for number in range(num_envs):
            if acted is None or acted[number]:
                row = tf.nest.map_structure(lambda leaf, at=number: np.array(leaf[at]), values)
                self.rows[number].append(row)
        super().step_vector(values, acted)

    def bootstrap(self, columns, values):
        """Keeps the value with the row that it follows."""
        for column, value in zip(columns, values, strict=True):
            self.rows[column][-1]["bootstrap"] = value
        super().bootstrap(columns, values)


def make_agent(directory):
    memory = Kept()
    model = pgest.models.PPO(hidden_sizes=(8,), learning_rate=1e-3)
    config = pgest.RunConfig(
        model_dir=directory, tf_random_seed=1, log_step_count_steps=None, jit_compile=False
    )
    return pgest.PGAgent(model, memory, {"epochs": 1}, config=config), memory


def assert_stored(memory, env, steps, before=None):
    """Everything that pgest stored is what the environment did, in order and without a gap.

    A plain environment in whose episode the run goes on is first taken to where it stood, by the
    same actions: its record begins with the end of the one `before`.
    """
    assert len(memory.rows) == len(env.record)
    assert sum(map(len, memory.rows)) >= steps * HORIZON * len(memory.rows)
    for number, (rows, record) in enumerate(zip(memory.rows, env.record, strict=True)):
        again, record = record[: len(record) - len(rows)], record[len(record) - len(rows) :]
        assert not again or before is not None
        for row, wanted in zip(again, before[number][-len(again) :] if again else (), strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, row, wanted)
        assert any(row["terminated"] or row["truncated"] for row in record)
        for row, wanted in zip(rows, record, strict=True):
            assert_same_timestep(row, wanted, env)


def assert_same_timestep(row, wanted, env):
    space = getattr(env, "single_action_space", env.action_space)
    tf.nest.map_structure(np.testing.assert_array_equal, row["state"], wanted["state"])
    action = row["action"]
    if isinstance(space, gymnasium.spaces.Box):
        action = np.clip(action, space.low, space.high)
    np.testing.assert_array_equal(action, wanted["action"])
    assert row["reward"] == np.float32(wanted["reward"])
    assert bool(row["terminated"]) == bool(wanted["terminated"])
    assert bool(row["truncated"]) == bool(wanted["truncated"])
    mask = wanted.get("action_mask", ())
    assert ("action_mask" in row) == bool(np.size(mask))
    if np.size(mask):
        np.testing.assert_array_equal(row["action_mask"], np.asarray(mask, bool))
        assert mask[int(wanted["action"])]


def assert_bootstrapped(memory, env):
    """What follows a cut is valued at the observation that the environment gave there.

    Of the first batch, whose weights another agent of the same seed is born with.
    """
    agent, _ = make_agent(None)
    cut = []
    for rows, record in zip(memory.rows, env.record, strict=True):
        for at, (row, wanted) in enumerate(zip(rows[:HORIZON], record[:HORIZON], strict=True)):
            if "bootstrap" in row:  # of the horizon's, the update makes some itself
                cut.append(row | {"state": wanted["next"]})
            else:
                assert at == HORIZON - 1 or wanted["terminated"] or not wanted["truncated"]
    if cut:
        found = [row["value"] for row in predicted(agent, cut, env)]
        wanted = [row["bootstrap"] for row in cut]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def assert_evaluated(agent, env):
    """The mean of what the environment paid in its first episodes."""
    episodes = max(2, len(env.record))
    results = agent.evaluate(env, episodes=episodes)
    returns = []
    for record in env.record:
        paid = np.array([row["reward"] for row in record], np.float64)
        ends = np.flatnonzero([row["terminated"] or row["truncated"] for row in record])
        returns += [part.sum() for part in np.split(paid, ends + 1)][: episodes // len(env.record)]
    assert len(returns) == episodes
    np.testing.assert_allclose(results["return_mean"], np.mean(returns), rtol=1e-6)


def live(name, directory):
    make = recorded_environments.MAKERS[name]
    env = make()
    agent, memory = make_agent(directory)
    agent.train(env, steps=UPDATES[0])
    assert_stored(memory, env, UPDATES[0])
    assert_bootstrapped(memory, env)
    assert_evaluated(agent, make())
    path = agent.export_saved_model(f"{directory}/exports")
    first = [rows[0] for rows in memory.rows]
    expected = [row["environment_action"] for row in predicted(agent, first)]
    np.testing.assert_allclose(served(path, first), expected, rtol=1e-4, atol=1e-5)

    weights = {name: agent.get_variable_value(name) for name in agent.get_variable_names()}
    before, env = env.record, make()
    resumed, memory_of_resumed = make_agent(directory)
    resumed.train(env, max_steps=UPDATES[0])  # no more: what was saved is what was there
    for variable, value in weights.items():
        np.testing.assert_array_equal(resumed.get_variable_value(variable), value, variable)
    resumed.train(env, steps=UPDATES[1])
    assert resumed.global_step == sum(UPDATES)
    assert_stored(memory_of_resumed, env, UPDATES[1], before)
    return [list(map(len, kept.rows)) for kept in (memory, memory_of_resumed)]


def stacked(rows, name):
    return tf.nest.map_structure(lambda *leaves: np.stack(leaves), *[row[name] for row in rows])


def predicted(agent, rows, env=None):
    mask = stacked(rows, "action_mask") if "action_mask" in rows[0] else None
    return list(agent.predict(stacked(rows, "state"), env=env, action_mask=mask))


def served(path, rows):
    """What TensorFlow alone makes of an export and the rows' observations."""
    loaded = tf.saved_model.load(path)
    serve = loaded.signatures["serving_default"]
    inputs = {"observation": stacked(rows, "state")}
    if "action_mask" in rows[0]:
        inputs["action_mask"] = stacked(rows, "action_mask")
    elif isinstance(inputs["observation"], dict):
        inputs = inputs["observation"]
    if len(inputs) > 1:
        inputs = {f"observation_{key}": leaf for key, leaf in inputs.items()}
    wanted = serve.structured_input_signature[1]
    assert sorted(wanted) == sorted(inputs)
    return serve(**{name: tf.constant(leaf) for name, leaf in inputs.items()})["action"].numpy()


def main(directory, *names):
    # Told where episodes under way cannot be gone on with, as in vector environments.
    warnings.filterwarnings("ignore", "The run goes on from")
    for name in names:
        result = pathlib.Path(directory, name)
        try:
            stored = live(name, f"{directory}/runs/{name}")
        except Exception:  # whatever went wrong is the result
            result.with_suffix(".txt").write_text(traceback.format_exc())
        else:
            result.with_suffix(".json").write_text(json.dumps(stored))


if __name__ == "__main__":
    main(*sys.argv[1:])
