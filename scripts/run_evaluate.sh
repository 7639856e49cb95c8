#!/usr/bin/env bash
# Evaluate a model directory; prints one JSON object:
#
#   bash scripts/run_evaluate.sh --task vqa --model DIR --split val
#
# Ranks: every GPU, or NPROC_PER_NODE=2; on several machines NNODES=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
unimo_launch tools/evaluate.py "$@"
