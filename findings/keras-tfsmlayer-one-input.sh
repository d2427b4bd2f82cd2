#!/usr/bin/env bash
# keras 3.15.1 on tensorflow-cpu 2.21.0: keras.layers.TFSMLayer opens a SavedModel signature of one
# input and cannot call one of several: by place it raises TypeError ("multiple values for argument
# 'training'"), by name TypeError ("missing a required argument: 'inputs'"). So a policy that takes an
# action mask or a recurrent state beside its observation is called with tf.saved_model.load instead.
# This script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install tensorflow-cpu==2.21.0 keras==3.15.1
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import keras
import tensorflow as tf

print("keras", keras.__version__, "tensorflow", tf.__version__)
a, b = tf.TensorSpec([None], name="a"), tf.TensorSpec([None], name="b")
module = tf.Module()
one = tf.function(lambda a: {"y": 2 * a}, input_signature=[a])
two = tf.function(lambda a, b: {"y": a + b}, input_signature=[a, b])
tf.saved_model.save(module, sys.argv[1] + "/m", signatures={"one": one, "two": two})
x = tf.constant([1.0])
layer = keras.layers.TFSMLayer(sys.argv[1] + "/m", call_endpoint="one")
print("one input:", layer(x)["y"].numpy())
layer = keras.layers.TFSMLayer(sys.argv[1] + "/m", call_endpoint="two")
failures = []
for name, call in (("by place", lambda: layer(x, x)), ("by name", lambda: layer(a=x, b=x))):
    try:
        print("two inputs", name, "gave", call())
    except Exception as error:
        failures.append(name)
        print("two inputs", name, "raised", type(error).__name__, str(error).splitlines()[0][:160])
assert failures == ["by place", "by name"]
direct = tf.saved_model.load(sys.argv[1] + "/m").signatures["two"](a=x, b=x)
assert float(direct["y"][0]) == 2.0
PYTHON
echo "seen again"
