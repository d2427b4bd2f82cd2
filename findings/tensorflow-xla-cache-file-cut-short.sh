#!/usr/bin/env bash
# tensorflow 2.21.0, XLA's persistent cache (--tf_xla_persistent_cache_directory): it writes a program
# straight into the file that later processes read, so a process that is ended meanwhile leaves a part
# of a file. Later processes do not compile anew then: the call that needs the program raises
# OutOfRangeError ("Read less bytes than requested"), or InvalidArgumentError ("Serialized cache key does
# not match") where the file is empty, and neither names the cache or the file. Once the file is
# deleted, the program is compiled again.
# This script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install tensorflow-cpu==2.21.0
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1
export TF_XLA_FLAGS=--tf_xla_persistent_cache_directory=$folder/cache
cd "$folder"
cat >program.py <<'PYTHON'
import tensorflow as tf

program = tf.function(lambda x: tf.tanh(x) * 2 + 1, jit_compile=True)
try:
    print(program(tf.ones([3])).numpy().round(3).tolist())
except tf.errors.OpError as error:
    print(type(error).__name__, error.message.split(" [Op")[0])
PYTHON
called() { venv/bin/python program.py 2>/dev/null | tee seen; }
called && grep -q '^\[2.523' seen
file=$(ls cache/*.pb)
truncate -s $(($(stat -c %s "$file") / 2)) "$file"
called && grep -q '^OutOfRangeError Read less bytes than requested$' seen
: >"$file"
called && grep -q '^InvalidArgumentError Serialized cache key does not match\.$' seen
rm "$file"
called && grep -q '^\[2.523' seen
echo "seen again"
