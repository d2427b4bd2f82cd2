"""Equations become MathML when the pages are built: browsers draw it, without scripts or fonts."""

import re
from typing import Any

from latex2mathml import converter
from mkdocs.exceptions import PluginError

# A block of code stays as it is; an equation stands between two dollar signs on both sides.
_CODE_OR_EQUATION = re.compile(
    r"(?P<code>^(?P<fence>`{3,}).*?^(?P=fence)$|`[^`\n]+`)|\$\$(?P<latex>.+?)\$\$",
    re.DOTALL | re.MULTILINE,
)


def mathml(latex: str) -> str:
    r"""The equation as one line of HTML.

    Raises:
      PluginError: a command that has no translation; it would stand in the page as it was typed.
    """
    rendered = converter.convert(latex.strip(), display="block")
    left = re.search(r"\\\w+", rendered)
    if left is not None:
        raise PluginError(f"{left[0]} of the equation {latex.strip()!r} has no MathML.")
    return f'<div class="equation">{rendered}</div>'


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Translates the equations of a page."""
    return _CODE_OR_EQUATION.sub(
        lambda found: found["code"] or f"\n\n{mathml(found['latex'])}\n\n", markdown
    )
