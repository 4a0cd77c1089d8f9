"""Worlds of real processes for tests: each rank is a Python process that runs one function, and they find each other through pipes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Optional

HERE = Path(__file__).resolve().parent
SECONDS = 60  # bounds every wait: a rank that hangs fails its test


class Rank:
    """One process. lines are what it said with tell."""

    def __init__(self, world: "World", rank: int, function: str, argument: Any) -> None:
        env = dict(os.environ, PYTHONPATH=f"{HERE.parent}{os.pathsep}{HERE}", OMP_NUM_THREADS="1")
        for name in ("RANK", "WORLD_SIZE", "GANGLINE_AGENT_SOCKET"):
            env.pop(name, None)
        self.rank = rank
        command = [sys.executable, "-c", f"import worlds, {function.partition('.')[0]}; worlds.live({function})"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.address = self.hear()["address"]
        self.world, self.argument = world, argument

    def say(self, value: Any) -> None:
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The next thing that the rank tells; None when it has ended."""
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def end(self) -> int:
        return self.process.wait(SECONDS)


class World:
    """size ranks that run a function, named with its module, with an argument. Leave it by a with statement: it kills what still runs."""

    def __init__(self, size: int, function: str, argument: Any = None, **options: Any) -> None:
        self.ranks: List[Rank] = []
        try:
            for r in range(size):
                self.ranks.append(Rank(self, r, function, argument))
            peers = [r.address for r in self.ranks]
            for r in self.ranks:
                r.say({"peers": peers, "rank": r.rank, "options": options, "argument": argument})
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: Any) -> None:
        for r in self.ranks:
            r.process.kill()
            r.process.wait()
            r.process.stdin.close()
            r.process.stdout.close()

    def results(self) -> List[Any]:
        """What each rank told last, once all have ended well."""
        told: List[Any] = []
        for r in self.ranks:
            last: Any = None
            while True:
                line = r.hear()
                if line is None:
                    break
                last = line
            code = r.end()
            if code != 0:
                raise AssertionError(f"rank {r.rank} ended with {code}")
            told.append(last)
        return told


def tell(value: Any) -> None:
    """A rank's word to its test."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def hear() -> Optional[Any]:
    """The test's word to a rank."""
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def live(function: Any) -> None:
    """The life of a rank: joins the group and runs the function with it and the argument."""
    import gangline

    listener = gangline.Listener("127.0.0.1:0")
    tell({"address": listener.address})
    told = hear()
    options = dict(told["options"], secret=told["options"].get("secret", "only ranks know this").encode())
    options.setdefault("detect_timeout", 20)  # a busy machine must not lose a rank; one that is killed is noticed by its connections
    with gangline.Group(peers=told["peers"], rank=told["rank"], listener=listener, job=7, epoch=1, **options) as group:
        function(group, told["argument"])
