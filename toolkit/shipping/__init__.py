"""One model all the way: made into a bundle, converted, compared, timed and reported, with advice on its files."""
