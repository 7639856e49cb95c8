"""Retrieval: both stages against exhaustive scoring, towers run once for each image, hard negatives."""

import dataclasses

import numpy as np
import paddle
import pytest
from micro import make_run, make_task

from unimo.data.record import Record
from unimo.errors import DataError
from unimo.losses.contrastive import contrast_pairs, hard_negatives
from unimo.nn.outputs import Encoded, concat_rows
from unimo.tasks.base import to_tensors
from unimo.tasks.retrieval.matching import Gallery, score_pairs


def setting(**task_config):
    run = make_run("retrieval", data={"scenes": {"val_images": 5}}, task=task_config)
    task, _, data = make_task(run)
    task.eval()
    return run, task, data


@pytest.fixture(scope="module")
def exhaustive():
    run, task, data = setting(exhaustive=True)
    with paddle.no_grad():
        gallery = Gallery.collect(task, data.eval_loader("val", run, batch_size=8))
        return task, gallery, score_pairs(task, gallery), data, run


def test_each_image_goes_through_its_tower_once(exhaustive) -> None:
    task, _, _, data, run = exhaustive
    rows = []
    original = task.model.encode_image
    task.model.encode_image = lambda pixels: rows.append(pixels.shape[0]) or original(pixels)
    try:
        with paddle.no_grad():
            gallery = Gallery.collect(task, data.eval_loader("val", run, batch_size=8))
    finally:
        task.model.encode_image = original
    assert sum(rows) == 5 == len(gallery.image_ids)
    assert len(gallery.text_ids) == 20
    assert gallery.image_of_text.tolist() == np.repeat(np.arange(5), 4).tolist()


def test_scores_equal_a_plain_pass_over_every_pair(exhaustive) -> None:
    task, gallery, scores, data, run = exhaustive
    batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=20))))
    for text, image in ((0, 0), (7, 4), (19, 2)):
        one = dataclasses.replace(
            batch,
            input_ids=batch.input_ids[text : text + 1],
            attention_mask=batch.attention_mask[text : text + 1],
            images=batch.images[4 * image : 4 * image + 1],
        )
        with paddle.no_grad():
            encoded_text, encoded_image = task.encode(one)
            mismatch, match = task.match_logits(encoded_text, encoded_image)[0].tolist()
        assert scores[text, image] == pytest.approx(match - mismatch, abs=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_only_candidates_of_either_direction_are_rescored(exhaustive, count: int) -> None:
    _, gallery, every, data, run = exhaustive
    _, task, _ = setting(candidates=count)
    with paddle.no_grad():
        scores = score_pairs(task, gallery)
    cosines = gallery.cosines
    best = np.zeros(cosines.shape, bool)
    for text in range(20):
        best[text, np.argsort(-cosines[text], kind="stable")[:count]] = True
    for image in range(5):
        best[np.argsort(-cosines[:, image], kind="stable")[:count], image] = True
    np.testing.assert_allclose(scores[best], every[best], atol=1e-5)
    np.testing.assert_allclose(scores[~best] + 1e6, cosines[~best], atol=1e-6)
    assert 0 < best.sum() < best.size


def test_however_low_a_candidate_scores_it_is_above_all_others(exhaustive, monkeypatch) -> None:
    task, gallery, _, _, _ = exhaustive
    monkeypatch.setattr(task, "match_scores", lambda text, image: paddle.full([text.text.shape[0]], -5000.0))
    cosines = np.random.default_rng(0).uniform(-1, 1, (20, 5)).astype(np.float32)
    limited = dataclasses.replace(task.config, exhaustive=False, candidates=1)
    monkeypatch.setattr(task, "config", limited)
    scores = score_pairs(task, dataclasses.replace(gallery, cosines=cosines))
    np.testing.assert_array_equal(scores[np.arange(20), cosines.argmax(axis=1)], -5000)
    assert scores[scores != -5000].max() < -5000


def test_scores_are_the_log_odds_of_a_match(exhaustive, monkeypatch) -> None:
    """Cross-entropy never sees what both logits of a pair share, so it must not rank."""
    task, gallery, every, data, run = exhaustive
    batch = to_tensors(next(iter(data.eval_loader("val", run, batch_size=20))))
    plain, generator = task.match_logits, np.random.default_rng(0)

    def shifted(text: Encoded, image: Encoded) -> paddle.Tensor:
        logits = plain(text, image)
        shared = generator.normal(0, 3, [logits.shape[0], 1]).astype("float32")
        return logits + paddle.to_tensor(shared)

    with paddle.no_grad():
        probabilities = task.predict(batch)["match"].numpy()
        monkeypatch.setattr(task, "match_logits", shifted)
        scores = score_pairs(task, gallery)
    np.testing.assert_allclose(scores, every, atol=1e-5)
    own = scores[np.arange(20), gallery.image_of_text]
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-own)), atol=1e-5)


def test_many_candidates_equal_exhaustive_scoring(exhaustive) -> None:
    _, gallery, every, _, _ = exhaustive
    _, task, _ = setting(candidates=128, fusion_batch_size=3)
    with paddle.no_grad():
        np.testing.assert_allclose(score_pairs(task, gallery), every, atol=1e-5)


def test_perfect_scores_give_full_recall(exhaustive) -> None:
    _, gallery, _, _, _ = exhaustive
    perfect = (gallery.image_of_text[:, None] == np.arange(5)).astype(float)
    assert gallery.recall(perfect)["rsum"] == 600.0
    best = gallery.best_images(perfect, 2)
    assert best[5]["image_ids"][0] == gallery.image_ids[1]


def test_matches_among_drawn_pairs_are_labelled_as_matches() -> None:
    run, task, data = setting()
    batch = to_tensors(next(data.train_loader(run)))
    batch.image_group = paddle.zeros([8], "int64")
    task.itm_head.bias.set_value(paddle.to_tensor([-50.0, 50.0]))  # says "match" to everything
    losses, report = task.losses(batch)
    assert losses["itm"].item() == pytest.approx(0.0, abs=1e-6)
    assert report["itm_accuracy"].item() == 100.0


def test_hard_negatives_are_pairs_of_this_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    run, task, data = setting()
    batch = to_tensors(next(data.train_loader(run)))
    shapes = []

    def of_two_ranks(*arguments):
        """Two pairs of the rank before, which fit every text best."""
        found = contrast_pairs(*arguments)
        scores = paddle.concat([paddle.full([8, 2], 1e3), found.scores], axis=1)
        groups = paddle.concat([paddle.to_tensor([-1, -2]), found.groups])
        return dataclasses.replace(found, scores=scores, groups=groups, counts=[2, 8])

    def drawn(scores, *groups):
        shapes.append(scores.shape)
        assert scores.max() < 1e3
        return hard_negatives(scores, *groups)

    monkeypatch.setattr("unimo.losses.contrastive.rows_before", lambda counts: counts[0])
    monkeypatch.setattr("unimo.tasks.retrieval.task.contrast_pairs", of_two_ranks)
    monkeypatch.setattr("unimo.tasks.retrieval.task.hard_negatives", drawn)
    assert np.isfinite(task.losses(batch)[0]["itm"].item()) and shapes == [[8, 8], [8, 8]]


def test_a_third_of_the_pairs_match_when_all_images_differ() -> None:
    run, task, data = setting()
    batch = to_tensors(next(data.train_loader(run)))
    batch.image_group = paddle.arange(8, dtype="int64")
    task.itm_head.bias.set_value(paddle.to_tensor([-50.0, 50.0]))
    assert task.losses(batch)[1]["itm_accuracy"].item() == pytest.approx(100 / 3, rel=1e-5)


def test_temperature_is_clipped_without_changing_the_parameter() -> None:
    run, task, data = setting()
    task.temperature.set_value(paddle.to_tensor([3.0]))
    _, report = task.losses(to_tensors(next(data.train_loader(run))))
    assert report["temperature"].item() == pytest.approx(0.5)
    assert task.temperature.item() == 3.0


def test_groups_are_equal_for_equal_ids_only() -> None:
    groups = [Record(str(row), "c", image_id=name).image_group for row, name in enumerate("abac")]
    assert groups[0] == groups[2] and len(set(groups)) == 3
    assert groups == [Record(str(row), "c", image_id=name).image_group for row, name in enumerate("abac")]


def test_nothing_to_evaluate() -> None:
    _, task, _ = setting()
    with pytest.raises(DataError, match="no pairs"):
        task.evaluate([])


def test_galleries_of_pictures_with_different_numbers_of_regions_are_joined():
    parts = [
        Encoded(image=paddle.ones([size, length, 4]), image_mask=paddle.ones([size, length]))
        for size, length in ((2, 5), (1, 3))
    ]
    joined = concat_rows(parts)
    assert joined.image.shape == [3, 5, 4]
    assert joined.image_mask.tolist() == [[1] * 5, [1] * 5, [1, 1, 1, 0, 0]]
    assert joined.image[2].sum().item() == 12
