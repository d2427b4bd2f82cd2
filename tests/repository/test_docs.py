"""The Python of README.md and docs/ runs, page by page, and the pages keep what they promise.

All ```python blocks of a page run one after the other in one namespace, in an empty directory.
Comments before a block change that; none shows on the page:

* `<!-- budget: 200_000 -> 2_000 -->` replaces numbers, so that a test takes seconds and readers see
  the numbers that make sense to them. What is to be replaced must occur in the block.
* `<!-- needs: optuna -->`: the block runs where that package is installed.
* `<!-- fragment -->`: the block is a piece of something and does not run. Rare; counted below.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pgest.hooks import summaries

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAX_FRAGMENTS = 6

BLOCK = re.compile(
    r"(?P<marks>(?:[ ]*<!--[^\n]*-->\n)*)"
    r"(?P<indent>[ ]*)```python[^\n]*\n(?P<code>.*?)\n(?P=indent)```",
    re.DOTALL,
)
NEEDS = re.compile(r"<!-- needs: (\w+) -->")
BUDGET = re.compile(r"<!-- budget: (.+?) -> (.+?) -->")


def blocks(page: Path) -> list[tuple[int, str]]:
    """The blocks of a page that run, as (line of the page, code)."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        if "<!-- fragment -->" in match["marks"]:
            continue
        if any(importlib.util.find_spec(name) is None for name in NEEDS.findall(match["marks"])):
            continue
        code = budgeted(match, page)
        line = text.count("\n", 0, match.start("code")) + 1
        found.append((line, code))
    return found


def budgeted(match: re.Match, page: Path) -> str:
    """The code of a block, with the numbers that its marks give for tests."""
    code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
    for old, new in BUDGET.findall(match["marks"]):
        assert old in code, f"{page.name}: the budget replaces {old!r}, which is not there"
        code = code.replace(old, new)
    return code


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


PAGES_THAT_RUN = [page for page in PAGES if blocks(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_THAT_RUN, ids=page_id)
def test_the_python_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__page__"}
    for line, code in blocks(page):
        # Empty lines in front make the traceback name the line of the page.
        program = compile("\n" * (line - 1) + code, str(page), "exec")
        exec(program, namespace)


def test_fragments_are_rare():
    fragments = [
        f"{page_id(page)}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if line.strip() == "<!-- fragment -->"
    ]
    assert len(fragments) <= MAX_FRAGMENTS, fragments


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [
        page_id(page)
        for page in PAGES[1:]
        if page.relative_to(ROOT / "docs").as_posix() not in navigation
    ]
    assert not missing


def test_the_files_that_pages_name_exist():
    """Paths such as `examples/cartpole.py` in backquotes or links are there."""
    missing = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"\b((?:examples|benchmarks|tests|pgest)/[\w/]+\.(?:py|md))", text):
            if not (ROOT / path).exists():
                missing.append(f"{page_id(page)}: {path}")
    assert not missing


def test_the_thirty_line_program_is_thirty_lines():
    """The README promises it; imports and blank lines count."""
    first = blocks(ROOT / "README.md")[0][1]
    assert len(first.splitlines()) <= 32


def test_the_twelve_lines_of_the_front_page_are_twelve():
    first = blocks(ROOT / "docs" / "index.md")[0][1]
    assert len(first.splitlines()) == 12


def test_the_page_on_tensorboard_has_all_tags():
    page = (ROOT / "docs" / "tensorboard.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", page, re.MULTILINE)
    assert dict(rows) == dict(summaries.TAGS)


def test_a_page_that_fails_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "text\n\n<!-- budget: 5_000 -> 7 -->\n```python\nlimit = 5_000\n```\n\n"
        "<!-- fragment -->\n```python\n...!\n```\n\n"
        "1. x\n\n    ```python\n    assert limit == 5_000\n    ```\n"
    )
    (first, second) = blocks(page)
    assert first == (5, "limit = 7")
    assert second == (16, "assert limit == 5_000")
    program = "\n".join(code for _, code in (first, second))
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "AssertionError" in result.stderr
