"""Names that Baidu's released folders of UNIMO and UNIMO-2 share, and checks of such folders.

Both were written by the same code: layers are called `encoder_layer_{i}_*`, linear weights are [in, out].
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unimo.errors import CheckpointError, MissingError
from unimo.weights.name_map import Row, Spelling, Tensors, describe, expand, join, row

logger = logging.getLogger(__name__)

SPELLING = Spelling(linear=(".w_0", ".b_0"), norm=("_scale", "_bias"), is_turned=False)
HEAD_SIZE = 64
"""Width of an attention head in all released configs, for folders that are given without their config."""
Heads = Mapping[str, tuple[Row, ...]]
"""Our layer -> its rows."""


def layer_rows(ours: str, theirs: str, norm: str) -> tuple[Row, ...]:
    """Return the rows of the layers of the encoder `ours`, and `theirs` (a prefix that ends with a dot).

    `norm` says where the norms of a layer are, `pre` or `post`.
    """
    mine, layer = f"{ours}.layers.{{i}}.", f"{theirs}encoder_layer_{{i}}_"
    fused = (f"{layer}multi_head_att_{part}_fc" for part in ("query", "key", "value"))
    return (
        row("linear", f"{mine}attention.qkv", *fused, shape=("H", "H")),
        row("linear", f"{mine}attention.out", f"{layer}multi_head_att_output_fc", shape=("H", "H")),
        row("norm", f"{mine}attention_norm", f"{layer}{norm}_att_layer_norm", shape=("H",)),
        row("linear", f"{mine}mlp.fc1", f"{layer}ffn_fc_0", shape=("H", "I")),
        row("linear", f"{mine}mlp.fc2", f"{layer}ffn_fc_1", shape=("I", "H")),
        row("norm", f"{mine}mlp_norm", f"{layer}{norm}_ffn_layer_norm", shape=("H",)),
    )


def language_head_rows(ours: str, theirs: str) -> tuple[Row, ...]:
    """Return the rows of the head over the vocabulary, except its matrix; `theirs` is a prefix of names."""
    return (
        row("linear", f"{ours}.dense", f"{theirs}mask_lm_trans_fc", shape=("H", "H")),
        row("norm", f"{ours}.norm", f"{theirs}mask_lm_trans_layer_norm", shape=("H",)),
        row("tensor", f"{ours}.decoder.bias", f"{theirs}mask_lm_out_fc.b_0", shape=("V",)),
    )


def num_heads(width: int, given: Mapping[str, Any], part: str, advice: str) -> int:
    """Return the number of attention heads of one part of a model, which cannot be read from shapes.

    Args:
        width: width of the part.
        given: fields of the model section that are known; `num_heads` of the part among them wins.
        part: section of the part, such as `text`.
        advice: which folder to give, for the message.

    Raises:
        CheckpointError: the number is not given, and the width is not a multiple of 64.
    """
    if (heads := given.get(part, {}).get("num_heads")) is not None:
        return heads
    if width % HEAD_SIZE:
        raise CheckpointError(
            f"the width is {width}, expected a multiple of {HEAD_SIZE}, the width of a head in the release; "
            f"give {advice}, or its config with --config or model.{part}.num_heads"
        )
    return width // HEAD_SIZE


@dataclass(frozen=True)
class Folder:
    """The content of a released folder, and what messages say of it."""

    tensors: Tensors
    where: str
    """Path of the folder."""
    release: str
    """Name of the model."""
    advice: str
    """Which folder to give."""

    def sizes(self, measured: Mapping[str, Sequence[str | int]]) -> dict[str, int]:
        """Return the size of each symbol, from the shape of the first tensor that has it.

        `measured` is the name of a tensor -> its axes, each the symbol of a size or a number.

        Raises:
            CheckpointError: a tensor is missing or has another number of axes.
        """
        shapes = {name: list(self.tensors[name].shape) for name in measured if name in self.tensors}
        missing = [name for name in measured if name not in shapes]
        wrong = [f"{name} {shape}" for name, shape in shapes.items() if len(shape) != len(measured[name])]
        if missing or wrong:
            raise CheckpointError(
                f"{self.where} is not a release of {self.release}; "
                f"{describe({'missing': missing, 'mis-shaped': wrong})}. Give {self.advice}"
            )
        sizes: dict[str, int] = {}
        for name, axes in measured.items():
            for symbol, size in zip(axes, shapes[name], strict=True):
                if isinstance(symbol, str):
                    sizes.setdefault(symbol, size)
        return sizes

    def depth(self, prefix: str) -> int:
        """Count the layers of the encoder whose names begin with `prefix`; at least one.

        So an absent encoder is reported by the missing names of its first layer.
        """
        pattern = re.compile(rf"{re.escape(prefix)}encoder_layer_(\d{{1,3}})_")
        numbers = (int(found[1]) for name in self.tensors if (found := pattern.match(name)))
        return 1 + max(numbers, default=0)

    def head_rows(
        self, heads: Heads, required: Sequence[str] = (), spelling: Spelling = SPELLING
    ) -> tuple[list[Row], tuple[str, ...]]:
        """Return the single rows of heads that are present in part or required, and the other heads."""
        rows: list[Row] = []
        absent = []
        for head, part in heads.items():
            single = expand(part, 1, spelling)
            if head in required or any(name in self.tensors for entry in single for name in entry.theirs):
                rows += single
            else:
                absent.append(head)
        return rows, tuple(absent)

    def output_matrix_row(self, ours: str, theirs: str, words: str) -> Row:
        """Return the row of the matrix of a head over the vocabulary, which shares no weights here.

        Theirs is the table of `words`, unless their `weight_sharing` was off.
        """
        untied = f"{theirs}mask_lm_out_fc.w_0"
        if untied in self.tensors:
            return row("tensor", f"{ours}.decoder.weight", untied, shape=("H", "V"))
        return row("turned", f"{ours}.decoder.weight", words, shape=("V", "H"))

    def rename(
        self,
        rows: Sequence[Row],
        sizes: Mapping[str, int],
        left_out: Mapping[str, str],
        misshaped: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Convert the tensors to ours, by our names; what is left out is logged.

        Args:
            rows, sizes: rows of single tensors, and the sizes by the symbols in their shapes.
            left_out: prefix of their names without a counterpart -> description.
            misshaped: further tensors of wrong shapes, for the message.

        Raises:
            CheckpointError: names what is missing, unknown or mis-shaped.
        """
        shapes = {
            name: [sizes[size] if isinstance(size, str) else size for size in entry.shape]
            for entry in rows
            for name in entry.theirs
        }
        others = [name for name in self.tensors if name not in shapes]
        left = [name for name in others if name.startswith(tuple(left_out))]
        found = {name: list(self.tensors[name].shape) for name in shapes if name in self.tensors}
        wrong = [
            f"{n} (found {shape}, expected {shapes[n]})" for n, shape in found.items() if shape != shapes[n]
        ]
        problems = {
            "missing": sorted(set(shapes) - set(found)),
            "unknown": sorted(set(others) - set(left)),
            "mis-shaped": [*wrong, *misshaped],
        }
        if any(problems.values()):
            ours = {name: entry.ours for entry in rows for name in entry.theirs}
            raise MissingError(
                f"{self.where} is not a whole release of {self.release}; {describe(problems)}. Unpack it "
                "again; move files that are not part of it to another folder; --allow-missing PATTERN lets "
                "tensors start at random",
                {name: (ours[name], shapes[name]) for name in problems["missing"]},
            )
        if left:
            kinds = [text for prefix, text in left_out.items() if any(n.startswith(prefix) for n in left)]
            logger.info("left out: %s (%s)", ", ".join(sorted(left)), "; ".join(dict.fromkeys(kinds)))
        return {entry.ours: join(entry, self.tensors) for entry in rows}
