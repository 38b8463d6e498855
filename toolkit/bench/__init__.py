"""Benchmarks: the speed of each file of a bundle, and the time and memory that it takes alone."""
