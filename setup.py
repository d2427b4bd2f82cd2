"""The README as a package index shows it; all else about the package is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup

IMAGE = re.compile(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#]*)[^)]*\)")


def shown_elsewhere(readme: str) -> str:
    """Names the files that the README links to: a link into the checkout leads nowhere there."""
    return LINK.sub(r"\1 (`\2`)", IMAGE.sub("", readme))


setup(
    long_description=shown_elsewhere(Path(__file__).with_name("README.md").read_text("utf-8")),
    long_description_content_type="text/markdown",
)
