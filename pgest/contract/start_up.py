"""Imports TensorFlow, in notebooks and commands without what it always says while it starts."""

import os
import re
import sys
import tempfile
from pathlib import Path

# No setting turns them off: TensorFlow says them before it reads TF_CPP_MIN_LOG_LEVEL.
_ALWAYS_SAID = re.compile(
    r"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    r"|Could not find cuda drivers|binary is optimized to use available CPU instructions"
    r"|To enable the following instructions"
    r"|failed call to cuInit: .*\(303\)"  # there is no driver, as on each machine without a GPU
)


def without_start_up_lines(said: str) -> str:
    r"""What is left of stderr's text: all but the lines that mean nothing.

    >>> without_start_up_lines("I0000 oneDNN custom operations are on.\nE0000 no memory\n")
    'E0000 no memory\n'
    """
    return "".join(line for line in said.splitlines(True) if not _ALWAYS_SAID.search(line))


def _is_a_command() -> bool:
    """Whether this process is `pgest ...` or `python -m pgest ...`."""
    return Path(sys.argv[0]).stem == "pgest" or sys.orig_argv[1:3] == ["-m", "pgest"]


def import_tensorflow() -> None:
    """Imports what pgest imports of TensorFlow.

    The lines would fill the first cell of a notebook, and stand above what a command prints. In
    other programs, and where the user has imported TensorFlow before, nothing is kept back.
    """
    is_a_command, is_a_notebook = _is_a_command(), bool(sys.modules.get("ipykernel"))
    if "tensorflow" in sys.modules or not (is_a_command or is_a_notebook):
        return
    # What XLA says of its own work; in a command, warnings as well.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if is_a_command else "1")
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow
            import tf_keras  # noqa: F401

            tensorflow.config.list_physical_devices("GPU")  # says now that there is no driver
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            sys.stderr.write(without_start_up_lines(said.read().decode(errors="replace")))


import_tensorflow()
