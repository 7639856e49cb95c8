"""What is hidden of a sample: tokens, spans, phrases, fragments, regions."""
