"""Stanford's parser: reading of its output, and a stand-in for its program that works, dies and hangs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from scene_graphs import pairs, triples

from unimo.augment.parsers import open_parser
from unimo.augment.stanford import Answer, StanfordParser, read_answer
from unimo.errors import CapabilityError

TABLES = """\
source              reln                target
---                 ----                ---
dog-3               jump over           hurdle-6
dog-3               in front of         man-10


Nodes
---
dog-3
  -brown
  -wet
hurdle-6
man-10
"""
PROGRAM = """\
import os, sys, time
sys.stderr.write("Processing from stdin. Enter one sentence per line.\\n> ")
sys.stderr.flush()
tables = open(os.path.join(os.path.dirname(__file__), "tables.txt")).read()
for line in sys.stdin:
    if "kill" in line:
        sys.exit("Exception in thread main")
    if "sleep" in line:
        time.sleep(60)
    sys.stderr.write(tables + "\\n" + "-" * 24 + "\\n> ")
    sys.stderr.flush()
"""
CAPTION = "A brown dog jumps over hurdles in front of men , the dog is wet ."


@pytest.fixture
def java(tmp_path: Path) -> str:
    """Write a program that answers every sentence with the same tables and stores its arguments in a file."""
    (tmp_path / "tables.txt").write_text(TABLES)
    (tmp_path / "program.py").write_text(PROGRAM)
    script = tmp_path / "java"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexec {sys.executable} {tmp_path}/program.py\n'
    )
    script.chmod(0o755)
    (tmp_path / "jars").mkdir()
    return str(script)


def test_lemmas_become_places_in_the_caption(java: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    parse = open_parser(f"stanford:{tmp_path / 'jars'}")
    graph = parse(CAPTION)
    assert [node.text for node in graph.objects] == ["dog", "hurdles", "men"]
    assert pairs(graph) == [("dog", "brown"), ("dog", "wet")]
    assert triples(graph) == [("dog", "jumps over", "hurdles"), ("dog", "in front of", "men")]
    assert all(CAPTION[node.start : node.end].lower() == node.text for node in graph.nodes())
    forms = {node.text: node.form for node in graph.nodes()}
    assert forms["hurdles"] == "NNS" and forms["brown"] == "JJ" and forms["jumps over"] == "VBZ+IN"
    assert parse(CAPTION) == graph  # the same process
    asked = (tmp_path / "asked").read_text().splitlines()
    assert (
        len(asked) == 1 and f"-cp {tmp_path}/jars/* edu.stanford.nlp.scenegraph.RuleBasedParser" in asked[0]
    )
    assert parse("").objects == ()


def test_one_caption_that_it_dies_of_costs_no_other(
    java: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    parse = StanfordParser(str(tmp_path / "jars"), java=java, timeout=20)
    whole = parse(CAPTION)
    assert parse("They kill time .").nodes() == [] and "fails on a caption: They kill" in caplog.text
    assert parse(CAPTION) == whole
    parse._timeout = 0.3
    assert parse("They sleep .").nodes() == []
    parse._timeout = 20
    assert parse(CAPTION) == whole
    process = parse._process
    parse.close()
    assert process.poll() is not None


def test_a_program_that_does_not_run_is_named(java: str, tmp_path: Path):
    with pytest.raises(CapabilityError, match="does not run: .*Exception in thread main.*English models"):
        StanfordParser(str(tmp_path / "jars"), java=java)("They kill time .")
    with pytest.raises(CapabilityError, match="no such jar or folder"):
        open_parser("stanford:/nowhere/x.jar")
    with pytest.raises(CapabilityError, match="no such jar or folder"):
        open_parser("stanford")
    with pytest.raises(CapabilityError, match="needs no-java"):
        StanfordParser(str(tmp_path), java="no-java")


def test_odd_output_is_read_as_far_as_it_goes():
    answer = read_answer(
        ["Loading classifier from edu/x ... done [1.2 sec].", "> source   reln   target",
         "fox-3               is                  brown-2", "t-shirted-boy-12 ride skateboard-4",
         "fox-3               walk along in front of skateboard-4",
         "fox-3               stand still in front oft-shirted-boy-12",
         "fox-3               near                nobody-9", "", "nonsense", "Nodes", "---", "fox-3",
         "  -quick-2", "  -",
         "t-shirted-boy-12", "skateboard-4", "  -very fast"]
    )  # fmt: skip
    assert answer.objects == {3: "fox", 12: "t-shirted-boy", 4: "skateboard"}
    assert answer.attributes == [(3, "quick"), (4, "very fast")]
    assert answer.relations == [
        (12, "ride", 4), (3, "walk along in front of", 4), (3, "stand still in front of", 12)
    ]  # fmt: skip
    assert read_answer([]) == Answer()
