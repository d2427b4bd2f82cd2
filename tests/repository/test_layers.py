"""The structure of the package: imports point down, files and functions stay small.

The tests read the source; they import nothing of pgest.
"""

import ast
from collections.abc import Collection
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
PACKAGE = REPOSITORY / "pgest"

# Bottom first. A room is a folder of the package, or a module of its own at the top. A module may
# import from the rooms of all lower floors and from rooms to the left on its own floor; within a
# room modules may import each other as long as there is no circle. A new room gets its place here.
FLOORS = (
    ("specs", "losses", "returns", "memory", "environments", "graph_environments", "variables"),
    ("schedules", "normalization", "distributions", "networks", "policies"),
    ("contract",),
    ("hooks", "models", "tracing"),
    ("saved_policies",),
    ("agents",),
    ("commands", "__main__"),
)
# Sends an environment's factory to a process that it starts; reads no file with it.
MAY_PICKLE = {"environments.asynchronous"}
# The public API; it only gathers names.
ROOT = "__init__"

MAX_FILE_LINES = 400  # below
MAX_BODY_LINES = 60
FORBIDDEN_WORDS = {"util", "utils", "common", "base", "core", "misc", "helper", "helpers", "types"}

PICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}

FILES = sorted(PACKAGE.rglob("*.py"))
FILE_IDS = [str(path.relative_to(PACKAGE)) for path in FILES]
each_file = pytest.mark.parametrize("path", FILES, ids=FILE_IDS)

# All Python of the project. Virtual environments may stand beside these folders.
FOLDERS = (".ci", "benchmarks", "docs", "examples", "pgest", "tests")
PATTERNS = ("*.py", *(f"{folder}/**/*.py" for folder in FOLDERS))
SOURCES = [path for pattern in PATTERNS for path in sorted(REPOSITORY.glob(pattern))]
SOURCE_IDS = [str(path.relative_to(REPOSITORY)) for path in SOURCES]


def module_name(path: Path) -> str:
    """`pgest/hooks/monitor.py` is `hooks.monitor`; `pgest/hooks/__init__.py` is `hooks`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        return ROOT
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_modules(
    tree: ast.Module, modules: Collection[str] = MODULES.keys()
) -> list[tuple[int, str]]:
    """All modules of pgest that a module imports, inside functions too, as (line, name).

    What is imported from the root (`import pgest`, `from pgest import PGAgent`) has the name ROOT.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            source = node.module or ""
            names = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first != "pgest":
                continue
            # `from pgest.contract.model_fn import Modes` names something inside a module.
            while rest and rest not in modules:
                rest = rest.rpartition(".")[0]
            found.append((node.lineno, rest or ROOT))
    return found


def room_of(module: str) -> str:
    return module.partition(".")[0]


def rank(module: str) -> tuple[int, int]:
    """The place of a module in FLOORS; higher may import lower."""
    for layer, entries in enumerate(FLOORS):
        if room_of(module) in entries:
            return layer, entries.index(room_of(module))
    raise KeyError(module)


def import_violations(module: str, imports: list[tuple[int, str]]) -> list[str]:
    problems = []
    for line, imported in imports:
        if imported == ROOT:
            problems.append(f"line {line} imports the package root")
        elif room_of(imported) == room_of(module):
            continue
        elif rank(imported) >= rank(module):
            problems.append(f"line {line} imports {imported}, which stands above {module}")
    return problems


def test_every_module_has_its_place():
    known = {room for floor in FLOORS for room in floor}
    unknown = {room_of(name) for name in MODULES} - known - {ROOT}
    assert not unknown, f"give {sorted(unknown)} a place in FLOORS"


@each_file
def test_imports_point_down(path):
    module = module_name(path)
    if module == ROOT:
        return
    assert not import_violations(module, imported_modules(parse(path)))


def test_the_check_sees_an_import_that_points_up():
    source = "from pgest import returns\nfrom pgest.agents.agent import PGAgent\nimport pgest\n"
    tree = ast.parse(source)
    imports = imported_modules(tree, modules=("returns", "agents.agent"))
    problems = import_violations("memory", imports)
    assert [problem.split(" ", 2)[:2] for problem in problems] == [["line", "2"], ["line", "3"]]


def test_there_is_no_import_cycle():
    graph = {
        name: {imported for _, imported in imported_modules(parse(path))} - {name}
        for name, path in MODULES.items()
        if name != ROOT
    }
    finished: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " imports ".join([*trail[trail.index(name) :], name])
        if name in finished:
            return
        for imported in sorted(graph.get(name, ())):
            visit(imported, (*trail, name))
        finished.add(name)

    for name in sorted(graph):
        visit(name, ())


@each_file
def test_imports_are_absolute(path):
    relative = [
        node.lineno
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not relative, f"relative imports in lines {relative}"


@each_file
def test_no_private_tensorflow_no_keras_3_no_pickle(path):
    problems = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        for name in names:
            if name.startswith(("tensorflow.python", "tf.python")):
                problems.append(f"line {node.lineno}: {name} is private")
            if name.startswith(("tf.keras", "tensorflow.keras", "keras.")) or name == "keras":
                problems.append(f"line {node.lineno}: {name} is Keras 3; use tf_keras")
            if name.split(".")[0] in PICKLES and module_name(path) not in MAY_PICKLE:
                problems.append(f"line {node.lineno}: {name} runs code when it reads a file")
    assert not problems


@each_file
def test_no_assert_and_no_bare_except(path):
    problems = [
        f"line {node.lineno}: {type(node).__name__}"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Assert)
        or (isinstance(node, ast.ExceptHandler) and node.type is None)
    ]
    assert not problems


@pytest.mark.parametrize("path", SOURCES, ids=SOURCE_IDS)
def test_files_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < MAX_FILE_LINES, f"{lines} lines"


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its signature and its docstring."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@each_file
def test_functions_fit_on_a_screen(path):
    too_long = {
        node.name: body_lines(node)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and body_lines(node) > MAX_BODY_LINES
    }
    assert not too_long


def test_file_names_are_nouns_and_unique():
    words = {name: set(name.replace(".", "_").split("_")) for name in MODULES if name != ROOT}
    forbidden = {name for name, parts in words.items() if parts & FORBIDDEN_WORDS}
    assert not forbidden
    stems = [path.stem for path in FILES if path.stem != "__init__"]
    repeated = {stem for stem in stems if stems.count(stem) > 1}
    assert not repeated


def test_the_project_files_do_not_name_a_machine():
    # Paths of one person's machine have no place in a package that others install.
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "/root/" not in text and "/home/" not in text, path
