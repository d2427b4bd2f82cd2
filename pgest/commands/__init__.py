"""The command line: `pgest train` and what comes after it, and the tuned settings of tasks."""
