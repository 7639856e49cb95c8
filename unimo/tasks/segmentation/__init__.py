"""Semantic segmentation: a class for each pixel of a picture (ADE20K)."""
