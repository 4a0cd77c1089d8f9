"""Tests of gangline.torch on PyTorch for the CPU."""

import socket
import unittest

from worlds import HERE, World

try:
    import torch
except ImportError:
    torch = None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@unittest.skipIf(torch is None, "PyTorch is not installed")
class Torch(unittest.TestCase):
    def each(self, sizes, function, argument=None, **options):
        for size in sizes:
            with self.subTest(ranks=size), World(size, function, argument() if argument else None, **options) as world:
                self.assertEqual(world.results(), ["equal"] * size)

    def test_same_losses_as_gloo(self):
        self.each([3], "ranks_torch.ddp", free_port, path="tcp")

    def test_lost_rank_is_named_by_backward(self):
        with World(3, "ranks_torch.ddp_lost", free_port()) as world:
            for rank in (0, 2):
                self.assertEqual(world.ranks[rank].hear(), {"lost": 1})
                self.assertEqual(world.ranks[rank].end(), 0)

    def test_diloco_example(self):
        with World(2, "ranks_torch.diloco", str(HERE.parent.parent / "examples" / "diloco"), path="tcp") as world:
            first, second = world.results()
            self.assertEqual(first, second)
            self.assertGreater(first, 0.9, "accuracy on scans that were held out")

    def test_tensors_and_data_loader(self):
        self.each([2], "ranks_torch.tensors_and_loaders")


if __name__ == "__main__":
    unittest.main()
