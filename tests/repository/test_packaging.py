"""What gets installed: both distributions, their metadata, and what an import costs."""

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


# What a build reads, and what the tests read besides.
FOLDERS = (".ci", "benchmarks", "docs", "examples", "pgest", "tests")
FILES = (
    ".dockerignore", "CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile", "LICENSE",
    "MANIFEST.in", "Makefile", "README.md", "SECURITY.md", "mkdocs.yml", "pyproject.toml",
    "setup.py",
)  # fmt: skip
# The build backend directly: no isolated environment, so nothing is downloaded.
BUILD = "import setuptools.build_meta as b; b.build_sdist('.'); b.build_wheel('.')"


def project_files() -> set[str]:
    found = {name for name in FILES if (ROOT / name).exists()}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(path.relative_to(ROOT).as_posix())
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with both distributions, built from a copy: nothing is left in the repository."""
    source = tmp_path_factory.mktemp("source")
    for name in project_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    result = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return source


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    (file,) = built.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_has_every_module_and_the_type_marker(wheel):
    inside = set(wheel.namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pgest").rglob("*")
        if path.suffix in (".py", ".yaml") or path.name == "py.typed"
    }
    assert "pgest/py.typed" in inside
    assert expected <= inside
    foreign = {name for name in inside if not name.startswith(("pgest/", "pgest-"))}
    assert not foreign


def test_the_source_distribution_has_what_its_tests_read(built):
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert set(FILES) <= project_files()
    assert not project_files() - inside


def test_the_metadata_says_which_pythons_and_extras(metadata):
    assert metadata["Name"] == "pgest"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"
    pythons = {
        line.rpartition(" ")[2]
        for line in metadata.get_all("Classifier")
        if line.startswith("Programming Language :: Python :: 3.")
    }
    assert pythons == {"3.10", "3.11", "3.12", "3.13"}
    assert set(metadata.get_all("Provides-Extra")) == {
        "envpool", "video", "plot", "tune", "wandb", "mlflow", "notebook", "mujoco", "box2d",
        "atari", "minatar", "docs", "dev", "peers",
    }  # fmt: skip


def test_the_readme_of_an_index_links_to_nothing_beside_it(metadata):
    """There is no `docs/` beside the page of a package index."""
    description = metadata.get_payload()
    relative = re.compile(r"\]\((?!https?://)")
    assert relative.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert not relative.search(description)
    assert "| Quickstart (`docs/quickstart.md`) | from an empty file" in description


def test_the_version_is_said_once(metadata):
    import pgest

    assert metadata["Version"] == pgest.__version__
    for name in ("pyproject.toml", "setup.py"):
        assert pgest.__version__ not in (ROOT / name).read_text(encoding="utf-8")
    assert f"## {pgest.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


OPTIONAL = (
    "matplotlib",
    "pandas",
    "torch",
    "IPython",
    "envpool",
    "mujoco",
    "cv2",
    "ale_py",
    "imageio_ffmpeg",
    "rliable",
    "optuna",
    "wandb",
    "mlflow",
)


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
