"""Scripts that run in virtual environments of their own are no tests."""

collect_ignore = ["served_policy.py"]
