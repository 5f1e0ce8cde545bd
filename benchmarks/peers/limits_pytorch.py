"""The machine's limits as PyTorch reaches them: float32 matrix rate, memory reading rate."""

import time

import torch

from benchmarks.peers import measuring


def best_seconds(action, times: int = 3) -> float:
    """The shortest of a few runs."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def prepare(arguments):
    """One repeat gives GFLOP/s and gigabytes a second."""
    size = 256 if arguments.tiny else 2048
    left, right = torch.randn(size, size), torch.randn(size, size)
    long = torch.randn((1 << 20) if arguments.tiny else (1 << 27))
    table, row = torch.randn(503 if arguments.tiny else 50257, 768), torch.randn(768)

    @torch.inference_mode()
    def repeat() -> dict:
        return {
            "PyTorch GFLOP/s": 2e-9 * size**3 / best_seconds(lambda: torch.mm(left, right)),
            "PyTorch sum GB/s": long.numel() * 4e-9 / best_seconds(lambda: long.sum().item()),
            "PyTorch matrix x vector GB/s": table.numel() * 4e-9 / best_seconds(lambda: torch.mv(table, row)),
        }

    return repeat, 0


if __name__ == "__main__":
    measuring.run(prepare)
