#!/usr/bin/env bash
# Runs the test suite: bash launch/test.sh [pytest arguments]; TEST_WORKERS sets the number of pytest processes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up dev,train,subwords,jieba,parquet,zstd,analysis,serve,browser

cd "$root"
export OMP_NUM_THREADS=1  # the ranks of a test share the cores with the other pytest processes
# loadscope keeps a module in one process, so that what its tests share is made once.
exec .venv/bin/python -m pytest -n "${TEST_WORKERS:-2}" --dist loadscope "$@"
