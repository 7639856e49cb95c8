"""Shared by all tests: where the checkout is, and a process that uses one core for each rank."""

from __future__ import annotations

import gc
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests start tools as processes of their own; those find the checkout as this one does.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
# No test asks a host that is not its own, or finds weights that somebody fetched.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["UNIMO_HOME"] = str(Path(tempfile.gettempdir()) / "unimo-none" / "home")
# Under `nohup` SIGHUP is ignored, here and in all processes that tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402 - after the path

if TYPE_CHECKING:
    from micro import Tool


def pytest_collection_finish() -> None:
    """Keep what is there for good, some thousand tests and all modules, out of what garbage is looked for in.

    Runs collect garbage, each several times.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data that is not part of the repository; the test skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture
def tool(root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Tool:
    """Run `tools/NAME.py` with words, in this process: exit code, standard output, standard error.

    A name with a folder is that of another program, such as `ppdet_features/train_detector`.
    """

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            path = root / (f"{name}.py" if "/" in name else f"tools/{name}.py")
            runpy.run_path(str(path), run_name="__main__")
        captured = capfd.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run
