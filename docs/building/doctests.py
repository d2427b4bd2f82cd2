"""Examples in docstrings are code on the pages; Markdown would take `>>>` for quotations."""

import re
from typing import Any

import griffe

# From the first prompt to the empty line behind the last result.
_SESSION = re.compile(r"^(?P<indent>[ ]*)>>> .*\n?(?:(?P=indent)[ ]*\S.*\n?)*", re.MULTILINE)


def fenced(docstring: str) -> str:
    """The docstring with a fence of backquotes around each session of Python."""

    def fence(found: re.Match[str]) -> str:
        indent, end = found["indent"], "\n" if found[0].endswith("\n") else ""
        return f"{indent}```pycon\n{found[0].rstrip()}\n{indent}```{end}"

    return _SESSION.sub(fence, docstring)


class Doctests(griffe.Extension):
    """Fences the examples of every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once an object has been read."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
