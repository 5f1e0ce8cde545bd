"""How a process that trains takes turns with another: some steps for each line on standard input."""

import json
import resource
import sys
import time


class Turns:
    """Waits before every `steps` steps for a line, and answers with the seconds that they took."""

    def __init__(self, steps: int):
        self.steps, self.done, self.started = steps, 0, None
        say({"ready": True})

    def before_step(self) -> None:
        """Called before each step."""
        if self.done % self.steps == 0:
            self.end_turn()
            sys.stdin.readline()
            self.started = time.perf_counter()
        self.done += 1

    def end_turn(self) -> None:
        """Called after the last step too."""
        if self.started is not None:
            say({"seconds": time.perf_counter() - self.started, "value": self.done})
            self.started = None


def finish(**entries) -> None:
    """Tells the results at the end."""
    say({"peak_memory_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, **entries})


def say(entries: dict) -> None:
    """One line of JSON."""
    print(json.dumps(entries), flush=True)
