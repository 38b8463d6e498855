"""The kinds of models: one folder a kind, each exporting one ModelKind."""
