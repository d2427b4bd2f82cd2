"""What holds for all tests."""

import signal
import sys

import pytest

# PyTorch's CUDA build, which pip installs beside Stable-Baselines3, brings Triton, and Triton's
# LLVM crashes in a process that has TensorFlow's. PyTorch does without it.
sys.modules["triton"] = None


@pytest.fixture(autouse=True)
def _signal_handlers_are_left_as_they_were():
    """A handler that a test leaves behind makes another one fail, far from the cause."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
