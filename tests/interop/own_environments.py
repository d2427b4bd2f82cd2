"""Virtual environments of their own for libraries that pgest is tried with and does not need.

Each is made once, in `.venvs/<name>` at the root of the repository, and anew when its requirements
change. `PGEST_<NAME>_PYTHON` names an interpreter that has the libraries, and nothing is made then.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DIRECTORY = ROOT / ".venvs"


class NotAvailableError(Exception):
    """The libraries are not here; the message says why."""


@dataclasses.dataclass(frozen=True)
class OwnEnvironment:
    """A Python with some libraries.

    Attributes:
      name: of its directory, and of the variable that names another.
      modules: what it must be able to find.
      requirements: what is installed into it.
      first: what is installed before, to build the others with.
      versions: the Pythons that it can be made with, the best last; () is the one that runs.
      node: packages for node, installed by npm into `node_modules` of the Python's directory.
    """

    name: str
    modules: tuple[str, ...]
    requirements: tuple[str, ...]
    first: tuple[str, ...] = ()
    versions: tuple[tuple[int, int], ...] = ()
    node: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that names an interpreter."""
        return f"PGEST_{self.name.upper().replace('-', '_')}_PYTHON"

    def python(self) -> str:
        """The path of a Python with the libraries.

        Raises:
          NotAvailableError: there is none and none can be made.
        """
        found = _python(self)
        if isinstance(found, NotAvailableError):
            raise found
        return found

    def run(self, program: str, *arguments: str, timeout: float = 600, with_pgest=False) -> str:
        """Runs a program of this directory there and returns what it printed."""
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        environment.pop("PYTHONPATH", None)
        if with_pgest:
            environment["PYTHONPATH"] = str(ROOT)
        command = [self.python(), str(HERE / program), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=timeout
        )
        if done.returncode != 0:
            raise AssertionError(f"{program} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout


# What pgest needs, with plots.
_OF_PGEST = (
    "tensorflow-cpu==2.21.0",
    "tf-keras==2.21.0",
    "tensorflow-probability==0.25.0",
    "tensorboard==2.21.0",
    "gymnasium==1.4.0",
    "setuptools>=68",
    "tqdm",
    "PyYAML",
    "click",
    "matplotlib",
)
TF_AGENTS = OwnEnvironment(
    "tf-agents",
    modules=("tf_agents",),
    requirements=(
        "tf-agents==0.19.0",
        "tensorflow==2.15.1",
        "tf-keras==2.15.1",
        "tensorflow-probability==0.23.0",
    ),
    # gym 0.23, which TF-Agents asks for, is built from source by an older setuptools.
    first=("setuptools<66", "wheel<0.40"),
    # TensorFlow 2.15 has wheels for these, pgest runs on two of them.
    versions=((3, 10), (3, 11)),
)
CONVERTERS = OwnEnvironment(
    "converters",
    modules=("ai_edge_litert", "bentoml", "keras", "onnxruntime", "openvino", "tf2jax", "tf2onnx"),
    requirements=(
        "tensorflow-cpu==2.21.0",
        "tf-keras==2.21.0",
        "ai-edge-litert==2.3.0",
        "bentoml==1.4.40",
        "jax==0.10.2",
        "onnxruntime==1.32.0",
        "openvino==2026.4.1",
        "tf2jax==0.3.8",
        "tf2onnx==1.17.0",
    ),
)
# Used beside the packages of the Python that runs the tests.
SIMULATORS = OwnEnvironment(
    "simulators",
    modules=("ale_py", "cv2", "minatar", "mujoco"),
    requirements=("gymnasium[atari,mujoco]>=1.1", "opencv-python-headless>=4.8", "MinAtar>=1.0.15"),
)
# They ask for older versions of what is in pgest's own environment: python-dateutil, pandas.
TRACKERS = OwnEnvironment(
    "trackers",
    modules=("gymnasium", "mlflow", "rliable", "tensorflow_probability", "wandb"),
    requirements=(
        *_OF_PGEST,
        "mlflow==3.17.2",
        "pandas<3",
        "rliable==1.2.0",
        "wandb==0.31.0",
    ),
)
ENVIRONMENTS = OwnEnvironment(
    "environments",
    modules=(
        *("ale_py", "envpool", "gymnasium_robotics", "highway_env", "minigrid", "mo_gymnasium"),
        *("pettingzoo", "shimmy", "supersuit"),
    ),
    requirements=(
        "tensorflow-cpu==2.21.0",
        "tf-keras==2.21.0",
        "tensorflow-probability==0.25.0",
        "tensorboard==2.21.0",
        "tqdm",
        "setuptools<81",
        "gymnasium==1.4.0",
        "ale-py==0.12.1",
        "dm-control==1.0.50",
        # dm-control would take 4.0, in which its environments do not load.
        "mujoco==3.17.0",
        "envpool==1.2.5",
        "gymnasium-robotics==1.4.2",
        "highway-env==1.12.1",
        "minigrid==3.2.0",
        "mo-gymnasium==1.3.2",
        "pettingzoo==1.27.0",
        "shimmy==2.0.1",
        "supersuit==3.11.0",
    ),
)
TENSORFLOWJS = OwnEnvironment(
    "tensorflowjs",
    modules=("tensorflowjs",),
    requirements=(
        "tensorflowjs==4.22.0",
        # Its decision forests want this TensorFlow, whose protobuf is too old for a later ydf.
        "tensorflow==2.19.0",
        "tf-keras==2.19.0",
        "ydf==0.11.0",
        "setuptools<81",
    ),
    versions=((3, 10), (3, 11), (3, 12)),  # of TensorFlow 2.19
    node=("@tensorflow/tfjs@4.22.0",),
)
# Many packages of exact versions, which the others should not have to agree with.
RAY = OwnEnvironment(
    "ray",
    modules=("gymnasium", "matplotlib", "pandas", "ray", "tensorflow_probability"),
    requirements=(
        *_OF_PGEST,
        "ray[train,tune]==2.60.0",
    ),
)
_ALL = (TF_AGENTS, CONVERTERS, ENVIRONMENTS, RAY, SIMULATORS, TENSORFLOWJS, TRACKERS)
OF_NAME = {environment.name: environment for environment in _ALL}


@functools.cache
def _python(environment: OwnEnvironment) -> str | NotAvailableError:
    """Tried once a process, since it takes minutes to find out that there is none."""
    try:
        return _found_or_made(environment)
    except NotAvailableError as reason:
        return reason


def _found_or_made(environment: OwnEnvironment) -> str:
    given = os.environ.get(environment.variable)
    if given:
        if not _finds(given, environment.modules):
            modules = ", ".join(environment.modules)
            raise NotAvailableError(f"{environment.variable}={given} cannot import {modules}")
        return given
    directory = DIRECTORY / environment.name
    python = directory / "bin" / "python"
    stamp = directory / "requirements.txt"
    made = stamp.exists() and stamp.read_text() == _stamp(environment)
    if not (made and _finds(str(python), environment.modules)):
        _make(environment, directory)
        stamp.write_text(_stamp(environment))
    return str(python)


def _stamp(environment: OwnEnvironment) -> str:
    return "\n".join([*environment.first, *environment.requirements, *environment.node, ""])


def _make(environment: OwnEnvironment, directory: Path) -> None:
    """Makes the virtual environment (some gigabytes; minutes)."""
    creator = _suitable_python(environment)
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(directory / "bin" / "pip"), "install", "--quiet"]
    steps = [[creator, "-m", "venv", str(directory)]]
    steps += [[*pip, *wanted] for wanted in (environment.first, environment.requirements) if wanted]
    if environment.node:
        if shutil.which("npm") is None:
            raise NotAvailableError(f"{environment.name} needs node and npm, which are not here")
        npm = ["npm", "install", "--silent", "--no-save", "--prefix", str(directory)]
        steps.append([*npm, *environment.node])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(directory, ignore_errors=True)
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise NotAvailableError(f"{' '.join(step)} failed: {last}")


def _suitable_python(environment: OwnEnvironment) -> str:
    if not environment.versions or sys.version_info[:2] in environment.versions:
        return sys.executable
    for major, minor in reversed(environment.versions):
        found = shutil.which(f"python{major}.{minor}")
        if found:
            return found
    names = " or ".join(f"{major}.{minor}" for major, minor in environment.versions)
    raise NotAvailableError(f"{environment.name} needs Python {names}, which is not here")


def _finds(python: str, modules: tuple[str, ...]) -> bool:
    program = "import sys, importlib.util as u; sys.exit(None in map(u.find_spec, sys.argv[1:]))"
    try:
        done = subprocess.run([python, "-c", program, *modules], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    print(OF_NAME[sys.argv[1]].python())
