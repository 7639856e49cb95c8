"""The papers' figures for any trained model: grounded tokens, word embeddings, retrieval examples."""
