"""Memories hold timesteps between two updates; they store and compute nothing."""
