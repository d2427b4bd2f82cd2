"""The recipes of docs/recipes.md: commands run, programs are complete, the Dockerfile fits.

Programs that need nothing more run in `test_docs.py`; the others run here, in environments of their
own.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pgest.commands import program
from tests.interop import own_environments
from tests.repository import test_docs

ROOT = Path(__file__).parent.parent.parent
PATH = ROOT / "docs" / "recipes.md"
PAGE = PATH.read_text(encoding="utf-8")
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BASH = re.compile(r"(?P<marks>(?:<!--[^\n]*-->\n)*)```bash\n(?P<code>.*?)\n```", re.DOTALL)
# What makes a training short: all algorithms take the first, PPO the second too.
SHORT = "-p num_envs=1 horizon=32 hidden_sizes=[8]"
SHORT_OF = {
    "train": "--timesteps 64 --eval-episodes 1 --quiet",
    "tune": "--evaluations 1 --eval-episodes 1",
}
ELSEWHERE = {
    "wandb": own_environments.TRACKERS,
    "mlflow": own_environments.TRACKERS,
    "supersuit": own_environments.ENVIRONMENTS,
}


def commands() -> list[str]:
    """The lines that call pgest or Python, with the tests' budgets, in the order of the page."""
    found = []
    for block in BASH.finditer(PAGE):
        code = block["code"]
        for old, new in test_docs.BUDGET.findall(block["marks"]):
            assert old in code, f"the budget replaces {old!r}, which is not there"
            code = code.replace(old, new)
        found += [line for line in code.splitlines() if line.startswith(("pgest ", "python "))]
    return found


def shortened(words: list[str]) -> list[str]:
    """The arguments of a command of pgest, for tests."""
    if words[0] not in SHORT_OF:
        return words
    short = SHORT + (" epochs=1" if "ppo" in words else "")
    return words + shlex.split(f"{short} {SHORT_OF[words[0]]}")


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(tmp_path, monkeypatch):
    for module in ("imageio_ffmpeg", "pygame", "matplotlib", "optuna"):
        pytest.importorskip(module, reason="the extras plot, tune and video are not installed")
    monkeypatch.chdir(tmp_path)
    assert len(commands()) == 9
    for command in commands():
        called, *words = shlex.split(command)
        if called == "python":
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
            assert done.stdout.startswith("["), done.stderr
            continue
        result = CliRunner().invoke(program.pgest, shortened(words))
        assert result.exit_code == 0, f"{command}\n{result.output}"
    for made in ("cartpole.mp4", "curves.png", "runs/tune-ppo-CartPole-v1/best.yaml"):
        assert (tmp_path / made).stat().st_size > 0
    seeds = sorted(path.name for path in (tmp_path / "runs/a2c-CartPole-v1").iterdir())
    assert seeds == ["seed0", "seed1", "seed2"]


def test_each_recipe_has_something_to_copy():
    sections = SECTION.split(PAGE)[1:]
    recipes = dict(zip(sections[::2], sections[1::2], strict=True))
    assert len(recipes) == 11
    for name, text in recipes.items():
        assert "```" in text, name


def test_each_program_is_complete():
    """It imports what it uses: who copies it needs nothing that stands elsewhere on the page."""
    programs = [match["code"] for match in test_docs.BLOCK.finditer(PAGE)]
    assert len(programs) == 10
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", "-"]
    for code in programs:
        done = subprocess.run(command, input=code, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"


def program_that_needs(module: str) -> str:
    """The program of the page with that mark, with the tests' budgets."""
    (found,) = [
        match
        for match in test_docs.BLOCK.finditer(PAGE)
        if module in test_docs.NEEDS.findall(match["marks"])
    ]
    return test_docs.budgeted(found, PATH)


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize("module", ELSEWHERE)
def test_the_program_runs_where_the_library_is(module, tmp_path):
    try:
        python = ELSEWHERE[module].python()
    except own_environments.NotAvailableError as reason:
        pytest.skip(f"no {module}: {reason}")
    environments = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    (adapter,) = re.findall(
        r"```python\n(import gymnasium[^`]*class FromSuperSuit.*?)```", environments, re.DOTALL
    )
    (tmp_path / "from_supersuit.py").write_text(adapter, encoding="utf-8")
    (tmp_path / "recipe.py").write_text(program_that_needs(module), encoding="utf-8")
    done = subprocess.run(
        [python, "recipe.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert {"wandb": "wandb", "mlflow": "mlflow.db", "supersuit": "runs"}[module] in left


def instructions(name: str) -> list[str]:
    """The arguments of one kind of instruction of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{name} (.+)$", text, re.MULTILINE)


@pytest.mark.slow
def test_what_the_dockerfile_copies_is_all_that_its_installation_needs(tmp_path):
    """Its pip, in a folder that holds what is copied; what pgest needs is not fetched again."""
    for copied in instructions("COPY"):
        *sources, target = copied.split()
        # A folder's content goes into the target, files go beside each other.
        target_path = tmp_path / target
        for source in sources:
            into = target_path if (ROOT / source).is_dir() else target_path / source
            subprocess.run(["cp", "-r", ROOT / source, into], check=True)
    (install,) = [run for run in instructions("RUN") if run.startswith("pip install")]
    assert shlex.split(install)[-1] == ".[plot,tune,video]"
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--target", tmp_path / "installed"]
    pip = [sys.executable, "-m", *shlex.split(install)[:-1], *options, "."]
    done = subprocess.run(pip, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (entry,) = shlex.split(instructions("ENTRYPOINT")[0].strip("[]"))
    assert (tmp_path / "installed" / "bin" / entry).exists()
    assert (tmp_path / "installed/pgest/commands/tuned/ppo/CartPole-v1.yaml").exists()


def test_the_image_gets_nothing_but_what_it_copies():
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {source for line in instructions("COPY") for source in line.split()[:-1]}
    assert kept == copied
    assert all((ROOT / source).exists() for source in copied)


def test_the_page_runs_the_image_as_the_dockerfile_means():
    built = re.findall(r"docker run .*?pgest (\w+)", PAGE.replace("\\\n", ""))
    assert built == ["train", "enjoy"]
    assert set(built) <= set(program.pgest.commands)
    assert instructions("WORKDIR")[-1] == "/runs" and PAGE.count('-v "$PWD/runs:/runs"') == 2
