"""What a person runs of each kind of model that is not a watermark's, on any backend; numpy alone, no framework."""
