"""Task data from run configs, on the built-in corpus."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from unimo.config import CONFIG_ROOT, merge_into, read_recipe
from unimo.data.loading.task_data import TaskData
from unimo.data.processor import build_processor
from unimo.data.tokenizers import load_tokenizer
from unimo.errors import ConfigError, DataError
from unimo.registry import model_config, task_class, task_config
from unimo.settings import CorpusConfig, RunConfig, build_run_config

FIELDS = {
    "pretrain": {"mlm_input_ids", "mlm_positions", "mlm_labels", "itm_image_index", "itm_labels"},
    "vqa": {"answer_targets", "question_types", "question_ids"},
    "gqa": {"labels", "answers", "question_ids", "facts"},
    "entailment": {"labels"},
    "nlvr2": {"second_images", "labels", "identifiers", "sentences"},
    "retrieval": {"image_ids"},
}
COMMON = {"images", "input_ids", "attention_mask", "image_group", "sample_ids"}


def make_run(**changes) -> RunConfig:
    values = {
        "data": {"image_size": 32, "scenes": {"train_images": 30, "val_images": 8}},
        "train": {"batch_size": 12, "micro_batch_size": 6},
        "seed": 1,
    }
    name = changes.pop("model", "unimo3_tiny")
    kind = changes.pop("kind", "pretrain")
    task = merge_into(task_config(kind, name), changes.pop("task", {}))
    run = RunConfig(model=model_config(name), task=task)
    return merge_into(merge_into(run, values), changes)


@pytest.fixture(scope="module")
def scenes_processor():
    return build_processor(make_run().data, load_tokenizer("scenes"))


def open_data(run, processor, metadata=None):
    return task_class(run.task.name).open_data(run, processor, metadata)


@pytest.mark.parametrize("kind", FIELDS)
def test_batches_of_each_task(kind, scenes_processor):
    run = make_run(kind=kind, train={"micro_batch_size": 2})
    data = open_data(run, scenes_processor)
    train = data.train_loader(run, rank=1, world_size=3)
    batch = next(train)
    train.close()
    found = {name for name, value in vars(batch).items() if value is not None}
    assert found == COMMON | FIELDS[kind]
    assert batch.images.shape == (2, 3, 32, 32)
    loader = data.eval_loader("val", run)
    ids = [name for part in loader for name in part.sample_ids]
    assert len(ids) == len(set(ids)) == len(data.eval_dataset("val"))
    assert data.collator(True).train and not data.collator(False).train


def test_answers_are_metadata(scenes_processor):
    data = open_data(make_run(kind="vqa"), scenes_processor)
    batch = next(iter(data.eval_loader("val", make_run(), batch_size=16)))
    assert batch.answer_targets.shape == (16, len(data.metadata["answers"]))
    assert (batch.answer_targets.max(axis=1) == 1).all()


def test_answers_of_an_existing_model_win(scenes_processor):
    data = open_data(make_run(kind="vqa"), scenes_processor, {"answers": ["yes", "no"]})
    assert data.metadata == {"answers": ["yes", "no"]}
    assert next(iter(data.eval_loader("val", make_run()))).answer_targets.shape[1] == 2


def test_retrieval_evaluates_everything_on_every_rank(scenes_processor):
    run = make_run()
    shared, whole = open_data(run, scenes_processor), open_data(make_run(kind="retrieval"), scenes_processor)
    lengths = [
        [sum(len(b.sample_ids) for b in data.eval_loader("val", run, rank, 2)) for rank in (0, 1)]
        for data in (shared, whole)
    ]
    assert lengths == [[16, 16], [32, 32]]


def test_weights_and_names_of_corpora(scenes_processor):
    corpora = [{"path": "scenes", "weight": 0.8}, {"path": "scenes", "name": "more", "weight": 0.2}]
    run = make_run(data={"pairs": corpora})
    loader = open_data(run, scenes_processor).train_loader(run)
    assert loader.sampler.shares == pytest.approx({"scenes": 0.8, "more": 0.2})
    with pytest.raises(ConfigError, match="two corpora are named 'scenes'"):
        run = make_run(data={"pairs": ["scenes", "scenes"]})
        open_data(run, scenes_processor).train_loader(run)


def test_settings_reach_the_collator(scenes_processor):
    run = make_run(task={"mlm_probability": 1.0, "false_images": "dataset"})
    loader = open_data(run, scenes_processor).train_loader(run)
    batch = next(loader)
    loader.close()
    assert len(batch.mlm_labels) == (batch.attention_mask.sum(axis=1) - 2).sum()
    assert batch.false_pixels.shape[0] == 3


def test_evaluation_leaves_out_corpora_without_the_split(scenes_processor, corpus_class):
    def open_split(corpus, split):
        if corpus.path == "sbu" and split != "train":
            raise DataError(f"no split {split}")
        return corpus_class(corpus.path, 6)

    collator = open_data(make_run(), scenes_processor).collator
    corpora = [CorpusConfig("coco"), CorpusConfig("sbu"), CorpusConfig("vg")]
    data = TaskData(corpora, open_split, scenes_processor, collator)
    assert len(data.train_datasets()) == 3
    joined = data.eval_dataset("val")
    assert [joined[index].sample_id for index in (0, 5, 6, 11)] == ["coco-0", "coco-5", "vg-0", "vg-5"]
    with pytest.raises(DataError, match="no split val"):
        TaskData(corpora[1:2], open_split, scenes_processor, collator).eval_dataset("val")


TABLE_6 = {
    "coco": 567_000,
    "vg": 5_410_000,
    "cc": 3_010_000,
    "sbu": 867_000,
    "imagenet_pairs": 14_000_000,
    "openimages_pairs": 1_700_000,
    "bookwiki": 9_000_000,
    "openwebtext": 9_000_000,
    "imagenet21k": 14_000_000,
    "openimages": 1_700_000,
}
"""Samples of UNIMO-2's corpora (its Table 6); for the texts, which it gives in bytes, any number."""


def unimo2_data(corpus_class, processor, recipe: str, pseudo_pairs_count: bool):
    """The corpora that the comment of UNIMO-2's recipe names, as empty data sets of the size of the paper."""
    lines = (CONFIG_ROOT / "unimo2" / "pretrain.yaml").read_text(encoding="utf8").splitlines()
    start = lines.index("#   data:")
    end = lines.index("#", start)
    named = yaml.safe_load("\n".join(line.removeprefix("#   ") for line in lines[start:end]))
    if pseudo_pairs_count:
        for corpus in named["data"]["pairs"]:
            if isinstance(corpus, dict):
                corpus.pop("curriculum", None)
    run = build_run_config(read_recipe(recipe, "pretrain"), named)

    def open_split(corpus: CorpusConfig, _: str):
        name = corpus.name or corpus.path
        return corpus_class(name, TABLE_6[name])

    data = TaskData(
        run.data.pairs,
        open_split,
        processor,
        lambda train: None,
    )
    data.unpaired = {"texts": run.data.texts, "images": run.data.images}
    names = {corpus.path: Path(corpus.path).stem for corpora in data.unpaired.values() for corpus in corpora}
    data.open_unpaired = lambda corpus, kind: corpus_class(names[corpus.path], TABLE_6[names[corpus.path]])
    return run, data


@pytest.mark.parametrize(("pseudo_pairs_count", "steps"), [(False, 48_100), (True, 124_800)])
def test_curriculum_of_unimo2_takes_the_steps_that_its_recipe_says(
    corpus_class, scenes_processor, pseudo_pairs_count, steps
):
    run, data = unimo2_data(corpus_class, scenes_processor, "unimo2_base", pseudo_pairs_count)
    loader = data.train_loader(run)
    assert loader.sampler.first_samples / run.train.batch_size == pytest.approx(steps, rel=1e-3)
    real = {"coco", "vg", "cc", "sbu"}
    first = {key.corpus for key in loader.sampler.next()}
    assert first == (real if not pseudo_pairs_count else real | {"imagenet_pairs", "openimages_pairs"})
    loader.close()


def test_some_corpus_begins_the_curriculum(scenes_processor, corpus_class):
    pairs = [{"path": "scenes", "curriculum": False}]
    run = make_run(model="unimo2_tiny", data={"pairs": pairs, "pairs_only_epochs": 1})
    with pytest.raises(ConfigError, match="all of data.pairs have curriculum=false"):
        open_data(run, scenes_processor).train_loader(run)
    run = merge_into(run, {"data": {"pairs": [*pairs, {"path": "scenes", "name": "real"}]}})
    loader = open_data(run, scenes_processor).train_loader(run)
    assert loader.sampler.curriculum.beginning == ["real"] and loader.sampler.first_samples == 120
    loader.close()


def test_seed_decides_the_batches(scenes_processor):
    def first_batch(seed):
        run = make_run(seed=seed)
        loader = open_data(run, scenes_processor).train_loader(run)
        batch = next(loader)
        loader.close()
        return batch

    np.testing.assert_array_equal(first_batch(1).mlm_input_ids, first_batch(1).mlm_input_ids)
    assert first_batch(1).sample_ids != first_batch(2).sample_ids


def test_augmented_corpora_are_opened_for_training_only():
    run = make_run(
        model="unimo_tiny", data={"regions": "grid:2:16"}, task={"augment": {"rewrites": "gone.jsonl"}}
    )
    data = open_data(run, build_processor(run.data, load_tokenizer("scenes")))
    assert len(list(data.eval_loader("val", run))) > 0
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        data.train_loader(run)
