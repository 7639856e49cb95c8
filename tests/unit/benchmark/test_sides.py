"""The worker processes and the command, at the smallest sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unimo.benchmark.compare import Side, find_peer_python, own_side, peer_side
from unimo.benchmark.learners import learners
from unimo.benchmark.worker import Step, make_batch
from unimo.errors import ConfigError, UnimoError
from unimo.registry import model_config

REQUEST = {
    "batch": {"batch_size": 2, "text_len": 8, "targets": 1},
    "matmul": {"shape": [8, 8, 8], "seconds": 0.01},
}


def peer_python():
    """Return an interpreter with torch and transformers: UNIMO_PEER_PYTHON, or this one."""
    try:
        return find_peer_python(os.environ.get("UNIMO_PEER_PYTHON"))
    except ConfigError:
        pytest.skip("no interpreter with torch and transformers; set UNIMO_PEER_PYTHON")


def test_batch_has_the_collators_names_and_half_of_the_pairs_match():
    config = model_config("unimo3_tiny")
    batch = make_batch(config, {"batch_size": 5, "text_len": 8, "targets": 2})
    assert batch.itm_labels.sum() == 2
    own = batch.itm_image_index == np.arange(5)
    assert np.array_equal(own, batch.itm_labels == 1)
    flat = batch.input_ids.reshape(-1)
    assert np.array_equal(flat[batch.mlm_positions], batch.mlm_labels)
    changed = np.flatnonzero(batch.mlm_input_ids.reshape(-1) != flat)
    assert np.array_equal(changed, batch.mlm_positions) and len(changed) == 10
    assert batch.images.shape == (5, 3, config.vision.image_size, config.vision.image_size)


def test_own_side_learns_its_batch():
    side = own_side({"name": "unimo3_tiny", "text": {"vocab_size": 60}}, REQUEST, threads=1)
    losses = [side.ask("step")["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    assert side.ask("matmul")["flops_per_second"] > 0
    assert side.ask("memory")["peak_bytes"] > side.parameters * 16  # weights, gradients, two moments
    side.close()


def test_peer_side_has_the_same_sizes():
    from unimo import create_model
    from unimo.models.paper import PretrainConfig
    from unimo.tasks.pretrain import PretrainTask

    # The peer has RoBERTa's unused pooler, as released files do.
    model = create_model("bridgetower_tiny", text={"pooler": True})
    side = peer_side("hf-bridgetower", peer_python(), model.config, REQUEST, threads=1)
    task = PretrainTask(model, PretrainConfig())
    assert side.parameters == sum(int(np.prod(parameter.shape)) for parameter in task.parameters())
    losses = [side.ask("step")["loss"] for _ in range(2)]
    assert losses[1] != losses[0]
    side.close()


def test_vilt_has_the_width_and_depth_of_vlmo():
    config = model_config("vlmo_tiny")
    side = peer_side("hf-vilt", peer_python(), config, REQUEST, threads=1)
    width, vocabulary = config.hidden_size, config.text.vocab_size
    block = 12 * width**2 + 13 * width  # attention, feed-forward with biases, two norms
    # Words, texts' positions and two types; patches, their positions and class token; norms and pooler.
    text = (vocabulary + config.text.max_position + 2 * 2) * width + 2 * width
    image = (3 * config.vision.patch_size**2 + 1 + config.vision.num_patches + 2) * width
    heads = width**2 + 3 * width + vocabulary * (width + 1) + 2 * (width + 1)
    ends = 2 * width + width * (width + 1)
    assert side.parameters == config.transformer.num_layers * block + text + image + ends + heads
    losses = [side.ask("step")["loss"] for _ in range(2)]
    assert losses[1] != losses[0]
    side.close()


def test_visualbert_has_the_sizes_of_semvlp():
    config = model_config("semvlp_tiny")
    request = {**REQUEST, "batch": {**REQUEST["batch"], "image_tokens": 5}}
    side = peer_side("hf-visualbert", peer_python(), config, request, threads=1)
    width, text = config.hidden_size, config.text
    block = 2 * width * text.intermediate_size + text.intermediate_size + 4 * width**2 + 9 * width
    # Words, positions and two types of texts and of regions, norm; regions, pooler.
    rows = text.vocab_size + 2 * (text.max_position + 2) + 2
    ends = (config.regions.feature_size + 1) * width + (width + 1) * width
    heads = (width + 3) * width + text.vocab_size + 2 * (width + 1)  # the vocabulary's weights are the words
    assert side.parameters == text.num_layers * block + rows * width + ends + heads
    losses = [side.ask("step")["loss"] for _ in range(2)]
    assert losses[1] != losses[0]
    side.close()


@pytest.mark.parametrize("name", ["vlmo_tiny", "semvlp_tiny"])
def test_ways_of_learning_words_and_matching_alone(name):
    for learner in learners(model_config(name)):
        step = Step({"name": name, **learner.model}, REQUEST["batch"], dict(learner.task))
        losses = step.task.losses(step.batch)[0]
        assert {loss for loss, value in losses.items() if float(value)} == {"mlm", "itm"}
        first = step()["loss"]
        assert step()["loss"] != first


def test_both_modes_of_semvlp_are_compared():
    single, two = learners(model_config("semvlp_tiny"))
    assert (single.name, two.name) == ("semvlp_tiny, single", "semvlp_tiny, two")


def test_a_peer_that_is_built_otherwise():
    with pytest.raises(ConfigError, match="hf-vilt is not built like unimo3_tiny; try --model vlmo_base"):
        peer_side("hf-vilt", sys.executable, model_config("unimo3_tiny"), REQUEST, threads=1)


def test_a_model_with_other_losses():
    with pytest.raises(ConfigError, match="unimo_tiny does not learn MLM and ITM by themselves; try --model"):
        learners(model_config("unimo_tiny"))


def test_a_worker_that_dies_is_quoted():
    with pytest.raises(UnimoError, match=r"process of odd ended with code 1.*\n.*no such thing"):
        Side("odd", [sys.executable, "-c", "raise SystemExit('no such thing')"], {}, threads=1)


def test_interpreters_without_torch(tmp_path):
    with pytest.raises(ConfigError, match="pip install torch"):
        find_peer_python(str(tmp_path / "python"))


def run_tool(*words):
    root = Path(__file__).resolve().parents[3]
    return subprocess.run(
        [sys.executable, "tools/benchmark.py", *words], cwd=root, capture_output=True, text=True
    )


def test_command_compares_two_of_our_models(tmp_path):
    out = tmp_path / "figures" / "b.json"
    words = (
        "train --model unimo3_tiny --model meter_tiny --steps 1 --warmup 1 --threads 1 --text-len 8".split()
    )
    done = run_tool(*words, "--matmul-seconds", "0.01", "--out", str(out))
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert [side["name"] for side in content["sides"]] == ["unimo3_tiny", "meter_tiny"]
    assert content["sides"][0]["parameters"] > content["sides"][1]["parameters"]
    assert content["ratios"].keys() == {"meter_tiny"}
    assert "unimo3_tiny makes" in done.stdout and "step 1/1" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --model unimo3_tinny", "unknown model 'unimo3_tinny'; nearest: unimo3_tiny"),
        ("train --warmup -1", "--warmup -1: expected 0 or more"),
        ("train --batch-size 1", "--batch-size 1: expected 2 or more"),
        ("train --model unimo3_tiny --text-len 100", "has positions for 64"),
        ("train --against hf-bridgetower --peer-python /nowhere/python", "--peer-python"),
    ],
)
def test_command_refuses_with_one_message(words, message):
    done = run_tool(*words.split())
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
