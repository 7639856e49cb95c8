"""CMCL and its gradients against Eqs (6), (7) in NumPy; positives, negatives and excluded samples."""

from dataclasses import replace

import numpy as np
import pytest
from cmcl_data import (
    LEAVES,
    SECOND_RANKS,
    first_rank,
    join,
    numerical_gradient,
    part,
    reference,
    run,
    second_rank,
)

BATCHES = {"first": first_rank, "joined": lambda: join(first_rank(), second_rank())}


def simple(**changes):
    """Two pairs without relations, each with only its own score."""
    arguments = {
        "images": [1, 2],
        "texts": [11, 12],
        "own_images": [0, 1],
        "own_texts": [0, 1],
    }
    arguments |= {"related": ([[], []], [[], []]), "rewrites": [(0, 1), (1, 1)], "width": 0}
    return part(5, **(arguments | changes))


@pytest.mark.parametrize("name", BATCHES)
def test_loss_report_and_gradients(name):
    batch = BATCHES[name]()
    result, expected = run(batch), reference(batch)
    for key, value in expected.items():
        assert result[key] == pytest.approx(value, abs=1e-6)
    for leaf in LEAVES:
        np.testing.assert_allclose(result[leaf], numerical_gradient(batch, leaf), atol=1e-6, err_msg=leaf)


def test_one_pair_by_hand():
    """neg_I is image 2, neg_T text 12, nothing is related: three numbers and a logarithm."""
    batch = simple()
    scores = batch.image_vectors @ batch.weight @ batch.text_vectors.T / float(batch.temperature)
    losses = []
    for p, other in ((0, 1), (1, 0)):
        pos = np.exp(batch.pair_scores[p] / float(batch.temperature))
        losses.append(-np.log(pos / (pos + np.exp(scores[other, p]) + np.exp(scores[p, other]))))
    result = run(batch)
    assert result["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert result["negatives"] == 2


def test_the_order_of_candidates_does_not_matter():
    batch, rng = join(first_rank(), second_rank()), np.random.default_rng(3)
    keep, texts = rng.permutation(len(batch.pair_rows)), rng.permutation(len(batch.text_ids))
    unique = np.unique(batch.image_ids, return_index=True)[1]
    images = [*rng.permutation(np.sort(unique)), *np.setdiff1d(np.arange(len(batch.image_ids)), unique)]
    images = np.array(images)
    shuffled = replace(
        batch,
        **{name: getattr(batch, name)[keep] for name in ("pair_rows", "positive", "pair_scores")},
        **{name: getattr(batch, name)[texts] for name in ("text_ids", "text_vectors")},
        **{name: getattr(batch, name)[images] for name in ("image_ids", "image_vectors")},
        own_images=np.argsort(images)[batch.own_images],
        own_texts=np.argsort(texts)[batch.own_texts],
    )
    one, other = run(batch), run(shuffled)
    assert other["loss"] == pytest.approx(one["loss"], abs=1e-6)
    for name, order in (("pair_scores", keep), ("text_vectors", texts), ("image_vectors", images)):
        np.testing.assert_allclose(other[name], np.array(one[name])[order], atol=1e-6)


def test_what_is_true_of_the_image_or_caption_by_another_pair_is_neither():
    """Pair 2 also has image 1, with text 13, and adds text 21 and image 31; pair 3 has text 11."""
    alone = {"images": [1, 2, 31, 4], "texts": [11, 12, 13, 21]}
    related = ([[-1], [-1], [31], [-1]], [[-1], [-1], [21], [-1]])
    pairs = {"own_images": [0, 1, 0, 3], "own_texts": [0, 1, 2, 0], "related": related, "width": 1}
    batch = simple(**alone, **pairs, rewrites=[(p, 1) for p in range(4)])
    result, expected = run(batch), reference(batch)
    assert result["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    # First pair: only image 2 and text 12; second: all but its own; third: images 2 and 4
    # and text 12; fourth: images 2 and 31, and texts 12, 13, 21.
    assert result["negatives"] == expected["negatives"] == (2 + 6 + 3 + 5) / 4


def test_a_pair_never_meets_itself():
    """Retrieval that returns the image and the text themselves changes nothing."""
    itself = simple(related=([[1], [2]], [[11], [12]]), width=1)
    assert run(itself)["loss"] == pytest.approx(run(simple())["loss"], abs=1e-7)


def test_an_id_held_twice_counts_once():
    """The first copy is scored; the second has a gradient only if a pair refers to it."""
    batch = simple(images=[1, 2, 2], own_images=[0, 1])
    result = run(batch)
    assert result["negatives"] == 2 and not np.any(result["image_vectors"][2])
    own = run(simple(images=[1, 2, 2], own_images=[0, 2]))
    assert own["negatives"] == 2 and np.any(own["image_vectors"][2])


def test_a_pair_without_a_positive_is_left_out():
    without = run(simple(rewrites=[(0, 1), (1, 0)]))
    alone = run(simple(own_images=[0], own_texts=[0], related=([], []), rewrites=[(0, 1)]))
    assert without["loss"] == pytest.approx(alone["loss"], abs=1e-6)
    assert without["pair_scores"][1] == 0


def test_no_rewrites_but_related_images():
    batch = simple(images=[1, 2, 8], related=([[8], [8]], [[-1], [-1]]), rewrites=[], width=1)
    result = run(batch)
    assert result["loss"] == pytest.approx(reference(batch)["loss"], abs=1e-6)
    assert result["pair_scores"] == []


@pytest.mark.parametrize("name", ["single", "nothing"])
def test_no_pair_gives_zero_and_zero_gradients(name):
    result = run(SECOND_RANKS[name]())
    assert result["loss"] == 0 and result["negatives"] == 0
    for leaf in LEAVES:
        assert result[leaf] is not None and not np.any(result[leaf])


def test_large_scores_stay_finite():
    batch = replace(join(first_rank(), second_rank()), temperature=np.array(1e-3, np.float32))
    result = run(batch)
    assert np.isfinite(result["loss"]) and result["loss"] > 100  # the plain quotient is 0 / inf here
    assert all(np.isfinite(result[leaf]).all() for leaf in LEAVES)
