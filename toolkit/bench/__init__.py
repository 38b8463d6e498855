"""Benchmarks of a bundle's files: speed side by side and beside peers, cold starts, throughput, and profiles."""
