"""Rows that need nobody but the device for many turns: their numbers as arrays, and the loops over them."""
