"""The inputs that a user gives for an imported model: arrays, images and recordings, read as samples."""

# The key of what the manifest's `model` keeps about inputs, see toolkit.inputs.kept.
KEY = "inputs"
