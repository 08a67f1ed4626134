"""Instance normalisation there and back in channels-last memory, as training on the processor has it, beside torch's.

Both are `F.group_norm` with one channel per group, which is right where `F.instance_norm` is not (see
`facekit.nets.blocks.InstanceNorm2d`). Each is measured by turns with torch's; what counts is the ratio of the medians.
"""

import argparse
import statistics

from convolution import seconds
from machine import machine

SHAPES = {  # images, channels, px
    "residual block, 128 px": (1, 256, 32),
    "residual block, 256 px": (1, 256, 64),
    "residual block, 256 px, 4 images": (4, 256, 64),
    "first layer, 256 px": (1, 64, 256),
    "projected-cut, 1/8": (4, 192, 32),
    "projected-cut, 1/2": (4, 48, 128),
}


def main() -> None:
    """Print a line for each shape and type."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    import torch

    from facekit.nets.blocks import InstanceNorm2d
    from facekit.ops.cpu_kernels import CpuKernels

    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| layer | images, channels, px | type | ms | torch | ratio |")
    print("|---|---|---|---|---|---|")
    for name, (count, channels, size) in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.rand(count, channels, size, size, dtype=dtype).to(memory_format=torch.channels_last)
            norm, slope = InstanceNorm2d(channels, affine=True), torch.rand_like(x)
            x.requires_grad_()

            def back(x=x, norm=norm, slope=slope):
                x.grad = norm.weight.grad = norm.bias.grad = None
                norm(x).backward(slope)

            taken: dict[str, list[float]] = {"ours": [], "torch": []}
            for _ in range(options.rounds + 1):
                with CpuKernels():
                    taken["ours"].append(seconds(back))
                taken["torch"].append(seconds(back))
            ours, theirs = (1000 * statistics.median(times[1:]) for times in taken.values())
            print(
                f"| {name} | {count}, {channels}, {size} | {str(dtype).removeprefix('torch.')} | {ours:.1f} |"
                f" {theirs:.1f} | {theirs / ours:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
