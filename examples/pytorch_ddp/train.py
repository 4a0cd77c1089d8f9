"""Trains a small network on handwritten digits by DistributedDataParallel, with gradients averaged by Gangline, and resumes from its checkpoints.

In a job: gangline submit job.yaml. Without Gangline: torchrun --nproc_per_node 2 train.py, or python3 train.py for one process.
What is Gangline's is marked (*).
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "python"))  # in a checkout; else PYTHONPATH says where gangline is

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import data
import gangline.agent
import gangline.checkpoint
import gangline.torch

AGAIN = 75  # "start me again": asked to stop, or another rank was lost


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--epochs", type=int, default=20, help="passes over the training data")
    p.add_argument("--batch", type=int, default=64, help="samples of a step, over all ranks together")
    p.add_argument("--average", choices=["gangline", "gloo"], default="gangline", help="who averages the gradients")
    p.add_argument("--wire", choices=["exact", "bf16", "int8"], default="exact", help="in which form gradients travel between machines")
    p.add_argument("--checkpoint-every", type=int, default=50, help="steps between checkpoints, if the job's file does not say")
    p.add_argument("--checkpoints", default=None, help="directory of checkpoints outside Gangline; none: nothing is saved there")
    p.add_argument("--losses", default=None, help="file to which rank 0 writes the loss of each step")
    p.add_argument("--workers", type=int, default=0, help="processes that load data")
    p.add_argument("--step-delay", type=float, default=0, help="seconds of pause after each step, so that a person can watch it")
    return p.parse_args()


def batches(args: argparse.Namespace, group: gangline.Group, pixels: torch.Tensor, labels: torch.Tensor, epoch: int) -> DataLoader:
    """This rank's share of each batch of an epoch. All ranks draw the same order, so the batches are those of one process."""
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(epoch))
    steps = len(order) // args.batch
    order = order[: steps * args.batch].reshape(steps, args.batch)
    mine = order[:, group.rank :: group.world_size].reshape(-1)
    return DataLoader(TensorDataset(pixels[mine], labels[mine]), batch_size=mine.numel() // steps, num_workers=args.workers)


def train(args: argparse.Namespace, group: gangline.Group, checkpoints: "gangline.checkpoint.Checkpoints | None") -> bool:
    """Trains to the end, and gives True; False if it was asked to stop before, and has saved."""
    pixels, labels, test_pixels, test_labels = data.load()
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    parallel = DistributedDataParallel(model, bucket_cap_mb=0.05)
    if args.average == "gangline":
        parallel.register_comm_hook(gangline.torch.Averaging(group, args.wire), gangline.torch.ddp_hook)  # (*)

    step = 0
    found = checkpoints.latest() if checkpoints else None  # (*)
    if found is not None:
        with found:
            state = found.state()
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = found.step
        say(group, f"resumed from step {step}: {found.path}, written by {found.world_size} ranks")

    per_epoch = len(pixels) // args.batch
    total = args.epochs * per_epoch
    losses = open(args.losses, "a") if args.losses and group.rank == 0 else None
    while step < total:
        epoch = step // per_epoch
        for index, (x, y) in enumerate(batches(args, group, pixels, labels, epoch)):
            if epoch * per_epoch + index < step:
                continue  # done before the resume
            loss = torch.nn.functional.cross_entropy(parallel(x), y)
            optimizer.zero_grad()
            with gangline.torch.naming_lost_ranks(group):  # (*)
                loss.backward()
            optimizer.step()
            step += 1
            mean = group.all_reduce(loss.detach().reshape(1), "mean").item()  # (*)
            if losses:
                print(step, mean, file=losses, flush=True)
            if group.rank == 0:
                gangline.agent.report_step(step, total, step / per_epoch, {"loss": mean})  # (*)
            due = gangline.agent.decide(group, step, args.checkpoint_every)  # (*)
            if checkpoints and (due.save or step == total):
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                checkpoints.save(step, state, metrics={"loss": mean}, asynchronous=not due.stop and step < total)  # (*)
            if due.stop and step < total:
                say(group, f"asked to stop after step {step} of {total}")
                return False
            time.sleep(args.step_delay)
        right = (model(test_pixels).argmax(1) == test_labels).float().mean().item()
        say(group, f"epoch {step // per_epoch}/{args.epochs}  step {step}/{total}  loss {mean:.4f}  test accuracy {right:.4f}")
    say(group, f"trained: step {step}/{total}  sum of the parameters {sum(p.double().sum() for p in model.parameters()):.9f}")
    return True


def say(group: gangline.Group, text: str) -> None:
    if group.rank == 0:
        print(text, flush=True)


def main() -> int:
    args = arguments()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    env = gangline.agent.environment()
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29400")
    dist.init_process_group("gloo", rank=env.rank, world_size=env.world_size)  # DDP starts by it: every rank gets rank 0's parameters
    in_job = env.socket or env.world_size == 1
    with gangline.agent.catching(), (gangline.Group() if in_job else gangline.torch.group_of()) as group:  # (*)
        checkpoints = None
        try:
            if args.checkpoints or env.checkpoint_dir:
                checkpoints = gangline.checkpoint.Checkpoints(group, args.checkpoints)  # (*)
            done = train(args, group, checkpoints)
            if checkpoints:
                checkpoints.close()
        except gangline.RankLostError as lost:
            print(f"rank {group.rank}: {lost}", file=sys.stderr, flush=True)
            gangline.agent.report_peer_lost(lost.rank, str(lost))  # (*) starts again without blame for this rank
            gangline.agent.close()
            os._exit(AGAIN)  # Gloo would wait for its dead peer
        gangline.agent.close()
    return 0 if done else AGAIN


if __name__ == "__main__":
    sys.exit(main())
