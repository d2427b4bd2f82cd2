"""Checkpoints: what they hold, how they fall back, and what does not fit."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import pgest
from pgest.variables import checkpoints
from tests import model_fns


def make_agent(model_dir=None, model_fn=model_fns.policy_gradient, **arguments):
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None, jit_compile=False)
    return pgest.PGAgent(
        model_fn, pgest.BatchMemory(batch_size=32), model_dir=model_dir, config=config, **arguments
    )


def variables():
    return {"a/kernel": tf.Variable([1.0, 2.0]), "b.c": tf.Variable(3, dtype=tf.int64)}


def test_values_come_back_by_name_slashes_and_dots_included(tmp_path):
    path = checkpoints.save(tmp_path, variables(), step=7)
    assert os.path.basename(path) == "model.ckpt-7"
    values = checkpoints.read(path)
    assert set(values) == {"a/kernel", "b.c"}
    np.testing.assert_array_equal(values["a/kernel"], [1.0, 2.0])
    assert values["b.c"] == 3
    assert checkpoints.latest(tmp_path) == path
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".writing")]


def test_a_directory_can_be_copied_and_moved(tmp_path):
    values = variables()
    checkpoints.save(tmp_path / "run", values, step=1)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    values["a/kernel"].assign([8.0, 9.0])
    checkpoints.save(tmp_path / "run", values, step=2)
    path, read = checkpoints.read_newest(tmp_path / "copy")
    assert path == str(tmp_path / "copy" / "model.ckpt-1")
    np.testing.assert_array_equal(read["a/kernel"], [1.0, 2.0])
    assert tf.train.latest_checkpoint(tmp_path / "copy") == path
    os.rename(tmp_path / "run", tmp_path / "moved")
    assert checkpoints.latest(tmp_path / "moved") == str(tmp_path / "moved" / "model.ckpt-2")


def test_a_copy_whose_state_names_the_original_leaves_it_alone(tmp_path):
    """As tf.train writes it: with absolute paths."""
    original = checkpoints.save(tmp_path / "run", variables(), step=1)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    (tmp_path / "copy" / "checkpoint").write_text(
        f'model_checkpoint_path: "{original}"\nall_model_checkpoint_paths: "{original}"\n'
    )
    assert checkpoints.latest(tmp_path / "copy") == str(tmp_path / "copy" / "model.ckpt-1")
    checkpoints.save(tmp_path / "copy", variables(), step=2, keep_max=1)
    assert checkpoints.latest(tmp_path / "run") == original
    assert not os.path.exists(tmp_path / "copy" / "model.ckpt-1.index")


def test_old_checkpoints_are_swept(tmp_path):
    for step in range(5):
        checkpoints.save(tmp_path, variables(), step=step, keep_max=2)
    kept = [os.path.basename(path) for path in checkpoints.all_checkpoints(tmp_path)]
    assert kept == ["model.ckpt-3", "model.ckpt-4"]
    assert len([name for name in os.listdir(tmp_path) if name.endswith(".index")]) == 2


def test_one_in_so_many_hours_stays(tmp_path):
    for step in range(4):
        checkpoints.save(tmp_path, variables(), step=step, keep_max=1, keep_every_n_hours=0.0)
    assert len([name for name in os.listdir(tmp_path) if name.endswith(".index")]) == 4


def test_the_same_step_twice_does_not_overwrite(tmp_path):
    first = checkpoints.save(tmp_path, variables(), step=3)
    second = checkpoints.save(tmp_path, variables(), step=3)
    assert first != second
    assert checkpoints.latest(tmp_path) == second


@pytest.mark.parametrize(
    "damage", ["truncate data", "truncate index", "remove index", "empty data"]
)
def test_a_damaged_newest_one_falls_back_with_a_warning(tmp_path, damage):
    values = variables()
    older = checkpoints.save(tmp_path, values, step=1)
    values["a/kernel"].assign([8.0, 9.0])
    newer = checkpoints.save(tmp_path, values, step=2)
    index, data = f"{newer}.index", f"{newer}.data-00000-of-00001"
    if damage == "remove index":
        os.remove(index)
    else:
        file = index if "index" in damage else data
        os.truncate(file, 0 if "empty" in damage else os.path.getsize(file) // 2)
    with pytest.warns(UserWarning, match="model.ckpt-2.*model.ckpt-1"):
        path, read = checkpoints.read_newest(tmp_path)
    assert path == older
    np.testing.assert_array_equal(read["a/kernel"], [1.0, 2.0])


def test_when_none_can_be_read_it_says_so(tmp_path):
    path = checkpoints.save(tmp_path, variables(), step=1)
    os.truncate(f"{path}.data-00000-of-00001", 0)
    with pytest.raises(ValueError, match="No checkpoint in .* can be read"):
        checkpoints.read_newest(tmp_path)


def test_a_model_that_does_not_fit_lists_what_differs_and_overwrites_nothing(tmp_path):
    make_agent(tmp_path).train("CartPole-v1", max_steps=1)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(checkpoints.CheckpointMismatchError) as raised:
        make_agent(tmp_path, params={"units": 8}).train("CartPole-v1", max_steps=2)
    for line in (
        "dense/bias: (16,) in the checkpoint, (8,) in the model",
        "dense/kernel: (4, 16) in the checkpoint, (4, 8) in the model",
        "dense_1/kernel: (16, 2) in the checkpoint, (8, 2) in the model",
    ):
        assert line in str(raised.value)
    with pytest.raises(checkpoints.CheckpointMismatchError, match="only in the model: dense_2"):
        make_agent(tmp_path, model_fns.actor_critic).train("CartPole-v1", max_steps=2)
    after = [name for name in sorted(os.listdir(tmp_path)) if "events" not in name]
    assert after == [name for name in before if "events" not in name]


def test_warm_start_takes_over_what_fits_and_reports_the_rest(tmp_path):
    source = make_agent(tmp_path / "source")
    source.train("CartPole-v1", max_steps=2)
    warm = make_agent(model_fn=model_fns.actor_critic, warm_start_from=tmp_path / "source")
    with pytest.warns(UserWarning, match="took over") as warned:
        warm.check("CartPole-v1")
    (report,) = [str(warning.message) for warning in warned if "took over" in str(warning.message)]
    assert "took over 12 variables" in report
    assert "dense_2/kernel starts anew (none there)" in report
    assert "dense/kernel starts" not in report and "not used" not in report
    np.testing.assert_array_equal(
        warm.get_variable_value("dense/kernel"), source.get_variable_value("dense/kernel")
    )
    assert warm.global_step == 0


def test_warm_start_reports_other_shapes_and_what_is_left_over(tmp_path):
    make_agent(tmp_path, model_fns.actor_critic).train("CartPole-v1", max_steps=1)
    warm = make_agent(warm_start_from=tmp_path, params={"units": 8})
    with pytest.warns(UserWarning) as warned:
        warm.train("CartPole-v1", steps=1)
    report = "\n".join(str(warning.message) for warning in warned)
    assert "dense/kernel starts anew ((4, 16) there, (4, 8) here)" in report
    assert "dense_2/kernel of the checkpoint is not used" in report


@pytest.mark.slow
def test_an_agent_that_was_never_built_has_its_own_weights_after_an_evaluation_of_others(tmp_path):
    source = make_agent(tmp_path / "source")
    source.train("CartPole-v1", max_steps=3)
    path = source.latest_checkpoint()
    results = {}
    agents = {"untouched": make_agent(), "evaluated": make_agent()}
    agents["continued"] = make_agent(tmp_path / "source")
    source.train("CartPole-v1", max_steps=5)
    for name in ("evaluated", "continued"):
        results[name] = agents[name].evaluate("CartPole-v1", episodes=2, checkpoint_path=path)
        assert results[name]["global_step"] == 3, "of the weights that were evaluated"
        list(agents[name].predict(np.zeros([1, 4], np.float32), checkpoint_path=path))
    assert results["evaluated"] == results["continued"]
    for agent in agents.values():
        agent.check("CartPole-v1")
    for expected, name in ((agents["untouched"], "evaluated"), (source, "continued")):
        for variable, value in model_fns.weights(expected).items():
            np.testing.assert_array_equal(
                model_fns.weights(agents[name])[variable], value, err_msg=f"{name} {variable}"
            )


@pytest.mark.slow
def test_an_evaluation_refuses_the_checkpoint_of_another_model(tmp_path):
    source = make_agent(tmp_path)
    source.train("CartPole-v1", max_steps=1)
    other = make_agent(tmp_path, model_fns.actor_critic)
    with pytest.raises(checkpoints.CheckpointMismatchError, match="only in the model: dense_2"):
        other.evaluate("CartPole-v1", episodes=1)
    with pytest.raises(checkpoints.CheckpointMismatchError, match="only in the model: dense_2"):
        make_agent(model_fn=model_fns.actor_critic).evaluate(
            "CartPole-v1", episodes=1, checkpoint_path=source.latest_checkpoint()
        )


def with_probe(features, labels, mode, params):
    """EVAL has a trainable layer of its own."""
    spec = model_fns.policy_gradient(features, labels, mode, params)
    if mode != pgest.Modes.EVAL:
        return spec
    probe = tf_keras.layers.Dense(1, name="probe")(features["state"])
    return pgest.EstimatorSpec(mode, loss=tf.reduce_mean(probe))


@pytest.mark.slow
@pytest.mark.parametrize("first", ["train", "evaluate"])
def test_what_evaluation_alone_makes_is_in_no_checkpoint(tmp_path, first):
    agent = make_agent(tmp_path, with_probe)
    if first == "evaluate":
        agent.evaluate("CartPole-v1", episodes=1)
    agent.train("CartPole-v1", max_steps=1)
    loss = agent.evaluate("CartPole-v1", episodes=1)["loss"]
    agent.train("CartPole-v1", max_steps=2)
    assert not [name for name in checkpoints.read(agent.latest_checkpoint()) if "probe" in name]
    again = make_agent(tmp_path, with_probe)
    again.train("CartPole-v1", max_steps=3)
    assert np.isfinite(loss) and again.global_step == 3


def test_counters_are_readable_without_building_a_model(tmp_path):
    agent = make_agent(tmp_path)
    agent.train("CartPole-v1", max_steps=2)
    fresh = make_agent(tmp_path)
    assert fresh.global_step == 2
    assert fresh.global_timestep == agent.global_timestep
    assert fresh.get_variable_value("global_episode") == agent.global_episode
    assert sum(fresh.model.traces.values()) == 0
    assert "learning_rate" not in " ".join(fresh.get_variable_names())


@pytest.mark.slow
def test_a_seed_that_was_drawn_comes_back(tmp_path):
    config = pgest.RunConfig(log_step_count_steps=None, jit_compile=False)

    def agent(model_dir):
        memory = pgest.BatchMemory(batch_size=32)
        return pgest.PGAgent(model_fns.policy_gradient, memory, model_dir=model_dir, config=config)

    first = agent(tmp_path / "run")
    first.train("CartPole-v1", max_steps=1)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    ends = [model_fns.weights(agent(path).train("CartPole-v1", max_steps=3))
            for path in (tmp_path / "run", tmp_path / "again")]  # fmt: skip
    assert ends[0]["random_seed"] == ends[1]["random_seed"] == first.model.seed
    for name, value in ends[0].items():
        np.testing.assert_array_equal(ends[1][name], value, err_msg=name)
    given = make_agent(tmp_path / "run")
    given.check("CartPole-v1")
    assert given.model.seed == 0, "what a user passes beats the checkpoint"


class Faulty(gymnasium.Wrapper):
    """Raises at its tenth timestep after a number of good ones."""

    def __init__(self, env, good):
        super().__init__(env)
        self.left = good

    def step(self, action):
        self.left -= 1
        if self.left < 0:
            raise OSError("the robot is unplugged")
        return self.env.step(action)


def test_what_was_learnt_until_an_environment_fails_is_in_a_checkpoint(tmp_path):
    agent = make_agent(tmp_path)
    env = Faulty(gymnasium.make("CartPole-v1"), good=200)
    with pytest.raises(pgest.EnvironmentFailure, match="the robot is unplugged"):
        agent.train(env, max_steps=1000)
    assert agent.global_step > 0
    assert make_agent(tmp_path).global_step == agent.global_step


SCRIPT = textwrap.dedent("""
    import sys, time
    sys.path[:0] = {path!r}
    import pgest
    from tests import model_fns

    class Tell(pgest.hooks.BaseMonitor):
        def after_run(self, context):
            print("step", context.step, flush=True)
        def end(self, context):
            print("ended", flush=True)

    config = pgest.RunConfig(tf_random_seed=0, save_checkpoints_steps=1, jit_compile=False)
    agent = pgest.PGAgent(model_fns.policy_gradient, pgest.BatchMemory(batch_size=32),
                          model_dir={directory!r}, config=config)
    agent.train("CartPole-v1", max_steps={steps}, hooks=[Tell()])
    print("returned", agent.global_step, flush=True)
""")


def start(directory, steps=100_000):
    script = SCRIPT.format(path=sys.path, directory=str(directory), steps=steps)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    for line in process.stdout:
        if line.startswith("step 3"):
            return process
    raise RuntimeError(f"the run ended by itself with {process.wait()}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)]
)
def test_an_interrupted_run_ends_its_hooks_and_saves(tmp_path, number, code):
    process = start(tmp_path)
    process.send_signal(number)
    lines = process.stdout.read().split("\n")
    assert process.wait(timeout=120) == code
    assert "ended" in lines
    assert [line for line in lines if line][-1] == "ended"
    step = max([3, *(int(line.split()[1]) for line in lines if line.startswith("step"))])
    assert make_agent(tmp_path).global_step == step


def saved_step(directory):
    path = checkpoints.latest(directory)
    return 0 if path is None else int(path.rsplit("-", 1)[1])


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    process = start(tmp_path)
    deadline = time.monotonic() + 60.0
    while not saved_step(tmp_path) >= 2 and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread writes it
    process.kill()
    process.wait()
    agent = make_agent(tmp_path)
    assert agent.global_step >= 2
    steps = agent.global_step + 3
    agent.train("CartPole-v1", max_steps=steps)
    whole = make_agent().train("CartPole-v1", max_steps=steps)
    for name, value in model_fns.weights(whole).items():
        np.testing.assert_array_equal(model_fns.weights(agent)[name], value, err_msg=name)


def test_a_state_file_that_cannot_be_written_is_named_and_the_checkpoint_stays(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(OSError, match="is complete, but .*checkpoint'.* move what is in the way"):
        checkpoints.save(tmp_path, {"w": tf.Variable(1.0)}, step=3)
    assert checkpoints.latest(tmp_path) == str(tmp_path / "model.ckpt-3")
    (tmp_path / "checkpoint").rmdir()
    checkpoints.save(tmp_path, {"w": tf.Variable(2.0)}, step=4)
    assert tf.train.latest_checkpoint(tmp_path) == str(tmp_path / "model.ckpt-4")
