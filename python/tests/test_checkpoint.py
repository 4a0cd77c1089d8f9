"""Tests of gangline.checkpoint."""

import collections
import glob
import tempfile
import unittest
import warnings

import gangline
from gangline.state import flatten, unflatten
from worlds import World

try:
    import numpy
except ImportError:
    numpy = None
try:
    import torch
except ImportError:
    torch = None


@unittest.skipIf(numpy is None, "NumPy is not installed")
class Checkpoints(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = self.folder.name

    def open(self, **options):
        from gangline.checkpoint import Checkpoints

        opened = Checkpoints(None, self.path, **options)
        self.addCleanup(opened.close)
        return opened

    def test_other_numbers_of_ranks_read_it(self):
        with World(3, "ranks_checkpoint.save_all", self.path) as world:
            self.assertEqual(world.results(), ["equal"] * 3)
        for size in (1, 2):
            with World(size, "ranks_checkpoint.load_all", self.path) as world:
                self.assertEqual(world.results(), ["equal"] * size)

    def test_damage_is_passed_over(self):
        checkpoints = self.open()
        for step in (1, 2):
            checkpoints.save(step, {"a": numpy.full(100, step, numpy.float32)})
        (shard,) = glob.glob(f"{self.path}/step-*2.epoch-1/*.glck")
        with open(shard, "r+b") as f:
            f.seek(4096 + 50)
            f.write(b"\xff")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = self.open().latest()
        with found:
            self.assertEqual(found.step, 1)
            self.assertEqual(len(found.damaged), 1)
            self.assertTrue((found.state()["a"] == 1).all())
        self.assertIn("damaged", str(told[0].message))
        (shard,) = glob.glob(f"{self.path}/step-*1.epoch-1/*.glck")
        with open(shard, "r+b") as f:
            f.truncate(10)
        with self.assertRaises(gangline.DamagedError):
            self.open().latest()

    def test_older_epoch_is_fenced(self):
        old, new = self.open(), self.open()
        self.assertEqual(new.epoch, old.epoch + 1)
        with self.assertRaises(gangline.FencedError):
            old.save(1, {"a": numpy.zeros(1)})
        new.save(1, {"a": numpy.zeros(1)})

    def test_names(self):
        checkpoints = self.open()
        with self.assertRaises(gangline.InvalidError):
            checkpoints.save(1, {"a/b": numpy.zeros(1), "a": {"b": numpy.zeros(1)}})
        with self.assertRaises(gangline.InvalidError):
            checkpoints.save(1, {"gangline.state": numpy.zeros(1)})
        self.assertIsNone(checkpoints.latest())

    @unittest.skipIf(torch is None, "PyTorch is not installed")
    def test_training_resumes_as_if_nothing_had_been(self):
        def trained(path, last):
            with World(1, "ranks_torch.resume", [path, last]) as world:
                return world.results()[0]

        with tempfile.TemporaryDirectory() as other:
            self.assertEqual(trained(self.path, 4)[0], 0)
            first, got = trained(self.path, 9)
            self.assertEqual(first, 4)
            self.assertEqual(trained(other, 9), [0, got])


class State(unittest.TestCase):
    def test_what_cannot_be_told_is_named(self):
        point = collections.namedtuple("point", "x")
        for strange in (object(), {1, 2}, point(1), {"k": [lambda: 1]}, {(1, 2): 3}):
            with self.assertRaises(gangline.InvalidError):
                flatten({"deep": strange})
        with self.assertRaisesRegex(gangline.InvalidError, "at deep/1"):
            flatten({"deep": [1, object()]})

    def test_again(self):
        state = {"a": [1, (2.5, None)], 3: collections.OrderedDict(x=b"y"), True: complex(1, 2)}
        structure, tensors = flatten(state)
        self.assertEqual(tensors, {})
        again = unflatten(structure, None)
        self.assertEqual(again, state)
        self.assertIs(type(again[3]), collections.OrderedDict)


if __name__ == "__main__":
    unittest.main()
