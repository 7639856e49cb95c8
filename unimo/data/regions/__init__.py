"""Region features: the store, its shards, TSV files, grid cells, and what a model reads of them."""
