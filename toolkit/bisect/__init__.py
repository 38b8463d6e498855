"""Bisection of a file: how much of its error against the float32 graph each layer introduces."""
