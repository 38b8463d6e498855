"""The networks: torch modules and model descriptions that read like the papers."""
