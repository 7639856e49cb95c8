"""The Markdown pages of the repository, in the order in which they are read, and the commands on them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMOKE = "train.max_steps=2 train.batch_size=8 data.scenes.val_images=4 train.eval_max_batches=1"
FRONT = ROOT / "README.md"
INDEX = ROOT / "docs" / "README.md"
PAPERS = sorted((ROOT / "unimo").rglob("README.md"))


def links(path: Path) -> list[str]:
    """Targets of links and pictures on a page, without those that lead to the web."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf8"), flags=re.S)
    found = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"<img[^>]*src=\"([^\"]+)\"", text)
    return [target for target in found if not target.startswith(("http:", "https:"))]


def pages() -> list[Path]:
    """All pages: the first one, the index, what the index links in its order, and those that nobody links."""
    linked = [(INDEX.parent / target.partition("#")[0]).resolve() for target in links(INDEX)]
    others = [*sorted(INDEX.parent.rglob("*.md")), *PAPERS, ROOT / "ppdet_features" / "README.md"]
    found = dict.fromkeys([FRONT, INDEX, *linked, *others])
    return [path for path in found if path.suffix == ".md" and path.is_file()]


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf8"), re.M | re.S)


@dataclass(frozen=True)
class Command:
    """One command as it stands on a page, heredoc included."""

    page: Path
    text: str

    @property
    def words(self) -> list[str]:
        """Words of the first line without leading NAME=VALUE settings."""
        words = shlex.split(self.text.split("\n")[0].replace("<<", " "))
        return words[next(i for i, word in enumerate(words) if not re.fullmatch(r"[A-Z_]+=.*", word)) :]


def commands(page: Path, text: str) -> list[Command]:
    """Commands of a bash block: continued lines joined, comments dropped, `a && b` taken apart.

    A block that begins with `#!` is a file to save, and has none.
    """
    if text.startswith("#!"):
        return []
    found, lines = [], iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        line = re.sub(r"(^|\s{2,})#.*", "", line).strip()
        heredoc = re.search(r"<<'?(\w+)'?", line)
        if heredoc:
            body = list(iter(lambda: next(lines), heredoc[1]))
            found.append("\n".join([line, *body, heredoc[1]]))
        elif line:
            found += line.split(" && ")
    return [Command(page, text) for text in found]


def headings(path: Path) -> set[str]:
    """The anchors of a page: what its headings become in an address."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf8"), flags=re.S)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in re.findall(r"^#+ (.*)$", text, re.M)]
    return {title.strip().replace(" ", "-") for title in plain}


def can_be_cut(words: list[str]) -> bool:
    """Whether `cut` makes seconds of minutes and hours."""
    return words[1] == "scripts/quickstart.sh" or bool(re.search(r"pretrain|finetune|tools/study", words[1]))


def cut(command: Command) -> str:
    """A command of a tool with so little work that it ends in seconds."""
    text, words = command.text, command.words
    if words[1] == "scripts/quickstart.sh":
        return f"bash scripts/quickstart.sh {SMOKE}"
    if "--dry-run" in words or "--list" in words:
        return without_files(words)
    if "--plan" in words:
        return f"{text.replace('_base', '_tiny')} output_dir=output/plan"  # beside runs that were cut
    if words[1] == "tools/study.py":
        return f"{text} --dry-run"  # hours; the stages of a row are commands of other pages
    if re.search(r"pretrain|finetune", words[1]):
        is_long = re.search(r"_(base|large)", text) or command.page.parent.name == "results"
        return f"{without_files(words)} --dry-run" if is_long else f"{text} {SMOKE}"
    return f"{text} Training.steps=2" if "train_detector" in words[1] else text


def without_files(words: list[str]) -> str:
    """A training's command without the settings that name files which only the reader has."""
    named = re.compile(r"(model\.\w+\.init|data\.\w+|task\.augment\.\w+)=|init_from=weights/")
    kept = [word for word in words if not named.match(word)]
    if "--init" in kept:
        kept[kept.index("--init") + 1] = "none"
    return shlex.join(kept)


def without_network(words: list[str]) -> str:
    """Write a tower of a few thousand random weights in the place of `hf download`, in the same format."""
    place = shlex.quote(words[words.index("--local-dir") + 1])
    return f"mkdir -p {place} && cp {shlex.quote(str(ROOT / 'tests/assets/hf_roberta_tiny'))}/* {place}"
