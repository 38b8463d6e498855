"""DeepEncoder: a page of text as the tokens a language model reads."""
