"""Norms there and back in channels-last memory, as training on the processor has them, beside torch's.

Instance norms are `F.group_norm` with one channel per group, which is right where `F.instance_norm` is not (see
`facekit.nets.blocks.InstanceNorm2d`). AdaLIN is U-GAT-IT's. Each is measured by turns with
torch's; what counts is the ratio of the medians.
"""

import argparse

from convolution import by_turns
from machine import machine

SHAPES = {  # images, channels, px
    "residual block, 64 px, width 16": (1, 64, 16),
    "residual block, 96 px, width 16, 4 images": (4, 64, 24),
    "residual block, 128 px": (1, 256, 32),
    "residual block, 256 px": (1, 256, 64),
    "residual block, 256 px, 4 images": (4, 256, 64),
    "first layer, 256 px": (1, 64, 256),
    "projected-cut, 1/8": (4, 192, 32),
    "projected-cut, 1/2": (4, 48, 128),
}


def main() -> None:
    """Print a line for each norm, shape and type."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    import torch

    from facekit.nets.blocks import AdaLIN, InstanceNorm2d

    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| norm | layer | images, channels, px | type | ms | torch | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, (count, channels, size) in SHAPES.items():
        conditions = [torch.rand(count, channels, requires_grad=True) for _ in range(2)]  # AdaLIN's gamma and beta
        norms = {"instance": (InstanceNorm2d(channels, affine=True), []), "AdaLIN": (AdaLIN(channels), conditions)}
        for kind, (norm, more) in norms.items():
            for dtype in (torch.float32, torch.bfloat16):
                x = torch.rand(count, channels, size, size, dtype=dtype).to(memory_format=torch.channels_last)
                slope = torch.rand_like(x)
                x.requires_grad_()

                def back(x=x, norm=norm, more=more, slope=slope):
                    for part in (x, *more, *norm.parameters()):
                        part.grad = None
                    norm(x, *more).backward(slope)

                cells = by_turns(back, options.rounds)
                bits = str(dtype).removeprefix("torch.")
                print(f"| {kind} | {name} | {count}, {channels}, {size} | {bits} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
