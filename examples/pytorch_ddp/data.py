"""The digits of examples/digits, split as there: every fifth scan is held out."""

import gzip
from pathlib import Path
from typing import Tuple

import torch

PATH = Path(__file__).resolve().parent.parent / "digits" / "data" / "digits.csv.gz"


def load() -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training pixels (0 to 1) and labels, test pixels and labels."""
    with gzip.open(PATH, "rt") as f:
        rows = torch.tensor([[int(n) for n in line.split(",")] for line in f])
    held_out = torch.arange(len(rows)) % 5 == 0
    pixels, labels = rows[:, :64].float() / 16, rows[:, 64]
    return pixels[~held_out], labels[~held_out], pixels[held_out], labels[held_out]
