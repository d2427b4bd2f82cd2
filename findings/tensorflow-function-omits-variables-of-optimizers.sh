#!/usr/bin/env bash
# tensorflow 2.21.0 with tf_keras 2.21.0: `variables` of a concrete function lists what was read through
# a variable's own methods. What an operation takes by its handle is captured and is not listed: with
# tf_keras.optimizers.legacy.Adam, which calls TensorFlow's ResourceApplyAdam, the moments are missing
# and the weight is there (the loss reads it); tf_keras.optimizers.Adam, of smaller operations, lists
# weight and moments. Who saves or copies `variables` to set a function back loses the moments.
# This script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install tensorflow-cpu==2.21.0 tf_keras==2.21.0
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1
cat >"$folder/program.py" <<'PYTHON'
import tensorflow as tf
import tf_keras


def listed(optimizer):
    weight = tf.Variable([1.0], name="weight")

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight**2)
        optimizer.apply_gradients([(tape.gradient(loss, weight), weight)])

    step()
    concrete = step.get_concrete_function()
    of_weight = {id(v) for v in concrete.variables if v.shape == [1]}
    return len(of_weight), sum(tensor.dtype == tf.resource for tensor in concrete.captured_inputs)


print("legacy", *listed(tf_keras.optimizers.legacy.Adam(0.1)))
print("present", *listed(tf_keras.optimizers.Adam(0.1)))
PYTHON
"$folder/venv/bin/python" "$folder/program.py" 2>/dev/null | tee "$folder/seen"
# How many variables of the weight's shape are listed, and how many resources are captured.
grep -q '^legacy 1 7$' "$folder/seen"
grep -q '^present 3 5$' "$folder/seen"
echo "seen again"
