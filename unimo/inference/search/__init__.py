"""Search among many images by the vectors of a dual encoder."""
