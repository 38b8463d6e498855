"""Outputs kept from one version of the runtimes, to be held against the next."""
