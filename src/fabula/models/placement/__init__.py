"""Placement: which devices there are, and on which of them each weight lies."""
