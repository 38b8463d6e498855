"""The foveated video model: each frame is encoded once and looked at twice; the first look asks the second."""
