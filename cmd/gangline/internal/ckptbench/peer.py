"""What PyTorch makes of the same bytes: torch.save and fsync, and torch.load. Orders come in lines of JSON."""

import json
import os
import sys
import time

import torch

state, size = None, 0


def do(order):
    """Carry out one order and return the seconds it took."""
    global state, size
    op, path = order["op"], order.get("path", "")
    if op == "start":
        torch.set_num_threads(max(1, order["threads"]))
        size = order["bytes"] // 4
        state = {"w": torch.randn(size)}
        return 0.0
    if op == "save":
        start = time.perf_counter()
        with open(path, "wb") as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        d = os.open(os.path.dirname(path), os.O_RDONLY)
        os.fsync(d)
        os.close(d)
        return time.perf_counter() - start
    with open(path, "rb") as f:
        if op == "cold":
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while f.read(1 << 22):
                pass
    start = time.perf_counter()
    back = torch.load(path)
    seconds = time.perf_counter() - start
    assert back["w"].shape[0] == size
    return seconds


for line in sys.stdin:
    try:
        answer = {"seconds": do(json.loads(line))}
    except Exception as e:  # the other side prints it
        answer = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(answer), flush=True)
