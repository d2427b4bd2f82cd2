"""What to do about the processes of an AsyncVectorEnv of which one has died, or hangs."""

from __future__ import annotations

import contextlib
import time
from multiprocessing import connection
from typing import Any

from gymnasium.error import AlreadyPendingCallError
from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

# A pipe may break a moment before its process counts as ended.
_SECONDS_TO_END = 1.0
# What an environment has to finish a timestep and to close, where nobody waits for either.
_SECONDS_TO_CLOSE = 5.0


def crashed(env: Any, *, wait: bool = False) -> tuple[int, int] | None:
    """The index and the exit code of an environment whose process has died; None: there is none.

    One that raised an exception is none: gymnasium knows of those, and has dropped their pipes.

    Args:
        env: An unwrapped environment; only an AsyncVectorEnv has processes.
        wait: Whether a process is known to be dying.
    """
    if not isinstance(env, AsyncVectorEnv) or env.closed:
        return None
    processes = [
        (index, process)
        for index, (process, pipe) in enumerate(zip(env.processes, env.parent_pipes, strict=True))
        if pipe is not None
    ]
    sentinels = [process.sentinel for _, process in processes]
    ended = connection.wait(sentinels, _SECONDS_TO_END if wait else 0)
    for index, process in processes:
        if process.sentinel in ended:
            process.join()  # it has let go of its pipes, but may not be gone yet
            return index, process.exitcode or 0
    return None


def cause(env: Any, error: Exception) -> tuple[int | None, str] | None:
    """Which environment's process made a call fail, and why; None: it was something else.

    Args:
        env: An unwrapped environment.
        error: What the call raised.
    """
    broken = isinstance(error, (EOFError, ConnectionError))  # what a broken pipe raises
    if not broken and not isinstance(error, AlreadyPendingCallError):
        return None
    found = crashed(env, wait=broken)
    if broken:
        return found and (found[0], f"its process died with the exit code {found[1]}")
    if found is None:
        return (
            None,
            "an earlier call was interrupted before all had answered; make the environments anew",
        )
    why = f"its process has died, with the exit code {found[1]}; make the environments anew"
    return found[0], why


def is_pending(env: Any) -> bool:
    """Whether a call to the processes was interrupted: some answers are here, others to come."""
    if not isinstance(env, AsyncVectorEnv) or env.closed:
        return False
    # What older versions of gymnasium do not have is as good as idle.
    return getattr(env, "_state", AsyncState.DEFAULT) is not AsyncState.DEFAULT


def end(env: AsyncVectorEnv) -> None:
    """Lets all processes close their environments, and ends those that take too long.

    Unlike ``close()``, which waits for answers that have been read already, or never come.
    """
    for pipe in env.parent_pipes:
        with contextlib.suppress(OSError):  # it has ended, and the pipe is broken
            if pipe is not None:
                pipe.send(("close", None))
    deadline = time.monotonic() + _SECONDS_TO_CLOSE
    left: dict[Any, Any] = {process.sentinel: None for process in env.processes}
    # A process that has to write a long answer waits until somebody reads it.
    left.update({pipe: pipe for pipe in env.parent_pipes if pipe is not None})
    sentinels = {process.sentinel for process in env.processes}
    while sentinels & left.keys() and time.monotonic() < deadline:
        for ready in connection.wait(list(left), max(deadline - time.monotonic(), 0)):
            try:
                if ready in sentinels:
                    del left[ready]
                else:
                    left[ready].recv_bytes()
            except (EOFError, OSError):
                del left[ready]
    kill(env)


def kill(env: AsyncVectorEnv) -> None:
    """Ends all processes; ``close()`` would wait for ever for what they answered already."""
    for process in env.processes:
        process.kill()
    for pipe in env.parent_pipes:
        if pipe is not None:
            pipe.close()
    for process in env.processes:
        process.join()
    env.closed = True
