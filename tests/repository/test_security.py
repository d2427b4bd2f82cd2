"""What SECURITY.md promises: what pgest reads is data; only SavedModels are programs."""

import ast
import json
import os
import pickle

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from pgest.saved_policies import specs_proto
from pgest.variables import checkpoints
from tests import model_fns
from tests.agents.training_agents import make_agent
from tests.repository.test_layers import FILE_IDS, FILES, module_name, parse

PAGE = "SECURITY.md"

# Calls that run what they are given, and the modules that may make them.
RUNS_CODE = {
    "eval": set(),
    "exec": set(),
    "compile": set(),
    "__import__": set(),
    "yaml.load": set(),
    "yaml.unsafe_load": set(),
    "yaml.full_load": set(),
    "np.load": set(),
    "tf_keras.models.load_model": set(),
    "tf.saved_model.load": {"agents.policy_evaluation", "saved_policies.eager_policy"},
    # Of what a person names on the command line, and of optional libraries that pgest names.
    "importlib.import_module": {"commands.run_directories", "hooks.extras"},
}


@pytest.mark.parametrize("path", FILES, ids=FILE_IDS)
def test_nothing_that_is_read_is_run(path):
    problems = [
        f"line {node.lineno}: {ast.unparse(node.func)}"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and not (node.args and isinstance(node.args[0], ast.Constant))  # as written here
        and module_name(path) not in RUNS_CODE.get(ast.unparse(node.func), {module_name(path)})
    ]
    assert not problems, f"{problems}; {PAGE} says that data is never run"


class Touches:
    """Unpickling it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def bomb(tmp_path):
    """Bytes that leave a file where they are unpickled, and the path of that file."""
    path = tmp_path / "burst"
    payload = pickle.dumps(Touches(path))
    pickle.loads(payload).close()
    assert path.exists(), "the bomb is live"
    path.unlink()
    return payload, path


def hostile_checkpoint(directory, payload):
    """A checkpoint of a model that is trained, and what an attacker adds to it."""
    agent = make_agent()
    agent.train("CartPole-v1", max_steps=1)
    variables = {name: tf.Variable(value) for name, value in model_fns.weights(agent).items()}
    variables["a/string"] = tf.Variable([payload, b"__import__('os').system('true')"])
    variables["../../outside"] = tf.Variable(1.0)
    path = checkpoints.save(directory, variables, step=1)
    return path, model_fns.weights(agent)


def test_a_checkpoint_is_numbers_and_text(tmp_path, bomb):
    payload, burst = bomb
    path, weights = hostile_checkpoint(tmp_path / "run" / "deep", payload)
    assert checkpoints.read(path)["a/string"][0] == payload
    agent = make_agent()
    agent.train("CartPole-v1", max_steps=1)
    agent.evaluate("CartPole-v1", episodes=1, checkpoint_path=path)
    with pytest.warns(UserWarning, match="a/string of the checkpoint is not used"):
        warm = make_agent(warm_start_from=path, seed=1)
        warm.check("CartPole-v1")
    np.testing.assert_array_equal(warm.get_variable_value("dense/kernel"), weights["dense/kernel"])
    with pytest.raises(checkpoints.CheckpointMismatchError, match="only in the checkpoint: a/stri"):
        make_agent(model_dir=tmp_path / "run" / "deep").train("CartPole-v1", max_steps=2)
    assert not burst.exists()
    assert sorted(os.listdir(tmp_path)) == ["run"], "nothing is written beside it"


def test_files_that_name_others_are_text_and_lead_nowhere(tmp_path, bomb):
    payload, burst = bomb
    checkpoints.save(tmp_path / "elsewhere", {"a": tf.Variable(1.0)}, step=9)
    run = tmp_path / "run"
    path = checkpoints.save(run, {"a": tf.Variable(2.0)}, step=1)
    outside = f'model_checkpoint_path: "{tmp_path}/elsewhere/model.ckpt-9"\n'
    outside += f'all_model_checkpoint_paths: "{tmp_path}/elsewhere/model.ckpt-9"\n'
    for content in (outside.encode(), payload):
        (run / "checkpoint").write_bytes(content)
        assert checkpoints.latest(run) in (path, None)
    best = pgest.hooks.BestCheckpoint(str(run / "best"))
    best.keep(path, 5.0)
    record = {"return": 9.0, "checkpoint": "../../elsewhere/model.ckpt-9"}
    for content in (json.dumps(record).encode(), payload):
        (run / "best" / "best.json").write_bytes(content)
        assert pgest.hooks.BestCheckpoint(str(run / "best")).path is None
    assert not burst.exists()


@pytest.mark.parametrize(
    "name", ["x=open('burst','w')", "x, y=__import__('os').system('touch burst')", "class", "a\nb"]
)
def test_specs_are_text_that_names_no_code(tmp_path, monkeypatch, name, bomb):
    monkeypatch.chdir(tmp_path)
    spec = "tensor_spec_value { name: 'a' shape { } dtype: DT_FLOAT }"
    for kind, key in ((name, "a"), ("Known", name)):
        kind, key = (text.replace("\n", "\\n").replace("'", "\\'") for text in (kind, key))
        values = f"values {{ key: '{key}' value {{ {spec} }} }}"
        with pytest.raises(ValueError, match="identifier|keyword"):
            specs_proto.from_text(f"named_tuple_value {{ name: '{kind}' {values} }}")
    with pytest.raises(ValueError, match="not a StructuredValue"):
        specs_proto.from_text(bomb[0].decode("latin-1"))
    assert os.listdir(tmp_path) == []


def test_a_saved_model_is_a_program(tmp_path):
    """It writes a file when it acts, and pgest could not tell: so the page says so."""
    marker = tmp_path / "marker"

    def model_fn(features, labels, mode):
        written = tf.io.write_file(str(marker), "here")
        with tf.control_dependencies([written]):
            logits = tf.identity(tf_keras.layers.Dense(2)(features["state"]))
        distribution = tfp.distributions.Categorical(logits=logits)
        if mode == pgest.Modes.PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]))
        train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(1e-2))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    agent = make_agent(model_fn)
    agent.check("CartPole-v1")
    export = agent.export_saved_model(tmp_path / "exports")
    marker.unlink(missing_ok=True)
    loaded = tf.saved_model.load(export)
    observation = gymnasium.make("CartPole-v1").reset(seed=0)[0]
    loaded.signatures["serving_default"](tf.constant(observation[None]))
    assert marker.exists()
