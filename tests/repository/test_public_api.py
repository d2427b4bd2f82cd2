"""The public API is the list `pgest.__all__`: each name documented, in the code and in the docs."""

import inspect
import re
from pathlib import Path

import pytest

import pgest

ROOT = Path(__file__).parent.parent.parent
REFERENCE = "\n".join(
    page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("api*.md"))
)
NAMES = sorted(name for name in pgest.__all__ if not name.startswith("__"))


def documented_in_reference(name: str) -> bool:
    """Whether the reference renders `name`, itself or as a member of its `::: pgest.module`."""
    return (
        re.search(rf"^(?:::: pgest(?:\.\w+)*\.| +- ){name}$", REFERENCE, re.MULTILINE) is not None
    )


def public_members(owner: type) -> list[str]:
    return [
        name
        for name, member in vars(owner).items()
        if not name.startswith("_")
        and (
            inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)
        )
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_has_a_docstring(name):
    assert inspect.getdoc(getattr(pgest, name)), f"pgest.{name} has no docstring"


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_in_the_reference(name):
    assert documented_in_reference(name), f"docs/api.md does not document {name}"


@pytest.mark.parametrize("name", [name for name in NAMES if inspect.isclass(getattr(pgest, name))])
def test_the_methods_have_docstrings(name):
    owner = getattr(pgest, name)
    bare = [
        member for member in public_members(owner) if not inspect.getdoc(getattr(owner, member))
    ]
    assert not bare, f"pgest.{name}: no docstring on {bare}"


def test_help_lists_every_name_those_of_tf_agents_last():
    listed = re.findall(r"\w+", pgest.__doc__)
    missing = [name for name in NAMES if name not in listed]
    assert not missing, f"the docstring of pgest does not list {missing}"
    places = [listed.index(name) for name in ("PGAgent", "BatchMemory", "BaseMonitor", "make")]
    assert places == sorted(places) and max(places) < listed.index("TFPolicy")


def test_the_reference_has_the_names_of_tf_agents_on_a_page_of_their_own():
    main, own = (ROOT / "docs" / "api.md", ROOT / "docs" / "api_tf_agents.md")
    own_group = pgest.__doc__.partition("users of TF-Agents look for")[2]
    for name in NAMES:
        page = own if re.search(rf"\b{name}\b", own_group) else main
        shown = page.read_text(encoding="utf-8")
        assert re.search(rf"^::: pgest\.{name}$", shown, re.MULTILINE), f"{page.name}: {name}"


def test_all_is_sorted_and_complete():
    assert len(set(pgest.__all__)) == len(pgest.__all__)
    imported = {
        name
        for name, value in vars(pgest).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert imported <= set(pgest.__all__), imported - set(pgest.__all__)


def test_the_reference_names_nothing_that_is_not_there():
    for path in re.findall(r"^::: pgest\.?([\w.]*)$", REFERENCE, re.MULTILINE):
        parts = path.split(".") if path else []
        module = "pgest"
        target: object = pgest
        for part in parts:
            if not hasattr(target, part):
                __import__(f"{module}.{part}")
            target = getattr(target, part)
            module = f"{module}.{part}"
