"""The pages that `make docs` builds: complete without a network, equations drawn, none too long."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pgest

pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
pytest.importorskip("latex2mathml", reason="the extra docs is not installed")

ROOT = Path(__file__).parent.parent.parent
BUILDING = ROOT / "docs" / "building"
# Of a page's HTML. The reference was one page of a million once.
MOST_BYTES = 300_000

CODE = re.compile(r"<(pre|code|script|style|title)\b.*?</\1>", re.DOTALL)
LATEX = re.compile(r"\$\$|\\(?:[a-zA-Z]+|[,;|()\[\]])")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def pages(site: Path) -> dict[str, str]:
    found = sorted(site.rglob("*.html"))
    return {page.relative_to(site).as_posix(): page.read_text(encoding="utf-8") for page in found}


def text_of(page: str) -> str:
    """What readers see of a page, without its code."""
    article = re.search(r"<article.*?</article>", page, re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", CODE.sub(" ", article[0] if article else "")))


def raw_latex(page: str) -> list[str]:
    return LATEX.findall(text_of(page))


@pytest.mark.slow
def test_no_page_shows_raw_latex(site):
    shown = {name: raw_latex(page) for name, page in pages(site).items()}
    assert not {name: found for name, found in shown.items() if found}
    for name in ("vpg", "a2c", "ppo", "trpo"):
        assert "<math" in pages(site)[f"algorithms/{name}.html"]


def test_raw_latex_is_seen():
    page = r"<article><p>a \frac{1}{N}</p><pre>\n</pre><code>$$x$$</code></article>"
    assert raw_latex(page) == [r"\frac"]


@pytest.mark.slow
def test_pages_need_no_other_host(site):
    """Links may lead away; what a browser loads to show a page is all there."""
    loads = re.compile(
        r"<(?:script|img|iframe|video|source)\b[^>]*\bsrc=\"?(https?:[^\" >]+)"
        r"|<link\b[^>]*\bhref=\"?(https?:[^\" >]+)"
    )
    for name, page in pages(site).items():
        assert not loads.findall(page), name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.slow
def test_the_reference_has_a_page_for_each_class_and_module(site):
    listed = pages(site)["api.html"] + pages(site)["api_tf_agents.html"]
    for name in pgest.__all__:
        if name.startswith("__"):
            continue
        link = re.search(rf'<a href="(api/[^"#]+)[^"]*"><code>{name}</code></a>:\s*\w', listed)
        assert link, f"{name} has no link with a sentence"
        assert f'id="pgest.{name}"' in pages(site)[link[1]], name
    assert 'id="pgest.models.PPO"' in pages(site)["api/models.PPO.html"]
    long = {name: len(page) for name, page in pages(site).items() if len(page) > MOST_BYTES}
    assert not long


@pytest.mark.slow
def test_search_works_in_pages_opened_as_files(site):
    """The index is a script, and where browsers refuse a worker a frame stands in for it."""
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = ") and "api/BatchMemory.html" in index
    assert '<script src="iframe-worker.js">' in pages(site)["index.html"]
    assert (site / "iframe-worker.js").exists()


@pytest.mark.slow
def test_examples_of_docstrings_are_code(site):
    """Markdown would make quotations of `>>>`."""
    reference = {name: page for name, page in pages(site).items() if name.startswith("api/")}
    assert not [name for name, page in reference.items() if "<blockquote" in page]
    assert "memory.sample" in re.sub("<[^>]+>", "", reference["api/RolloutMemory.html"])


@pytest.mark.slow
def test_each_page_says_something_before_its_first_section(site):
    """Before a reader meets a table or a program, one sentence says what the page is about."""
    silent = []
    for name, page in pages(site).items():
        after = page.partition("</h1>")[2].lstrip()
        if name != "404.html" and not name.startswith("api/") and not after.startswith("<p>"):
            silent.append(name)
    assert not silent


@pytest.mark.slow
def test_versions_stand_beside_each_other(tmp_path):
    """`make docs-version`, twice, in a repository of its own."""
    pytest.importorskip("mike", reason="the extra docs is not installed")

    # mike calls mkdocs by its name.
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*command: object) -> str:
        given = [str(part) for part in command]
        result = subprocess.run(given, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A page\n", encoding="utf-8")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    # One page: the whole site takes long. What decides on versions stays as it is.
    settings = re.sub(r"^nav:\n.*?(?=^plugins:)", "nav: [index.md]\n", settings, flags=re.S | re.M)
    settings = re.sub(r"^  - docs/building/(?!versions).*\n", "", settings, flags=re.M)
    settings = settings.replace("docs/building/", f"{BUILDING}/")
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    run("git", "init", "--quiet")
    run("git", "config", "user.name", "Test")
    run("git", "config", "user.email", "test@example.org")
    run("git", "commit", "--quiet", "--allow-empty", "--message", "A repository")
    mike = (sys.executable, "-c", "from mike.driver import main; main()")
    run(*mike, "deploy", "0.1")
    run(*mike, "deploy", "--update-aliases", "0.2", "latest")
    run(*mike, "set-default", "latest")
    listed = json.loads(run("git", "show", "gh-pages:versions.json"))
    assert [(entry["version"], entry["aliases"]) for entry in listed] == [
        ("0.2", ["latest"]),
        ("0.1", []),
    ]
    for folder in ("0.1", "0.2", "latest"):
        assert '"provider": "mike"' in run("git", "show", f"gh-pages:{folder}/index.html")


@pytest.mark.slow
def test_pages_that_stand_alone_ask_for_no_versions(site):
    assert '"provider": "mike"' not in pages(site)["index.html"]


def test_an_equation_becomes_mathml_and_code_stays(monkeypatch):
    monkeypatch.syspath_prepend(BUILDING)
    import equations
    from mkdocs.exceptions import PluginError

    page = "so\n$$ r_t = \\frac{a}{b} $$\n```\n$$ echo $$\n```\nand `$$`, `$$`"
    built = equations.on_page_markdown(page)
    assert "<mfrac>" in built and "\\frac" not in built
    assert "```\n$$ echo $$\n```\nand `$$`, `$$`" in built
    with pytest.raises(PluginError, match=r"\\nosuch of the equation"):
        equations.on_page_markdown(r"$$ \nosuch{x} $$")
