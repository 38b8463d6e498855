"""The inputs that a user gives for an imported model: arrays, images and recordings, read as samples."""
