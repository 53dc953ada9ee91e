"""Rows in, tokens out: the one loop behind a script, a batch job and a server."""
