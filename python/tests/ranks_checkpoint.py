"""What ranks of test worlds do with checkpoints; see ranks.py."""

import gangline
from ranks import equal
from worlds import tell


def save_all(group, directory):
    """A checkpoint of tensors of every kind: whole on all ranks, large and small, and parts of which no rank holds the whole."""
    import numpy

    from gangline.checkpoint import Checkpoints, Part

    me, n = group.rank, group.world_size
    state = state_of(n)
    low, high = group.share(1000)
    state["parts"] = Part(state["parts"][low:high], (1000, 3), (low, 0))
    with Checkpoints(group, directory, keep=2) as checkpoints:
        assert checkpoints.latest() is None
        for step in (10, 20, 30):
            checkpoints.save(step, state, metrics={"loss": 1 / step}, meta={"step": str(step)})
            if me == 0:
                equal(checkpoints.saved(), step, "the newest committed step")
        assert checkpoints.save(40, state, asynchronous=True) >= 0
        if me == 0:
            equal(checkpoints.saved(wait=True), 40, "the asynchronous save")
        else:
            checkpoints.saved(wait=True)
        group.barrier()
        if me == n - 1:  # one rank cannot save: no rank commits, and all know
            _lib_close(checkpoints)
        try:
            checkpoints.save(50, state)
            raise AssertionError("a checkpoint without the part of one rank is committed")
        except gangline.ClosedError:
            equal(me, n - 1, "who could not")
        except gangline.FailedError as e:
            assert me != n - 1 and f"1 of {n} ranks" in str(e), e
    tell("equal")


def _lib_close(checkpoints):
    from gangline import _lib

    _lib.call("checkpoints_close", checkpoints._handle)
    checkpoints._handle = 0


def state_of(world):
    """What save_all saves, whole."""
    import numpy

    kinds = ["float64", "float16", "int8", "int16", "uint8", "uint16", "uint32", "uint64", "bool", "int32", "int64"]
    return {
        "large": numpy.arange(300_000, dtype=numpy.float32).reshape(100, 3000) * world,
        "parts": numpy.arange(3000, dtype=numpy.float32).reshape(1000, 3),
        "small": {k: (numpy.arange(5) % 2).astype(k) for k in kinds},
        "strided": numpy.arange(100.0)[::2],
        "scalar": numpy.array(3.5),
        "empty": numpy.empty((0, 4)),
        "rest": [1, 2.5, None, True, "text", b"bytes", (1, 2), {"nested": {3: "int key"}}, float("inf"), 1 + 2j],
    }


def load_all(group, directory):
    """Another number of ranks reads it, whole and by boxes."""
    import numpy

    from gangline.checkpoint import Checkpoints

    with Checkpoints(group, directory) as checkpoints, checkpoints.latest() as found:
        equal((found.step, found.world_size, found.meta, found.damaged), (40, 3, {}, []), "what was found")
        got, want = found.state(), state_of(3)
        for name in ("large", "parts", "strided", "scalar", "empty"):
            assert got[name].dtype == want[name].dtype and numpy.array_equal(got[name], want[name]), name
        for name, array_ in want["small"].items():
            assert got["small"][name].dtype == array_.dtype and numpy.array_equal(got["small"][name], array_), name
        equal(got["rest"], want["rest"], "what is no tensor")
        box = numpy.empty((7, 11), numpy.float32)
        assert found.read("large", box, offset=(30, 500), shape=(7, 11)) is box
        assert numpy.array_equal(box, want["large"][30:37, 500:511])
        equal(found.tensors["large"], ("float32", (100, 3000)), "type and shape")
        for wrong in (lambda: found.read("large", box), lambda: found.read("large", offset=(99, 0), shape=(2, 1))):
            try:
                wrong()
            except gangline.InvalidError:
                continue
            raise AssertionError("a wrong box was read")
        try:
            found.read("no such tensor")
        except gangline.NoneError:
            tell("equal")
