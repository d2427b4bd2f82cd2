"""Policies on the disk: saving, asynchronous saving, triggers, the training hook, loading."""
