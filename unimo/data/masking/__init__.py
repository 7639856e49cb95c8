"""Masking: which tokens, spans, phrases, fragments and regions of a sample a model must predict."""
