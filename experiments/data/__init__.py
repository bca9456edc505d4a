"""From a source of images to batches of tensors."""
