"""Runs a function in two gloo processes of this machine, which can never hang a test."""

import io
import multiprocessing
import os
import socket
import time
import traceback
from datetime import timedelta

import torch

SECONDS = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _work(rank, port, results, function, arguments):
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= places | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=SECONDS / 2))
        buffer = io.BytesIO()  # a tensor in a queue is a file that disappears with this process
        torch.save(function(*arguments), buffer)
        results.put((rank, buffer.getvalue(), None))
    except BaseException:
        results.put((rank, None, traceback.format_exc()))


def in_two_processes(function, *arguments):
    """Return the function's results in each of two processes; fail if one fails or takes too long."""
    context = multiprocessing.get_context("fork")  # starts at once: all modules are loaded
    results, port = context.SimpleQueue(), free_port()
    workers = [
        context.Process(target=_work, args=(rank, port, results, function, arguments)) for rank in (0, 1)
    ]
    found, deadline = {}, time.monotonic() + SECONDS
    try:
        for worker in workers:
            worker.start()
        while len(found) < 2:
            assert time.monotonic() < deadline, f"no result after {SECONDS} s, only of {sorted(found)}"
            if results.empty():
                dead = [worker.exitcode for worker in workers if worker.exitcode]
                assert not dead, f"a process ended with {dead}"
                time.sleep(0.01)
                continue
            rank, value, error = results.get()
            assert error is None, error
            found[rank] = torch.load(io.BytesIO(value), weights_only=False)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    return found[0], found[1]
