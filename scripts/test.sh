#!/usr/bin/env bash
# The same set-up as quickstart.sh plus the test tools, then the tests. Arguments go to pytest:
#
#   bash scripts/test.sh -k config
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
unimo_setup "$(unimo_build),test"
cd "$UNIMO_ROOT"
exec "$UNIMO_VENV/bin/python" -m pytest "$@"
