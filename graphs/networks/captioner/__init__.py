"""The captioner: image to latent to text, and back to an image."""
