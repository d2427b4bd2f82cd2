"""What to do about the processes of an AsyncVectorEnv of which one has died."""

from __future__ import annotations

from multiprocessing import connection
from typing import Any

from gymnasium.vector import AsyncVectorEnv

# A pipe may break a moment before its process counts as ended.
_SECONDS_TO_END = 1.0


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
