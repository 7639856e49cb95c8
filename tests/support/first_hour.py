"""Type the commands of the first page into a fresh clone, one after the other, and time them.

    python tests/support/first_hour.py --work /tmp/first_hour --cut

Each command gets a terminal of its own. Its first sign of life is the first character that appears there; its
result is there when it ends. The clone has what is committed. `--no-network` puts random weights in place of
those that the page downloads; the installation needs a network or pip's cache in any case.
"""

from __future__ import annotations

import argparse
import os
import platform
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pages import FRONT, ROOT, Command, blocks, commands, cut, without_network  # noqa: E402 - a program, too


@dataclass(frozen=True)
class Timed:
    """One command and its outcome."""

    section: str
    command: str
    first: float
    """Seconds until its first output, or its end if it printed nothing."""
    last: float
    """Seconds until its end."""
    code: int
    shown: str


def typed(text: str, folder: Path) -> tuple[float, float, int, str]:
    """Run shell text in a terminal of its own; return the fields of `Timed` from `first` on."""
    prelude = "test ! -e .venv/bin/activate || source .venv/bin/activate; "
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ours, theirs = pty.openpty()
    started, first, shown = time.monotonic(), 0.0, b""
    process = subprocess.Popen(
        ["bash", "-c", prelude + text],
        cwd=folder,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    while True:
        ready = select.select([ours], [], [], 0.05)[0]
        if not ready and process.poll() is not None:
            break
        if ready:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # all who wrote there have ended
                break
            shown += part
            first = first or time.monotonic() - started
    code = process.wait()
    os.close(ours)
    last = time.monotonic() - started
    return first or last, last, code, shown.decode(errors="replace")


def sections() -> list[tuple[str, list[Command]]]:
    """The headings of the first page that have commands, and these."""
    found = []
    for part in FRONT.read_text(encoding="utf8").split("\n## ")[1:]:
        inside = re.findall(r"^```bash\n(.*?)^```", part, re.M | re.S)
        if listed := [command for block in inside for command in commands(FRONT, block)]:
            found.append((part.partition("\n")[0], listed))
    assert sum(len(listed) for _, listed in found) == sum(
        len(commands(FRONT, block)) for block in blocks(FRONT, "bash")
    )
    return found


def first_hour(
    work: Path, short: bool, network: bool, python: str = "", installed: bool = False
) -> list[Timed]:
    """Clone into `work / "unimo"` and type every command of the first page.

    Args:
        short: cut trainings to a few steps.
        installed: the clone is there, from an earlier call, and so is what the first section installs.
        network: download what the page downloads.
        python: interpreter in place of the page's `python3.11`, where that is not installed.
    """
    if not installed:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(work / "unimo")], check=True)
    done = []
    for section, listed in sections()[int(installed) :]:
        for command in listed:
            text = command.text
            if command.words[0] == "hf" and not network:
                text = without_network(command.words)
            elif short and command.words[0] in ("python", "bash"):
                text = cut(command)
            text = text.replace("python3.11", shlex.quote(python)) if python else text
            done.append(Timed(section, command.text, *typed(text, work / "unimo")))
            print(f"{done[-1].first:7.1f} {done[-1].last:7.1f}  {done[-1].code}  {text}", flush=True)
    return done


def table(done: list[Timed]) -> str:
    """A table in Markdown, one row a command."""
    rows = ["| section | command | first output, s | result, s |", "|---|---|---|---|"]
    for one in done:
        failed = f" (code {one.code})" if one.code else ""
        rows.append(f"| {one.section} | `{one.command}` | {one.first:.1f} | {one.last:.1f}{failed} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Run, print the table, and fail if a command did."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="empty folder for the clone")
    parser.add_argument("--cut", action="store_true", help="trainings of a few steps")
    parser.add_argument("--no-network", action="store_true", help="random weights instead of downloads")
    parser.add_argument("--python", default="", help="interpreter in place of python3.11")
    parser.add_argument("--installed", action="store_true", help="go on in a clone of an earlier call")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    done = first_hour(args.work, args.cut, not args.no_network, args.python, args.installed)
    print(f"\n{table(done)}\n{os.cpu_count()} cores, {platform.platform()}")
    for one in done:
        if one.code:
            print(f"\n$ {one.command}\n{one.shown[-3000:]}")
    return int(any(one.code for one in done))


if __name__ == "__main__":
    sys.exit(main())
