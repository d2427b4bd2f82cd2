"""Runs a program without TensorFlow's start-up lines, which no setting turns off.

    python .ci/quietly.py examples/cartpole.py --seed 0

While TensorFlow is imported it says on stderr that there is no GPU, before it has read
TF_CPP_MIN_LOG_LEVEL. All that is said afterwards, by the program or by TensorFlow, is shown.
"""

import os
import runpy
import sys


def main():
    """Imports TensorFlow with stderr turned away, then runs the program."""
    stderr = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
