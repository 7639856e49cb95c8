"""Seq2seq pre-training (UNIMO, section 2.3): fragments are cut out of a text and generated from the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unimo.data.masking.maskers import Budget
from unimo.data.tokenizers import Tokenizer
from unimo.errors import ConfigError


@dataclass(frozen=True)
class Fragments:
    """A text in two parts; all arrays are int64. Without a fragment the target part is empty."""

    source_ids: np.ndarray
    """[S]: [CLS], the tokens that stay, [SEP]."""
    source_positions: np.ndarray
    """[S]: position ids first, first + 1, ..., where first is the padding id plus 1."""
    target_ids: np.ndarray
    """[T]: [CLS] w_i ... w_j [SEP] of each fragment, in the order of the text."""
    target_positions: np.ndarray
    """[T]: position ids, which start at `first` again and run on over all fragments."""
    label_places: np.ndarray
    """[N]: indices in the target part that predict a token, all but those of [SEP]."""
    labels: np.ndarray
    """[N]: predicted ids, the token after each of these indices."""


class FragmentSampler:
    """Cut random fragments of complete words out of a text until a share of its tokens is taken.

    A fragment is a run of l words, l uniform in [shortest, longest], at a random position where it fits among
    the remaining words, or else the longest run that is left. Shares are counted in tokens that are not
    special, see `Budget`: on average exactly `share` is taken, also from short texts, where the budget cuts
    the fragment; some captions give none. Words with a special token inside (`<unk>`) always stay, and so
    does at least one other word: a text of fewer than two words gives no fragment.

    Args:
        tokenizer: defines the special ids; position ids start after its padding id, as in RoBERTa.
        shortest, longest: length of a fragment in words.

    Raises:
        ConfigError: impossible lengths or an impossible share.
    """

    def __init__(
        self, tokenizer: Tokenizer, share: float = 0.25, shortest: int = 4, longest: int = 32
    ) -> None:
        if not 1 <= shortest <= longest:
            raise ConfigError(
                f"fragments of {shortest} to {longest} words: expected 1 <= shortest <= longest"
            )
        if not 0 <= share < 1:
            raise ConfigError(f"fragments take {share} of a text: expected a share of at least 0 and below 1")
        self.share, self.shortest, self.longest = share, shortest, longest
        self.bos_id, self.eos_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.first_position = tokenizer.pad_token_id + 1
        self.special = np.zeros(tokenizer.vocab_size, bool)
        self.special[list(tokenizer.special_ids)] = True

    def __call__(self, ids: Sequence[int], words: Sequence[int], rng: np.random.Generator) -> Fragments:
        """Split one text.

        Args:
            ids: token ids of `[CLS] ... [SEP]`, not padded.
            words: number of the word of each token, -1 for special tokens, see `Tokenizer.encode_words`.
                Adjacent tokens with the same number are taken together or not at all; numbers of phrases
                make the units phrases.
        """
        tokens, groups = np.asarray(ids, np.int64)[1:-1], np.asarray(words, np.int64)[1:-1]
        starts = np.flatnonzero(np.diff(groups, prepend=-2))
        edges = np.append(starts, len(tokens))
        fixed = np.logical_or.reduceat(self.special[tokens] | (groups < 0), starts) if len(starts) else starts
        sizes = np.where(fixed, 0, np.diff(edges))
        runs = self._draw(sizes, rng)
        taken, parts = np.zeros(len(tokens), bool), [np.zeros(0, np.int64)]
        for begin, end in runs:
            taken[edges[begin] : edges[end]] = True
            parts.append(np.concatenate([[self.bos_id], tokens[edges[begin] : edges[end]], [self.eos_id]]))
        source = np.concatenate([[self.bos_id], tokens[~taken], [self.eos_id]])
        target = np.concatenate(parts)
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)[1:] - 1
        places = np.setdiff1d(np.arange(len(target)), ends)
        positions = self.first_position + np.arange(max(len(source), len(target)))
        return Fragments(
            source, positions[: len(source)], target, positions[: len(target)], places, target[places + 1]
        )

    def _draw(self, sizes: np.ndarray, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Draw fragments as (first word, word after the last), in the order of the text.

        `sizes` are the numbers of tokens of the words, 0 for a word that must stay.
        """
        budget, free = Budget(self.share * sizes.sum(), rng), sizes > 0
        runs = []
        while budget.left > 0 and free.any():
            length = int(rng.integers(self.shortest, self.longest + 1))
            room = _room(free)
            length = min(length, math.ceil(budget.left), room.max())
            fits = np.flatnonzero(room >= length)
            begin = end = int(fits[rng.integers(len(fits))])
            while end < begin + length and free.sum() > 1 and budget.pays(int(sizes[end])):
                free[end] = False
                end += 1
            if end < begin + length:  # the budget is spent, or only the word that must stay is left
                budget.left = 0
            if end > begin:
                runs.append((begin, end))
        return sorted(runs)


def _room(free: np.ndarray) -> np.ndarray:
    """Count, from each word on, the free words without a gap."""
    blocked = np.append(np.flatnonzero(~free), len(free))
    words = np.arange(len(free))
    return blocked[np.searchsorted(blocked, words)] - words
