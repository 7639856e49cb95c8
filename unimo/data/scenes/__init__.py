"""The built-in corpus: pictures of coloured shapes, and sentences that are true of them."""
