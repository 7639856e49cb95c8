"""Images: decoding, transforms, augmentation, views."""
