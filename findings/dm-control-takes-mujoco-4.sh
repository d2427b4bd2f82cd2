#!/usr/bin/env bash
# dm_control 1.0.50 asks for mujoco>=3.17.0 without an upper bound, so pip takes mujoco 4.0.0 beside
# it, and the first environment fails to load: AttributeError, 'MjModel' object has no attribute
# 'flex_vertedge'. With mujoco 3.17.0 it loads and steps.
# This script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat >"$folder/load.py" <<'PYTHON'
from importlib import metadata

from dm_control import suite

print("dm_control", metadata.version("dm_control"), "mujoco", metadata.version("mujoco"))
try:
    environment = suite.load("cartpole", "swingup")
    environment.reset()
    print("loads; a step gives", environment.step([0.0]).step_type.name)
except AttributeError as error:
    print("AttributeError:", error)
PYTHON
install() { "$folder/venv/bin/pip" --quiet --disable-pip-version-check install dm_control==1.0.50 "mujoco==$1"; }
install 4.0.0
MUJOCO_GL=disable "$folder/venv/bin/python" "$folder/load.py" | tee "$folder/new"
install 3.17.0
MUJOCO_GL=disable "$folder/venv/bin/python" "$folder/load.py" | tee "$folder/old"
grep -q "flex_vertedge" "$folder/new"
grep -q "loads; a step gives MID" "$folder/old"
echo "seen again"
