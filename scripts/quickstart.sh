#!/usr/bin/env bash
# From a fresh checkout to a trained, evaluated model that answers questions about a picture.
#
#   bash scripts/quickstart.sh [--output DIR] [KEY=VALUE ...]
#
# Makes .venv (Python 3.11 or 3.10; PYTHON=... chooses), installs, and runs tools/quickstart.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
unimo_setup "$(unimo_build)"
exec "$UNIMO_VENV/bin/python" "$UNIMO_ROOT/tools/quickstart.py" "$@"
