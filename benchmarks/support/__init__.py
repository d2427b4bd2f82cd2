"""What the benchmarks share."""

import sys

# PyTorch's CUDA build brings Triton, whose LLVM crashes in a process that has TensorFlow's, and
# Stable-Baselines3 imports TensorFlow where there is one. Nothing here is compiled with Triton.
sys.modules["triton"] = None  # type: ignore[assignment]
