"""What TensorBoard's HParams and text pages have of a sweep, asked of the plugin's own backend."""

import sys

import pytest
import tensorflow as tf
from tensorboard import context as tensorboard_context
from tensorboard.backend.event_processing import data_provider, event_accumulator
from tensorboard.backend.event_processing import plugin_event_multiplexer as multiplexers
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import (
    api_pb2,
    backend_context,
    get_experiment,
    list_session_groups,
)

import pgest
from tests import model_fns
from tests.agents.training_agents import make_agent


class Fails(pgest.BaseMonitor):
    def after_run(self, context):
        raise RuntimeError("on purpose")


def train(directory, model, memory, seed, env, **more):
    config = pgest.RunConfig(tf_random_seed=seed, jit_compile=False, log_step_count_steps=0)
    agent = pgest.PGAgent(model, memory, model_dir=directory, config=config)
    agent.train(env, steps=1, **more)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three runs that differ, the last of which fails."""
    directory = tmp_path_factory.mktemp("sweep")
    small, large = (pgest.models.A2C(hidden_sizes=sizes) for sizes in ((4,), (4, 4)))
    train(directory / "a", small, pgest.RolloutMemory(8), 0, "CartPole-v1")
    evaluation = pgest.EvaluationHook("CartPole-v1", pgest.Every(steps=1), episodes=1)
    environments = pgest.make("CartPole-v1", num_envs=2)
    memory = pgest.RolloutMemory(16)
    train(directory / "b", large, memory, 1, environments, hooks=[evaluation])
    other = pgest.models.VPG(hidden_sizes=(4,))
    with pytest.raises(RuntimeError, match="on purpose"):
        batch = pgest.BatchMemory(30)
        train(directory / "c", other, batch, 1, "Acrobot-v1", hooks=[Fails()])
    return directory


@pytest.fixture(scope="module")
def ask(sweep):
    """Asks a handler of the plugin, as its page does."""
    multiplexer = multiplexers.EventMultiplexer().AddRunsFromDirectory(str(sweep))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(sweep))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request_context = tensorboard_context.RequestContext()
    return lambda handler, request: handler(request_context, backend, "", request).run()


def test_the_columns_are_what_the_sweep_varies(ask):
    experiment = ask(get_experiment.Handler, api_pb2.GetExperimentRequest())
    differing = {info.name for info in experiment.hparam_infos if info.differs}
    chosen = {"algorithm", "environment", "hidden_sizes", "memory", "horizon", "num_envs", "seed"}
    assert chosen <= differing
    assert not {"normalize_advantage", "gae_lambda", "epochs"} & differing
    first = [info.name for info in experiment.hparam_infos[: len(differing)]]
    assert set(first) == differing, "the page ticks the first of them"
    metrics = [(info.name.tag, info.name.group) for info in experiment.metric_infos]
    assert ("episode/return", "eval") in metrics[:5]


def test_rows_have_all_values_and_how_the_run_ended(ask, sweep):
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=10,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_UNKNOWN],
    )
    groups = ask(list_session_groups.Handler, request).session_groups
    names = {f"{sweep.name}/{name} ({sweep.parent})": name for name in "abc"}
    assert {group.name for group in groups} == set(names)
    rows = {names[group.name]: group for group in groups}
    values = {
        row: {
            name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()
        }
        for row, group in rows.items()
    }
    assert values["a"]["hidden_sizes"] == "(4,)" and values["b"]["hidden_sizes"] == "(4, 4)"
    wanted = {"algorithm": "A2C", "memory": "RolloutMemory", "horizon": 16, "num_envs": 2}
    wanted |= {"environment": "CartPole-v1", "seed": 1, "target_kl": "None"}
    assert {name: values["b"][name] for name in wanted} == wanted
    wanted = {"algorithm": "VPG", "memory": "BatchMemory", "batch_size": 30, "seed": 1}
    assert {name: values["c"][name] for name in wanted} == wanted
    ends = {row: [session.status for session in group.sessions] for row, group in rows.items()}
    success, failure = api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE
    assert ends == {"a": [success], "b": [success], "c": [failure]}


def test_evaluations_have_descriptions(sweep):
    events = event_accumulator.EventAccumulator(str(sweep / "b" / "eval")).Reload()
    for tag in events.Tags()["tensors"]:
        known = pgest.hooks.EVALUATION_TAGS[tag]
        assert events.SummaryMetadata(tag).summary_description == known


def test_the_text_page_has_settings_versions_and_the_command(sweep):
    events = event_accumulator.EventAccumulator(str(sweep / "b")).Reload()
    assert events.SummaryMetadata("run").plugin_data.plugin_name == "text"
    (point,) = events.Tensors("run")
    text = point.tensor_proto.string_val[0].decode()
    assert "| hidden_sizes | (4, 4) |" in text and "| horizon | 16 |" in text
    assert "| tf_random_seed | 1 |" in text
    assert f"| pgest | {pgest.__version__} |" in text
    assert f"| tensorflow | {tf.__version__} |" in text
    assert text.startswith("    python") and sys.orig_argv[-1] in text


def test_params_of_the_user_hide_nothing_of_theirs(tmp_path):
    agent = make_agent(model_fns.policy_gradient, params={"seed": "mine", "epochs": 7})
    found = agent.hyperparameters
    assert (found["seed"], found["epochs"]) == ("mine", 7)
    assert found["algorithm"] == "policy_gradient" and found["memory"] == "BatchMemory"
