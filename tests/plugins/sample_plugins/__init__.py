"""What other packages can bring to the toolkit, one of each: a backend, a precision, a pass and a kind of model."""
