#!/usr/bin/env bash
# tensorflow-cpu 2.21.0: tf.one_hot takes its depth as int32, and a larger Python int or int64 is
# wrapped, not refused: a depth of 2**32 + 3 gives three columns and 2**40 gives none, without a word.
# So an observation of a large discrete space becomes a few columns of zeros.
# This script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install tensorflow-cpu==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PYTHON'
import tensorflow as tf

print("tensorflow", tf.__version__)
shapes = {}
for depth in (2**32 + 3, 2**40):
    shapes[depth] = tuple(tf.one_hot([1], depth).shape)
    print("depth", depth, "gives the shape", shapes[depth])
assert shapes == {2**32 + 3: (1, 3), 2**40: (1, 0)}
PYTHON
echo "seen again"
