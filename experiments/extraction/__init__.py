"""Features of images in a file, and the images whose features are most alike."""
