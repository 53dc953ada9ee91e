"""Weights: the table of a family against a checkpoint, as arrays of each framework, and written out again."""
