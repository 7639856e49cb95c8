"""Corpus building for cross-modal contrastive learning (UNIMO, section 2.1): rewriting and retrieval.

No module here imports Paddle. README.md in this folder describes the files and how they are made.
"""
