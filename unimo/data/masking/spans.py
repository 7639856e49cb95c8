"""Span masking: runs of whole words are masked together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unimo.data.masking.budget import Budget
from unimo.data.masking.tokens import Masker
from unimo.data.tokenizers import Tokenizer

SPAN_STOP = 0.2
"""Probability that a span ends after each of its words (SpanBERT's p)."""
LONGEST_SPAN = 10
"""Largest number of words of a span (SpanBERT)."""


class SpanMasker(Masker):
    """Mask runs of whole words (SpanBERT, section 3.1; UNIMO, section 2.3; UNIMO-2, section 3.2).

    Runs of l words, l geometric with p = 0.2 and at most 10, start at random words until a share
    `probability` of the tokens is chosen; the last run ends there, with a whole word. All words of a run are
    treated alike: 80% of the runs become `<mask>`, 10% random tokens, and 10% stay unchanged.

    Args:
        overshoot: round that share up to a token and to the end of the last word, as UNIMO-2's reader does:
            every text has a target, and about 20% of a caption's tokens are targets instead of 15%. Without
            it the share is exact on average (`Budget`), and a short text may have no target.
    """

    def __init__(self, tokenizer: Tokenizer, probability: float = 0.15, overshoot: bool = True) -> None:
        super().__init__(tokenizer, probability, whole_words=True)
        self.overshoot = overshoot
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
        amount = self.probability * sizes.sum()
        budget = Budget(math.ceil(amount) if self.overshoot else amount, rng, self.overshoot)
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
