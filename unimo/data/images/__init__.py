"""Pictures: opening, transforms, augmentation, views."""
