"""What a `with` statement around a saver does."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TypeVar

_LOGGER = logging.getLogger(__name__)

_Self = TypeVar("_Self", bound="Closing")


class Closing:
    """Closes at the end of a `with` statement; an error of the statement is not masked by it."""

    def close(self) -> None:
        """Writes what is still to be written; raises what failed."""
        raise NotImplementedError

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception:
            # The error that is under way matters more.
            _LOGGER.exception("Saving a policy failed.")
