"""A tool of `tools/` with the toy paper and the toy task registered: one line each.

python tests/support/toy_tool.py OUTPUT TOOL ARGUMENT ...
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from unimo import registry  # noqa: E402 - after the path

registry.PAPERS["toy"] = "toy_paper"
registry.TASKS["length"] = "toy_task"

if __name__ == "__main__":
    _, _, name, *words = sys.argv
    sys.argv = [name, *words]
    runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
