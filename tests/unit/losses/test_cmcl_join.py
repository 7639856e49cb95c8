"""Batches of CMCL that are joined: their pairs go on naming their own rows."""

from __future__ import annotations

import paddle

from unimo.losses.cmcl import Bank, Compared, Pairs, Rewrites


def batch(number: int, pairs: int, images: int, texts: int) -> Compared:
    """A batch whose vectors and scores tell its number and their row."""

    def ids(count: int) -> paddle.Tensor:
        return 100 * number + paddle.arange(count)

    def bank(count: int) -> Bank:
        return Bank(ids(count).astype("float32").unsqueeze(1), ids(count))

    none = paddle.full([pairs, 0], -1, dtype="int64")
    rows = paddle.arange(pairs)
    return Compared(
        pairs=Pairs(images - 1 - rows, texts - 1 - rows, none, none),
        rewrites=Rewrites(ids(pairs).astype("float32"), rows, paddle.ones([pairs], dtype="bool")),
        images=bank(images),
        texts=bank(texts),
    )


def test_rows_of_later_batches_move_behind_those_of_earlier_ones() -> None:
    parts = [batch(1, 2, 3, 5), batch(2, 1, 2, 4), batch(3, 3, 4, 3)]
    joined = Compared.join(parts)
    for kind in ("images", "texts"):
        whole, rows = getattr(joined, kind), getattr(joined.pairs, kind)
        own = [getattr(part, kind).ids[getattr(part.pairs, kind)] for part in parts]
        assert whole.ids[rows].tolist() == paddle.concat(own).tolist()
        assert whole.ids.tolist() == paddle.concat([getattr(part, kind).ids for part in parts]).tolist()
    assert joined.rewrites.pairs.tolist() == [0, 1, 2, 3, 4, 5]
    assert joined.rewrites.scores.tolist() == [100, 101, 200, 300, 301, 302]
