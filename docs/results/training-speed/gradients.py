"""Times the backward pass of single binary convolutions, with the kernels and with PyTorch's float32.

    python docs/results/training-speed/gradients.py gradients.json [--rounds 25]

Layers of ResNet-20 on 64 CIFAR-10 images and of ResNet-18 on 8 photographs of 224 pixels; both in turns, on
one thread. PyTorch's time includes what it takes to make the signs that it multiplies; the kernels make their
own. Also told: the distance between both results as a share of their length.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import processor
from torch import Tensor

from dirnet_convert.runtime.isa import chosen_isa
from dirnet_convert.runtime.torch_operator import binary_conv2d_backward

# images, channels, size, output channels, stride
LAYERS = (
    (64, 16, 32, 16, 1),
    (64, 16, 32, 32, 2),
    (64, 32, 16, 32, 1),
    (64, 64, 8, 64, 1),
    (8, 64, 56, 64, 1),
    (8, 128, 28, 128, 1),
    (8, 256, 14, 256, 1),
    (8, 512, 7, 512, 1),
)


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def layer_figures(layer: tuple[int, int, int, int, int], rounds: int) -> dict[str, object]:
    """Time one layer both ways, in turns."""
    images, channels, size, outs, stride = layer
    last = torch.channels_last
    x = torch.randn(images, channels, size, size).contiguous(memory_format=last)
    weight = (torch.randn(outs, channels, 3, 3).sign() * 0.1).contiguous(memory_format=last)
    gradient = torch.randn(images, outs, size // stride, size // stride).contiguous(memory_format=last)
    threshold, steps, ones = torch.zeros(channels), [stride, stride], [1, 1]

    def in_torch() -> tuple[Tensor, Tensor]:
        signs = torch.where(x >= 0, 1.0, -1.0)
        return torch.ops.aten.convolution_backward(
            gradient, signs, weight, None, steps, ones, ones, False, [0, 0], 1, [True, True, False]
        )[:2]

    def in_kernels() -> tuple[Tensor, Tensor]:
        return binary_conv2d_backward(gradient, x, threshold, weight, steps, [1, 1, 1, 1], ones, 1)

    distances = [float((a - b).norm() / b.norm()) for a, b in zip(in_kernels(), in_torch(), strict=True)]
    times = [(seconds(in_torch), seconds(in_kernels)) for _ in range(rounds)]
    return {
        "images": images,
        "channels": channels,
        "size": size,
        "out_channels": outs,
        "stride": stride,
        "torch_ms": round(1e3 * statistics.median(t for t, _ in times), 3),
        "kernels_ms": round(1e3 * statistics.median(k for _, k in times), 3),
        "times_as_fast": round(statistics.median(t / k for t, k in times), 3),
        "distance_of_signs_gradient": distances[0],
        "distance_of_weights_gradient": distances[1],
    }


def main() -> None:
    """Time all layers and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "isa": str(chosen_isa()),
        "torch": torch.__version__,
        "threads": 1,
        "seed": 0,
        "rounds": options.rounds,
        "layers": [layer_figures(layer, options.rounds) for layer in LAYERS],
    }
    options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
