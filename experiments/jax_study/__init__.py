"""A study of small images in JAX, with all images on the device."""
