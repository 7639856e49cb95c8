#!/usr/bin/env bash
# Pre-train a model by the recipe configs/<paper>/pretrain.yaml:
#
#   bash scripts/run_pretrain.sh unimo3_base
#   bash scripts/run_pretrain.sh unimo3_tiny data.pairs=DIR train.max_steps=200 output_dir=DIR
#
# Ranks: every GPU, or NPROC_PER_NODE=2; on several machines NNODES=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
unimo_launch tools/pretrain.py "$@"
