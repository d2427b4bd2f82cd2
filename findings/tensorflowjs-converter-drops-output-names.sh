#!/usr/bin/env bash
# tensorflowjs 4.22.0 on tensorflow 2.19.0: the converter of SavedModels finds a signature's name of an
# output by its dtype and shape. Two outputs that share both, such as the h and c of an LSTM, lose their
# names: model.json calls them "Identity:0" and "Identity_1:0". An input that shares both with another
# gets ":0" behind its name. A third output, of a shape of its own, keeps its name.
# This script fails when that changes. (ydf is pinned: the converter imports it, and does not start with
# later ones.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
  tensorflow==2.19.0 tensorflowjs==4.22.0 ydf==0.11.0
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1
cd "$folder"
venv/bin/python - <<'PYTHON'
import tensorflow as tf

cell = tf.Module()
cell.kernel = tf.Variable(0.1 * tf.ones([2 + 3, 12]))


@tf.function(
    input_signature=[
        tf.TensorSpec([None, 2], name="x"),
        tf.TensorSpec([None, 3], name="h"),
        tf.TensorSpec([None, 3], name="c"),
    ],
    autograph=False,
)
def step(x, h, c):
    i, f, g, o = tf.split(tf.matmul(tf.concat([x, h], 1), cell.kernel), 4, 1)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    h = tf.sigmoid(o) * tf.tanh(c)
    return {"total": tf.reduce_sum(h, 1), "next_h": h, "next_c": c}


cell.step = step
tf.saved_model.save(cell, "lstm", signatures={"serving_default": step})
PYTHON
venv/bin/tensorflowjs_converter --input_format=tf_saved_model --signature_name=serving_default \
  lstm converted >log 2>&1 || { cat log; exit 1; }
venv/bin/python - <<'PYTHON'
import json

signature = json.load(open("converted/model.json"))["signature"]
inputs, outputs = sorted(signature["inputs"]), sorted(signature["outputs"])
print("inputs", inputs, "outputs", outputs)
assert inputs == ["c:0", "h:0", "x"], inputs
assert "total" in outputs and "next_h" not in outputs and "next_c" not in outputs, outputs
PYTHON
echo "seen again"
