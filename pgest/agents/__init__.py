"""The agent: `train`, `evaluate`, `predict`, and the one loop that carries a run."""
