"""The foveated video model: each frame is encoded once and queried twice; the first pass makes the second query."""
