"""Starts a program several times on this machine, as the workers of one cluster.

python examples/local_workers.py 2 examples/distributed.py --max-timesteps 100000
python examples/local_workers.py 2+evaluator examples/distributed.py --model-dir runs/together
"""

import json
import os
import socket
import subprocess
import sys
import time


def main():
    """Waits for all of them; when one fails, ends the others and exits with its code."""
    count, _, evaluator = sys.argv[1].partition("+")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(count))]
    cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]}
    for each in sockets:
        each.close()
    tasks = [("worker", index) for index in range(int(count))]
    processes = []
    for kind, index in [*tasks, *([(evaluator, 0)] if evaluator else [])]:
        config = {"cluster": cluster, "task": {"type": kind, "index": index}}
        variables = {**os.environ, "TF_CONFIG": json.dumps(config)}
        processes.append(subprocess.Popen([sys.executable, *sys.argv[2:]], env=variables))
    while not any(codes := [process.poll() for process in processes]) and None in codes:
        time.sleep(0.2)
    failed = next((code for code in codes if code), 0)
    for process in processes:
        if failed:
            process.terminate()
        process.wait()
    sys.exit(failed)


if __name__ == "__main__":
    main()
