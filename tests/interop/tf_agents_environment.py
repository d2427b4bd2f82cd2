"""The Python that has TF-Agents: 0.19 needs TensorFlow 2.15, so a virtual environment of its own.

`PGEST_TF_AGENTS_PYTHON` names an interpreter that has it. Otherwise one is made, once, in
`.venvs/tf-agents` at the root of the repository, with a Python that TensorFlow 2.15 has wheels for.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

VARIABLE = "PGEST_TF_AGENTS_PYTHON"
DIRECTORY = Path(__file__).parent.parent.parent / ".venvs" / "tf-agents"
REQUIREMENTS = (
    "tf-agents==0.19.0",
    "tensorflow==2.15.1",
    "tf-keras==2.15.1",
    "tensorflow-probability==0.23.0",
)
# TensorFlow 2.15 has wheels for these, pgest runs on two of them.
VERSIONS = ((3, 10), (3, 11))


class NotAvailableError(Exception):
    """There is no TF-Agents here; the message says why."""


@functools.cache
def tf_agents_python() -> str:
    """The path of a Python with TF-Agents.

    Raises:
      NotAvailableError: there is none and none can be made.
    """
    given = os.environ.get(VARIABLE)
    if given:
        if not _has_tf_agents(given):
            raise NotAvailableError(f"{VARIABLE}={given} cannot import tf_agents")
        return given
    python = DIRECTORY / "bin" / "python"
    if python.exists() and _has_tf_agents(str(python)):
        return str(python)
    make(DIRECTORY)
    return str(python)


def make(directory: Path) -> None:
    """Makes the virtual environment (two gigabytes; minutes)."""
    creator = _suitable_python()
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    steps = (
        [creator, "-m", "venv", str(directory)],
        # gym 0.23, which TF-Agents asks for, is built from source by an older setuptools.
        [str(directory / "bin" / "pip"), "install", "--quiet", "setuptools<66", "wheel<0.40"],
        [str(directory / "bin" / "pip"), "install", "--quiet", *REQUIREMENTS],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(directory, ignore_errors=True)
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise NotAvailableError(f"{' '.join(step)} failed: {last}")


def run(program: str, *arguments: str) -> str:
    """Runs a program of this directory with TF-Agents' Python and returns what it printed."""
    path = Path(__file__).parent / program
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [tf_agents_python(), str(path), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=600,
    )
    if done.returncode != 0:
        raise AssertionError(f"{program} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def _suitable_python() -> str:
    if sys.version_info[:2] in VERSIONS:
        return sys.executable
    for major, minor in reversed(VERSIONS):
        found = shutil.which(f"python{major}.{minor}")
        if found:
            return found
    raise NotAvailableError("TF-Agents 0.19 needs Python 3.10 or 3.11, which is not here")


def _has_tf_agents(python: str) -> bool:
    done = subprocess.run([python, "-c", "import tf_agents"], capture_output=True, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    print(tf_agents_python())
