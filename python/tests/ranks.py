"""What ranks of test worlds do: functions of a group and an argument. What they find wrong is an AssertionError, which ends them."""

import array
import os
import resource
import signal
import sys
import threading
import time

import gangline
from worlds import hear, tell

TYPES = ["float32", "float64", "float16", "int8", "int32", "int64"]


def equal(got, want, what):
    assert got == want, f"{what}: got {got}, want {want}"


def numpy_operations(group, _):
    import numpy

    n, me = group.world_size, group.rank
    for name in TYPES:
        for length in (0, 1, 5, 1000, 70000):
            base = numpy.arange(length) % 5 + 1
            mine = [((base + r) % 7).astype(name) for r in range(n)]
            for op, want in (
                ("sum", numpy.sum(mine, axis=0, dtype=name)),
                ("min", numpy.min(mine, axis=0)),
                ("max", numpy.max(mine, axis=0)),
            ):
                a = mine[me].copy()
                assert group.all_reduce(a, op) is a
                assert numpy.array_equal(a, want), f"{op} of {length} {name}: {a[:5]} is not {want[:5]}"
            a = numpy.full(length, 2, name)
            assert numpy.array_equal(group.all_reduce(a, "product"), numpy.full(length, 2**n, name)), (name, length)
            a = numpy.full(length, me * 2, name)
            assert numpy.array_equal(group.all_reduce(a, "mean"), numpy.full(length, n - 1, name)), (name, length)
            a = mine[me].copy()
            low, high = group.reduce_scatter(a)
            equal((low, high), group.share(length), "share")
            total = numpy.sum(mine, axis=0, dtype=name)
            assert numpy.array_equal(a[low:high], total[low:high])
            rest = numpy.r_[a[:low], a[high:]]
            assert numpy.array_equal(rest, numpy.r_[mine[me][:low], mine[me][high:]]), "what is not this rank's share has changed"
            assert numpy.array_equal(group.all_gather(a), total)
            a = mine[me].copy()
            assert numpy.array_equal(group.broadcast(a, n - 1), mine[n - 1])
    group.barrier()
    tell("equal")


def buffers(group, _):
    """Without NumPy: array.array, bytearray, memoryview."""
    a = array.array("d", [group.rank + 1.0] * 3)
    equal(list(group.all_reduce(a)), [sum(range(1, group.world_size + 1))] * 3, "array")
    part = array.array("i", range(10))
    group.all_reduce(memoryview(part)[2:4])
    equal(list(part), [0, 1, 2 * group.world_size, 3 * group.world_size, 4, 5, 6, 7, 8, 9], "a part of an array")
    for wrong in ([1.0], b"12345678", memoryview(part)[::2], array.array("H", [1])):
        try:
            group.all_reduce(wrong)
        except gangline.InvalidError:
            continue
        raise AssertionError(f"{wrong!r} was taken")
    try:
        group.all_reduce(a, "average")
    except gangline.InvalidError:
        tell("equal")


def forms(group, wire):
    """Fewer bytes on the wire: close to the sum, equal on all ranks, and with feedback right on average."""
    import numpy

    n, rng = group.world_size, numpy.random.default_rng(group.rank)
    mine = rng.standard_normal(5000).astype(numpy.float32)
    exact = group.all_reduce(mine.copy(), wire="exact")
    magnitude = group.all_reduce(abs(mine), wire="exact")
    bound = n / 254 * magnitude.max() if wire == "int8" else n / 256 * magnitude
    got = group.all_reduce(mine.copy(), wire=wire)
    off = abs(got - exact)
    assert (off <= bound * 1.05).all() and off.max() > 0, f"off by {off.max()}"
    of_0 = group.broadcast(got.copy(), 0)
    assert numpy.array_equal(got, of_0), "ranks have other bits"
    feedback, total = gangline.Feedback(5000), numpy.zeros(5000)
    for _ in range(50):
        total += group.all_reduce(mine.copy(), "mean", wire=wire, feedback=feedback)
    drift = abs(total / 50 - exact / n).max()
    assert drift < abs(got - exact).max() / n / 3, f"feedback leaves {drift}"
    for call in (lambda: group.all_reduce(mine, "max", wire=wire), lambda: group.all_reduce(mine, wire="int4")):
        try:
            call()
        except gangline.InvalidError:
            continue
        raise AssertionError("a form that there is not was taken")
    tell("equal")


def messages(group, _):
    """Each rank sends to all others, in another order than they receive."""
    import numpy

    n, me = group.world_size, group.rank
    for length in (1, 100_000):
        sender = threading.Thread(target=lambda: [group.send(numpy.full(length, me * 10 + to, numpy.int32), to) for to in range(n) if to != me])
        sender.start()
        for source in reversed([r for r in range(n) if r != me]):
            got = group.recv(numpy.zeros(length, numpy.int32), source)
            assert (got == source * 10 + me).all(), got
        sender.join()
    for wrong in (lambda: group.send(numpy.zeros(1), me), lambda: group.recv(numpy.zeros(1), n)):
        try:
            wrong()
        except gangline.InvalidError:
            continue
        raise AssertionError("a message to nobody was sent")
    group.barrier()
    tell("equal")


def tags(group, _):
    """Calls with tags may begin in another order on each rank."""
    import numpy

    n, me = group.world_size, group.rank
    arrays = [numpy.full(100 + i, i + me, numpy.float64) for i in range(20)]
    order = list(range(20)) if me % 2 else list(range(19, -1, -1))
    under_way = {i: group.all_reduce_start(arrays[i], tag=i) for i in order}
    for i, work in under_way.items():
        assert (work.wait() == n * i + n * (n - 1) / 2).all()
    try:
        group.all_reduce_start(arrays[0], tag=3)
        raise AssertionError("a tag was taken twice")
    except gangline.InvalidError:
        pass
    group.barrier()
    tell("equal")


def works(group, _):
    """Many collectives under way, then their results; and calls of threads beside them."""
    import numpy

    n, me = group.world_size, group.rank
    arrays = [numpy.full(1 + 997 * i, me + i, numpy.float32) for i in range(50)]
    under_way = [group.all_reduce_start(a) for a in arrays]
    small = numpy.ones(3, numpy.int64)
    group.all_reduce(small)  # after those that were begun before it
    equal(small.tolist(), [n] * 3, "a call beside works")
    for i, work in enumerate(under_way):
        assert work.wait(30) is arrays[i] and work.done()
        work.wait()  # again
        assert (arrays[i] == n * i + n * (n - 1) / 2).all(), i
    late = group.broadcast_start(small) if me == 0 else None
    if me != 0:
        hear()  # until rank 0 has seen that its own call waits
        late = group.broadcast_start(small)
    elif n > 1:
        probe = group.all_reduce_start(numpy.ones(1, numpy.float32))
        try:
            probe.wait(0.05)
            raise AssertionError("a call of which the others know nothing is done")
        except gangline.TimeoutError:
            assert not probe.done()
        tell("waiting")
    late.wait()
    if me != 0:
        probe = group.all_reduce_start(numpy.ones(1, numpy.float32))
    if n > 1:
        equal(probe.wait().tolist(), [n], "after the wait")
    tell("equal")


def shared_buffers(group, length):
    import numpy

    a, b = group.empty(length), group.empty((3, length // 3), "float64")
    assert not a.any() and b.shape == (3, length // 3)
    a += group.rank + 1
    b += 1
    group.all_reduce(a)
    group.all_reduce(b, "mean")
    want = sum(range(1, group.world_size + 1))
    assert (a == want).all() and (b == 1).all()
    kept = a[1:3]
    del a, b
    for _ in range(20):  # would fill the machine's shared memory if none were given back
        group.empty(64 << 18)
    group.close()
    assert (kept == want).all(), "memory in use vanished with the group"
    kept += 1
    try:
        group.all_reduce(numpy.ones(1, numpy.float32))
    except gangline.ClosedError:
        tell("equal")


def many_calls(group, calls):
    """Memory stays what it was over many calls, of every kind."""
    import numpy

    a, small = numpy.zeros(20000, numpy.float32), numpy.zeros(8, numpy.float32)

    def some(n):
        for i in range(n):
            group.all_reduce(small)
            if i % 10 == 0:
                group.all_reduce(a)
                group.all_reduce_start(a).wait()
                group.barrier()
                memory = group.buffer(4096)
                del memory
                try:
                    group.all_reduce(small, "median")
                except gangline.InvalidError:
                    pass

    some(calls)
    grown = []
    for _ in range(4):  # what collects garbage lets memory rise for a while; a leak rises for ever
        before = resident()
        some(calls // 4)
        grown.append(resident() - before)
    tell(min(grown))


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def until_lost(group, kind):
    """Calls until a rank is lost, then tells which. The first call is told to the test, which kills a rank."""
    import numpy

    a = numpy.ones(100_000, numpy.float32)
    group.all_reduce(a)
    tell("running")
    began = time.monotonic()
    try:
        while True:
            if kind == "work":
                works = [group.all_reduce_start(a) for _ in range(4)]
                for w in works:
                    w.wait()
            else:
                group.all_reduce(a, "mean")
            if time.monotonic() - began > 60:
                raise AssertionError("no rank was lost in a minute")
    except gangline.RankLostError as e:
        assert group.error is not None and group.error.rank == e.rank
        assert f"rank {e.rank}" in str(e), e
        try:
            group.barrier()
            raise AssertionError("a broken group works")
        except gangline.RankLostError as again:
            equal(again.rank, e.rank, "the rank of the second error")
        tell({"lost": e.rank})


def signals(group, _):
    """Python's signal handlers work while the library is loaded, also during calls that wait."""
    import subprocess

    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append("TERM"))
    signal.signal(signal.SIGUSR1, lambda *_: seen.append("USR1"))
    signal.signal(signal.SIGCHLD, lambda *_: seen.append("CHLD"))
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGUSR1)
    subprocess.run(["true"], check=True)
    deadline = time.monotonic() + 10
    while len(seen) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    equal(sorted(seen), ["CHLD", "TERM", "USR1"], "handlers that ran")
    if group.rank == 0:  # its call waits for the other rank
        threading.Thread(target=interrupt_wait, daemon=True).start()
        try:
            group.barrier()
            raise AssertionError("the barrier of one rank returned")
        except KeyboardInterrupt:
            tell("interrupted")
    else:
        hear()
    try:
        group.barrier()
        raise AssertionError("a group whose call was given up works")
    except gangline.RankLostError as e:
        equal(e.rank, 0, "who gave up")
    tell("lost 0")


def interrupt_wait():
    """Interrupts the process as the keyboard does, once its main thread waits for a collective."""
    while sys._current_frames()[threading.main_thread().ident].f_code.co_name != "_wait":
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)


def forks(group, _):
    """Forked children, as DataLoader's workers are, do not disturb their parent; one that calls gets an error and no hang."""
    import multiprocessing

    import numpy

    a = numpy.ones(1000, numpy.float32)
    group.all_reduce(a)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=child, args=(group, i, results)) for i in range(4)]
    for c in children:
        c.start()
    for _ in range(200):
        group.all_reduce(a, "mean")
    got = sorted(results.get(timeout=30) for _ in children)
    for c in children:
        c.join(30)
        equal(c.exitcode, 0, "a child's exit")
    equal(got, [(i, "ForkedError", i * i) for i in range(4)], "what the children told")
    group.all_reduce(a, "mean")
    equal(a.tolist(), [group.world_size] * 1000, "the parent's result")
    tell("equal")


def child(group, i, results):
    import numpy

    try:
        group.all_reduce(numpy.ones(1, numpy.float32))
        kind = "none"
    except gangline.GanglineError as e:
        kind = type(e).__name__
    group.close()  # must not touch the parent's group
    results.put((i, kind, i * i))


def threads(group, _):
    """Calls of several threads on one group are made one after the other."""
    import numpy

    def life():
        a = numpy.ones(100, numpy.float32)
        for _ in range(50):
            group.all_reduce(a, "mean")
        assert (a == 1).all()

    all_threads = [threading.Thread(target=life) for _ in range(4)]
    for t in all_threads:
        t.start()
    for t in all_threads:
        t.join()
    tell("equal")


def bad_memory(group, path):
    """A call on an address that is no memory: an error here, a lost rank there, and no end of the process."""
    import ctypes

    import numpy

    from gangline import _lib

    a = numpy.ones(1 << 16, numpy.float32)
    at = ctypes.c_void_p(8 if group.rank == 0 else a.ctypes.data)
    code = _lib.load().gangline_all_reduce(group._handle, at, len(a), 1, 1)
    error = _lib.last_error()
    equal(error.code, code, "the code")
    tell([type(error).__name__, error.rank])


def leave_early(group, call):
    """Rank 0 leaves while the others need it: they must not wait for it."""
    import numpy

    a = numpy.ones(100_000, numpy.float32)
    group.all_reduce(a)
    if group.rank == 0:
        group.close()
        tell({"lost": 0})
        hear()  # the process stays
        return
    try:
        group.barrier() if call == "barrier" else group.all_reduce(a)
        raise AssertionError("a rank that left was not missed")
    except gangline.RankLostError as e:
        tell({"lost": e.rank})
