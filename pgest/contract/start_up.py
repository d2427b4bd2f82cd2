"""Imports TensorFlow, in a notebook without the lines that it always says while it starts."""

import os
import re
import sys
import tempfile

# No setting turns them off: TensorFlow says them before it reads TF_CPP_MIN_LOG_LEVEL.
_ALWAYS_SAID = re.compile(
    r"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    r"|Could not find cuda drivers|binary is optimized to use available CPU instructions"
    r"|To enable the following instructions"
)


def without_start_up_lines(said: str) -> str:
    r"""What is left of stderr's text: all but the lines that mean nothing.

    >>> without_start_up_lines("I0000 oneDNN custom operations are on.\nE0000 no memory\n")
    'E0000 no memory\n'
    """
    return "".join(line for line in said.splitlines(True) if not _ALWAYS_SAID.search(line))


def import_tensorflow() -> None:
    """Imports what pgest imports of TensorFlow.

    The lines would fill the first cell of a notebook. In other programs, and where the user has
    imported TensorFlow before, nothing is kept back.
    """
    if "tensorflow" in sys.modules or sys.modules.get("ipykernel") is None:
        return
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
            import tf_keras  # noqa: F401
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            sys.stderr.write(without_start_up_lines(said.read().decode(errors="replace")))


import_tensorflow()
