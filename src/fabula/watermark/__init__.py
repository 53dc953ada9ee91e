"""Marks that a text carries in its choice of words, and their detectors: green lists and SynthID."""
