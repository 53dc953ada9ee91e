"""Passes: one forward pass of a decoder, over the rows of a step or a rectangle of ids as transformers calls it."""
