"""Do the files of a bundle compute the same thing? Measure first, judge second."""
