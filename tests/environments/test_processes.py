"""Views of environments in processes of their own."""

import os
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv

from pgest.environments import making
from tests.environments.environment_fakes import (
    CountingEnv,
    DyingEnv,
    MethodMaskedEnv,
    ModulesEnv,
    SlowEnv,
    cartpole,
    failing_first,
    fails_in_the_second,
    raises_at_once,
    trajectories,
)


@pytest.fixture(scope="module")
def asynchronous():
    with making.make(cartpole, 2, vectorization="async") as view:
        yield view


def test_processes_give_exactly_the_transitions_of_the_loop(asynchronous):
    asynchronous.seed = 8
    assert asynchronous.is_vector and asynchronous.owned
    asynchronous.reset(episode=3)
    loop = making.view(cartpole, seed=8, num_envs=2)
    loop.reset(episode=3)
    assert trajectories(asynchronous, 80) == trajectories(loop, 80)


def test_processes_are_spawned_and_outlive_a_ctrl_c_of_the_terminal(asynchronous):
    processes = asynchronous._vector.processes
    assert [type(process).__name__ for process in processes] == ["SpawnProcess"] * 2
    asynchronous.reset()
    for process in processes:
        os.kill(process.pid, signal.SIGINT)
    for _ in range(3):
        asynchronous.observe()
        asynchronous.step(np.zeros(2, np.int64))
    assert all(process.is_alive() for process in processes)


def test_processes_import_neither_pgest_nor_tensorflow():
    with making.make(ModulesEnv, 1, vectorization="async", length=1) as view:
        view.observe()
        modules = view.step(np.zeros(1, np.int64)).infos[0]
    assert modules == {"tensorflow": 0.0, "pgest": 0.0, "gymnasium": 1.0}


def test_a_failure_in_a_process_names_the_environment_and_does_not_hang():
    with making.make(fails_in_the_second, 2, vectorization="async") as view:
        view.observe()
        view.step(np.zeros(2, np.int64))
        view.observe()
        with pytest.raises(
            making.EnvironmentFailure,
            match=r"(?s)Environment 1 .*UnpicklableError.*raise Unpick.*timestep 2",
        ) as caught:
            view.step(np.zeros(2, np.int64))
        assert caught.value.env_index == 1
    assert not any(process.is_alive() for process in view._vector.processes)


@pytest.mark.parametrize("dying", [0, 1])
def test_a_process_that_dies_in_a_step_is_named_and_does_not_hang(dying):
    with making.make(DyingEnv, 2, vectorization="async") as view:
        view.observe()
        with pytest.raises(
            making.EnvironmentFailure,
            match=f"Environment {dying} .*exit code 139.*timestep 0",
        ) as caught:
            view.step(np.arange(2) == dying)
        assert caught.value.env_index == dying
    assert not any(process.is_alive() for process in view._vector.processes)


def test_a_process_that_was_killed_is_named_and_does_not_mask_the_failure():
    with pytest.raises(making.EnvironmentFailure, match="Environment 1 .*exit code -9"):
        with making.make(CountingEnv, 2, vectorization="async") as view:
            view.observe()
            view._vector.processes[1].kill()
            view._vector.processes[1].join()
            view.step(np.zeros(2, np.int64))
    assert not any(process.is_alive() for process in view._vector.processes)


def test_a_view_whose_process_has_died_says_so_again():
    with making.make(DyingEnv, 2, vectorization="async") as view:
        view.observe()
        with pytest.raises(making.EnvironmentFailure):
            view.step(np.array([0, 1]))
        match = "Environment 1 .*process has died, with the exit code 139; make the environments an"
        for again in (view.observe, view.reset):
            with pytest.raises(making.EnvironmentFailure, match=match) as caught:
                again()
            assert caught.value.env_index == 1


def interrupted_after(seconds, function, *arguments):
    """Calls what an impatient second Ctrl-C breaks off."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(KeyboardInterrupt):
            function(*arguments)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "in_order"), [(600.0, False), (1.0, True)])
def test_leaving_after_an_interrupted_step_ends_the_processes_within_seconds(
    tmp_path, seconds, in_order
):
    path = tmp_path / "closed"
    with making.make(SlowEnv, 2, vectorization="async", seconds=seconds, path=str(path)) as view:
        view.observe()
        interrupted_after(0.5, view.step, np.zeros(2, np.int64))
        with pytest.raises(making.EnvironmentFailure, match="earlier call was interrupted before"):
            view.observe()
        start = time.monotonic()
    assert time.monotonic() - start < 15
    assert not any(process.is_alive() for process in view._vector.processes)
    assert path.exists() == in_order, "who answers in time closes its environment"


def test_an_environment_that_cannot_be_made_says_so():
    with pytest.raises(OSError, match="no licence"):
        making.make(raises_at_once, 2, vectorization="async")


def test_a_registration_of_this_process_alone_reaches_the_others():
    gymnasium.register("PgestCounting-v0", entry_point=CountingEnv, max_episode_steps=1)
    with making.make("PgestCounting-v0", 1, vectorization="async", length=9) as view:
        view.observe()
        assert view.step(np.zeros(1, np.int64)).truncated.tolist() == [True]


SCRIPT = """
import pgest
pgest.make("CartPole-v1", 1, vectorization="async")
"""


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_what_to_do(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode != 0
    assert 'only under `if __name__ == "__main__":`' in run.stderr


def test_in_processes_the_last_observation_outlives_the_reset_of_a_reused_array():
    with making.make(CountingEnv, 2, vectorization="async", length=2) as view:
        for _ in range(2):
            view.observe()
            transition = view.step(np.zeros(2, np.int64))
    assert transition.next_observation.tolist() == [[2, 1], [2, 1]]


def test_masks_from_processes_through_a_method():
    with making.make(MethodMaskedEnv, 2, vectorization="async", length=2) as view:
        for step in [0, 1, 0, 1]:
            view.observe()
            assert view.action_mask.tolist() == [[step == 0, step == 1, False]] * 2
            view.step(np.full(2, step))


def test_a_process_of_the_user_that_fails_is_named():
    vector = AsyncVectorEnv([CountingEnv, failing_first], context="spawn")
    view = making.view(vector, seed=0)
    view.observe()
    view.step(np.zeros(2, np.int64))
    with pytest.raises(making.EnvironmentFailure, match="Environment 1 .*gear"):
        view.step(np.zeros(2, np.int64))
    vector.close()
