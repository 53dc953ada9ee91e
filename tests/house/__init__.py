"""Tests of the house itself: floors, names, sizes, words."""
