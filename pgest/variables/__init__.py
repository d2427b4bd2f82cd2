"""The variables of a model: shared by name, initialised, counted, optimised and saved."""
