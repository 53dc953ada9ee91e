"""Models: the doors, one file a backend that runs families, above the rooms that they stand on."""
