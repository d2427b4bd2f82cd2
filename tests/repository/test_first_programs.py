"""The programs that people meet first, at their full length: they learn, with every seed.

`test_docs.py` and `test_examples.py` run the same programs with small budgets, which shows that
they run and nothing else.
"""

import re
from pathlib import Path

import pytest

from tests.repository import test_docs, test_examples

ROOT = Path(__file__).parent.parent.parent
SOLVED = 475.0  # gymnasium's own threshold for CartPole-v1


def printed_program(page: Path) -> str:
    """The Python of a page as its readers copy it: without the tests' budgets."""
    text = test_docs.BUDGET.sub("", page.read_text(encoding="utf-8"))
    found = test_docs.BLOCK.finditer(text)
    return "\n\n".join(match["code"] for match in found)


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/quickstart.md"])
def test_the_printed_program_solves_cartpole(name, seed, tmp_path, monkeypatch):
    """Nothing is changed but the seed, which the pages leave to chance."""
    monkeypatch.chdir(tmp_path)
    program = printed_program(ROOT / name)
    assert "60_000" in program
    end = "    model_dir="
    assert program.count(end) == 1
    seeded = program.replace(end, f"    config=pgest.RunConfig(tf_random_seed={seed}),\n{end}")
    namespace: dict[str, object] = {"__name__": "__page__"}
    exec(seeded, namespace)
    agent = namespace["agent"]
    assert agent.global_timestep == 60_000
    assert agent.config.tf_random_seed == seed
    assert agent.evaluate("CartPole-v1", episodes=20)["return_mean"] >= SOLVED


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
def test_the_vectors_of_the_example_solve_cartpole(seed, tmp_path):
    """Three kinds of vectors, each trained as long as the program says."""
    output = test_examples.run("vector_environment.py", "--seed", str(seed), cwd=tmp_path)
    returns = [float(found) for found in re.findall(r"greedy return ([\d.]+)", output)]
    assert len(returns) == 3
    assert min(returns) >= SOLVED


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
def test_the_exported_policy_of_the_example_solves_cartpole(seed, tmp_path):
    test_examples.run("export_policy.py", "--seed", str(seed), "--model-dir", "run", cwd=tmp_path)
    output = test_examples.run("play_saved_policy.py", "run/export", cwd=tmp_path)
    assert float(re.search(r"Mean return: ([\d.]+)", output)[1]) >= SOLVED


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
def test_the_imitator_of_the_example_solves_cartpole(seed, tmp_path):
    output = test_examples.run("python_expert.py", "--seed", str(seed), cwd=tmp_path)
    assert float(output.split("The imitator's return: ")[1]) >= SOLVED


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
def test_the_rocket_of_the_example_learns_to_land(seed, tmp_path):
    """A landing at 1 m/s or less pays 1; one that never burned pays about 0.1."""
    output = test_examples.run("graph_environment.py", "--seed", str(seed), cwd=tmp_path)
    assert float(re.search(r"after: (-?[\d.]+)", output)[1]) >= 0.9


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
def test_the_hook_of_the_example_sees_the_whole_run(seed, tmp_path):
    """It ends the run at low entropy, or the limit does."""
    output = test_examples.run("custom_hook.py", "--seed", str(seed), cwd=tmp_path)
    assert re.search(r"done after [\d,]+ timesteps: \S", output)
    assert "failed" not in output
