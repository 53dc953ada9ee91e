"""`fabula`: reads the command's name, hands over, and turns errors into one line and an exit code."""
