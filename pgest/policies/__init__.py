"""Policies: time step in, action out, in TensorFlow or in Python."""
