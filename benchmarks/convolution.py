"""Convolutions that training on the processor does its own way, beside torch's: there, and there and back.

Each is measured by turns with torch's; what counts is the ratio of the medians. Which way one goes is in
`facekit.ops.cpu_conv`.
"""

import argparse
import statistics
import time

from machine import machine

SHAPES = {  # images, channels, results, px, kernel, stride
    "residual block, 128 px": (1, 256, 256, 32, 3, 1),
    "residual block, 128 px, 4 images": (4, 256, 256, 32, 3, 1),
    "residual block, 256 px": (1, 256, 256, 64, 3, 1),
    "up-sampling, 128 px": (2, 128, 64, 128, 3, 1),
    "discriminator, 16 px": (4, 256, 512, 16, 4, 1),
    "discriminator, 8 px": (4, 512, 1024, 8, 4, 2),
    "discriminator, 4 px": (4, 1024, 2048, 4, 4, 2),
}


def seconds(call) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def by_turns(call, rounds: int) -> str:
    """Return the median milliseconds of a call with facekit's code and with torch's, and their ratio, as cells."""
    from facekit.ops.cpu_kernels import CpuKernels

    taken: dict[str, list[float]] = {"ours": [], "torch": []}
    for _ in range(rounds + 1):
        with CpuKernels():
            taken["ours"].append(seconds(call))
        taken["torch"].append(seconds(call))
    ours, theirs = (1000 * statistics.median(times[1:]) for times in taken.values())
    return f"{ours:.1f} | {theirs:.1f} | {theirs / ours:.2f}"


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    import torch

    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| layer | images, channels, results, px, kernel, stride | ms | torch | ratio | and back | torch | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (count, channels, results, size, kernel, stride) in SHAPES.items():
        layout = torch.channels_last if stride == 1 else torch.contiguous_format
        x = torch.rand(count, channels, size, size).to(memory_format=layout).requires_grad_()
        conv = torch.nn.Conv2d(channels, results, kernel, stride, 1, bias=False).to(memory_format=layout)
        slope = torch.rand_like(conv(x))

        def there(x=x, conv=conv):
            return conv(x)

        def back(x=x, conv=conv, slope=slope):
            x.grad = conv.weight.grad = None
            there(x, conv).backward(slope)

        figures = [by_turns(call, options.rounds) for call in (there, back)]
        print(
            f"| {name} | {count}, {channels}, {results}, {size}, {kernel}, {stride} | {' | '.join(figures)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
