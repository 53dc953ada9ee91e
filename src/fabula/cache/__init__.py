"""Keys and values: which block belongs to whom, and where the numbers lie."""
