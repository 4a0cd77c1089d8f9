"""Trains on handwritten digits and goes on when ranks are lost, in the same processes; others join at their next step.

In a job with on_failure: shrink, such as job.yaml beside. What is Gangline's is marked (*). Kill a rank while it trains, and watch its log.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "python"))  # in a checkout; else PYTHONPATH says where gangline is
sys.path.append(str(Path(__file__).resolve().parents[1] / "pytorch_ddp"))  # its data

import torch

import data
import gangline
import gangline.agent
import gangline.elastic
import gangline.torch


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--batch", type=int, default=64, help="samples of a step, over all ranks together")
    p.add_argument("--step-delay", type=float, default=0.02, help="seconds of pause after each step, so that a person can watch it")
    return p.parse_args()


class Trainer:
    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(1)
        self.args = args
        self.pixels, self.labels, self.test_pixels, self.test_labels = data.load()
        self.model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def state(self) -> Any:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: Any) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def step(self, group: gangline.Group, step: int) -> None:
        """One step. Each rank takes its share of the batch, and gradients count by samples, so the model does not depend on who is there."""
        order = torch.randperm(len(self.pixels), generator=torch.Generator().manual_seed(step))[: self.args.batch]
        low, high = group.share(len(order))
        mine = order[low:high]
        loss = torch.nn.functional.cross_entropy(self.model(self.pixels[mine]), self.labels[mine], reduction="sum")
        self.optimizer.zero_grad()
        (loss * group.world_size / len(order)).backward()
        gangline.torch.average_gradients(self.model.parameters(), group)  # (*) raises before anything is changed
        self.optimizer.step()

    def accuracy(self) -> float:
        return (self.model(self.test_pixels).argmax(1) == self.test_labels).float().mean().item()


def rally(group: gangline.Group, trainer: Trainer, step: "int | None") -> int:
    """Takes the state of a rank that is further, and says who is there."""
    agreed, state = gangline.elastic.rally(group, step, trainer.state())  # (*)
    if step is None or step < agreed:
        trainer.load(state)
    if group.rank == 0:
        print(f"step {agreed}: {group.world_size} ranks: {', '.join(map(str, group.members))}", flush=True)
    return agreed


def main() -> int:
    args = arguments()
    torch.set_num_threads(1)
    trainer = Trainer(args)
    with gangline.agent.catching():  # (*)
        group = gangline.Group()  # (*) one that joins later joins the others here
        step = rally(group, trainer, None)
        stopping = False
        while step < args.steps and not stopping:
            try:
                trainer.step(group, step)
                step += 1
                if group.rank == 0:
                    gangline.agent.report_step(step, args.steps)  # (*)
                decision = gangline.agent.decide(group, step)  # (*)
                stopping = decision.stop
                if not decision.reform or step == args.steps:
                    time.sleep(args.step_delay)
                    continue
            except gangline.RankLostError as lost:  # (*) the state is that after step still
                print(f"rank {group.members[group.rank]}: after step {step}: rank {group.members[lost.rank]} is lost", flush=True)
            group = gangline.elastic.reform(group)  # (*)
            step = rally(group, trainer, step)
        first = group.rank == 0
        group.close()
    if first:
        checksum = sum(p.double().sum() for p in trainer.model.parameters())
        print(f"trained: step {step}/{args.steps}  test accuracy {trainer.accuracy():.4f}  sum of the parameters {checksum:.6f}", flush=True)
    gangline.agent.close()
    return 75 if stopping and step < args.steps else 0


if __name__ == "__main__":
    sys.exit(main())
