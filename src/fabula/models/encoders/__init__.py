"""Models with an encoder: one file a backend, beside what they share."""
