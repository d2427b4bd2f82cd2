"""What holds for all tests."""

import sys

# PyTorch's CUDA build, which pip installs beside Stable-Baselines3, brings Triton, and Triton's
# LLVM crashes in a process that has TensorFlow's. PyTorch does without it.
sys.modules["triton"] = None
