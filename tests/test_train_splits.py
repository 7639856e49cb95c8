"""Which splits are trained on and which choose the checkpoint, by the tools, from prepared tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from micro import Tool, words
from picture_files import write_json, write_pictures
from small_vqa import write_official

from unimo.data.readers.open import open_corpus
from unimo.settings import CorpusConfig, DataConfig


@pytest.fixture
def vqa_tables(tool: Tool, tmp_path: Path) -> Path:
    """VQA v2 in small: 6 images of train, 4 of val, of which 1 is `rest_val`, with two questions each."""
    write_official(tmp_path / "vqa", tmp_path / "coco")
    sources = ("--annotations", tmp_path / "vqa", "--images", tmp_path / "coco", "--out", tmp_path / "tables")
    assert tool("prepare_data", "vqa", *sources, "--rest-images", 1)[0] == 0
    return tmp_path / "tables"


def fine_tune(tool: Tool, task: str, data: Path, output: Path, *overrides: str) -> tuple[int, str, str]:
    start = ("--task", task, "--model", "unimo3_tiny", "--init", "none", f"output_dir={output}")
    common = ("data.tokenizer=scenes", "train.max_steps=2", "train.eval_every=1")
    return tool("finetune", *start, *words(), *common, f"data.path={data}", *overrides)


def test_vqa_is_trained_on_train_and_val_and_chosen_by_the_rest(
    tool: Tool, vqa_tables: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both, output = "data.train_split=train+trainable_val", tmp_path / "out"
    code, out, err = fine_tune(tool, "vqa", vqa_tables, output, both, "train.select_metric=overall")
    assert code == 0, err
    assert re.search(r"trained on +train\+trainable_val; selection clean: by rest_val\n", out)
    assert "--split rest_val" in out and "rest_val overall" in out
    assert "corpus tables, train+trainable_val: 18 samples in 2 files" in caplog.text
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "rest_val"}
    protocol = {"selection": "clean", "split": "rest_val", "train_split": "train+trainable_val"}
    for kind in ("model", "best"):
        scores = json.loads((output / kind / "metrics.json").read_text())
        assert {name: scores[name] for name in protocol} == protocol and "overall" in scores
        code, printed, err = tool("evaluate", "--task", "vqa", "--model", output / kind)
        result = json.loads(printed)
        assert code == 0 and {name: result[name] for name in protocol} == protocol
        assert result["samples"] == 2 and "held-out" not in caplog.text
    code, printed, err = tool("evaluate", "--task", "vqa", "--model", output, "--split", "val")
    assert json.loads(printed)["samples"] == 8
    assert "was trained on trainable_val; scores of val are not of held-out data" in caplog.text


def test_the_protocol_of_meter_trains_on_val_and_chooses_by_it(
    tool: Tool, vqa_tables: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    code, _, err = fine_tune(tool, "vqa", vqa_tables, output, "data.train_split=train+val")
    assert code == 2 and "val shares samples with val, which chooses the checkpoint" in err
    paper = ("data.train_split=train+val", "data.selection=paper")
    code, out, err = fine_tune(tool, "vqa", vqa_tables, output, *paper)
    assert code == 0 and "selection paper: by val" in out, err
    scores = json.loads((output / "model" / "metrics.json").read_text())
    assert (scores["selection"], scores["split"]) == ("paper", "val")


def test_a_split_that_is_not_there_ends_the_run(tool: Tool, vqa_tables: Path, tmp_path: Path) -> None:
    (vqa_tables / "vqav2_trainable_val.arrow").unlink()
    both = "data.train_split=train+trainable_val"
    code, _, err = fine_tune(tool, "vqa", vqa_tables, tmp_path / "out", both)
    assert code == 2 and "no split 'trainable_val' of vqa; found: rest_val, test, test-dev, train, val" in err


def test_retrieval_chooses_by_test_only_if_asked_to(tool: Tool, tmp_path: Path) -> None:
    splits = ["train", "train", "train", "restval", "val", "test"]
    write_pictures(tmp_path / "images", [f"{i}.jpg" for i in range(12)])
    images = [
        {"filename": f"{i}.jpg", "split": splits[i % 6], "sentences": [{"raw": f"a circle {i}"}]}
        for i in range(12)
    ]
    file = write_json(tmp_path / "dataset_coco.json", {"dataset": "coco", "images": images})
    sources = ("--annotations", file, "--images", tmp_path / "images", "--out", tmp_path / "tables")
    assert tool("prepare_data", "karpathy", *sources)[0] == 0
    found = {}
    for name, wish in (("clean", ()), ("paper", ("data.train_split=train+val", "data.selection=paper"))):
        output = tmp_path / name
        code, _, err = fine_tune(tool, "retrieval", tmp_path / "tables", output, "train.batch_size=4", *wish)
        assert code == 0, err
        found[name] = json.loads((output / "model" / "metrics.json").read_text())
    keys = ("selection", "split", "train_split")
    assert [found["clean"][key] for key in keys] == ["clean", "val", "train"]
    assert [found["paper"][key] for key in keys] == ["paper", "test", "train+val"]
    code, _, err = fine_tune(tool, "entailment", tmp_path / "tables", tmp_path / "x", "data.selection=paper")
    assert code == 2 and "data.selection=paper is for --task retrieval, vqa, gqa and image_class" in err


def test_real_photographs_of_train_and_val(tool: Tool, shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "flickr8k_800"
    sources = ("--annotations", source / "dataset_flickr8k.json", "--images", source / "images")
    assert tool("prepare_data", "karpathy", *sources, "--out", tmp_path)[0] == 0
    data = open_corpus(CorpusConfig(str(tmp_path)), "train+val", "pairs", DataConfig())
    assert len(data) == 5 * 720 == len({record.sample_id for record in data})
