"""Grouped and naive batches of UNIMO: equal losses, counted FLOPs, and the command."""

import numpy as np
import paddle
import pytest

from unimo.benchmark import compare, sequences
from unimo.benchmark.naive_padding import pad_batch
from unimo.benchmark.sequences import Pass, SequenceStep, open_run, read_batches
from unimo.errors import ConfigError

SMALL = (
    "model.text.hidden_size=16",
    "model.text.num_heads=2",
    "model.text.num_layers=2",
    "model.text.intermediate_size=32",
    "data.scenes.train_images=40",
    "data.num_workers=0",
    "data.max_regions=9",
    "data.max_text_len=64",
)
WORDS = (*SMALL, "train.batch_size=14", "train.micro_batch_size=14")


@pytest.fixture(scope="module")
def steps():
    """Make the grouped and the naive side with the same weights, without dropout."""
    made = []
    for padded in (False, True):
        paddle.seed(3)
        made.append(SequenceStep({"name": "unimo_tiny"}, {"batches": 2}, overrides=WORDS, padded=padded))
    grouped, naive = made
    naive.task.set_state_dict(grouped.task.state_dict())
    for step in made:
        step.task.eval()
    return grouped, naive


def losses_and_gradients(step, number):
    from unimo.tasks.base import to_tensors

    batch = to_tensors(step.batches[number])
    losses, _ = step.task.objective.losses(step.model, batch)
    step.task.objective.total(losses).backward()
    gradients = {name: p.grad.numpy() for name, p in step.task.named_parameters() if p.grad is not None}
    step.optimizer.clear_grad()
    return {name: float(value) for name, value in losses.items()}, gradients


@pytest.mark.parametrize("number", [0, 1])
def test_pseudo_images_and_texts_change_nothing(steps, number):
    """For any pseudo parts, losses and gradients of the fast side equal those of the full form."""
    grouped, naive = steps
    expected, gradients = losses_and_gradients(grouped, number)
    kinds = {"mlm", "seq2seq", "region"}
    assert set(expected) == kinds | {"cmcl"} | {"text_mlm", "text_seq2seq", "image_region"}
    generator = np.random.default_rng(number)
    pseudo = naive.model.pseudo_ids, naive.model.pseudo_features
    naive.model.pseudo_ids = paddle.to_tensor(generator.integers(4, 40, pseudo[0].shape))
    naive.model.pseudo_features = paddle.to_tensor(
        generator.standard_normal(pseudo[1].shape).astype(np.float32)
    )
    found, naive_gradients = losses_and_gradients(naive, number)
    naive.model.pseudo_ids, naive.model.pseudo_features = pseudo
    plain, _ = losses_and_gradients(naive, number)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-4), name
        assert plain[name] == pytest.approx(value, abs=1e-4), name
    assert set(naive_gradients) == set(gradients)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(naive_gradients[name], gradient, atol=1e-4, err_msg=name)


def test_naive_batches_have_full_length_and_the_same_targets(steps):
    grouped, naive = steps
    batch, padded = grouped.batches[0], naive.batches[0]
    for name in ("pairs", "texts"):
        short, full = getattr(batch, name).language, getattr(padded, name).language
        assert full.input_ids.shape == (len(short.input_ids), 64)
        assert full.attention_mask.sum() == short.attention_mask.sum()
        for kind in ("mlm", "seq2seq"):
            rows, columns = np.divmod(getattr(short, f"{kind}_positions"), short.input_ids.shape[1])
            assert np.array_equal(np.divmod(getattr(full, f"{kind}_positions"), 64), [rows, columns])
            ids = full.input_ids.reshape(-1)[getattr(full, f"{kind}_positions")]
            assert np.array_equal(ids, short.input_ids[rows, columns])
    for name in ("pairs", "images"):
        short, full = getattr(batch, name).vision, getattr(padded, name).vision
        assert full.regions["features"].shape[:2] == (len(short.regions["mask"]), 9)
        hidden = full.regions["masked"].reshape(-1)[full.positions // 10 * 9 + full.positions % 10 - 1]
        assert hidden.all() and len(hidden) == short.regions["masked"].sum()
    assert padded.pairs.contrast.captions["input_ids"].shape[1] == 64
    assert batch.sample_ids == padded.sample_ids


def test_a_batch_of_full_length_stays_as_it_is(steps):
    once = steps[1].batches[0]
    twice = pad_batch(once, 9, 64, 1)
    for part in ("pairs", "texts"):
        for name, array in vars(getattr(once, part).language).items():
            assert np.array_equal(getattr(getattr(twice, part).language, name), array)


def test_passes_of_a_batch():
    run, processor = open_run("unimo_tiny", WORDS)
    batch = read_batches(run, processor, 1)[0]
    contrast = batch.pairs.contrast
    pairs, together, images, captions, *related, texts, alone = sequences.passes_of(batch)
    caption = contrast.captions["input_ids"].shape[1]
    assert pairs == Pass(10, 5, batch.pairs.language.input_ids.shape[1])
    assert together == Pass(10 + len(contrast.rewrite_row), 5, caption)
    assert len(contrast.rewrite_row) >= 10
    assert images == Pass(len(contrast.image_group), 5, 0)
    others = sum(one.count for one in related)
    assert captions == Pass(len(contrast.text_ids) - others, 0, caption)
    assert texts == Pass(2, 0, batch.texts.language.input_ids.shape[1])
    assert alone == Pass(2, 5, 0)
    tokens, regions = sequences.targets_of(batch)
    assert regions == batch.pairs.vision.regions["masked"].sum() + batch.images.vision.regions["masked"].sum()
    assert tokens > 12


def test_counted_work():
    run, _ = open_run("unimo_tiny", WORDS)
    parts = sequences.count([Pass(3, 5, 20), Pass(2, 0, 10)], (7, 4), run.model, layers=2)

    def block(rows):  # 12 W^2 weights with an inner width of 2 W: 8 W^2, and logits with their sums
        return 2 * rows * (4 * 16**2 + 2 * 16 * 32) + 4 * rows**2 * 16

    assert parts["layers"] == 3 * 2 * (3 * block(25) + 2 * block(10))
    assert parts["regions"] == 3 * 3 * 2 * 5 * (768 + 5) * 16
    vocabulary = run.model.text.vocab_size
    assert parts["heads"] == 3 * (2 * 7 * 16 * (16 + vocabulary) + 2 * 4 * 16 * 768)
    assert Pass(3, 0, 7).padded(100, 512) == Pass(3, 101, 512) and Pass(3, 101, 512).rows == 3 * 613


class InThisProcess:
    """A side in the same process."""

    def __init__(self, model, request, threads):
        self.step = SequenceStep(model, request["batch"], **request["sequences"])
        self.library, self.parameters = "paddle", self.step.parameters

    def ask(self, word):
        return {
            "matmul": lambda: {"flops_per_second": 1e9},
            "step": self.step,
            "memory": lambda: {"peak_bytes": 10**9},
        }[word]()

    def close(self):
        pass


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(sequences, "own_side", InThisProcess)
    monkeypatch.setattr(compare, "SETTLE", 0)


def test_sides_take_turns_on_the_same_batches(in_this_process, caplog):
    caplog.set_level("INFO", "unimo")
    settings = {"batch_size": 7, "steps": 2, "warmup": 1, "threads": 1, "matmul": {}}
    content = sequences.measure("unimo_tiny", settings, SMALL, layers=1)
    grouped, naive = content["sides"]
    assert content["kinds"] == {"pairs": 10, "texts": 2, "images": 2}
    assert naive["rows"] == pytest.approx(content["sequences"] * (1 + 9 + 64), rel=0.02)  # rounded means
    assert naive["rows"] > 3 * grouped["rows"]
    assert naive["flops_per_step"] > 3 * grouped["flops_per_step"]
    assert grouped["flops_of_whole_model"] > 1.5 * grouped["flops_per_step"]  # two layers instead of one
    losses = [record.args[3] for record in caplog.records if "warm-up" in record.args]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)  # unimo_tiny has no dropout
    text = sequences.format_report(content)
    assert "Pre-training of unimo_tiny, 1 of its 2 layers" in text
    assert "2 steps of 7 samples (10 pairs, 2 texts, 2 images in all)" in text
    counted = naive["flops_per_step"] / grouped["flops_per_step"]
    assert f"operations, counted: {counted:.2f} times" in text
    assert f"grouped makes {content['time_ratio']['median']:.2f} times" in text


def test_command(tool, in_this_process, tmp_path):
    options = "sequences --model unimo_tiny --batch-size 7 --steps 1 --warmup 0 --layers 1".split()
    code, out, err = tool("benchmark", *options, "--out", tmp_path / "figures.json", *SMALL)
    assert code == 0, err
    assert "naive: 9 regions + 64 tokens" in out and (tmp_path / "figures.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sequences --model unimo_tiny --layers 9", "--layers is 9, expected 1 to the 3 of unimo_tiny"),
        ("sequences --model unimo2_tiny", "not on unimo2_tiny"),
        ("sequences --model unimo_tiny --model unimo_base", "give it as the only --model"),
        ("sequences --steps 0", "--steps 0: expected 1 or more"),
        ("train data.root=x", "only `sequences` reads data"),
    ],
)
def test_wrong_arguments_are_one_message(tool, words, message):
    code, out, err = tool("benchmark", *words.split())
    assert code == 2 and not out
    assert message in err and "Traceback" not in err


def test_a_model_of_pixels_is_refused():
    with pytest.raises(ConfigError, match="measured on a UNIMO"):
        open_run("unimo3_tiny", ())
