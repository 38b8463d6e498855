"""Which layer of a file differs from the float32 graph, and by how much of its own doing."""
