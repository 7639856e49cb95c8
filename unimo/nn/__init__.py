"""Layers that two or more papers share: attention, blocks, towers, embeddings, heads. Knows no model."""
