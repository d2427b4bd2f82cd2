"""The programs that people meet first, at their full length: they learn, with every seed.

`test_docs.py` and `test_examples.py` run the same programs with small budgets, which shows that
they run and nothing else.
"""

from pathlib import Path

import pytest

from tests.repository import test_docs

ROOT = Path(__file__).parent.parent.parent
SOLVED = 475.0  # gymnasium's own threshold for CartPole-v1


def printed_program(page: Path) -> str:
    """The Python of a page as its readers copy it: without the tests' budgets."""
    text = test_docs.BUDGET.sub("", page.read_text(encoding="utf-8"))
    found = test_docs.BLOCK.finditer(text)
    return "\n\n".join(match["code"] for match in found)


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_the_printed_program_solves_cartpole(name, seed, tmp_path, monkeypatch):
    """Nothing is changed but the seed, which the pages leave to chance."""
    monkeypatch.chdir(tmp_path)
    program = printed_program(ROOT / name)
    assert "60_000" in program
    start = "agent = pgest.PGAgent(\n    model_fn,\n"
    assert program.count(start) == 1
    seeded = f"{start}    config=pgest.RunConfig(tf_random_seed={seed}),\n"
    namespace: dict[str, object] = {"__name__": "__page__"}
    exec(program.replace(start, seeded), namespace)
    agent = namespace["agent"]
    assert agent.global_timestep == 60_000
    assert agent.config.tf_random_seed == seed
    assert agent.evaluate("CartPole-v1", episodes=20)["return_mean"] >= SOLVED
