"""Token masking for masked language modelling (MLM)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unimo.data.tokenizers import Tokenizer


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
