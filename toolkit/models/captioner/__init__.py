"""The captioner: images to texts and back."""
