"""Files of weights: safetensors, Paddle 1.x folders, and the names that other people's files use."""
