"""`toolkit run` for each kind of model: OPTIONS, its own, and run, which prints and writes what they ask for."""
