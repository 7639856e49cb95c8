"""Every command of every page is one that works, every link leads somewhere, and the first page stays short.

Commands run as they stand, page by page in the order in which the pages are read, in a folder that looks like
the checkout. Trainings of tiny models are cut to a few steps; what needs days or downloads is resolved
(`--dry-run`) or has its options looked up in the help of its tool. What is not run at all is listed, with the
reason. The first page finds nothing but the checkout; for others, data that their reader has is put there.
`test_first_hour.py` does the same for the first page in a real clone with an environment of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import (
    FRONT,
    INDEX,
    ROOT,
    Command,
    blocks,
    can_be_cut,
    commands,
    cut,
    headings,
    links,
    pages,
    without_network,
)

PAGES = pages()
MOST_WORDS = 600

# First words of commands that are not run here, and why.
NOT_RUN = {
    "python tests/support/first_hour.py": "the first page again; test_first_hour.py does it",
    "source ": "part of the installation",
    "pip install": "minutes; .ci/run does it",
    "python3.11 -m venv": "makes an environment; .ci/run does it",
    "bash scripts/test.sh": "these tests",
    "pytest ": "these tests",
    "curl -LO ": "needs the network",
    "for name in encoder.json": "needs the network",
    "hf download openai/": "needs the network; RoBERTa's files stand for those of all",
    "hf download google": "as above",
    "hf download microsoft/": "as above",
    "python tools/weights.py fetch": "needs the network; tests/unit/weights/test_named.py has one of its own",
    "python tools/weights.py push": "needs a token; tests/unit/inference/test_publish.py has a hub",
    "python tools/benchmark.py": "minutes, and a peer that is not installed",
    "python tools/doctor.py": "minutes, and a machine under other tests; tests/unit/doctor runs it",
    "python -m ppdet_features.benchmark": "minutes",
}
# Options that name files of the reader's own; without these a command is looked up, not run.
NEEDS = (
    "--input", "--corpus", "--collection", "--annotations", "--images", "--image", "--config", "--weights",
    "--glue",
)  # fmt: skip
# Words of a command that need a package which no wheel brings to the newest Pythons.
EXTRA = {"onnx": "paddle2onnx"}
# A command that stands on several pages runs once, where it stands first.
CASES: dict[str, Command] = {}
for command in (found for page in PAGES for block in blocks(page, "bash") for found in commands(page, block)):
    CASES.setdefault(command.text, command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the checkout, with what earlier commands leave there."""
    path = tmp_path_factory.mktemp("checkout")
    for name in ("tools", "scripts", "configs", "unimo", "ppdet_features"):
        (path / name).symlink_to(ROOT / name)
    (path / "bin").mkdir()
    (path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (path / "bin" / "python").chmod(0o755)
    return path


@pytest.fixture(scope="module")
def furnished(folder: Path) -> Path:
    """The same folder, with the files of a tokenizer and a small data set that the reader has."""
    from unimo.data.prepare.scenes import prepare_scenes
    from unimo.data.tokenizers import load_tokenizer

    load_tokenizer("scenes").save(folder / "unimo_en")
    prepare_scenes(folder / "data" / "flickr8k", count=24)
    return folder


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run shell text in the folder with this interpreter as `python` and no `.venv`."""
    environ = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "UNIMO_VENV": str(folder / "none"),
        "PYTHON": "python",
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
    topic = " ".join(word for word in words[2:3] if re.fullmatch(r"[a-z][a-z-]*", word))
    shown = run(f"python {tool} {topic} --help", folder)
    assert shown.returncode == 0, shown.stderr
    for word in words[2:]:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word)}\b", shown.stdout), f"{tool} has no option {word}"


def lacks_files(words: list[str], folder: Path) -> bool:
    """Whether an argument names a file of the reader's that is not here."""
    named = [value for option, value in zip(words, words[1:], strict=False) if option in NEEDS]
    named += words[3:4] if "to-tsv" in words or "from-tsv" in words else []
    return "DIR" in words or not all(name == "scenes" or (folder / name).exists() for name in named)


@pytest.mark.parametrize("command", CASES.values(), ids=lambda command: command.text.split("\n")[0][:70])
def test_command(command: Command, folder: Path, request: pytest.FixtureRequest) -> None:
    words = command.words
    if " ".join(words).startswith(tuple(NOT_RUN)):
        return
    if command.page != FRONT:
        request.getfixturevalue("furnished")
    assert words[0] in ("python", "bash", "hf"), f"{command.page.name}: say in NOT_RUN why this is not run"
    text = command.text
    for word in EXTRA.keys() & set(words):
        if find_spec(EXTRA[word]) is None:
            pytest.skip(f"needs {EXTRA[word]}")
    if words[0] == "hf":
        text = without_network(words)
    elif words[1].startswith(("tools/", "scripts/", ".ci/", "ppdet_features/")):
        assert (ROOT / words[1]).is_file(), f"{words[1]}: no such file"
        takes_long = command.page.parent.name == "results" or (
            words[1] == "tools/doctor.py" and "--quick" not in words
        )
        if lacks_files(words, folder) or (takes_long and not can_be_cut(words)):
            check_options(words, folder)
            return
        text = cut(command).replace("bash scripts/quickstart.sh", "python tools/quickstart.py")
    done = run(text, folder)
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


SCRIPTS = [(page, text) for page in PAGES for text in blocks(page, "bash") if text.startswith("#!")]


@pytest.mark.parametrize(
    ("page", "text"), SCRIPTS, ids=[f"{page.stem}-{n}" for n, (page, _) in enumerate(SCRIPTS)]
)
def test_script_is_one_of_bash_and_names_files_that_are_there(page: Path, text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    named = re.findall(r"\b(?:scripts|tools)/\w+\.\w+", text)
    assert named and all((ROOT / name).is_file() for name in named)


PYTHON = [(page, block) for page in PAGES for block in blocks(page, "python")]


@pytest.mark.parametrize(
    ("page", "block"), PYTHON, ids=[f"{page.stem}-{number}" for number, (page, _) in enumerate(PYTHON)]
)
def test_python_block_runs(page: Path, block: str, folder: Path) -> None:
    compile(block, str(page), "exec")
    opened = re.findall(r'"((?:output|pictures)/[^"]+)"', block)
    if not opened or not all((folder / name).exists() for name in opened):
        pytest.skip("needs what the commands above make")
    done = run(f"python - <<'END'\n{block}\nEND", folder)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in links(path):
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in headings(there), f"{path.name}: {target}"


def test_every_page_is_found_from_the_first_one() -> None:
    found, waiting = set(), [FRONT]
    while waiting:
        page = waiting.pop()
        found.add(page)
        near = [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
        waiting += [path for path in near if path.suffix == ".md" and path not in found and path.is_file()]
    every = {
        path for path in ROOT.rglob("*.md") if not set(path.relative_to(ROOT).parts) & {".venv", "output"}
    }
    every -= {path for path in every if path.relative_to(ROOT).parts[0].startswith(".")}
    assert found >= every, sorted(every - found)


def test_the_first_page_is_short_and_names_every_model() -> None:
    from unimo import list_models

    text = FRONT.read_text(encoding="utf8")
    assert len(text.split()) <= MOST_WORDS
    told = [name for name in list_models() if name.endswith(("_base", "_large"))]
    assert not [name for name in told if f"`{name}`" not in text]


def test_no_paragraph_stands_twice() -> None:
    """Prose of more than twelve words; commands and rows of tables may repeat."""
    seen: dict[str, Path] = {}
    for page in PAGES:
        text = re.sub(r"```.*?```|^\|.*$|^#.*$", "", page.read_text(encoding="utf8"), flags=re.S | re.M)
        for sentence in re.split(r"(?<=[.:;?])\s+|\n\n", text):
            plain = " ".join(sentence.split())
            if len(plain.split()) > 12:
                assert seen.setdefault(plain, page) == page, (
                    f"{page.name} repeats {seen[plain].name}: {plain}"
                )


def test_the_index_names_all_pages_of_its_folder() -> None:
    linked = {(INDEX.parent / target.partition("#")[0]).resolve() for target in links(INDEX)}
    assert {path for path in INDEX.parent.rglob("*.md") if path != INDEX} <= linked
