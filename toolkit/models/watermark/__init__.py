"""Watermark models: a message hidden in an image, and read back."""
