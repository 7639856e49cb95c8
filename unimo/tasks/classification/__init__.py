"""Classification of texts alone and of images alone."""
