"""Model directories: what is saved comes back, and what is broken is named."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from micro import make_run, make_task, saved

import unimo
from unimo.errors import CheckpointError, UnimoError
from unimo.inference import loading, saving
from unimo.tasks.base import to_tensors
from unimo.weights.files import read_safetensors, write_safetensors


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return saved("vqa", tmp_path / "run")


def test_saved_task_predicts_the_same(directory: Path) -> None:
    run = make_run("vqa")
    task, _, data = make_task(run)
    task.eval()
    batch = to_tensors(next(iter(data.eval_loader("val", run))))
    again, processor = loading.load_task(directory)
    assert not again.training
    assert again.answers == task.answers
    assert np.array_equal(again.predict(batch)["logits"].numpy(), task.predict(batch)["logits"].numpy())
    assert processor.config.image_size == 32


def test_files_of_a_model_directory(directory: Path) -> None:
    assert {path.name for path in directory.iterdir()} == {
        "config.yaml", "model.safetensors", "tokenizer.json", "metrics.json",
    }  # fmt: skip
    content = yaml.safe_load((directory / "config.yaml").read_text())
    assert content["model"]["fusion"]["hidden_size"] == 16
    assert content["data"]["scenes"]["val_images"] == 3
    assert "yes" in content["metadata"]["answers"]
    assert json.loads((directory / "metrics.json").read_text()) == {"overall": 1.0}
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_load_gives_the_model_alone_from_run_folder_or_directory(directory: Path) -> None:
    for path in (directory, directory.parent, str(directory)):
        model, processor = unimo.load(path)
        batch = processor(images=[_picture()], texts=["what color is the circle ?"])
        encoded = model.encode_text(*(paddle.to_tensor(batch[k]) for k in ("input_ids", "attention_mask")))
        assert encoded.text.shape[-1] == 16
    assert {name.split(".")[0] for name in model.state_dict()} >= {"text", "vision", "fusion"}


def _picture():
    from PIL import Image

    return Image.new("RGB", (40, 30), "red")


def test_another_image_size_resizes_positions(directory: Path) -> None:
    model, processor = unimo.load(directory, image_size=64)
    assert processor(images=_picture())["pixels"].shape == (1, 3, 64, 64)
    assert model.encode_image(paddle.zeros([1, 3, 64, 64])).image.shape == [1, 17, 16]


def test_name_means_the_pretrained_model_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="none yet"):
        unimo.load("unimo3_tiny")
    saved("pretrain", Path("output/unimo3_tiny_pretrain"))
    saved("vqa", Path("output/mine"))
    assert unimo.load("unimo3_tiny")[0].config.name == "unimo3_tiny"
    assert loading.find_model("mine") == Path("output/mine/model")
    assert loading.list_saved("vqa") == [Path("output/mine/model")]
    with pytest.raises(CheckpointError, match="output/mine/model"):
        unimo.load("other")


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml"])
def test_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        loading.load_task(directory)


def test_truncated_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="truncated"):
        loading.load_task(directory)


def test_missing_extra_and_misshaped_tensors_are_all_named(directory: Path) -> None:
    tensors = read_safetensors(directory / "model.safetensors")
    tensors.pop("classifier.out.bias")
    tensors["stranger"] = np.zeros(3, np.float32)
    tensors["model.type_embedding.weight"] = np.zeros((5, 16), np.float32)
    write_safetensors(directory / "model.safetensors", tensors)
    with pytest.raises(CheckpointError) as caught:
        loading.load_task(directory)
    for name in ("classifier.out.bias", "stranger", "model.type_embedding.weight"):
        assert name in str(caught.value)


def test_config_without_a_model_section(directory: Path) -> None:
    content = yaml.safe_load((directory / "config.yaml").read_text())
    del content["model"]
    (directory / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(CheckpointError, match="'model'"):
        unimo.load(directory)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text", "num_layers", 10_000_000),
        ("text", "num_layers", 1000),
        ("text", "vocab_size", 1_000_000_000),
        ("text", "vocab_size", 10_000_000),
        ("text", "max_position", 10_000_000),
        ("text", "intermediate_size", 131_072),
        ("vision", "num_layers", 1000),
        ("vision", "image_size", 16_384),
        ("fusion", "num_layers", 1000),
    ],
)
def test_sizes_that_the_weights_do_not_have(
    directory: Path, monkeypatch: pytest.MonkeyPatch, section: str, key: str, value: int
) -> None:
    def never(config: object) -> None:
        raise AssertionError("it was built")

    monkeypatch.setattr(loading, "_SPARE_PARAMETERS", 100_000)
    content = yaml.safe_load((directory / "config.yaml").read_text())
    content["model"][section][key] = value
    (directory / "config.yaml").write_text(yaml.safe_dump(content))
    with monkeypatch.context() as patch:
        patch.setattr(loading.registry, "build_model", never)
        with pytest.raises(UnimoError, match="parameters|10,?000,?000|1000|1024"):
            unimo.load(directory)


def test_saving_again_replaces_and_a_failure_keeps_the_old(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (directory / "model.safetensors").read_bytes()
    task, processor, _ = make_task(make_run("vqa"), seed=1)

    def full(*_: object) -> None:
        raise CheckpointError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saving, "write_safetensors", full)
        with pytest.raises(CheckpointError, match="No space"):
            saving.save_model(task, processor, directory)
    assert (directory / "model.safetensors").read_bytes() == before
    saving.save_model(task, processor, directory)
    assert (directory / "model.safetensors").read_bytes() != before
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_a_kill_while_replacing_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = saved("vqa", Path("output/mine"))
    aside = directory.with_name(".model.old")
    directory.rename(aside)  # what a kill between the two renames leaves, beside the unfinished new one
    directory.with_name(".model.writing").mkdir()
    assert [loading.find_model(path) for path in ("mine", "output/mine", directory)] == [aside] * 3
    assert loading.list_saved("vqa") == [aside] and "not replaced completely" in caplog.text
    assert unimo.load("mine")[0].config.name == "unimo3_tiny"
    task, processor, _ = make_task(make_run("vqa"), seed=1)
    saving.save_model(task, processor, directory)
    assert loading.find_model("mine") == directory
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_new_task_takes_over_the_model_and_its_matching_head(tmp_path: Path) -> None:
    source = saved("pretrain", tmp_path / "pretrain", seed=3)
    weights = read_safetensors(source / "model.safetensors")
    retrieval, _, _ = make_task(make_run("retrieval"), seed=4)
    fresh = loading.start_from(retrieval, source)
    state = {name: value.numpy() for name, value in retrieval.state_dict().items()}
    assert np.array_equal(state["model.text_transform.weight"], weights["model.text_transform.weight"])
    assert np.array_equal(state["itm_head.weight"], weights["objective.itm_head.weight"])
    assert set(fresh) == {name for name in state if name.startswith(("itc_", "temperature"))}


def test_same_task_goes_on_with_its_heads_another_task_does_not(tmp_path: Path) -> None:
    source = saved("vqa", tmp_path / "vqa", seed=3)
    again, _, _ = make_task(make_run("vqa"), seed=4)
    assert loading.start_from(again, source) == []
    entailment, _, _ = make_task(make_run("entailment"), seed=4)
    assert "classifier.dense.weight" in loading.start_from(entailment, source)


def test_start_from_another_model_names_what_does_not_fit(tmp_path: Path) -> None:
    source = saved("pretrain", tmp_path / "pretrain")
    run = make_run("vqa", model={"fusion": {"intermediate_size": 48}})
    task, _, _ = make_task(run)
    with pytest.raises(CheckpointError, match="mis-shaped.*model 16, 48|model .16, 48."):
        loading.start_from(task, source)


def test_towers_are_not_read_from_their_own_files_again() -> None:
    section = {"name": "x", "text": {"init": "DIR", "hidden_size": 4}, "vision": {"init": "DIR"}}
    cleared = loading.without_init(section)
    assert cleared == {"name": "x", "text": {"init": "", "hidden_size": 4}, "vision": {"init": ""}}
    assert section["text"]["init"] == "DIR"
