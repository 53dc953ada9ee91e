"""What generate() is asked to do: every setting, what it may be, how settings merge, and what they say of a call."""
