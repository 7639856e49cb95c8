"""The built-in corpus: images of coloured shapes with texts, for every task."""
