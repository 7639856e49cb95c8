"""Retrieval examples: selection, colours of words, the page and the command."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from micro import TOWER, Tool, saved
from micro_unimo2 import MODEL
from PIL import Image

from unimo.analysis import retrieval
from unimo.analysis.retrieval import Found, Ranking, choose, color_words, find_examples, make_page
from unimo.errors import ConfigError, DataError
from unimo.inference.zero_shot import evaluate_zero_shot

UNIMO = {
    "name": "unimo_tiny",
    "text": {**TOWER, "vocab_size": 300},
    "regions": {"feature_size": 48, "num_classes": 0},
}
REGIONS = {"regions": "grid:2:4"}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random UNIMO models."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        saved("pretrain", folder / name, seed, model=UNIMO, data=REGIONS) for seed, name in enumerate("ab")
    ]


def table(firsts: list[int], candidates: int) -> np.ndarray:
    """Make scores that rank the given candidate of each query first, and then the others in order."""
    scores = np.tile(-np.arange(candidates, dtype=float), (len(firsts), 1))
    scores[np.arange(len(firsts)), firsts] = 1.0
    return scores


def test_queries_on_which_models_differ_come_first() -> None:
    own = np.arange(6)
    one, other = table([0, 1, 5, 3, 4, 2], 6), table([0, 2, 4, 3, 0, 5], 6)
    # 0 and 3: both right; 1 and 4: only the first; 2 and 5: both wrong, differently, but 5 (other) is right.
    chosen = choose([one, other], own, own, number=5, top=2)
    assert [example.query for example in chosen] == [1, 4, 5, 2, 0]
    first, second = chosen[0].hits
    assert [(hit.row, hit.score, hit.is_right) for hit in first] == [(1, 1.0, True), (0, 0.0, False)]
    assert [(hit.row, hit.is_right) for hit in second] == [(2, False), (0, False)]


def test_one_model_shows_queries_from_all_over_the_data() -> None:
    own = np.arange(9)
    chosen = choose([table([0] * 9, 9)], own, own, number=3, top=1)
    assert [example.query for example in chosen] == [0, 4, 8]
    assert len(choose([table([0] * 9, 9)], own, own, number=99, top=99)) == 9


def test_colours_of_words() -> None:
    colored = color_words("A Red dog & the <cat>.", ["the red cat sits"])
    assert colored == (
        'A <span class="agrees">Red</span> <span class="disagrees">dog</span> &amp; the '
        '&lt;<span class="agrees">cat</span>&gt;.'
    )


def test_examples_of_a_model(directories: list[Path]) -> None:
    found = find_examples(directories[:1], queries=3, top=2)
    assert len(found.image_ids) == 3 and len(found.captions) == len(found.image_of_text) >= 6
    expected = evaluate_zero_shot(directories[0], "val", "retrieval").metrics
    assert found.models[0].recall == pytest.approx(expected)
    scores = found.models[0].scores
    for example in found.examples["text"]:
        (hits,) = example.hits
        order = np.argsort(-scores[:, example.query], kind="stable")[:2]
        assert [hit.row for hit in hits] == order.tolist()
        assert [hit.is_right for hit in hits] == [found.image_of_text[i] == example.query for i in order]
    for example in found.examples["image"]:
        (hits,) = example.hits
        assert [hit.score for hit in hits] == np.sort(scores[example.query])[::-1][:2].tolist()
    assert all(found.captions[row] in found.true_captions(i) for row, i in enumerate(found.image_of_text))
    assert np.asarray(found.picture(0)).std() > 0


def test_two_models_need_the_same_data(directories: list[Path], tmp_path: Path) -> None:
    both = find_examples(directories, queries=2)
    assert [model.name for model in both.models] == ["a", "b"]
    other = saved("pretrain", tmp_path, model=MODEL, data={"scenes": {"val_images": 2}})
    with pytest.raises(DataError, match="read different images or texts"):
        find_examples([directories[0], other])
    # The same corpus by a setting, for a model of regions and one of pixels.
    mixed = find_examples([directories[0], other], overrides=["data.scenes.val_images=4"], queries=1)
    assert len(mixed.image_ids) == 4 and len(mixed.examples["text"][0].hits) == 2


def test_wrong_numbers(directories: list[Path]) -> None:
    with pytest.raises(ConfigError, match="3 models; expected one, or two"):
        find_examples([*directories, directories[0]])
    with pytest.raises(ConfigError, match="queries is 0"):
        find_examples(directories, queries=0)


def made_up(name: str) -> Found:
    scores = np.array([[2.0, 1.0], [0.5, 1.5]])
    own = np.arange(2)
    return Found(
        models=(
            Ranking(
                name, scores, dict.fromkeys(("tr_r1", "tr_r5", "tr_r10", "ir_r1", "ir_r5", "ir_r10"), 50.0)
            ),
        ),
        captions=("a <b>red</b> dog", "a cat"),
        image_ids=('1".jpg', "2.jpg"),
        image_of_text=own,
        examples={
            "text": choose([scores.T], own, own, 2, 1),
            "image": choose([scores], own, own, 2, 1),
        },
        picture=lambda row: Image.new("RGB", (400, 100), "red"),
    )


def test_page_is_whole_and_cannot_be_broken_by_words(tmp_path: Path) -> None:
    path = retrieval.write(made_up("<model>"), tmp_path / "new", "data & more")
    page = path.read_text(encoding="utf8")
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "&lt;model&gt;" in page and "data &amp; more" in page and "<model>" not in page
    assert 'alt="1&quot;.jpg"' in page
    assert page.count("<section") == 4 and page.count("right, score") == 4
    assert "come first" not in page  # there is nothing to compare
    assert "<b>a &lt;b&gt;red&lt;/b&gt; dog</b>" in make_page(made_up("m"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out: cannot make the folder .*; name another"):
        retrieval.write(made_up("m"), tmp_path / "file" / "folder")


def test_command(tool: Tool, directories: list[Path], tmp_path: Path) -> None:
    options = ("--queries", 2, "--top", 2, "--out", tmp_path, "train.eval_batch_size=4")
    code, out, err = tool("visualize", "retrieval", "--model", *directories, *options)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("a: text R@1 ") and lines[1].startswith("b: text R@1 ")
    assert lines[2] == str(tmp_path / "retrieval.html")
    page = (tmp_path / "retrieval.html").read_text(encoding="utf8")
    assert page.count("<section") == 4 and "the models differ come first" in page


def test_a_model_of_another_task_is_refused(tool: Tool, tmp_path: Path) -> None:
    directory = saved("vqa", tmp_path)
    code, out, err = tool("visualize", "retrieval", "--model", directory)
    assert code == 2 and not out and "trained on 'vqa'" in err


def test_a_retrieval_model(tool: Tool, tmp_path: Path) -> None:
    directory = saved("retrieval", tmp_path)
    code, out, err = tool("visualize", "retrieval", "--model", directory, "--queries", 1, "--out", tmp_path)
    assert code == 0, err
    assert "text R@1" in out
