"""What a call gives back: rows laid out as they came, outputs by name, and streams of text."""
