"""Models: one file a family, written over the operations, and one file a backend that runs them."""
