#!/usr/bin/env bash
# envpool 1.2.5: `import envpool` alone sets the environment variable MPLBACKEND to Agg where it is not
# set, whichever environment is wanted (it imports the viewers of its Jumanji environments). Plots of a
# script that imports it before matplotlib open no window then, without an error, and programs that it
# starts inherit that: a notebook's kernel, for one, shows no figures. A variable that is set stays.
# This script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install envpool==1.2.5 matplotlib==3.11.2
cd "$folder"
unset MPLBACKEND
cat >seen.py <<'PYTHON'
import os

before = os.environ.get("MPLBACKEND")
import envpool  # noqa: E402, F401
import matplotlib  # noqa: E402

print(before, os.environ.get("MPLBACKEND"), matplotlib.get_backend().lower())
PYTHON
venv/bin/python seen.py | tee seen
grep -qx 'None Agg agg' seen
MPLBACKEND=svg venv/bin/python seen.py | tee seen
grep -qx 'svg svg svg' seen
echo "seen again"
