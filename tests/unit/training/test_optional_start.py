"""Weights that a run starts from where they can be had: `?` behind their names, as in the papers' recipes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import yaml

from unimo.config import list_recipes, read_yaml
from unimo.data.scenes.dataset import vocabulary
from unimo.data.tokenizers import build_word_tokenizer, load_tokenizer
from unimo.errors import CheckpointError
from unimo.inference.loading import load_task
from unimo.run_series import load_stages
from unimo.settings import RunConfig, load_run_config
from unimo.training import chain, optional_start
from unimo.training.optional_start import settle, settle_start, tower_starts, without_optional
from unimo.training.rehearsal import rehearse
from unimo.training.run import open_processor, open_run, train
from unimo.weights.cards import get_card
from unimo.weights.files import read_safetensors
from unimo.weights.huggingface import convert_tower
from unimo.weights.named import TOWERS

ASSETS = Path(__file__).resolve().parents[2] / "assets"
FILES = ("model.safetensors", "config.json", "tokenizer.json")
SIZES = (
    "{hidden_size: 32, num_layers: 3, num_heads: 4, intermediate_size: 64, max_position: 26, vocab_size: 120}"
)
PART = "{hidden_size: 32, num_heads: 2, intermediate_size: 32, num_layers: 3}"
WORDS = [
    f"model.text={SIZES}",
    f"model.vision={PART}",
    f"model.fusion={PART}",
    "model.vision.patch_size=16",
    "data.image_size=32",
    "data.max_text_len=20",
    "data.scenes.train_images=8",
    "data.scenes.val_images=4",
    "train.batch_size=4",
    "train.eval_batch_size=4",
    "train.device=cpu",
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of released weights with the card `tiny` of a text tower, whose files have no address."""
    home = tmp_path / "home"
    monkeypatch.setenv("UNIMO_HOME", str(home))
    card = {"title": "a tower", "part": "text tower", "converter": "hf-roberta", "page": "a page"}
    files = {"weights": ["model.safetensors"], "config": "config.json", "tokenizer": ["tokenizer.json"]}
    (home / "cards").mkdir(parents=True)
    (home / "cards/tiny.yaml").write_text(yaml.safe_dump({**card, **files}))
    return home


def put_files(home: Path) -> None:
    folder = home / "released/tiny"
    folder.mkdir(parents=True)
    for name in FILES[:2]:
        shutil.copy(ASSETS / "hf_roberta_tiny" / name, folder)
    load_tokenizer("scenes").save(folder)


def tiny(output: Path, *words: str, steps: int = 1) -> RunConfig:
    return load_run_config(
        "unimo3_tiny", "pretrain", [*WORDS, f"train.max_steps={steps}", f"output_dir={output}", *words]
    )


def init_of(output: Path) -> str:
    return read_yaml(output / "config.yaml")["model"]["text"]["init"]


def test_without_the_weights_a_run_starts_at_random_and_says_loudly_what_to_do(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output, word = tmp_path / "run", "model.text.init=tiny?"
    train(tiny(output, word))
    (warning,) = [record for record in caplog.records if "RANDOM WEIGHTS" in record.getMessage()]
    assert warning.levelno == logging.WARNING
    for text in ("python tools/weights.py fetch tiny", "model.text.init=tiny: tiny: cannot fetch",
                 f"Put {', '.join(FILES)} into {home}/released/tiny/", "a page"):  # fmt: skip
        assert text in warning.getMessage()
    assert init_of(output) == ""
    # What comes later changes nothing about a run that has begun.
    put_files(home)
    assert train(tiny(output, word, steps=2))["steps_now"] == 1
    assert init_of(output) == "" and not (home / "converted").exists()
    with pytest.raises(CheckpointError, match="model.text.init is '' there, 'tiny' now"):
        train(tiny(output, "model.text.init=tiny", steps=3))


def test_with_the_weights_a_run_starts_from_them_and_reads_with_their_tokenizer(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_files(home)
    output, word = tmp_path / "run", "model.text.init=tiny?"
    run = tiny(output, word, "optim.lr=0")
    train(run)
    assert init_of(output) == "tiny" and not [
        each for each in caplog.records if "RANDOM" in each.getMessage()
    ]
    given = read_safetensors(ASSETS / "hf_roberta_tiny/model.safetensors")
    word_table = next(value for name, value in given.items() if name.endswith("word_embeddings.weight"))
    model = read_safetensors(output / "model/model.safetensors")
    assert (model["model.text.embeddings.word.weight"] == word_table).all()
    # Neither the run that goes on nor the model that it leaves needs the weights again.
    shutil.rmtree(home / "converted")
    (home / "released/tiny/model.safetensors").unlink()
    assert train(tiny(output, word, "optim.lr=0", steps=2))["steps_now"] == 1
    shutil.rmtree(home)
    load_task(output / "model")
    tuned = load_run_config(
        "unimo3_tiny", "vqa", [*WORDS[3:], "train.max_steps=1", f"output_dir={tmp_path}/vqa"],
        init_from=str(output), model=read_yaml(output / "model/config.yaml")["model"],
    )  # fmt: skip
    with open_run(tuned) as (_, processor, _, source):
        assert source == f"init_from={output}"
        assert processor.tokenizer.vocab_size == load_tokenizer("scenes").vocab_size


def test_a_name_without_a_question_mark_is_required(home: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tiny: cannot fetch .*Put .* into .*/released/tiny/"):
        train(tiny(tmp_path, "model.text.init=tiny", "data.tokenizer=scenes"))
    with pytest.raises(CheckpointError, match="nothing/: |nothing is not a folder"):
        train(tiny(tmp_path, "model.text.init=nothing"))
    with pytest.raises(CheckpointError, match="SHA-256"):  # what is here and damaged is not absent
        put_files(home)
        card = yaml.safe_load((home / "cards/tiny.yaml").read_text())
        (home / "cards/tiny.yaml").write_text(yaml.safe_dump({**card, "sha256": {FILES[1]: "0" * 64}}))
        train(tiny(tmp_path, "model.text.init=tiny?"))


def test_what_is_not_a_start_is_not_looked_for(home: Path, tmp_path: Path) -> None:
    run = tiny(tmp_path / "run", "model.text.init=tiny?")
    assert without_optional(run).model.text.init == ""
    start = train(tiny(tmp_path / "first"))["output_dir"]
    assert (
        settle(tiny(tmp_path / "next", "model.text.init=tiny?", f"init_from={start}")).model.text.init == ""
    )


@pytest.mark.parametrize("is_offline", [True, False])
def test_a_dry_run_fetches_and_converts_nothing(
    is_offline: bool,
    home: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(is_offline)))
    monkeypatch.setattr(optional_start, "fetch_card", None if not is_offline else optional_start.fetch_card)
    run = tiny(tmp_path / "run", "model.text.init=tiny?")
    rehearse(run)
    assert ("RANDOM WEIGHTS" in caplog.text) == is_offline
    assert ("model.text.init=tiny: fetched when the run starts, else random" in caplog.text) != is_offline
    put_files(home)
    monkeypatch.setattr(optional_start, "fetch_card", None)
    assert settle(run, download=False).model.text.init == "tiny"
    assert not (home / "converted").exists() and not (tmp_path / "run").exists()


def test_stages_begin_after_those_of_an_optional_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beit = tmp_path / "beit"
    words = ["task.stages=all", f"init_from={beit}?", f"output_dir={tmp_path}/run"]
    runs = load_stages("vlmo_tiny", "pretrain", words)

    def left() -> list[str]:
        first = settle_start(runs)
        return [chain.name_of(run) for run in chain.left_of([first, *runs[1:]])]

    assert left() == ["vision", "language", "vision_language"]
    assert f"init_from={beit}: there is no folder" in caplog.text
    beit.mkdir()
    model = {"model": {"name": "vlmo_tiny"}, "task": {"name": "pretrain"}, "metadata": {"stages": ["vision"]}}
    (beit / "config.yaml").write_text(yaml.safe_dump(model))
    (beit / "model.safetensors").touch()
    assert left() == ["language", "vision_language"]
    alone = load_run_config("vlmo_tiny", "pretrain", [*words[1:], "task.stage=vision"])
    assert settle_start([alone]).init_from == ""
    assert settle(load_run_config("vlmo_tiny", "pretrain", words[1:]), download=False).init_from == str(beit)


RECIPES = [name for name in list_recipes("pretrain") if "_tiny" not in name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_of_a_paper_names_weights_that_have_a_card(name: str) -> None:
    run = load_run_config(name, "pretrain")
    starts = tower_starts(run.model)
    assert all(start.endswith("?") for start in starts.values())
    parts = {part: get_card(start.removesuffix("?")) for part, start in starts.items()}
    assert all(card.part in TOWERS and card.converter and card.sources for card in parts.values())
    if name.startswith("vlmo"):
        assert bool(run.init_from) == (name != "vlmo_base_plus")  # no BEiT has its width
        assert not run.init_from or get_card(run.init_from.removesuffix("?")).converter == "hf-beit"
        return
    wanted = {"text", "vision", "fusion"} & set(vars(run.model))
    assert set(parts) == (wanted if name.startswith("unimo2") else wanted - {"fusion"})


@pytest.mark.parametrize("name", [name for name in list_recipes("pretrain") if "_tiny" in name])
def test_tiny_recipes_start_at_random(name: str) -> None:
    run = load_run_config(name, "pretrain")
    assert not run.init_from and not tower_starts(run.model)


def test_the_tokenizer_of_a_run_is_that_of_its_text_tower(home: Path, tmp_path: Path) -> None:
    put_files(home)
    words = load_tokenizer("scenes")
    assert open_processor(tiny(tmp_path)).tokenizer.vocab_size == words.vocab_size
    build_word_tokenizer(["zebra", *vocabulary()]).save(home / "released/tiny")
    convert_tower("hf-roberta", home / "released/tiny", None, tmp_path / "converted")
    for name in ("tiny", home / "released/tiny", tmp_path / "converted"):
        opened = open_processor(tiny(tmp_path, f"model.text.init={name}"))
        assert opened.tokenizer.vocab_size == 1 + words.vocab_size
    given = tiny(tmp_path, "model.text.init=tiny", "data.tokenizer=scenes")
    assert open_processor(given).tokenizer.vocab_size == words.vocab_size
