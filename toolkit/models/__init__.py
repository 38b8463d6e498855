"""The kinds of models. Each kind is a folder that exports one ModelKind."""
