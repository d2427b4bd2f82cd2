"""What is measured against each other: each a program that trains piece by piece on request."""

import support  # noqa: F401 - keeps Triton out before a contestant imports PyTorch
