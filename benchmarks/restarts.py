"""Whether a run that is killed again and again ends as an unbroken one: python -m benchmarks.restarts [--kills 20]

A tiny GPT-2 with dropout trains; at random a worker is killed (SIGKILL) after a step or at one of the file operations
of a save, or gets SIGTERM, and all are started again until it was done so often. Prints each attempt and whether
losses, weights and optimizer are those of a run without any. The exit code is 1 if they are not.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.forked_processes import ended
from tests.restarted_processes import farthest, log, losses, started
from tfheads.callbacks.saved_state import checkpoints, steps

STEPS_PER_EPOCH = 6
PREEMPTED = 143  # exit code after SIGTERM
FILE_OPERATIONS = 20  # of the first saves after a start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--strategy", default="none", help="none, mirrored or multi_worker")
    parser.add_argument("--replicas", type=int, default=1, help="of a process")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--epochs", type=int, default=0, help="0: as many as the kills need")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not broken_and_whole(arguments, Path(folder)):
            sys.exit(1)


def broken_and_whole(arguments: argparse.Namespace, folder: Path) -> bool:
    """Runs both, and says whether they end alike."""
    draw = random.Random(arguments.seed)
    epochs = arguments.epochs or 2 + arguments.kills * 5 // STEPS_PER_EPOCH
    kind = {"strategy": arguments.strategy, "replicas": arguments.replicas, "epochs": epochs}
    print(f"{epochs * STEPS_PER_EPOCH} steps, a state every 2; {kind}, {arguments.workers} workers", flush=True)
    kind["workers"] = arguments.workers
    if any(ended(started(folder / "whole", **kind))):
        raise SystemExit(log(folder / "whole"))
    broken, done, attempts = folder / "broken", 0, 0
    while done < arguments.kills:
        began, event = time.monotonic(), drawn(draw, broken, arguments.workers)
        codes = ended(started(broken, **kind, **event))
        attempts += 1
        seconds = time.monotonic() - began
        print(
            f"attempt {attempts}: {event}, exit codes {codes}, newest state {newest(broken)}, {seconds:.0f} s",
            flush=True,
        )
        if not any(codes):
            break
        done += bool({-signal.SIGKILL, PREEMPTED} & set(codes))  # else a busy machine has let a heartbeat fail
    else:
        if any(ended(started(broken, **kind))):
            raise SystemExit(log(broken))
    alike = losses(folder / "whole") == losses(broken)
    far = farthest(folder / "whole", broken)
    print(
        f"{done} of {arguments.kills} kills: losses {'the same' if alike else 'differ'}, "
        f"largest difference of weights and optimizer {far}"
    )
    return alike and far == 0.0 and done == arguments.kills


def newest(directory: Path) -> int:
    """The step of the newest state."""
    found = checkpoints(directory)
    return steps(found[-1]) if found else 0


def drawn(draw: random.Random, directory: Path, workers: int) -> dict:
    """What happens to which worker in the next attempt."""
    event = {"worker": draw.randrange(workers)}
    kind = draw.choices(["killed_after", "killed_in_save", "terminated_after"], [5, 4, 1])[0]
    if kind == "killed_in_save":
        return {**event, "worker": 0, kind: draw.randint(1, FILE_OPERATIONS)}  # the chief saves
    return {**event, kind: newest(directory) + draw.randint(1, 5)}


if __name__ == "__main__":
    main()
