"""A package that extends the toolkit by one backend, one precision, one pass and one kind of model."""
