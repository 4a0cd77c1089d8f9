"""What ranks of test worlds do with PyTorch; see ranks.py."""

import contextlib
import io
import os
import signal
import sys
import threading

import gangline
from ranks import equal
from worlds import tell


def model_of(seed=1):
    import torch

    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(64, 300), torch.nn.ReLU(), torch.nn.Linear(300, 200), torch.nn.ReLU(), torch.nn.Linear(200, 10))


def gloo(group, port):
    """The process group of torch.distributed that DistributedDataParallel wants."""
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=group.rank, world_size=group.world_size)
    return torch.distributed


def losses(group, hook, steps):
    """Trains a small model over all ranks and gives the losses of its steps, and a sum over its parameters."""
    import torch

    import gangline.torch

    model = torch.nn.parallel.DistributedDataParallel(model_of(), bucket_cap_mb=0.1)
    if hook:
        model.register_comm_hook(hook, gangline.torch.ddp_hook)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(group.rank)
    out = []
    for _ in range(steps):
        x = torch.rand(16, 64, generator=generator)
        loss = torch.nn.functional.cross_entropy(model(x), (x.sum(1) * 7).long() % 10)
        optimizer.zero_grad()
        with gangline.torch.naming_lost_ranks(group):
            loss.backward()
        optimizer.step()
        out.append(loss.item())
    return out + [sum(p.double().sum().item() for p in model.parameters())]


def ddp(group, port):
    """The hook trains the same model as Gloo's own all-reduce, to rounding."""
    dist = gloo(group, port)
    import torch

    import gangline.torch
    from gangline.torch import Averaging

    ours, theirs = losses(group, group, 10), losses(group, None, 10)
    assert ours[0] != ours[-2], "nothing was trained"
    for a, b in zip(ours, theirs):
        assert abs(a - b) <= 1e-5 * max(1, abs(b)), f"with the hook {ours}, with Gloo {theirs}"
    finishers = lambda: [t for t in threading.enumerate() if t.name == "gangline-finisher"]  # noqa: E731
    assert finishers(), "no thread finishes the buckets"
    with gangline.torch.group_of(path="tcp") as another:
        equal((another.rank, another.world_size), (group.rank, group.world_size), "the place in a group of torch.distributed's ranks")
        equal(another.all_reduce(torch.ones(3)).tolist(), [group.world_size] * 3, "a sum over it")
    alone = gangline.Group(peers=[""])
    gangline.torch._finisher(alone)
    thread = finishers()[-1]
    del alone
    thread.join(30)
    assert not thread.is_alive(), "the thread of a group outlives it"
    narrow = losses(group, Averaging(group, "bf16"), 10)
    assert narrow != ours, "nothing was lost: did bf16 travel?"
    assert all(abs(a - b) < 0.01 for a, b in zip(narrow[:-1], ours)), f"with bf16 {narrow}, without {ours}"
    group.barrier()
    dist.destroy_process_group()
    tell("equal")


def ddp_lost(group, port):
    """A rank that dies in the middle of training is named by the error of backward."""
    import torch

    dist = gloo(group, port)
    if group.rank == 1:
        import gangline.torch as t

        steps = []

        def hook(state, bucket):
            steps.append(1)
            if len(steps) > 20:
                os.kill(os.getpid(), signal.SIGKILL)
            return t.ddp_hook(state, bucket)

        model = torch.nn.parallel.DistributedDataParallel(model_of(), bucket_cap_mb=0.1)
        model.register_comm_hook(group, hook)
        while True:
            model(torch.rand(16, 64)).sum().backward()
    try:
        losses(group, group, 1000)
    except gangline.RankLostError as e:
        assert "rank 1" in str(e.__cause__), f"what PyTorch made of it: {e.__cause__}"
        tell({"lost": e.rank})
        os._exit(0)  # Gloo would wait for its dead peer
    raise AssertionError("the loss was not noticed")


def tensors(group, _):
    """PyTorch tensors of all types, in place."""
    import torch

    import gangline.torch

    n = group.world_size
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int32, torch.int64):
        t = torch.full((3, 5), group.rank + 1, dtype=dtype)
        at = t.data_ptr()
        assert group.all_reduce(t) is t and t.data_ptr() == at
        assert (t == n * (n + 1) // 2).all(), (dtype, t)
    shared = torch.frombuffer(group.buffer(40_000, "bfloat16"), dtype=torch.bfloat16)
    shared += 1
    group.all_reduce(shared)
    assert (shared == n).all()
    for wrong in (torch.ones(4, 4).t(), torch.ones(3, dtype=torch.complex64)):
        try:
            group.all_reduce(wrong)
        except gangline.InvalidError:
            continue
        raise AssertionError(f"{wrong} was taken")
    model = model_of()
    model(torch.full((1, 64), group.rank + 1.0)).sum().backward()
    mine = [p.grad.clone() for p in model.parameters()]
    gangline.torch.average_gradients(model.parameters(), group)
    for p, g in zip(model.parameters(), mine):
        group.all_reduce(g, "mean")
        assert torch.equal(p.grad, g)


def tensors_and_loaders(group, _):
    tensors(group, None)
    loaders(group, None)
    staging(group, None)
    rallies(group, None)
    tell("equal")


def loaders(group, _):
    """DataLoader's forked workers beside a training that calls all the time."""
    import torch

    data = torch.utils.data.TensorDataset(torch.arange(64).float())
    for _ in range(2):
        seen = torch.zeros(1)
        for (batch,) in torch.utils.data.DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="fork"):
            seen += group.all_reduce(batch.sum().reshape(1), "mean")
        equal(seen.item(), 64 * 63 / 2, "the sum over all batches")


def resume(group, argument):
    """Trains some steps with a model and an optimizer of PyTorch, from the newest checkpoint on, and tells a sum over the model."""
    import torch

    from gangline.checkpoint import Checkpoints

    directory, last = argument
    torch.set_num_threads(1)
    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    step = 0
    with Checkpoints(group, directory) as checkpoints:
        found = checkpoints.latest()
        if found is not None:
            with found:
                state = found.state()
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            torch.set_rng_state(state["rng"])
            step = found.step
        first = step
        while step < last:
            x = torch.rand(8, 64)
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
            schedule.step()
            step += 1
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "rng": torch.get_rng_state()}
        checkpoints.save(step, state, asynchronous=step > 5)
    tell([first, sum(p.double().sum().item() for p in model.parameters())])


def rallies(group, _):
    """Ranks that differ by a step, and one that has none, agree on the state of the furthest."""
    import numpy
    import torch

    from gangline.elastic import rally

    me = group.rank
    state = {"model": {"w": torch.full((3, 2), float(me)), "none": torch.empty(0)}, "n": numpy.arange(5) + me, "flag": numpy.array([me == 1]), "words": ["a", me]}
    step, got = rally(group, None, state)
    assert step == 0 and got is state, "nobody has done a step: each keeps its own"
    step, got = rally(group, 4, state)
    assert step == 4 and got is state, "all are equally far"
    step, got = rally(group, {0: 5, 1: 6}.get(me), state)
    equal(step, 6, "the step")
    assert (got is state) == (me == 1), "who is furthest keeps its own arrays"
    assert torch.equal(got["model"]["w"], torch.ones(3, 2)) and got["model"]["none"].numel() == 0
    equal([got["n"].tolist(), got["flag"].tolist(), got["words"]], [[1, 2, 3, 4, 5], [True], ["a", 1]], "the state")


def staging(group, _):
    """The path of a GPU's tensors, with a CPU's in the place of the GPU's: it runs, in this order. What a GPU makes of it nobody has seen."""
    from unittest import mock

    import torch

    import gangline.torch as t

    log = []

    class Stream:
        def __init__(self, *_):
            pass

        def wait_event(self, event):
            log.append("wait for the gradients")

    class Event:
        def record(self, stream):
            log.append("record")

        def synchronize(self):
            log.append("wait for the copy")

    class Tensor(torch.Tensor):
        def record_stream(self, stream):
            log.append("keep")

    class Bucket:
        def index(self):
            return 0

        def parameters(self):
            return []

    real = torch.empty
    fakes = {"Stream": Stream, "Event": Event, "current_stream": Stream, "stream": lambda _: contextlib.nullcontext()}
    with contextlib.ExitStack() as stack:
        for name, fake in fakes.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, fake))
        stack.enter_context(mock.patch.object(torch, "empty", lambda *a, pin_memory=False, **k: real(*a, **k)))
        averaging = t.Averaging(group, "bf16")
        for _ in range(2):
            gradients = torch.full((1000,), group.rank + 1.0).as_subclass(Tensor)
            future = torch.futures.Future()
            t._staged(averaging, Bucket(), gradients, future)()
            assert t._value(future) is gradients
            assert torch.equal(gradients.as_subclass(torch.Tensor), torch.full((1000,), (group.world_size + 1) / 2)), gradients
        equal(len(group._stages), 1, "stages for one bucket")
    equal(log, ["record", "wait for the gradients", "record", "keep", "wait for the copy"] * 2, "what was done")


def diloco(group, path):
    """The example trains, over links on which int8 travels, and all ranks end with the same model."""
    import torch

    torch.set_num_threads(1)
    sys.path.append(path)
    import train

    agreed = []
    finish = train.Outer.finish
    train.Outer.finish = lambda outer: (finish(outer), agreed.append(outer.agreed))
    with contextlib.redirect_stdout(io.StringIO()):
        accuracy = train.train(group, train.arguments(["--rounds", "25"]))
    mine = agreed[-1].detach()
    assert torch.equal(mine, group.broadcast(mine.clone())), "ranks end with other parameters"
    tell(accuracy)
