"""Modules that people bring along, as the engine wants them: with a cache of their own, or without one."""
