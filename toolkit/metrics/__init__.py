"""Error measures, judges of a model's answers, limits, and the synthetic samples for a comparison."""
