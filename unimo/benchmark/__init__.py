"""Speed and memory of training steps, ours and others', as ratios measured in one run."""
