"""The Seal family: detectors and embedders of invisible image watermarks."""
