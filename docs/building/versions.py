"""The list of versions is on pages that `make docs-version` deploys, which have others beside."""

import os
from typing import Any


def on_config(config: Any) -> Any:
    """Pages of `make docs` stand alone: they ask no server for the versions that there are."""
    if "MIKE_DOCS_VERSION" in os.environ:
        config.extra["version"] = {"provider": "mike", "default": "latest"}
    return config
