#!/usr/bin/env bash
# Trains on this machine: bash launch/local.sh [--config FILE] [--section.key VALUE ...]
# NPROC sets the number of ranks (default 4), training.threads_per_rank the threads of each.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up train

ranks="${NPROC:-4}"
exec "$root/.venv/bin/python" -m dist_s2s.cli.torchrun --standalone --nproc_per_node="$ranks" -m dist_s2s.train "$@"
