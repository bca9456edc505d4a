"""Random changes of training images, each a function of a stateless seed; one kind a file."""
