"""The command that a run proposes: it suits model and data, and works as typed."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import micro_semvlp
import micro_unimo
import micro_unimo2
import pytest
from micro import Tool, make_run, saved

from unimo.settings import RunConfig
from unimo.training.next_command import next_command

MODELS: dict[str, dict[str, Any]] = {
    "unimo": micro_unimo.UNIMO,
    "unimo2": {"model": micro_unimo2.MODEL},
    "unimo3": {},
}


def write_photos(folder: Path, make_image: Any) -> Path:
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        lines = []
        for number in range(3):
            (folder / f"{split}{number}.png").write_bytes(make_image((number, 9, 9)))
            lines.append({"image": f"{split}{number}.png", "text": "there is a red circle"})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def pretraining(family: str, output: Path, **data: Any) -> RunConfig:
    changes = MODELS[family]
    return make_run("pretrain", output, **{**changes, "data": changes.get("data", {}) | data})


@pytest.mark.parametrize(
    ("family", "corpora", "said"),
    [
        ("unimo3", {}, "--task vqa --init run/model data.scenes.train_images=12 data.scenes.val_images=3"),
        ("unimo2", {}, "--task vqa "),
        ("unimo", {}, "--task vqa .* data.regions=grid:2:2"),
        ("unimo3", {"pairs": ["photos"]}, "--task retrieval --init run/model data.path=photos$"),
        ("unimo2", {"pairs": ["photos"]}, "--task caption --init run/model data.path=photos$"),
        ("unimo", {"pairs": ["photos"]}, "--task retrieval .* data.path=photos data.regions=grid:2:2$"),
        ("unimo3", {"pairs": ["my photos"]}, "--task retrieval .* 'data.path=my photos'$"),
        ("unimo3", {"pairs": ["photos"], "root": "below"}, "data.path=photos data.root=below$"),
        ("unimo3", {"pairs": ["photos", "scenes"]}, "--task retrieval .* data.path=photos$"),
        (
            "unimo3",
            {"pairs": [{"path": "photos", "name": "a"}, "my photos"]},
            r"'data.path=\[\{path: photos, name: a\}, \{path: my photos\}\]'$",
        ),
    ],
)
def test_fine_tuning_on_the_data_of_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_image: Any,
    tool: Tool,
    family: str,
    corpora: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("photos", "my photos", "below/photos"):
        write_photos(tmp_path / place, make_image)
    run = pretraining(family, Path("run"), **corpora)
    saved("pretrain", Path("run"), **(MODELS[family] | {"data": MODELS[family].get("data", {}) | corpora}))
    command = next_command(run, "val", was_evaluated=True)
    assert re.search(said, command), command
    _, program, *words = shlex.split(command)
    code, out, err = tool(Path(program).stem, *words, "--dry-run")
    assert code == 0, err
    assert "name: " in out


def test_labelled_images_are_classified(tmp_path: Path) -> None:
    run = pretraining("unimo2", tmp_path, pairs=[{"path": "birds", "prompt": "a photo of {}"}])
    assert "--task image_classification" in next_command(run, "val", was_evaluated=True)
    assert next_command(run, "val", was_evaluated=True).endswith("data.path=birds")


@pytest.mark.parametrize("was_evaluated", [True, False])
def test_without_a_task_the_model_is_evaluated(tmp_path: Path, was_evaluated: bool) -> None:
    texts = pretraining("unimo2", tmp_path, pairs=[], texts=["scenes"])
    birds = make_run(
        "pretrain",
        tmp_path,
        model=micro_semvlp.MODEL,
        data={**micro_semvlp.SEMVLP["data"], "pairs": [{"path": "birds", "prompt": "a photo of {}"}]},
    )
    tuned = make_run("vqa", tmp_path)
    split = "val" if was_evaluated else "train"
    for run in (texts, birds, tuned):
        assert next_command(run, "val", was_evaluated) == (
            f"python tools/evaluate.py --task {run.task.name} --model {tmp_path}/model --split {split}"
        )


def test_without_a_validation_split_nothing_is_selected_by_it(tmp_path: Path) -> None:
    run = pretraining("unimo3", tmp_path, pairs=["photos"])
    assert next_command(run, "val", was_evaluated=False).endswith("data.path=photos train.select_metric=")
