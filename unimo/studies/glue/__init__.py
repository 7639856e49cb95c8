"""GLUE: a grid of fine-tunings on its eight tasks, the best of each, and files for its server."""
