"""Which tokens, spans of words and regions are masked, and how much of a sample that is on average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.tokenizers import Tokenizer
from unimo.errors import ConfigError

SPAN_STOP = 0.2
"""Probability that a span ends after each of its words (SpanBERT's p)."""
LONGEST_SPAN = 10
"""Largest number of words of a span (SpanBERT)."""


class Budget:
    """Amount of a text or image that may still be masked, in whole words or groups of regions.

    A piece that fits is accepted. A piece of size s larger than the remainder r is accepted with probability
    r / s, and the budget is spent in either case. That takes r on average, so the mean amount masked equals
    the budget however large the pieces are, as long as there are enough of them.

    Args:
        amount: the budget, in the unit of the pieces; need not be an integer.
        rng: decides whether the last piece is accepted.

    Attributes:
        left: remaining amount; 0 when the budget is spent.
    """

    def __init__(self, amount: float, rng: np.random.Generator) -> None:
        self.left = float(amount)
        self.rng = rng

    def pays(self, size: float) -> bool:
        """Decide whether a piece of this size (> 0) is accepted, and subtract it from the budget."""
        if self.left <= 0:
            return False
        accepted = size <= self.left or bool(self.rng.random() * size < self.left)
        self.left = max(self.left - size, 0.0)
        return accepted


class Masker:
    """Mask random tokens of a text (BERT, section 3.1).

    Every token that is not special is chosen with `probability`, independently; of the chosen ones 80%
    become `<mask>`, 10% a random token that is not special, and 10% stay unchanged. A short text may have no
    chosen token.

    Args:
        whole_words: choose words instead of tokens; all tokens of a chosen word are predicted.
    """

    def __init__(self, tokenizer: Tokenizer, probability: float = 0.15, whole_words: bool = False) -> None:
        self.mask_id = tokenizer.mask_token_id
        self.probability = probability
        self.whole_words = whole_words
        self.special = np.zeros(tokenizer.vocab_size, bool)
        self.special[list(tokenizer.special_ids)] = True
        self.ordinary_ids = np.flatnonzero(~self.special)

    def __call__(
        self, ids: Sequence[int], words: Sequence[int], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mask one text.

        Args:
            ids: token ids [T], special tokens included.
            words: number of the word of each token [T], -1 for special tokens.

        Returns:
            Masked ids int64 [T], positions of the targets int64 [N], and their original ids int64 [N].
        """
        tokens = np.asarray(ids, np.int64)
        if self.whole_words:
            groups = np.asarray(words, np.int64)
            chosen = (rng.random(groups.max(initial=0) + 1) < self.probability)[groups]
        else:
            chosen = rng.random(len(tokens)) < self.probability
        positions = np.flatnonzero(chosen & ~self.special[tokens])
        return self._hide(tokens, positions, rng.random(len(positions)), rng)

    def _hide(
        self, tokens: np.ndarray, positions: np.ndarray, fate: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Replace the tokens at `positions` as the numbers `fate` in [0, 1) decide."""
        replacements = self.ordinary_ids[rng.integers(len(self.ordinary_ids), size=len(positions))]
        masked, labels = tokens.copy(), tokens[positions]
        masked[positions] = np.where(fate < 0.8, self.mask_id, np.where(fate < 0.9, replacements, labels))
        return masked, positions, labels


class SpanMasker(Masker):
    """Mask runs of whole words (SpanBERT, section 3.1; UNIMO, section 2.3; UNIMO-2, section 3.2).

    Runs of l words, l geometric with p = 0.2 and at most 10, start at random words until a share
    `probability` of the tokens is chosen; the last run ends there, with a whole word. All words of a run are
    treated alike: 80% of the runs become `<mask>`, 10% random tokens, and 10% stay unchanged.

    The share is exact on average (`Budget`), and a short text may have no target. SpanBERT and the reader of
    UNIMO-2's release round it up to a token, which makes it about 20% of a caption's tokens.
    """

    def __init__(self, tokenizer: Tokenizer, probability: float = 0.15) -> None:
        super().__init__(tokenizer, probability, whole_words=True)
        lengths = SPAN_STOP * (1 - SPAN_STOP) ** np.arange(LONGEST_SPAN)
        self.length_shares = np.cumsum(lengths / lengths.sum())

    def __call__(
        self, ids: Sequence[int], words: Sequence[int], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens, groups = np.asarray(ids, np.int64), np.asarray(words, np.int64)
        places = np.flatnonzero((groups >= 0) & ~self.special[tokens])
        fate = self._draw_spans(np.bincount(groups[places]), rng)[groups[places]]
        chosen = ~np.isnan(fate)
        return self._hide(tokens, places[chosen], fate[chosen], rng)

    def _draw_spans(self, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw for each chosen word the number in [0, 1) that decides its replacement; NaN for the others."""
        fate = np.full(len(sizes), np.nan)
        budget = Budget(self.probability * sizes.sum(), rng)
        while budget.left > 0:
            free = np.flatnonzero(np.isnan(fate) & (sizes > 0))
            if not len(free):
                break
            start = int(free[rng.integers(len(free))])
            length = int(np.searchsorted(self.length_shares, rng.random(), side="right")) + 1
            drawn = rng.random()
            for word in range(start, min(start + length, len(sizes))):
                # A word without maskable tokens (`<unk>`) costs nothing and does not end the run.
                if budget.left <= 0 or not np.isnan(fate[word]):
                    break
                if sizes[word] and not budget.pays(int(sizes[word])):
                    break
                fate[word] = drawn
        return fate


def overlaps(boxes: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of all pairs of boxes [R, 4] (x1, y1, x2, y2 in any unit).

    It is [R, R] float64, and 0 where both have no area.
    """
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    common = np.clip(sides, 0, None).prod(axis=-1)
    areas = (high - low).prod(axis=-1)
    union = areas[:, None] + areas - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


class RegionMasker:
    """Draw the masked regions of an image, groups of overlapping regions together.

    The paper masks regions "with a probability of 15%", and with each anchor all regions that overlap it. If
    every region were an anchor with probability 15%, crowded images would lose most of their regions. We read
    15% as the share that is masked: anchors are drawn at random from the visible regions and masked with all
    visible regions that overlap them, until 15% of the regions are spent; see `Budget` for a group larger
    than the remainder. An anchor that would leave no region visible is skipped, so an image with one region,
    or whose regions all overlap each other, keeps them all.

    Args:
        threshold: intersection over union above which a region is masked with an anchor.

    Raises:
        ConfigError: one of them is not in [0, 1).
    """

    def __init__(self, share: float = 0.15, threshold: float = 0.3) -> None:
        for name, value in (("share", share), ("threshold", threshold)):
            if not 0 <= value < 1:
                raise ConfigError(f"region masking with {name} {value}: expected at least 0 and below 1")
        self.share, self.threshold = share, threshold

    def __call__(self, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return which regions are masked, bool [R]; see `draw`."""
        return self.draw(boxes, rng)[0]

    def draw(self, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return which regions are masked, bool [R], and the indices of the anchors, int64 [A]."""
        near = overlaps(boxes) > self.threshold
        np.fill_diagonal(near, True)
        budget = Budget(self.share * len(boxes), rng)
        masked, anchors = np.zeros(len(boxes), bool), []
        for anchor in rng.permutation(len(boxes)):
            group = near[anchor] & ~masked
            if masked[anchor] or (masked | group).all():
                continue
            if not budget.pays(int(group.sum())):
                break
            masked |= group
            anchors.append(anchor)
        return masked, np.array(anchors, np.int64)

    def unseen(self, boxes: np.ndarray, masked: np.ndarray) -> np.ndarray:
        """Return which masked regions [R] no visible region overlaps, bool [R].

        Anchors are among them. A region that was masked with an anchor may overlap another one that does not
        touch the anchor, and stayed visible.
        """
        return masked & ~(overlaps(boxes) > self.threshold)[:, ~masked].any(axis=1)
