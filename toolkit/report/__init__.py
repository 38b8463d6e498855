"""The HTML report: one page, in one file, on the size, speed, errors and answers of a bundle's files."""
