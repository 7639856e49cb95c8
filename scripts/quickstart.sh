#!/usr/bin/env bash
# From a fresh checkout to a trained, evaluated model that answers questions about a picture.
#
#   bash scripts/quickstart.sh [--minutes N] [--output DIR] [KEY=VALUE ...]
#
# Makes .venv (Python 3.10 to 3.13; PYTHON=... chooses), installs, and runs tools/quickstart.py. With --minutes N
# the trainings are cut so that everything after the installation takes about N minutes on this machine.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
unimo_setup "$(unimo_build)"
exec "$UNIMO_VENV/bin/python" "$UNIMO_ROOT/tools/quickstart.py" "$@"
