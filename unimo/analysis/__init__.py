"""The papers' figures, made from a model and data: what a trained model has learned, to look at."""
