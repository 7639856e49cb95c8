"""Records, readers, transforms, tokenizers, collation, mixture and loaders. Knows numpy, but no model."""
