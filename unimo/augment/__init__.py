"""Corpus building for cross-modal contrastive learning (UNIMO, section 2.1): rewriting and retrieval.

No module here imports Paddle. docs/reference/augment.md describes the files and how they are made.
"""
