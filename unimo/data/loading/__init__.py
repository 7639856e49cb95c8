"""From corpora to batches: mixture, sampler, loader."""
