"""Colours and shapes that captions of `scenes` name, by hand and on the corpus's own captions."""

import pytest

from unimo.data.scenes.dataset import ScenesDataset
from unimo.tasks.caption.scene_scores import named_objects, scene_caption_scores

THERE = (("red", "circle"), ("blue", "square"), ("blue", "cross"))


def test_objects_are_colours_followed_by_shapes():
    caption = "a small red circle at the top left , the blue square is large , a green object ."
    assert named_objects(caption) == [("red", "circle"), ("blue", "square")]
    assert named_objects("there are two objects .") == []


@pytest.mark.parametrize(
    ("caption", "exact", "objects", "colors", "shapes"),
    [
        ("a red circle , a blue cross .", 100, 100, 100, 100),
        ("a red square .", 0, 0, 100, 100),
        ("a red circle , a red circle .", 0, 50, 50, 50),
        ("a green circle left of a blue square .", 0, 50, 50, 100),
        ("a red circle , a blue .", 0, 100, 100, 100),
    ],
)
def test_shares_of_one_caption(caption, exact, objects, colors, shapes):
    assert scene_caption_scores([(caption, THERE)]) == {
        "scenes_exact": exact,
        "scenes_objects": objects,
        "scenes_colors": colors,
        "scenes_shapes": shapes,
    }


def test_naming_nothing_is_not_exact():
    scores = scene_caption_scores([("there are three objects .", THERE), ("a red circle .", THERE)])
    assert scores == {
        "scenes_exact": 50,
        "scenes_objects": 100,
        "scenes_colors": 100,
        "scenes_shapes": 100,
    }
    assert scene_caption_scores([("there are three objects .", THERE)]) == {"scenes_exact": 0}
    assert scene_caption_scores([]) == {}


def test_true_captions_are_right_and_those_of_other_pictures_are_not():
    dataset = ScenesDataset("pairs", "val")
    records = [dataset[index] for index in range(0, 400, 2)]
    scenes = [dataset.scene(index // 4) for index in range(0, 400, 2)]
    shown = [tuple((item.color, item.shape) for item in scene.objects) for scene in scenes]
    named = [(record.text, there) for record, there in zip(records, shown, strict=True)]
    told = [pair for pair in named if named_objects(pair[0])]
    assert len(told) > 150
    assert set(scene_caption_scores(told).values()) == {100.0}
    strange = [(text, there) for (text, _), (_, there) in zip(told, told[50:] + told[:50], strict=True)]
    assert scene_caption_scores(strange)["scenes_exact"] < 20
