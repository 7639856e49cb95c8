"""Tasks: data, heads, losses and metrics, one file or folder for each."""
