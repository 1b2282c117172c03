#!/usr/bin/env bash
# Checks the project on a machine with one GPU, in under 8 minutes and without a network:
#   bash launch/device_check.sh --prepare       beforehand, where there is a network: downloads wheels to build/wheels
#   bash launch/device_check.sh --json FILE     there; --device cpu runs all of it on any machine
# PYTHON chooses the interpreter, which must have torch (default: that of .venv, or else python3).
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
python="$here/../.venv/bin/python"
[[ -x "$python" ]] || python=python3
exec "${PYTHON:-$python}" "$here/device_check.py" "$@"
