"""The foveated model: two passes over a clip."""
