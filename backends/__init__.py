"""What can be opened and how it runs. This package knows no model and imports no runtime."""
