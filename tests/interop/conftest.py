"""Scripts that run in virtual environments of their own are no tests."""

import pathlib

collect_ignore = [
    path.name
    for path in pathlib.Path(__file__).parent.glob("*.py")
    if not path.name.startswith("test_")
]
