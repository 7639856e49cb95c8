"""Every released naming: what a converter takes of a file goes back bit by bit, under the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import released_folder
import released_unimo
from beit_names import to_hugging_face, unilm_shapes
from bridgetower_names import classifier, contrast, leftovers, ranking
from bridgetower_names import released_shapes as towers_of
from seeded_weights import seeded
from vlmo_names import released_shapes, task_shapes

from unimo.inference.release import releases
from unimo.weights.name_map import split
from unimo.weights.released import Folder

Tensors = Mapping[str, np.ndarray]
VLMO = released_shapes(32, 3, 2, 2, relative=True, words=50, side=3)
PLUS = released_shapes(32, 3, 2, 2, relative=False, words=50, side=3)
HEADS: Mapping[str, Callable[[str], dict]] = {
    "pretrain": lambda kind: {},
    "vqa": lambda kind: classifier("vqa_classifier", 128, 96, 7),
    "nlvr2": lambda kind: classifier("nlvr2_classifier", 256, 96, 2),
    "entailment": lambda kind: classifier("snli_classifier", 128, 96, 3),
    "retrieval": lambda kind: ranking(64) if kind == "meter" else contrast(kind, 64, 24),
}


def towers(kind: str, task: str) -> Tensors:
    shapes = towers_of(kind, 64, 3, 2, 2, patch=4, words=60, types=3 if task == "nlvr2" else 2)
    shapes |= HEADS[task](kind) | ({} if kind == "hf-bridgetower" else leftovers(kind))
    return seeded(shapes) | ({"logit_scale": np.float32(2.6592)} if kind == "hf-bridgetower" else {})


def beit(shared: bool) -> Tensors:
    return seeded(unilm_shapes(16, 2, 2, 3, shared=shared))


def vit() -> Tensors:
    theirs = to_hugging_face(seeded(unilm_shapes(64, 2, 1, 3, shared=True)))
    bad = ("lambda", "relative", "mask_token", "lm_head")
    kept = {n.replace("beit.", "vit."): x for n, x in theirs.items() if not any(one in n for one in bad)}
    return kept | {"vit.embeddings.position_embeddings": seeded({"p": (1, 10, 64)})["p"]}


CASES: Mapping[tuple[str, str], Callable[[], Tensors]] = {
    **{
        ("unimo-release", task): lambda: released_unimo.random_release(60)
        for task in ("pretrain", "caption", "seq2seq", "entailment", "retrieval", "text_classification")
    },
    ("unimo2-release", "pretrain"): lambda: released_folder.random_release(60),
    **{
        (kind, task): lambda kind=kind, task=task: towers(kind, task)
        for kind, tasks in (
            ("meter", HEADS),
            ("bridgetower", HEADS),
            ("hf-bridgetower", ("pretrain", "retrieval")),
        )
        for task in tasks
    },
    ("vlmo", "pretrain"): lambda: seeded(VLMO),
    ("vlmo", "pretrain, base_plus"): lambda: seeded(PLUS),
    **{
        ("vlmo", task): lambda task=task: seeded(task_shapes(task, VLMO, 3, 5 if task == "vqa" else 2))
        for task in ("vqa", "nlvr2", "retrieval")
    },
    ("unilm-beit", "pretrain"): lambda: beit(False),
    ("unilm-beit", "pretrain, shared"): lambda: beit(True),
    ("hf-beit", "pretrain"): lambda: to_hugging_face(beit(False)),
    ("hf-beit", "pretrain, shared"): lambda: to_hugging_face(beit(True)),
    ("hf-vit-vlmo", "pretrain"): vit,
}
LEFT = (
    "mask_lm_",
    "cls_",
    "grounded.mask_g",
    "cmcl_temp",
    "head.",
    "fc_norm",
    "lm_head",
    "mask_token",
    "embeddings.mask",
    "classifier",
)
"""Beginnings of what only some tasks read, or nothing here."""
OF_TASKS = ("itc_", "itm_", "mlm_", "temperature", "logit_scale", "vit_model.ln", "vit_model.pos")


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_what_is_taken_goes_back_bit_by_bit(case: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    kind, task = case
    theirs, seen, rename = CASES[case](), [], Folder.rename

    def spy(folder: Folder, rows: list, *words: object) -> dict[str, np.ndarray]:
        ours = rename(folder, rows, *words)
        seen.append((rows, dict(ours)))
        return ours

    monkeypatch.setattr(Folder, "rename", spy)
    given = {"transformer": {"num_heads": 2}} if task.endswith("base_plus") else {}
    found = releases()[kind].converters[kind](theirs, "the file", task.partition(",")[0], given)
    ((rows, ours),) = seen
    back = {name: part for entry in rows for name, part in split(entry, np.asarray(ours[entry.ours])).items()}
    prefix = {"hf-beit": "beit.", "hf-vit-vlmo": "vit."}.get(kind, "")
    kept = {name.removeprefix(prefix): array for name, array in theirs.items()}
    for name, array in back.items():
        assert array.shape == kept[name].shape and array.dtype == kept[name].dtype, name
        assert array.tobytes() == np.ascontiguousarray(kept[name]).tobytes(), name
    unread = kept.keys() - back.keys()
    assert all(name.startswith((*LEFT, *OF_TASKS)) or "pooler" in name for name in unread), unread
    # BEiT's table is repeated for every layer and gets rows for texts; it begins with what was taken.
    for name, array in ours.items():
        made = np.asarray(found.tensors[name])
        assert np.array_equal(made[tuple(map(slice, array.shape))], array), name
