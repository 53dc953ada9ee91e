"""Names to files, files to weights and configurations."""
