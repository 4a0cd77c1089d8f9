"""What PyTorch makes of the same bytes: torch.save and fsync, and torch.load; and its distributed checkpoint (DCP), each process
with a checkpoint of its own. Orders come in lines of JSON."""

import dataclasses
import json
import os
import shutil
import sys
import time
import warnings

import torch

state, back, size, dcp = None, None, 0, None


def find_dcp():
    """Import the distributed checkpoint. Before PyTorch 2 it had another name, and its data classes do not suit Python 3.11, which
    wants defaults that can be hashed: they are given a hash while they are imported."""
    warnings.simplefilter("ignore")
    try:
        import torch.distributed.checkpoint as found
        return found
    except ModuleNotFoundError:
        pass
    plain = dataclasses.dataclass

    def hashable(cls=None, /, **options):
        if cls is None:
            return lambda c: hashable(c, **options)
        if "__hash__" not in vars(cls) and not options.get("frozen"):
            options["unsafe_hash"] = True
        return plain(cls, **options)

    dataclasses.dataclass = hashable
    try:
        import torch.distributed._shard.checkpoint as found
        return found
    finally:
        dataclasses.dataclass = plain


def sync(path):
    """Make a file, or a directory's names, durable."""
    d = os.open(path, os.O_RDONLY)
    os.fsync(d)
    os.close(d)


def files(path):
    return [os.path.join(path, n) for n in os.listdir(path)] if os.path.isdir(path) else [path]


def prepare(path, cold):
    """Take what is to be read out of the page cache, or into it."""
    for name in files(path):
        with open(name, "rb") as f:
            if cold:
                os.fsync(f.fileno())
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while f.read(1 << 22):
                    pass


def do(order):
    """Carry out one order and return the seconds it took."""
    global state, back, size, dcp
    op, path = order["op"], order.get("path", "")
    if op == "start":
        torch.set_num_threads(max(1, order["threads"]))
        size = order["bytes"] // 4
        state = {"w": torch.randn(size)}
        return 0.0
    if op == "dcp":
        dcp = find_dcp()
        return 0.0
    if op == "drop":
        shutil.rmtree(path, ignore_errors=True)
        return 0.0
    if op == "save":
        start = time.perf_counter()
        with open(path, "wb") as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        sync(os.path.dirname(path))
        return time.perf_counter() - start
    if op == "dcp save":
        start = time.perf_counter()
        dcp.save_state_dict(state_dict=state, storage_writer=dcp.FileSystemWriter(path), no_dist=True)
        for name in files(path) + [path, os.path.dirname(path)]:
            sync(name)
        return time.perf_counter() - start
    prepare(path, op.endswith("cold"))
    if op.startswith("dcp"):
        if back is None:
            back = {"w": torch.ones(size)}  # it loads into tensors that are there
        start = time.perf_counter()
        dcp.load_state_dict(state_dict=back, storage_reader=dcp.FileSystemReader(path), no_dist=True)
        seconds = time.perf_counter() - start
        assert torch.equal(back["w"][-1000:], state["w"][-1000:])
        return seconds
    start = time.perf_counter()
    loaded = torch.load(path)
    seconds = time.perf_counter() - start
    assert loaded["w"].shape[0] == size
    return seconds


for line in sys.stdin:
    try:
        answer = {"seconds": do(json.loads(line))}
    except Exception as e:  # the other side prints it
        answer = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(answer), flush=True)
