"""Families: each one file over the operations, the table of all, and what a configuration says of them."""
