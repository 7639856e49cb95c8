"""The parts of the COCO caption evaluation that are Java programs: its tokenizer, METEOR and SPICE.

They come with pycocoevalcap (`pip install -e ".[caption]"`) and are used where it and Java are installed.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)
_SPICE_NEEDS = "stanford-corenlp-3.6.0*.jar"


def find_evaluation() -> Path | None:
    """Return the folder of pycocoevalcap if it and Java are installed, else None."""
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations or shutil.which("java") is None:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def ptb_tokenize(texts: Sequence[str]) -> list[list[str]]:
    """Split texts with the Stanford tokenizer into lower-case tokens, without punctuation marks.

    Requires pycocoevalcap and Java, see `find_evaluation`.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # The program reads one text a line and would skip an empty one.
    rows = {number: [{"caption": " ".join(text.split()) or "."}] for number, text in enumerate(texts)}
    tokenized = PTBTokenizer().tokenize(rows)
    return [tokenized[number][0].split() for number in rows]


def java_scores(
    candidates: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[Sequence[str]]],
    names: Collection[str] = ("meteor", "spice"),
) -> dict[str, float]:
    """Compute `meteor`, and `spice` where its parser is present, times 100; {} without the Java programs.

    Args:
        candidates: tokens of the generated caption by image.
        references: tokens of the human captions by image.
        names: `meteor`, `spice` or both.
    """
    folder = find_evaluation()
    if folder is None or not candidates:
        return {}
    generated = {image: [" ".join(tokens)] for image, tokens in candidates.items()}
    human = {image: [" ".join(tokens) for tokens in references[image]] for image in candidates}
    scores = {}
    for name in names:
        # SPICE would download Stanford CoreNLP at its first use; that is the user's decision.
        if name == "spice" and not list(folder.glob(f"spice/lib/{_SPICE_NEEDS}")):
            logger.info("no SPICE: %s is not in %s", _SPICE_NEEDS, folder / "spice" / "lib")
            continue
        scorer = getattr(importlib.import_module(f"pycocoevalcap.{name}.{name}"), name.capitalize())
        try:
            scores[name] = 100 * float(scorer().compute_score(human, generated)[0])
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            logger.warning("no %s: its Java program failed (%s)", name.upper(), error)
    return scores
