"""What a model is trained for: heads, losses and metrics, one file for each task."""
