"""Losses as pure functions: tensors in, scalars out, averaged over the global batch."""
