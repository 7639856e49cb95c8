import numpy as np
import paddle
import pytest
from paddle import Tensor
from paddle.nn import functional as F

from unimo.losses.cmcl import Bank, Compared, Pairs, Rewrites
from unimo.losses.contrastive import PairVectors, contrast_pairs
from unimo.models.contrastive import OTHERS, Contrastive, Round, one_round
from unimo.training.rounds import share_counts, span


class Encoders(Contrastive):
    """A linear layer for texts and one for images, in float64."""

    contrasts = ("itc",)

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        for name in ("text", "image"):
            parameter = self.create_parameter([6, 4], dtype="float64")
            parameter.set_value(rng.normal(size=(6, 4)))
            setattr(self, name, parameter)
        self.temperature = self.create_parameter([], dtype="float64")
        self.temperature.set_value(np.array(0.3))
        self.unused = self.create_parameter([2], dtype="float64")

    def vectors(self, rows: Tensor, group: Tensor) -> dict[str, PairVectors]:
        text, image = (F.normalize(paddle.matmul(rows, table)) for table in (self.text, self.image))
        return {"itc": PairVectors(text, image, group)}

    def compare(self, name: str, vectors: PairVectors) -> tuple[Tensor, dict[str, Tensor]]:
        return contrast_pairs(vectors, self.temperature).loss, {"share": paddle.ones([])}


def test_gradients_of_a_spanned_loss_are_exact() -> None:
    """In float64: four rounds of eight and one of 32, with samples of one picture in several rounds."""
    rows = paddle.to_tensor(np.random.default_rng(1).normal(size=(32, 6)))
    group = paddle.to_tensor(np.arange(32) % 13)
    whole, cut = Encoders(), Encoders()
    expected, _ = whole.over_step("itc", whole.vectors(rows, group)["itc"])
    expected.backward()
    parts = [(rows[i : i + 8], group[i : i + 8]) for i in range(0, 32, 8)]
    with paddle.no_grad():
        kept = [{"itc": cut.vectors(*part)["itc"].leaves()} for part in parts]
    for part, spanned in zip(parts, span(cut, kept), strict=True):
        with one_round(cut, Round(0, {}, spanned)):
            loss, report = cut.over_step("itc", cut.vectors(*part)["itc"])
        assert abs(loss.item() - expected.item()) < 1e-12
        assert report["share"].item() == 1
        (loss / len(parts)).backward()
    assert cut.round is None
    for name, parameter in whole.named_parameters():
        if name == "unused":
            assert parameter.grad is None and cut.unused.grad is None
            continue
        difference = np.abs(parameter.grad.numpy() - dict(cut.named_parameters())[name].grad.numpy())
        assert difference.max() < 1e-12, name


def test_shares_of_counts() -> None:
    """Their average over rounds is 1, whatever some rounds lack; nothing at all has no share."""
    shares = share_counts([{"mlm": 1, OTHERS: 8, "none": 0}, {"mlm": 5, OTHERS: 8, "none": 0}, {OTHERS: 8}])
    assert [share["mlm"].item() for share in shares] == pytest.approx([0.5, 2.5, 0.0])
    assert [share[OTHERS].item() for share in shares] == [1.0, 1.0, 1.0]
    assert [share["none"].item() for share in shares] == [0.0, 0.0, 0.0]


def test_losses_and_their_accuracies_weigh_alike() -> None:
    one = paddle.ones([])
    place = Round(0, {"mlm": 2 * one, OTHERS: 3 * one}, {"itc": None})
    found = place.weigh({name: one for name in ("mlm", "mlm_accuracy", "vqa", "itc", "itc_accuracy")})
    assert [value.item() for value in found.values()] == [2, 2, 3, 1, 1]


def test_rows_of_joined_batches_move() -> None:
    def batch(first: int) -> Compared:
        ids = paddle.arange(first, first + 2)
        return Compared(
            Pairs(paddle.to_tensor([0, 1]), paddle.to_tensor([1, 0]), ids.unsqueeze(1), ids.unsqueeze(1)),
            Rewrites(paddle.rand([2]), paddle.to_tensor([1, 0]), paddle.to_tensor([True, False])),
            Bank(paddle.rand([2, 3]), ids),
            Bank(paddle.rand([3, 3]), paddle.arange(first, first + 3)),
        )

    joined = Compared.join([batch(10), batch(20)])
    assert joined.pairs.images.tolist() == [0, 1, 2, 3]
    assert joined.pairs.texts.tolist() == [1, 0, 4, 3]
    assert joined.rewrites.pairs.tolist() == [1, 0, 3, 2]
    assert joined.rewrites.positive.tolist() == [True, False, True, False]
    assert joined.texts.ids.tolist() == [10, 11, 12, 20, 21, 22]
    assert joined.images.vectors.shape == [4, 3]
    assert len(joined.learned()) == 3


def test_leaves_keep_numbers_and_no_graph() -> None:
    table = paddle.rand([2, 3]).astype("bfloat16")
    table.stop_gradient = False
    vectors = PairVectors(table * 2, table * 3, paddle.to_tensor([1, 2])).leaves()
    assert vectors.text.dtype == paddle.float32 and vectors.text.is_leaf
    assert [part.stop_gradient for part in (vectors.text, vectors.image, vectors.group)] == [
        False,
        False,
        True,
    ]
    np.testing.assert_array_equal(vectors.image.numpy(), (table * 3).astype("float32").numpy())
