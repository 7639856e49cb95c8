#!/usr/bin/env bash
# Extract region features; tools/extract_features.py --help tells the options:
#
#   bash scripts/run_extract_features.sh --images DIR --detector CONFIG --weights FILE --out DIR
#
# Ranks: every GPU, or NPROC_PER_NODE=2; on several machines NNODES=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
unimo_launch tools/extract_features.py "$@"
