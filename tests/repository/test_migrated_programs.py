"""The programs of the page for people from tf.estimator: the old and the new say the same."""

import re

from tests.repository import test_docs

PAGE = test_docs.ROOT / "docs" / "from_estimator.md"
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def section(title):
    sections = dict(SECTION.findall(PAGE.read_text(encoding="utf-8")))
    return sections[title]


def test_each_number_of_the_new_program_is_in_the_old_one_and_in_the_table():
    text = section("A REINFORCE of TensorFlow 1")
    old, _, rest = text.partition("The same, here:")
    new, _, table = rest.partition("| | before")
    comments = lambda code: {  # noqa: E731
        int(number)
        for line in re.findall(r"# ([\d, ]+)$", code, re.M)
        for number in line.split(",")
    }
    rows = {
        int(number)
        for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M)
        for number in row.split(",")
    }
    assert comments(old) == comments(new) == rows == set(range(1, 15))
