"""Where the time of a file goes, operator by operator, as its runtime itself measures it."""
