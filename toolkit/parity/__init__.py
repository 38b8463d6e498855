"""The comparison of a bundle's files with its reference: first measured, then judged."""
