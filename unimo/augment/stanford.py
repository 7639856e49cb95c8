"""Stanford's scene graph parser (Schuster et al., 2015), which needs Java and its jars: `stanford:JARS`.

    java -cp JARS edu.stanford.nlp.scenegraph.RuleBasedParser

JARS is a folder with the jars of the parser, CoreNLP and its models, or a class path. The program reads one
sentence a line and answers with tables of lemmas; objects have the number of their word:

    source              reln                target
    ---                 ----                ---
    dog-3               jump over           hurdle-7

    Nodes
    ---
    dog-3
      -brown
    hurdle-7
    ------------------------

Our nodes are words of the caption, so each lemma is searched among them; lemmas that are not found ("have" of
"the man's watch") are skipped. Grammatical forms come from the default tagger.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from unimo.augment.scene_graph import SceneGraph, node, relation
from unimo.augment.terms import singular
from unimo.data.masking.noun_phrases import Span
from unimo.data.masking.tagging import Token, load_tagger, tag_words
from unimo.errors import CapabilityError
from unimo.limits import ANSWER_BYTES

log = logging.getLogger(__name__)
MAIN = "edu.stanford.nlp.scenegraph.RuleBasedParser"
_OBJECT = r"(\S+?)-(\d{1,9})'*"
_EDGE = re.compile(rf"{_OBJECT}\s*(\D.*\S)-(\d{{1,9}})'*")
_NODE = re.compile(_OBJECT)
_ATTRIBUTE = re.compile(r"\s+-(.+?)(?:-\d+)?")
_END = re.compile(r"(?:> *)*-{10,}")


class StanfordParser:
    """A parser process that parses one caption after the other.

    `jars` is a folder of jars, or a class path; a caption may take `timeout` seconds, including the start of
    the process.

    Raises:
        CapabilityError: no Java or no such jars; at the first caption, that the program does not run.
    """

    def __init__(self, jars: str, *, java: str = "java", timeout: float = 300.0) -> None:
        first = jars.partition(":")[0]
        if not jars or not os.path.exists(first.removesuffix("*")):
            raise CapabilityError(
                f"parser stanford:{jars}: no such jar or folder; expected stanford:FOLDER_OF_JARS"
            )
        if not shutil.which(java):
            raise CapabilityError(
                f"Stanford's parser needs {java}, which is not installed; try the parser textblob"
            )
        path = f"{jars}/*" if os.path.isdir(jars) else jars
        self._command = [java, "-mx2g", "-Dfile.encoding=UTF-8", "-cp", path, MAIN]
        self._timeout, self._tagger = timeout, load_tagger("textblob")
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._has_answered = False

    def __call__(self, text: str) -> SceneGraph:
        """Parse a caption; return an empty graph, with a warning, if the program fails on it.

        Raises:
            CapabilityError: the program has never answered.
        """
        tokens = tag_words(text, self._tagger)
        answer = self._ask(text[: tokens[-1].end]) if tokens else []
        if answer is None:
            log.warning("Stanford's parser fails on a caption: %.100s", text)
        return build_graph(tokens, read_answer(answer or []))

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _ask(self, text: str) -> list[str] | None:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, encoding="utf8", errors="replace",
            )  # fmt: skip
            self._lines = queue.Queue()
            threading.Thread(target=_drain, args=(self._process.stdout, self._lines), daemon=True).start()
        lines: list[str] = []
        left, end = ANSWER_BYTES, time.monotonic() + self._timeout
        with contextlib.suppress(queue.Empty, BrokenPipeError):
            self._process.stdin.write(text + "\n")
            self._process.stdin.flush()
            while (line := self._lines.get(timeout=max(0.0, end - time.monotonic()))) is not None:
                if _END.fullmatch(line):
                    self._has_answered = True
                    return lines
                lines.append(line)
                left -= len(line) + 1
                if left < 0:
                    break
        self.close()  # it has died, hangs, or talks without end: the next caption starts a new one
        if not self._has_answered:
            raise CapabilityError(
                f"Stanford's parser does not run: {' '.join(self._command)} printed "
                f"{' / '.join(lines[-3:])!r}; the folder must contain its jar, those of CoreNLP and the "
                "English models"
            )
        return None


def _drain(stream: TextIO, lines: queue.Queue[str | None]) -> None:
    with contextlib.suppress(ValueError):  # the stream is closed while it is read
        while line := stream.readline(ANSWER_BYTES):
            lines.put(line.rstrip("\n"))
    lines.put(None)


@dataclass
class Answer:
    """The answer of the program in lemmas; objects by the number of their word, from 1."""

    objects: dict[int, str] = field(default_factory=dict)
    attributes: list[tuple[int, str]] = field(default_factory=list)
    relations: list[tuple[int, str, int]] = field(default_factory=list)


def read_answer(lines: Sequence[str]) -> Answer:
    """Parse the tables of an answer; other lines (log messages, prompts) are skipped."""
    answer, owner, edges = Answer(), 0, []
    for line in lines:
        line = re.sub(r"^(?:> ?)+", "", line).rstrip()
        edge, single, attribute = _EDGE.fullmatch(line), _NODE.fullmatch(line), _ATTRIBUTE.fullmatch(line)
        if single:
            owner = int(single[2])
            answer.objects[owner] = single[1]
        elif attribute and owner:
            answer.attributes.append((owner, attribute[1]))
        elif edge:
            edges.append((int(edge[2]), edge[3], int(edge[4])))
    for source, text, target in edges:
        # Columns are 20 characters wide: the object follows a longer relation without a blank.
        words = text.removesuffix(answer.objects.get(target, "")).strip()
        # Some versions also list attributes here: "dog-3  is  brown-2".
        if words != "is" and {source, target} <= answer.objects.keys():
            answer.relations.append((source, words, target))
    return answer


def build_graph(tokens: Sequence[Token], answer: Answer) -> SceneGraph:
    """Build the graph over the words of the caption."""
    places = {number: _find(tokens, lemma, number - 1) for number, lemma in answer.objects.items()}
    numbers = [number for number, span in sorted(places.items()) if span]
    order = {number: at for at, number in enumerate(numbers)}
    attributes = [
        (order[owner], node("attribute", tokens, span))
        for owner, lemma in answer.attributes
        if owner in order and (span := _find(tokens, lemma, places[owner][0]))
    ]
    relations = []
    for source, lemma, target in answer.relations:
        if source in order and target in order:
            middle = (places[source][0] + places[target][0]) // 2
            if span := _find(tokens, lemma, middle):
                verb, last = tokens[span[0]].tag.startswith("VB"), tokens[span[1] - 1].tag
                made = relation(tokens, span, verb, last in ("IN", "TO", "RP"))
                relations.append((order[source], made, order[target]))
    objects = tuple(node("object", tokens, places[number]) for number in numbers)
    return SceneGraph(objects, tuple(dict.fromkeys(attributes)), tuple(relations))


def _find(tokens: Sequence[Token], lemmas: str, near: int) -> Span | None:
    """Find the tokens with these lemmas that are closest to position `near`."""
    wanted = lemmas.split()
    starts = [
        at
        for at in range(len(tokens) - len(wanted) + 1)
        if all(_fits(tokens[at + n].word, lemma) for n, lemma in enumerate(wanted))
    ]
    if not starts:
        # "men" and "ran" share little with their lemmas: the number must do, if the first letter matches.
        here = len(wanted) == 1 and 0 <= near < len(tokens) and tokens[near].word[0] == lemmas[0].lower()
        return (near, near + 1) if here else None
    start = min(starts, key=lambda at: abs(at - near))
    return start, start + len(wanted)


def _fits(word: str, lemma: str) -> bool:
    lemma = lemma.lower()
    stem = lemma[: max(3, len(lemma) - 1)]
    return lemma in (word, singular(word)) or (
        len(lemma) > 2 and word.startswith(stem) and len(word) < len(lemma) + 5
    )
