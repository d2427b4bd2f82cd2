#!/usr/bin/env bash
# ale-py 0.12.1 with gymnasium 1.3.0: the autoreset mode that one AtariVectorEnv announces is the one
# of the AtariVectorEnv made last, since the constructor writes into the metadata dict that
# gymnasium's VectorEnv holds for all of its subclasses.
#
# Seen: a SAME_STEP environment, made first, says SAME_STEP; once a NEXT_STEP one exists, the first
# says NEXT_STEP, and gymnasium's class VectorEnv itself carries the key. What steps the
# environment goes on as it was told, so whoever reads metadata (as gymnasium's own vector wrappers
# do) treats the first observation of the next episode as the last one of this.
# This script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install ale-py==0.12.1 gymnasium==1.3.0
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv

print("gymnasium", gymnasium.__version__, "before:", VectorEnv.metadata)
first = AtariVectorEnv("pong", num_envs=1, autoreset_mode=AutoresetMode.SAME_STEP)
alone = first.metadata["autoreset_mode"]
second = AtariVectorEnv("pong", num_envs=1, autoreset_mode=AutoresetMode.NEXT_STEP)
beside = first.metadata["autoreset_mode"]
print("the first environment's mode alone:", alone, "- beside a second one:", beside)
print("the class VectorEnv:", VectorEnv.metadata)
assert alone == AutoresetMode.SAME_STEP
assert beside == AutoresetMode.NEXT_STEP
assert first.metadata is VectorEnv.metadata is second.metadata
PYTHON
echo "seen again"
