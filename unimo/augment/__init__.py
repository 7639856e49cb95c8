"""Corpus building for cross-modal contrastive learning (UNIMO, section 3.2): rewriting and retrieval.

No module here imports Paddle. What is written, and how, is told in README.md beside this file.
"""
