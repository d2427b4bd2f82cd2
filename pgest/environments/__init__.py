"""Environments of gymnasium behind one view, whatever their kind, spaces and autoreset mode."""
