"""CMCL and region losses averaged over two ranks equal those of the joined batch, for any second rank."""

import json

import numpy as np
import pytest
from cmcl_data import SECOND_RANKS, first_rank, join, reference, run
from paddle_launch import run_ranks
from region_data import run_regions


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    output = tmp_path_factory.mktemp("ranks")
    run_ranks(2, output, [], script="two_ranks_cmcl.py")
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", SECOND_RANKS)
def test_contrast_over_both_ranks(ranks, name):
    joined = join(first_rank(), SECOND_RANKS[name]())
    expected, halves = run(joined), [rank[name] for rank in ranks]
    assert np.mean([half["loss"] for half in halves]) == pytest.approx(expected["loss"], abs=1e-6)
    assert expected["loss"] == pytest.approx(reference(joined)["loss"], abs=1e-6)
    for leaf in ("image_vectors", "text_vectors", "pair_scores"):
        # A gradient that only one rank has is halved by the average over ranks.
        parts = np.concatenate(
            [np.array(half[leaf]).reshape(-1, *np.shape(expected[leaf])[1:]) for half in halves]
        )
        np.testing.assert_allclose(parts / 2, expected[leaf], atol=1e-6, err_msg=leaf)
    for leaf in ("weight", "temperature"):
        mean = np.mean([half[leaf] for half in halves], axis=0)
        np.testing.assert_allclose(mean, expected[leaf], atol=2e-6, err_msg=leaf)


@pytest.mark.parametrize("name", ["single", "nothing"])
def test_a_rank_without_pairs_adds_nothing(ranks, name):
    second = ranks[1][name]
    assert second["loss"] == 0 and not np.any(second["weight"]) and not np.any(second["temperature"])


def test_what_a_rank_without_pairs_encoded_is_negative_for_the_others(ranks):
    assert np.any(ranks[1]["single"]["image_vectors"]) and np.any(ranks[1]["single"]["text_vectors"])
    assert ranks[0]["single"]["negatives"] == ranks[0]["nothing"]["negatives"] + 3


def test_masked_regions_of_one_rank_alone(ranks):
    expected, halves = run_regions([0, 1]), [rank["regions"] for rank in ranks]
    for name in ("regression", "classification", "weight"):
        np.testing.assert_allclose(
            np.mean([half[name] for half in halves], axis=0), expected[name], atol=1e-6
        )
    states = np.concatenate([half["states"] for half in halves]) / 2
    np.testing.assert_allclose(states, expected["states"], atol=1e-6)
