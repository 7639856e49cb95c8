#!/usr/bin/env bash
# The same set-up as quickstart.sh plus the test tools, then the tests, two files at a time. Arguments go to pytest:
#
#   bash scripts/test.sh -k config
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
unimo_setup "$(unimo_build),test"
cd "$UNIMO_ROOT"
# Tests start some hundred processes; each would compile the library anew, most of a second.
unset PYTHONDONTWRITEBYTECODE
exec "$UNIMO_VENV/bin/python" -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder "$@"
