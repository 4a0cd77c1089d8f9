"""One rank of PyTorch's Gloo all-reduce: HOST RANK RANKS PORT BYTES WARMUP CALLS. Prints its times as JSON."""

import json
import sys
import time

import torch
import torch.distributed as dist

rank, ranks, port, size, warmup, calls = (int(a) for a in sys.argv[2:])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://{sys.argv[1]}:{port}", rank=rank, world_size=ranks)
base = torch.arange(size // 4, dtype=torch.float32) % 4
own, want = base + rank % 4, base * ranks + sum(r % 4 for r in range(ranks))
data = own.clone()
seconds = []
for call in range(warmup + calls):
    data.copy_(own)
    dist.barrier()
    start = time.perf_counter()
    dist.all_reduce(data)
    took = time.perf_counter() - start
    if not torch.equal(data, want):
        sys.exit("the sum is wrong")
    if call >= warmup:
        seconds.append(took)
print(json.dumps({"Seconds": seconds, "Checked": calls}), flush=True)
dist.barrier()
