"""Artifacts, bundles, precisions, and the backends that run a file. This package knows no model.

Each runtime is imported by its own backend module alone.
"""
