"""The programs of the page for people from tf.estimator, run to their ends: the old and the new."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.repository import test_docs

PAGE = test_docs.ROOT / "docs" / "from_estimator.md"
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)

# gym as it was in 2018: reset gives the observation, step four values. It notes the lengths.
GYM = """
import gymnasium


class Environment:
    def __init__(self, env):
        self._env, self._seed = env, None

    def seed(self, seed):
        self._seed = seed

    def reset(self):
        seed, self._seed, self._length = self._seed, None, 0
        return self._env.reset(seed=seed)[0]

    def step(self, action):
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._length += 1
        if terminated or truncated:
            with open("lengths", "a") as file:
                file.write(f"{self._length}\\n")
        return observation, reward, terminated or truncated, info


def make(name):
    return Environment(gymnasium.make(name))
"""


def section(title):
    sections = dict(SECTION.findall(PAGE.read_text(encoding="utf-8")))
    return sections[title]


def run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__page__"}
    exec(compile(code, str(PAGE), "exec"), namespace)
    return namespace


def python_of(title):
    (block,) = [match["code"] for match in test_docs.BLOCK.finditer(section(title))]
    return block


@pytest.mark.learning
def test_the_old_program_learns(tmp_path):
    """It is TensorFlow 1's, which is still there as tf.compat.v1, with the layers of Keras 2."""
    (program,) = re.findall(
        r"^```py\n(.*?)^```", section("A REINFORCE of TensorFlow 1"), re.M | re.S
    )
    new = "import tensorflow.compat.v1 as tf\ntf.disable_v2_behavior()\n"
    assert "import tensorflow as tf\n" in program
    (tmp_path / "gym.py").write_text(GYM)
    (tmp_path / "old.py").write_text(program.replace("import tensorflow as tf\n", new))
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    command = [sys.executable, "old.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lengths = [int(line) for line in (tmp_path / "lengths").read_text().split()]
    assert np.mean(lengths[:20]) < 40 and np.mean(lengths[-10:]) > 150
    assert (tmp_path / "runs" / "reinforce" / "model.ckpt-50.index").exists()


@pytest.mark.learning
def test_the_new_program_learns(tmp_path, monkeypatch):
    names = run(python_of("A REINFORCE of TensorFlow 1"), tmp_path, monkeypatch)
    agent = names["agent"]
    assert agent.global_step == 50
    assert agent.evaluate("CartPole-v1", episodes=10)["return_mean"] > 150


@pytest.mark.learning
def test_the_classifier_is_a_policy_that_learns(tmp_path, monkeypatch):
    names = run(f"{IMPORTS}\n{python_of('A classifier becomes a policy')}", tmp_path, monkeypatch)
    results = names["results"]
    assert results["global_step"] == 60 and results["return_mean"] > 150
    assert 0.5 <= results["confidence"] <= 1.0
    assert list((tmp_path / "runs" / "classifier" / "export" / "best").glob("*/saved_model.pb"))


IMPORTS = """
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
import pgest
"""


def test_each_number_of_the_new_program_is_in_the_old_one_and_in_the_table():
    text = section("A REINFORCE of TensorFlow 1")
    old, _, rest = text.partition("The same, here:")
    new, _, table = rest.partition("| | before")
    comments = lambda code: {  # noqa: E731
        int(number)
        for line in re.findall(r"# ([\d, ]+)$", code, re.M)
        for number in line.split(",")
    }
    rows = {
        int(number)
        for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M)
        for number in row.split(",")
    }
    assert comments(old) == comments(new) == rows == set(range(1, 15))
