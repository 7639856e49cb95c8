"""Training: the loop, its state and checkpoints, the optimizer, ranks, and callbacks around a step."""
