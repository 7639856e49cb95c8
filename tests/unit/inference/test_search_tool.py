"""`tools/index.py`: what it prints, and the mistakes that it names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from micro import Tool, saved
from picture_files import write_pictures

from unimo.inference.search.build import Corpus, build_index
from unimo.inference.search.encoder import Encoder
from unimo.inference.search.store import open_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, pictures and their index."""
    folder = tmp_path_factory.mktemp("made")
    directory = saved("retrieval", folder / "run")
    write_pictures(folder / "pictures", ["a.jpg", "b.jpg", "c.jpg"])
    build_index(Encoder.open(directory), Corpus(str(folder / "pictures")), folder / "index")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the index and a few other files, in the current folder."""
    shutil.copytree(made / "index", tmp_path / "index")
    (tmp_path / "captions.txt").write_text("a dog\na red circle\n")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_texts_as_lines_json_and_a_page(here: Path, made: Path, tool: Tool) -> None:
    directory, picture = made / "run" / "model", made / "pictures" / "b.jpg"
    code, out, _ = tool("index", "build", "--model", directory, "--texts", "captions.txt", "--out", "texts")
    assert code == 0 and "texts: 2 texts added, 0 known; 2 now" in out and "--image FILE" in out
    code, out, _ = tool("index", "search", "texts", "--image", picture, "--json", "--html", "found.html")
    (line,) = out.splitlines()
    assert code == 0 and {hit["id"] for hit in json.loads(line)["hits"]} == {"a dog", "a red circle"}
    assert "texts for b.jpg" in Path("found.html").read_text()
    code, out, _ = tool("index", "search", "texts", "a dog", "--count", "1")
    assert code == 0 and out.splitlines() == ["a dog:", "   1   1.000  a dog"]
    code, out, _ = tool("index", "check", "texts")
    assert code == 0 and "2 vectors in 1 parts, all sound" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["search", "captions.txt", "a dog"], "no index at captions.txt"),
        (["search", "empty", "a dog"], "no index at empty; make it with"),
        (["search", "x" * 300, "a dog"], "no index at"),
        (["check", "nowhere"], "no index at nowhere"),
        (["search", "index"], "expected a query, found an empty one"),
        (["search", "index", " "], "expected a query, found an empty one"),
        (["search", "index", "--image", "broken.jpg"], "broken.jpg"),
        (["search", "index", "--image", "nowhere.jpg"], "nowhere.jpg"),
        (["search", "index", "--image", "empty"], "empty"),
        (["add", "index", "--texts", "captions.txt"], "index holds images; build another index for texts"),
        (["add", "index", "--images", "empty"], "empty holds no pictures"),
        (["add", "index", "--images", "a", "--texts", "b"], "not allowed with argument --images"),
        (["add", "index", "--texts", "captions.txt", "--kind", "nlvr2"], "--kind nlvr2: expected texts"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_mistake_is_named(here: Path, tool: Tool, words: list[str], complaint: str) -> None:
    before = open_store("index").state
    code, _, err = tool("index", *words)
    assert code == 2 and complaint in err and "Traceback" not in err
    assert open_store("index").state == before


@pytest.mark.parametrize("name", ["index.json", "vectors-000000.npy", "names-000000.jsonl"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "remove"])
def test_a_damaged_file_is_named(here: Path, tool: Tool, name: str, damage: str) -> None:
    path = here / "index" / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-9], "empty": b"", "flip": content}.get(damage, b""))
    if damage == "remove":
        path.unlink()
    code, _, err = tool("index", "search", "index", "a dog")
    assert code == 2 and ("no index at" if (name, damage) == ("index.json", "remove") else name) in err
