"""One page, in one file, that says what the files of a bundle cost and whether they still answer the same."""
