"""Tests of gangline.Group in worlds of real processes."""

import os
import subprocess
import sys
import unittest

from worlds import HERE, World

try:
    import numpy
except ImportError:
    numpy = None


@unittest.skipIf(numpy is None, "NumPy is not installed")
class Collectives(unittest.TestCase):
    def each(self, sizes, function, argument=None, **options):
        for size in sizes:
            with self.subTest(ranks=size, **options), World(size, function, argument, **options) as world:
                self.assertEqual(world.results(), ["equal"] * size)

    def test_operations(self):
        self.each([1, 2, 4], "ranks.numpy_operations")
        self.each([2], "ranks.numpy_operations", path="tcp", secret="only ranks know this")

    def test_buffers(self):
        self.each([1, 2], "ranks.buffers")

    def test_forms_on_the_wire(self):
        self.each([3], "ranks.forms", "bf16", path="tcp")
        self.each([2], "ranks.forms", "int8", path="grpc")

    def test_messages(self):
        self.each([3], "ranks.messages")

    def test_tags(self):
        self.each([2], "ranks.tags")

    def test_works(self):
        with World(2, "ranks.works") as world:
            first, second = world.ranks
            self.assertEqual(first.hear(), "waiting")
            second.say("go on")
            self.assertEqual(world.results(), ["equal"] * 2)
        self.each([1], "ranks.works")

    def test_shared_buffers(self):
        self.each([1, 2, 4], "ranks.shared_buffers", 300_000)

    def test_threads(self):
        self.each([2], "ranks.threads")

    def test_memory_stays_flat(self):
        with World(2, "ranks.many_calls", 10_000) as world:
            for grown in world.results():
                self.assertLess(grown, 384 << 10, "bytes that 2,500 calls left behind, at the least")


@unittest.skipIf(numpy is None, "NumPy is not installed")
class Faults(unittest.TestCase):
    def lose(self, size, victim, kind):
        with self.subTest(ranks=size, victim=victim, kind=kind), World(size, "ranks.until_lost", kind) as world:
            for r in world.ranks:
                self.assertEqual(r.hear(), "running")
            world.ranks[victim].process.kill()
            world.ranks[victim].process.wait()
            for r in world.ranks:
                if r.rank != victim:
                    self.assertEqual(r.hear(), {"lost": victim}, f"rank {r.rank}")
                    self.assertEqual(r.end(), 0)

    def test_killed_rank_is_named(self):
        self.lose(2, 1, "run")
        self.lose(4, 2, "run")
        self.lose(4, 0, "work")

    def test_rank_that_left_is_named(self):
        for call in ("barrier", "all_reduce"):
            with self.subTest(call=call), World(4, "ranks.leave_early", call) as world:
                for r in world.ranks:
                    self.assertEqual(r.hear(), {"lost": 0})

    def test_interrupt_and_handlers(self):
        with World(2, "ranks.signals", interruptible=True) as world:
            first, second = world.ranks
            self.assertEqual(first.hear(), "interrupted")
            second.say("go on")
            self.assertEqual([first.hear(), second.hear()], ["lost 0"] * 2)
            self.assertEqual([first.end(), second.end()], [0, 0])

    def test_bad_memory(self):
        for path in ("auto", "tcp"):
            with self.subTest(path=path), World(2, "ranks.bad_memory", path=path) as world:
                self.assertEqual(world.results(), [["PanicError", None], ["RankLostError", 0]])

    def test_forked_children(self):
        with World(2, "ranks.forks") as world:
            self.assertEqual(world.results(), ["equal"] * 2)


HANDLERS = """
import ctypes, faulthandler, json, signal
class Action(ctypes.Structure):
    _fields_ = [("handler", ctypes.c_void_p), ("rest", ctypes.c_byte * 256)]
libc = ctypes.CDLL(None)
def handlers():
    out = {}
    for n in range(1, 32):
        if n in (9, 19): continue
        action = Action()
        assert libc.sigaction(n, None, ctypes.byref(action)) == 0
        out[signal.Signals(n).name] = action.handler or 0
    return out
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGCHLD, lambda *_: None)
before = handlers()
import gangline
assert gangline._lib._library is None, "importing has loaded the library"
with gangline.Group() as group:
    after = handlers()
print(json.dumps(sorted(name for name in before if before[name] != after[name])))
"""


class Loading(unittest.TestCase):
    def python(self, program, **env):
        return subprocess.run(
            [sys.executable, "-c", program], env=dict(os.environ, PYTHONPATH=str(HERE.parent), **env), capture_output=True, text=True, timeout=60
        )

    def test_signal_handlers_stay(self):
        """Those that a Go runtime takes are the ones that gangline.h names, and no other."""
        done = self.python(HANDLERS)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.strip(), '["SIGBUS", "SIGFPE", "SIGPIPE", "SIGSEGV", "SIGURG"]')

    def test_missing_library_is_named(self):
        done = self.python("import gangline; gangline.Group()", GANGLINE_LIBRARY="/nowhere/libgangline.so")
        self.assertIn("/nowhere/libgangline.so", done.stderr)
        self.assertIn("make lib", done.stderr)

    def test_alone(self):
        done = self.python("import gangline, array; a = array.array('f', [1, 2]); print(gangline.Group().all_reduce(a, 'mean'))")
        self.assertEqual(done.stdout, "array('f', [1.0, 2.0])\n", done.stderr)

    def test_ranks_without_an_agent_are_refused(self):
        done = self.python(
            "import gangline.agent as a; a.report_step(1, metrics={'loss': 1.0}); print(a.stop_requested(), a.save_due(1)); a.close()", RANK="0", WORLD_SIZE="2"
        )
        self.assertEqual(done.stdout, "None None\n", done.stderr)  # under torchrun, say: nobody hears it
        done = self.python("import gangline; gangline.Group()", RANK="0", WORLD_SIZE="2")
        self.assertIn("GANGLINE_AGENT_SOCKET", done.stderr)

    def test_secret_is_needed(self):
        done = self.python("import gangline; gangline.Group(peers=['127.0.0.1:9', '127.0.0.1:10'], listener=gangline.Listener())")
        self.assertIn("InvalidError", done.stderr)
        self.assertIn("without a secret", done.stderr)


if __name__ == "__main__":
    unittest.main()
