"""The engines that `fabula bench` compares: scripts, because the Python that runs a peer need not have Fabula."""
