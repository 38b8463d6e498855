"""How fast is each file of a bundle, and what does it take?"""
