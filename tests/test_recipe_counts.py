"""Counts in the recipes and their comments: steps are samples x epochs / batch."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from unimo.config import CONFIG_ROOT, list_recipes
from unimo.settings import load_run_config

# Training samples of an epoch: of VQA the questions of train and val with a known (normalised) answer, less
# about 5,190 of rest_val; of the others what the data sets have as they are distributed.
SAMPLES = {
    "vqa": 640_191,
    "entailment": 529_527,
    "nlvr2": 86_373,
    "retrieval": 145_000,
    "caption": 566_747,
    "image_classification": 1_281_167,
    "text_classification": 67_349,
}
CIFAR = 45_000  # 5,000 of the training images choose the epoch
GLUE = {"mnli": 392_702, "cola": 8_551, "stsb": 5_749}
MORE_GLUE = {**GLUE, "qqp": 363_846, "qnli": 104_743, "mrpc": 3_668, "rte": 2_490}
TOWERS = ("unimo3", "meter", "bridgetower")
"""Families whose image classification is that of CIFAR."""
PAPERS = [
    (name, kind)
    for kind in SAMPLES
    for name in list_recipes(kind)
    # VLMo's release counts steps of retrieval, not epochs; BEiT leaves out the end of an epoch.
    if "_tiny" not in name and not (kind in ("retrieval", "image_classification") and name.startswith("vlmo"))
]


@pytest.mark.parametrize(("name", "kind"), PAPERS)
def test_steps_are_whole_epochs(name: str, kind: str) -> None:
    train = load_run_config(name, kind).train
    of_cifar = kind == "image_classification" and name.partition("_")[0] in TOWERS
    epoch = (CIFAR if of_cifar else SAMPLES[kind]) / train.batch_size
    assert train.max_steps == round(round(train.max_steps / epoch) * epoch)
    if kind != "text_classification":  # there every thousand steps, as the release
        assert train.eval_every == pytest.approx(round(train.eval_every / epoch) * epoch, abs=1)


@pytest.mark.parametrize(
    ("folder", "family", "sets"),
    [("unimo", "unimo", GLUE), ("unimo2", "unimo2", GLUE), ("_base_", "unimo3", MORE_GLUE)],
)
def test_steps_of_other_glue_sets_are_ten_epochs(folder: str, family: str, sets: dict[str, int]) -> None:
    text = (CONFIG_ROOT / folder / "text_classification.yaml").read_text(encoding="utf8")
    found = dict(re.findall(r"task\.dataset=(\w+) train\.max_steps=(\d+)", text))
    batch = load_run_config(f"{family}_base", "text_classification").train.batch_size
    assert {name: int(steps) for name, steps in found.items()} == {
        name: round(10 * samples / batch) for name, samples in sets.items()
    }
    if folder == "_base_":  # evaluated once an epoch
        epochs = dict(re.findall(r"task\.dataset=(\w+) .*train\.eval_every=(\d+)", text))
        assert {name: int(steps) for name, steps in epochs.items()} == {
            name: round(samples / batch) for name, samples in sets.items()
        }


def rounds_in_comments() -> list[tuple[str, str, int, int, int]]:
    """File, task, micro-batch, rounds and GPUs of each comment that says `N rounds on M GPUs`."""
    found = []
    for path in sorted(CONFIG_ROOT.glob("*/*.yaml")):
        for line in path.read_text(encoding="utf8").splitlines():
            said = re.search(
                r"negatives_batch_size: (\d+) *# .*?(\d+) rounds on (?:the paper's )?(\d+) GPUs", line
            )
            if said:
                found.append((path.parent.name, path.stem, *map(int, said.groups())))
    return found


@pytest.mark.parametrize(("family", "kind", "micro", "rounds", "gpus"), rounds_in_comments())
def test_rounds_in_comments(family: str, kind: str, micro: int, rounds: int, gpus: int) -> None:
    families = ["unimo3", "meter", "bridgetower"] if family == "_base_" else [family]
    runs = [load_run_config(n, kind).train for n in list_recipes(kind) if n.rsplit("_")[0] in families]
    meant = [train for train in runs if train.negatives_batch_size == micro]
    assert meant and {replace(train, micro_batch_size=micro).rounds(gpus) for train in meant} == {rounds}


def test_steps_before_texts_and_images_come_in() -> None:
    text = (CONFIG_ROOT / "unimo2" / "pretrain.yaml").read_text(encoding="utf8")
    before, steps = re.search(r"pairs_only_epochs: [\d.]+ *# (\d+) of the ([\d,]+) steps", text).groups()
    run = load_run_config("unimo2_tiny", "pretrain")
    pairs = run.data.scenes.train_images * run.data.scenes.captions_per_image
    assert int(before) == run.data.pairs_only_epochs * pairs / run.train.batch_size
    assert int(steps.replace(",", "")) == run.train.max_steps
