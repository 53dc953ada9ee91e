"""What the bits of a stored weight mean."""
