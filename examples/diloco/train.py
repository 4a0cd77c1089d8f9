"""Trains on handwritten digits over slow links, DiLoCo style: each rank takes many steps by itself, then all average how far they got.

After H inner steps (AdamW), a rank's progress is what its parameters have moved since the round began. The average of all ranks' progress is the gradient of an
outer optimizer (SGD with Nesterov momentum; A. Douillard et al., "DiLoCo", 2023). So 1/H of the bytes travel, and here in int8, a quarter again. And nobody waits for
them: the average of one round travels while the next one is computed, and until it is there each rank counts on its own progress instead ("delayed").

In a job: gangline run --gpus 2 --dir $PWD/examples/diloco -- /usr/bin/python3 train.py. It needs neither torch.distributed nor Gloo.
"""

import argparse
import sys
from pathlib import Path
from typing import List, Optional

sys.path.append(str(Path(__file__).resolve().parents[2] / "python"))  # in a checkout; else PYTHONPATH says where gangline is
sys.path.append(str(Path(__file__).resolve().parents[1] / "pytorch_ddp"))  # its data

import torch

import data
import gangline
import gangline.agent


def arguments(words: Optional[List[str]] = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=30, help="how often all ranks average")
    p.add_argument("--inner", type=int, default=20, help="steps that each rank takes by itself in a round")
    p.add_argument("--batch", type=int, default=16, help="samples of a step, of one rank")
    p.add_argument("--wire", choices=["exact", "bf16", "int8"], default="int8", help="in which form progress travels")
    p.add_argument("--inner-lr", type=float, default=2e-3)
    p.add_argument("--outer-lr", type=float, default=0.5)
    p.add_argument("--momentum", type=float, default=0.8)
    return p.parse_args(words)


class Outer:
    """The parameters on which all ranks agree, as one vector, and the optimizer that moves them by averaged progress."""

    def __init__(self, group: gangline.Group, parameters: torch.Tensor, args: argparse.Namespace) -> None:
        self.group, self.wire = group, args.wire
        self.agreed = group.broadcast(parameters.clone())  # all begin as rank 0 does
        self.optimizer = torch.optim.SGD([self.agreed], lr=args.outer_lr, momentum=args.momentum, nesterov=True)
        self.feedback = gangline.Feedback(parameters.numel())  # what int8 loses of one round goes into the next
        self.work: Optional[gangline.Work] = None
        self.averages = 0

    def begin(self, progress: torch.Tensor) -> None:
        """Begins to average progress, which goes on beside the training."""
        self.work = self.group.all_reduce_start(progress.clone(), "mean", wire=self.wire, feedback=self.feedback)
        self.averages += 1

    def finish(self) -> None:
        """Waits for the average that was begun, and moves the agreed parameters by it."""
        if self.work is not None:
            self.agreed.grad = self.work.wait()
            self.optimizer.step()
            self.work = None


def train(group: gangline.Group, args: argparse.Namespace) -> float:
    """Trains, and gives the accuracy of the agreed parameters on the held-out scans."""
    pixels, labels, test_pixels, test_labels = data.load()
    pixels, labels = pixels[group.rank :: group.world_size], labels[group.rank :: group.world_size]  # each site has data of its own
    torch.manual_seed(group.rank)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    inner = torch.optim.AdamW(model.parameters(), lr=args.inner_lr)
    vector = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    outer = Outer(group, vector, args)
    start = outer.agreed.clone()
    for round_ in range(1, args.rounds + 1):
        torch.nn.utils.vector_to_parameters(start.clone(), model.parameters())
        for _ in range(args.inner):
            chosen = torch.randint(len(pixels), (args.batch,))
            loss = torch.nn.functional.cross_entropy(model(pixels[chosen]), labels[chosen])
            inner.zero_grad()
            loss.backward()
            inner.step()
        progress = start - torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        outer.finish()  # of the round before: it had all of this round's time to travel
        outer.begin(progress)
        start = outer.agreed - progress  # the own progress stands for the average until that has come
        if group.rank == 0:
            gangline.agent.report_step(round_ * args.inner, args.rounds * args.inner, metrics={"loss": loss.item()})
            if round_ % 10 == 0:
                print(f"round {round_}/{args.rounds}  loss {loss.item():.4f}", flush=True)
    outer.finish()
    torch.nn.utils.vector_to_parameters(outer.agreed.clone(), model.parameters())
    accuracy = (model(test_pixels).argmax(1) == test_labels).float().mean().item()
    if group.rank == 0:
        print(
            f"trained: {args.rounds * args.inner} steps on each of {group.world_size} ranks, {outer.averages} averages of "
            f"{vector.numel()} parameters, test accuracy {accuracy:.4f}",
            flush=True,
        )
    return accuracy


if __name__ == "__main__":
    torch.set_num_threads(1)
    with gangline.Group() as everybody:
        train(everybody, arguments())
    gangline.agent.close()
