"""Names that Baidu's released folders of UNIMO and UNIMO-2 share, and checks of such folders.

Both were written by the same code: layers are called `encoder_layer_{i}_*`, linear weights are [in, out].
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unimo.errors import CheckpointError
from unimo.weights.name_map import Row, Spelling, Tensors, expand, join

logger = logging.getLogger(__name__)

SPELLING = Spelling(linear=(".w_0", ".b_0"), norm=("_scale", "_bias"), is_turned=False)
HEAD_SIZE = 64
"""Width of an attention head in all released configs, which cannot be read from shapes."""
Heads = Mapping[str, tuple[Row, ...]]
"""Our layer -> its rows."""


def layer_rows(ours: str, theirs: str, norm: str) -> tuple[Row, ...]:
    """Return the rows of the Transformer layers of one encoder.

    Args:
        ours: place of `layers` in our names.
        theirs: prefix of their names, including a dot at the end.
        norm: where the norms of a layer are, `pre` or `post`.
    """
    mine, layer = f"{ours}.layers.{{i}}.", f"{theirs}encoder_layer_{{i}}_"
    fused = tuple(f"{layer}multi_head_att_{part}_fc" for part in ("query", "key", "value"))
    return (
        Row(f"{mine}attention.qkv", fused, "linear", shape=("H", "H")),
        Row(f"{mine}attention.out", (f"{layer}multi_head_att_output_fc",), "linear", shape=("H", "H")),
        Row(f"{mine}attention_norm", (f"{layer}{norm}_att_layer_norm",), "norm", shape=("H",)),
        Row(f"{mine}mlp.fc1", (f"{layer}ffn_fc_0",), "linear", shape=("H", "I")),
        Row(f"{mine}mlp.fc2", (f"{layer}ffn_fc_1",), "linear", shape=("I", "H")),
        Row(f"{mine}mlp_norm", (f"{layer}{norm}_ffn_layer_norm",), "norm", shape=("H",)),
    )


def language_head_rows(ours: str, theirs: str) -> tuple[Row, ...]:
    """Return the rows of the head over the vocabulary, except its matrix.

    Args:
        ours: our name of the head.
        theirs: prefix of their names.
    """
    return (
        Row(f"{ours}.dense", (f"{theirs}mask_lm_trans_fc",), "linear", shape=("H", "H")),
        Row(f"{ours}.norm", (f"{theirs}mask_lm_trans_layer_norm",), "norm", shape=("H",)),
        Row(f"{ours}.decoder.bias", (f"{theirs}mask_lm_out_fc.b_0",), "tensor", shape=("V",)),
    )


def output_matrix_row(ours: str, theirs: str, words: str, tensors: Tensors) -> Row:
    """Return the row of the matrix of that head, which shares no weights here.

    Theirs is the table of `words`, unless their `weight_sharing` was off.
    """
    untied = f"{theirs}mask_lm_out_fc.w_0"
    if untied in tensors:
        return Row(f"{ours}.decoder.weight", (untied,), "tensor", shape=("H", "V"))
    return Row(f"{ours}.decoder.weight", (words,), "turned", shape=("V", "H"))


def depth(tensors: Tensors, prefix: str) -> int:
    """Count the layers of the encoder whose names begin with `prefix`.

    The result is at least one, so that an absent encoder is reported by the missing names of its first layer.
    """
    pattern = re.compile(rf"{re.escape(prefix)}encoder_layer_(\d{{1,3}})_")
    return 1 + max((int(found[1]) for name in tensors if (found := pattern.match(name))), default=0)


def head_rows(
    tensors: Tensors, heads: Heads, required: Sequence[str] = ()
) -> tuple[list[Row], tuple[str, ...]]:
    """Return the single rows of heads that are present in part or required, and our names of the others."""
    rows: list[Row] = []
    absent = []
    for head, part in heads.items():
        single = expand(part, 1, SPELLING)
        if head in required or any(name in tensors for row in single for name in row.theirs):
            rows += single
        else:
            absent.append(head)
    return rows, tuple(absent)


def num_heads(width: int, advice: str) -> int:
    """Return the number of attention heads of a width.

    Raises:
        CheckpointError: the width is not a multiple of 64; `advice` says which folder to give.
    """
    if width % HEAD_SIZE:
        raise CheckpointError(
            f"the width is {width}, expected a multiple of {HEAD_SIZE}, the width of a head in the release; "
            f"give {advice}"
        )
    return width // HEAD_SIZE


@dataclass(frozen=True)
class Folder:
    """The content of a released folder."""

    tensors: Tensors
    """Tensors by their names."""
    where: str
    """Path of the folder, for messages."""
    release: str
    """Name of the model, for messages."""
    advice: str
    """Which folder to give, for messages."""

    def shapes(self, axes: Mapping[str, int]) -> list[tuple[int, ...]]:
        """Return the shapes of tensors from which the sizes are read.

        Args:
            axes: name -> number of axes.

        Raises:
            CheckpointError: a tensor is missing or has another number of axes.
        """
        missing = [name for name in axes if name not in self.tensors]
        wrong = [n for n, count in axes.items() if n in self.tensors and self.tensors[n].ndim != count]
        if missing or wrong:
            misshaped = [f"{name} {list(self.tensors[name].shape)}" for name in wrong]
            raise CheckpointError(
                f"{self.where} is not a release of {self.release}; {_problems(missing, [], misshaped)}. "
                f"Give {self.advice}"
            )
        return [self.tensors[name].shape for name in axes]

    def rename(
        self,
        rows: Sequence[Row],
        sizes: Mapping[str, int],
        left_out: Mapping[str, str],
        misshaped: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Convert the tensors to ours, by our names; what is left out is logged.

        Args:
            rows: rows of single tensors.
            sizes: sizes by the symbols in the shapes of the rows.
            left_out: prefix of their names without a counterpart -> description.
            misshaped: further tensors of wrong shapes, for the message.

        Raises:
            CheckpointError: names everything missing, unknown or mis-shaped.
        """
        shapes = {
            name: [sizes[size] if isinstance(size, str) else size for size in row.shape]
            for row in rows
            for name in row.theirs
        }
        others = [name for name in self.tensors if name not in shapes]
        left = [name for name in others if name.startswith(tuple(left_out))]
        unknown = sorted(set(others) - set(left))
        missing = sorted(set(shapes) - set(self.tensors))
        found = [
            f"{name} (found {list(self.tensors[name].shape)}, expected {shape})"
            for name, shape in shapes.items()
            if name in self.tensors and list(self.tensors[name].shape) != shape
        ]
        if missing or unknown or found or misshaped:
            problems = _problems(missing, unknown, [*found, *misshaped])
            raise CheckpointError(
                f"{self.where} is not a whole release of {self.release}; {problems}. Unpack it again; move "
                "files that are not part of it to another folder"
            )
        if left:
            kinds = [text for prefix, text in left_out.items() if any(n.startswith(prefix) for n in left)]
            logger.info("left out: %s (%s)", ", ".join(sorted(left)), "; ".join(dict.fromkeys(kinds)))
        return {row.ours: join([self.tensors[name] for name in row.theirs], row.kind) for row in rows}


def _problems(missing: Sequence[str], unknown: Sequence[str], misshaped: Sequence[str]) -> str:
    kinds = {"missing": missing, "unknown": unknown, "mis-shaped": misshaped}
    return "; ".join(f"{len(names)} {kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
