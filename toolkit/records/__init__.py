"""Records of a bundle's outputs, which are compared with the outputs of later versions of the runtimes."""
