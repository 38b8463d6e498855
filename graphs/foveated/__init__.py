"""The foveated VLM: a frame is encoded once and looked at twice, where the first look says."""
