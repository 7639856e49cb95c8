"""Whatever a caller gives in place of a picture or a text is one clear error of ours, in every task."""

from pathlib import Path

import pytest
from micro import TOWER, saved
from micro_unimo2 import MODEL
from PIL import Image

from unimo.errors import ConfigError, RecordError
from unimo.inference.pipeline import Pipeline
from unimo.tasks.base import Question

WRITER = {
    "name": "unimo_tiny",
    "text": {**TOWER, "vocab_size": 90, "max_position": 80},
    "regions": {"feature_size": 16},
}
BEAM = {"beam": {"size": 2, "min_length": 0, "max_length": 4}}
TASKS = {
    "vqa": {},
    "gqa": {},
    "entailment": {},
    "nlvr2": {"model": MODEL},
    "retrieval": {},
    "caption": {"model": MODEL, "task": {"java": False, **BEAM}},
    "seq2seq": {"model": WRITER, "task": {"max_target_len": 20, **BEAM}},
    "text_classification": {"model": MODEL, "task": {"dataset": "sst2"}},
    "image_classification": {"model": MODEL},
    "segmentation": {},
}
PICTURE = Image.new("RGB", (20, 10), (200, 30, 10))
NO_TEXTS = [
    *("", " ", "\u200b", "a\0b", "half \ud83d"),
    *(5, float("nan"), b"what", {"text": "what"}, [None], [5], ["a", None], True, []),
]
NO_IMAGES = [
    *("a\0.png", "\ud83d.png", "n" * 300, "", "none.png"),
    *(Path("a\0.png"), Path(__file__), Path(__file__).parent, Path("/dev/zero")),
    *(b"", b"\xff\xd8\xff", Image.new("RGB", (0, 5)), Image.new("L", (5, 0))),
    *(5, True, ["a.png"], {"image": "a.png"}),
]


@pytest.mark.parametrize("name", TASKS)
def test_questions(tmp_path: Path, name: str) -> None:
    pipeline = Pipeline(saved(name, tmp_path, **TASKS[name]))
    takes_text = pipeline.task.asked_with not in ("caption", "image")
    right = {"image": {0: None, 1: PICTURE, 2: (PICTURE, PICTURE)}[pipeline.task.pictures]}
    right |= {"text": "a red circle"} if takes_text else {}
    assert pipeline.ask_many([Question(**right)])[0]
    wrong = [{"text": value} for value in NO_TEXTS] if takes_text else []
    wrong += [{"image": value} for value in NO_IMAGES] if pipeline.task.pictures else []
    if pipeline.task.pictures == 2:
        wrong += [{"image": pair} for value in NO_IMAGES for pair in ((PICTURE, value), [value, PICTURE])]
        wrong += [{"image": value} for value in (PICTURE, [PICTURE], [PICTURE] * 3, (PICTURE, None))]
    for change in wrong:
        with pytest.raises((RecordError, ConfigError)):
            pytest.fail(f"{change} was answered: {pipeline.ask_many([Question(**{**right, **change})])}")
