"""What gets installed: the wheel's content, its metadata, and what an import costs."""

import ast
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that no build directory is left in the repository."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for path in (ROOT / "pgest").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    # The build backend directly: no isolated environment, so nothing is downloaded.
    build = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", build, str(source)], cwd=source, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    (file,) = source.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_wheel_has_every_module_and_the_type_marker(wheel):
    inside = set(wheel.namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pgest").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert "pgest/py.typed" in inside
    assert expected <= inside
    foreign = {name for name in inside if not name.startswith(("pgest/", "pgest-"))}
    assert not foreign


def test_the_metadata_says_which_pythons_and_extras(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Name"] == "pgest"
    assert metadata["License"] == "MIT" or metadata["License-Expression"] == "MIT"
    pythons = {
        line.rpartition(" ")[2]
        for line in metadata.get_all("Classifier")
        if line.startswith("Programming Language :: Python :: 3.")
    }
    assert pythons == {"3.10", "3.11", "3.12", "3.13"}
    assert set(metadata.get_all("Provides-Extra")) == {
        "envpool", "notebook", "mujoco", "box2d", "atari", "docs", "dev", "peers",
    }  # fmt: skip


def test_pyproject_holds_only_tool_settings():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tables = set(re.findall(r"^\[+([\w-]+)", text, re.MULTILINE))
    assert tables == {"build-system", "tool"}


def test_the_version_is_said_once():
    import pgest

    # setup.py is read, not run: running it would need setuptools' command line.
    line = next(
        line
        for line in (ROOT / "setup.py").read_text(encoding="utf-8").splitlines()
        if line.startswith("VERSION")
    )
    assert pgest.__version__ == line.split('"')[1]
    assert f"## {pgest.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


OPTIONAL = ("matplotlib", "pandas", "torch", "IPython", "envpool", "mujoco", "cv2", "ale_py")


def test_import_needs_no_extra():
    """Only `import pgest` itself is at stake: tf_keras imports pandas where there is one."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r})); import pgest; "
        "print(pgest.__version__)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_no_module_imports_an_extra_when_it_is_imported():
    found = []
    for path in (ROOT / "pgest").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [f"{path.name}: {name}" for name in names if name.split(".")[0] in OPTIONAL]
    assert not found
