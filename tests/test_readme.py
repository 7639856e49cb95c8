"""Every command of every README is one that works.

Commands run as they stand, in the order of their README, in a folder that looks like the checkout. Trainings
of tiny models are cut to a few steps; what needs days or downloads is resolved (`--dry-run`) or has its
options looked up in the help of its tool. What is not run at all is listed, with the reason.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READMES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
READMES += sorted((ROOT / "unimo").rglob("README.md")) + sorted((ROOT / "ppdet_features").rglob("README.md"))
SMOKE = "train.max_steps=2 train.batch_size=8 data.scenes.val_images=4 train.eval_max_batches=1"

# First words of commands that are not run here, and why.
NOT_RUN = {
    "git clone": "needs the network",
    "cd ": "part of the clone",
    "source ": "part of the installation",
    "pip install": "minutes; .ci/run does it",
    "python3.11 -m venv": "makes an environment; .ci/run does it",
    "bash scripts/quickstart.sh": "installs and trains for minutes; its steps are run one by one",
    "bash scripts/test.sh": "these tests",
    "bash .ci/run": "these tests",
    "visualdl": "a server that does not end",
    "python tools/quickstart.py": "minutes; its steps are run one by one",
    "python tools/benchmark.py": "minutes, and a peer that is not installed",
    "python -m ppdet_features.benchmark": "minutes",
}
# Options that name files of the reader's own; without these a command is looked up, not run.
NEEDS = ("--input", "--corpus", "--annotations", "--images", "--image", "--config", "--weights")


@dataclass(frozen=True)
class Command:
    """One command as it stands in a README, heredoc included."""

    readme: Path
    text: str

    @property
    def words(self) -> list[str]:
        """Words of the first line without leading NAME=VALUE settings."""
        words = shlex.split(self.text.split("\n")[0].replace("<<", " "))
        return words[next(i for i, word in enumerate(words) if not re.fullmatch(r"[A-Z_]+=.*", word)) :]

    @property
    def is_exempt(self) -> bool:
        return " ".join(self.words).startswith(tuple(NOT_RUN))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf8"), re.M | re.S)


def commands(path: Path) -> list[Command]:
    """Commands of all bash blocks: continued lines joined, comments dropped, `a && b` taken apart."""
    found, lines = [], iter("\n".join(blocks(path, "bash")).replace("\\\n", " ").splitlines())
    for line in lines:
        line = re.sub(r"(^|\s{2,})#.*", "", line).strip()
        heredoc = re.search(r"<<'?(\w+)'?", line)
        if heredoc:
            body = list(iter(lambda: next(lines), heredoc[1]))
            found.append("\n".join([line, *body, heredoc[1]]))
        elif line:
            found += line.split(" && ")
    return [Command(path, text) for text in found]


# A command in several READMEs runs once, where it stands first.
CASES = list({command.text: command for path in READMES for command in commands(path)}.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder like the checkout, with a picture, a small data set, and what earlier commands leave."""
    from PIL import Image

    from unimo.data.scenes.dataset import ScenesDataset
    from unimo.data.tokenizers import load_tokenizer

    path = tmp_path_factory.mktemp("checkout")
    for name in ("tools", "scripts", "configs", "unimo", "ppdet_features"):
        (path / name).symlink_to(ROOT / name)
    (path / "bin").mkdir()
    (path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (path / "bin" / "python").chmod(0o755)
    load_tokenizer("scenes").save(path / "unimo_en")
    data = path / "data" / "flickr8k"
    (data / "images").mkdir(parents=True)
    scenes, rows = ScenesDataset("pairs", "val"), []
    for index in range(0, 48, 4):
        record = scenes[index]
        (data / "images" / f"{index}.bmp").write_bytes(record.image)
        rows.append(json.dumps({"image": f"images/{index}.bmp", "text": record.text}))
    for split in ("train", "val"):
        (data / f"{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf8")
    Image.new("RGB", (80, 60), "red").save(path / "picture.png")
    return path


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run shell text in the folder with this interpreter as `python` and no `.venv`."""
    environ = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "UNIMO_VENV": str(folder / "none"),
    }
    return subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def check_options(words: list[str], folder: Path) -> None:
    """The tool exists, and its help names every option of the command."""
    tool = words[1].replace("scripts/run_", "tools/").replace(".sh", ".py")
    assert (ROOT / words[1]).is_file() and (ROOT / tool).is_file(), f"{words[1]}: no such file"
    topic = words[2] if tool == "tools/prepare_data.py" else ""
    shown = run(f"python {tool} {topic} --help", folder)
    assert shown.returncode == 0, shown.stderr
    for word in words[2:]:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word)}\b", shown.stdout), f"{tool} has no option {word}"


def lacks_files(words: list[str], folder: Path) -> bool:
    """Whether an argument names a file of the reader's that is not here."""
    named = [value for option, value in zip(words, words[1:], strict=False) if option in NEEDS]
    return "DIR" in words or not all((folder / name).exists() for name in named)


@pytest.mark.parametrize("command", CASES, ids=lambda command: command.text.split("\n")[0][:70])
def test_command(command, folder):
    words = command.words
    is_file = len(words) > 1 and words[1].startswith(("tools/", "scripts/", ".ci/", "ppdet_features/"))
    if is_file:
        assert (ROOT / words[1]).is_file(), f"{words[1]}: no such file"
    if command.is_exempt:
        return
    assert words[0] in ("python", "bash"), f"{command.readme.name}: say in NOT_RUN why this is not run"
    text = command.text
    if is_file:
        trains = re.search(r"pretrain|finetune", words[1])
        if trains and "task.augment." in text:
            text = f"{text} --dry-run"  # files that only the reader has
        elif trains and "_tiny" not in text:
            text = re.sub(r"(model\.\w+\.init|data\.\w+)=\S+", "", text) + " --dry-run"
        elif trains:
            text = f"{text} {SMOKE}"
        elif "tools/study.py" in words[1]:
            text = f"{text} --dry-run"  # hours; the stages of a row are commands that are run above
        elif "train_detector" in words[1] and "--scenes" in words:
            text = f"{text} Training.steps=2"
        elif lacks_files(words, folder):
            check_options(words, folder)
            return
    done = run(text, folder)
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize(
    "path", [path for path in READMES if blocks(path, "python")], ids=lambda p: p.parent.name
)
def test_python_blocks_compile(path):
    for block in blocks(path, "python"):
        compile(block, str(path), "exec")


def test_python_blocks_of_the_front_page_run(folder):
    if not (folder / "output" / "unimo3_tiny_vqa").is_dir():
        pytest.skip("needs the model that the commands above make")
    for block in blocks(ROOT / "README.md", "python"):
        done = run(f"python - <<'END'\n{block}\nEND", folder)
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf8"), flags=re.S)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r"<img[^>]*src=\"([^\"]+)\"", text)
    missing = [t for t in targets if not t.startswith("http") and not (path.parent / t).exists()]
    assert not missing


def test_front_page_names_every_registered_size():
    from unimo import list_models

    text = (ROOT / "README.md").read_text(encoding="utf8")
    told = [name for name in list_models() if re.search(r"_(base|large|base_d)$", name)]
    assert not [name for name in told if f"`{name}`" not in text]
