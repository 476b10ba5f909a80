"""One client a file: the same few operations for each system, done as its expert would do them."""
