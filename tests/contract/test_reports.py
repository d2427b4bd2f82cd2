"""What agents, checks and evaluations look like, in a program and in a real kernel."""

import os
from pathlib import Path

import pytest

from pgest.contract import reports, start_up
from tests.agents.training_agents import make_agent

AGENT = """
import sys
sys.path.insert(0, {root!r})
from tests.agents.training_agents import make_agent
agent = make_agent()
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> dict[str, list]:
    """The outputs of each cell; the kernel has none of the settings that quieten TensorFlow."""
    nbclient = pytest.importorskip("nbclient", reason="the extra notebook is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    setup = AGENT.format(root=str(Path(__file__).parent.parent.parent))
    cells = [
        "import pgest",
        setup,
        "agent.check('CartPole-v1')",
        "report = agent.check('CartPole-v1', timesteps=10)",
        "report",
        "agent",
        "agent.evaluate('CartPole-v1', episodes=2)",
        "agent.memory",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    quietening = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")
    env = {name: value for name, value in os.environ.items() if name not in quietening}
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path_factory.mktemp("nb")}}
    )
    client.execute(env=env)
    return {cell.source: cell.outputs for cell in notebook.cells}


@pytest.mark.slow
def test_the_first_import_says_nothing(outputs):
    assert outputs["import pgest"] == []


@pytest.mark.slow
def test_a_check_shows_once_in_a_notebook(outputs):
    for cell in ("agent.check('CartPole-v1')", "report = agent.check('CartPole-v1', timesteps=10)"):
        (shown,) = outputs[cell]
        assert shown.output_type == "display_data"
        assert "<td>reward</td>" in shown.data["text/html"]
        assert "dense/kernel" in shown.data["text/html"]
    (again,) = outputs["report"]
    assert "in 10 timesteps" in again.data["text/html"]


@pytest.mark.slow
def test_agents_evaluations_and_memories_show_in_a_notebook(outputs):
    (agent,) = outputs["agent"]
    assert "<td>memory</td><td>BatchMemory(" in agent.data["text/html"]
    (results,) = outputs["agent.evaluate('CartPole-v1', episodes=2)"]
    assert "<td>episodes</td><td>2</td>" in results.data["text/html"]
    assert results.data["text/plain"].startswith("{'return_mean'")
    (memory,) = outputs["agent.memory"]
    assert memory.data["text/plain"].startswith("BatchMemory(")


def test_what_is_shown_is_escaped():
    report = reports.CheckReport("a <b>", [("<i>", "1 & 2", "<u>")])
    assert "a &lt;b&gt;" in report._repr_html_()
    assert "<td>&lt;i&gt;</td><td>1 &amp; 2</td><td>&lt;u&gt;</td>" in report._repr_html_()
    assert repr(report).endswith("1 thing looked at in the environment, 1 fault>")
    assert "<u>" in report


def test_an_agent_is_a_table():
    shown = make_agent()._repr_html_()
    assert "<b>PGAgent</b>" in shown and "<td>tf_random_seed</td>" in shown


def test_results_are_a_dict():
    results = make_agent().evaluate("CartPole-v1", episodes=1)
    assert isinstance(results, dict) and results == dict(results)
    assert "<td>return_mean</td>" in results._repr_html_()
    assert {**results}["episodes"] == 1.0


def test_other_lines_of_tensorflow_are_kept():
    said = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1 1 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU ...\n"
        "E0000 00:00:1 1 cuda_dnn.cc:1] Unable to register cuDNN factory\n"
        "E0000 00:00:1 1 cuda_platform.cc:1] failed call to cuInit: INTERNAL: UNKNOWN ERROR (303)\n"
        "E0000 00:00:1 1 cuda_platform.cc:1] failed call to cuInit: INTERNAL: NO DEVICE (100)\n"
    )
    lines = said.splitlines(True)
    assert start_up.without_start_up_lines(said) == lines[2] + lines[4]


def test_a_program_prints_the_text(capsys):
    report = make_agent().check("CartPole-v1", timesteps=5)
    assert capsys.readouterr().out == report + "\n"
