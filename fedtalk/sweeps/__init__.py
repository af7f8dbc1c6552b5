"""Seed sweeps: the same run with several seeds and variations, and what differs by more than chance."""
