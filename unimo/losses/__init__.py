"""Losses as pure functions: tensors in, scalars out, means over the global batch."""
