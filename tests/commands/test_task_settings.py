"""Settings of tasks: files, keys, schedules, and what is made of them."""

import math

import gymnasium
import pytest

import pgest
from pgest.commands import task_settings
from pgest.commands.task_settings import Settings, SettingsError


@pytest.mark.parametrize("algorithm, env_id", task_settings.tasks())
def test_each_file_makes_a_model_and_an_update(algorithm, env_id):
    assert env_id in gymnasium.registry or env_id.endswith("/*")
    settings = task_settings.tuned(algorithm, env_id)
    assert settings.source == f"tuned for {env_id}"
    assert isinstance(settings.model(), task_settings.MODELS[algorithm])
    settings.update(), settings.config(seed=0)
    assert settings.timesteps >= 20_000


def test_each_algorithm_has_defaults_for_other_tasks():
    for algorithm in task_settings.MODELS:
        settings = task_settings.tuned(algorithm, "Nowhere-v7")
        assert settings.source == f"{algorithm.upper()}'s defaults"
        settings.model(), settings.memory()


@pytest.mark.parametrize("env_id", ["ALE/Breakout-v5", "ale_py:ALE/Breakout-v5"])
def test_games_of_a_namespace_share_a_file(env_id):
    settings = task_settings.tuned("ppo", env_id)
    assert settings.source == "tuned for ALE/*"
    assert settings.values["preprocessing"] == "atari" and settings.num_envs == 8
    assert settings.memory().horizon == 128 and settings.update().minibatch_size == 256
    # The convolutions are all that stands below the policy.
    assert settings.model().share_network and settings.model().hidden_sizes == ()
    assert task_settings.tuned("a2c", env_id).num_envs == 16
    assert task_settings.tuned("trpo", env_id).source == "TRPO's defaults"


def test_what_cartpole_uses_with_ppo():
    settings = task_settings.tuned("ppo", "CartPole-v1")
    assert (settings.num_envs, settings.timesteps) == (8, 100_000)
    assert settings.memory().batch_size == 32
    update = settings.update()
    assert (update.discount, update.epochs, update.minibatch_size) == (0.98, 20, None)
    rate = settings.model().learning_rate
    # The line from 0.001 to 0: a quarter of the way on, 0.00075 is left.
    assert math.isclose(float(rate.function(0.25)), 0.00075, rel_tol=1e-5)


def test_the_running_return_of_rewards_has_the_discount_of_the_update():
    model = task_settings.tuned("ppo", "Hopper-v5").model()
    assert model.normalize_reward and model.reward_discount == 0.999
    assert model.hidden_sizes == (256, 256)


def test_target_kl_of_trpo_is_its_trust_region():
    settings = task_settings.tuned("trpo", "HalfCheetah-v5")
    assert settings.model().target_kl == 0.04 and settings.update().target_kl is None


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(SettingsError, match="'learning_rat': did you mean 'learning_rate'"):
        Settings("ppo", {"learning_rat": 1.0})
    with pytest.raises(SettingsError, match="no setting 'clip_ratio'"):
        Settings("a2c", {"clip_ratio": 0.2})


def test_a_value_that_does_not_fit_is_told():
    with pytest.raises(SettingsError, match="epochs is 0; expected a positive integer"):
        Settings("ppo", {"epochs": 0}).update()
    with pytest.raises(SettingsError, match="is no schedule"):
        Settings("ppo", {"learning_rate": "linear(fast)"}).model()
    with pytest.raises(SettingsError, match="horizon and batch_size"):
        Settings("ppo", {"horizon": 8, "batch_size": 8})


def test_another_kind_of_memory_replaces_the_tuned_one():
    settings = task_settings.tuned("ppo", "CartPole-v1").changed({"episodes": 4})
    memory = settings.memory()
    assert isinstance(memory, pgest.BatchMemory) and memory.episodes == 4


@pytest.mark.parametrize(
    "text, pair",
    [
        ("epochs=3", ("epochs", 3)),
        ("learning_rate=1e-3", ("learning_rate", 0.001)),  # a text in YAML 1.1
        ("minibatch_size=null", ("minibatch_size", None)),
        ("activation=relu", ("activation", "relu")),
    ],
)
def test_assignments(text, pair):
    assert task_settings.assignment(text) == pair


def test_an_assignment_without_a_value_is_told():
    with pytest.raises(SettingsError, match="expected key=value"):
        task_settings.assignment("epochs")


def test_files_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 2\nlearning_rate: 3e-4\n")
    assert task_settings.read(file) == {"epochs": 2, "learning_rate": 0.0003}
    file.write_text("- epochs\n")
    with pytest.raises(SettingsError, match="holds list; expected lines of `key: value`"):
        task_settings.read(file)
    with pytest.raises(SettingsError, match=r"nothing\.yaml cannot be read"):
        task_settings.read(tmp_path / "nothing.yaml")


def test_what_is_written_is_read_back():
    values = task_settings.tuned("ppo", "Hopper-v5").values
    assert task_settings.parsed(task_settings.written(values), "here") == values
