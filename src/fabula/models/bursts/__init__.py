"""Bursts: many steps of a batch that needs nobody but the device, as one loop, in each framework."""
