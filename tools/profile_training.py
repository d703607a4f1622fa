"""Where the time of a network's training goes, and how fast its convolutions are by themselves.

    python tools/profile_training.py              exercise 1's ResNet-18
    python tools/profile_training.py plain-56     another network of tools/bench.py

On the CPU, on the built-in images, in under a minute. Let nothing else run beside it.
"""

import argparse
import statistics
import time
from collections import Counter
from types import SimpleNamespace

import bench
import given
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

CPU = torch.device("cpu")
TURNS = 15  # of each convolution; the median counts
KINDS = {  # {kind of work: words in the profiler's names of it}; the first that fits counts
    "convolutions, backward": ["convolution_backward", "convolutionbackward"],
    "convolutions, forward": ["convolution", "conv2d"],
    "batch norm": ["batch_norm", "batchnorm"],
    "copies": ["copy", "aten::to", "contiguous"],
    "ReLU": ["relu", "clamp_min", "threshold"],
    "optimizer": ["sgd", "optimizer"],
}


def time_by_kind(model, data, batch_size, weight_decay):
    """{kind of work: its share of the time} of an epoch of our training."""
    jobs = bench.our_jobs(model, data, batch_size, weight_decay)
    jobs["five steps"]()  # the first steps are slower
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        jobs["train"]()
    microseconds = Counter()
    for event in profiler.key_averages():
        microseconds[kind_of(event.key)] += event.self_cpu_time_total
    return {kind: microseconds[kind] / microseconds.total() for kind in [*KINDS, "the rest"]}


def kind_of(operation):
    """The kind of work that one of the profiler's operations is."""
    for kind, words in KINDS.items():
        if any(word in operation.lower() for word in words):
            return kind
    return "the rest"


def find_convolutions(model, images):
    """{(channels, side of the feature maps): how many} of the 3x3 convolutions that keep both."""
    counts = Counter()

    def count(convolution, inputs, output):
        features = inputs[0]
        if convolution.kernel_size == (3, 3) and output.shape == features.shape:
            counts[tuple(features.shape[1:3])] += 1

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(images)
    return counts


def convolution_rates(channels, side, batch_size, dtype):
    """GFLOP/s of a 3x3 convolution: forward, gradient of its input, gradient of its weights.

    Features are (batch_size, channels, side, side) before and after. A multiply-add is two
    operations.
    """
    shape = (batch_size, channels, side, side)
    layout = {"dtype": dtype, "memory_format": torch.channels_last}
    features = torch.randn(shape).to(**layout)
    gradient = torch.randn(shape).to(**layout)
    weights = torch.randn(channels, channels, 3, 3).to(**layout)

    def backward(of_input, of_weights):
        torch.ops.aten.convolution_backward(
            gradient,
            features,
            weights,
            bias_sizes=None,
            stride=[1, 1],
            padding=[1, 1],
            dilation=[1, 1],
            transposed=False,
            output_padding=[0, 0],
            groups=1,
            output_mask=[of_input, of_weights, False],
        )

    passes = [
        lambda: F.conv2d(features, weights, padding=1),
        lambda: backward(of_input=True, of_weights=False),
        lambda: backward(of_input=False, of_weights=True),
    ]
    operations = 2 * 9 * channels**2 * side**2 * batch_size
    return [operations / median_seconds(work) / 1e9 for work in passes]


def median_seconds(work):
    """The median time of TURNS calls; three more at the start do not count."""
    seconds = []
    for _ in range(3 + TURNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="?", choices=bench.NETWORKS, default="ResNet-18")
    network = bench.NETWORKS[parser.parse_args().network]
    bench.hide_progress_bars()
    options = SimpleNamespace(device=CPU, dry_run=False, data="shapes", data_dir=None)
    model, data, batch_size = bench.set_up(network, options)

    print("| work | share of the time |\n|---|---|")
    for kind, share in time_by_kind(model, data, batch_size, network.weight_decay).items():
        bench.print_cells([kind, given.percent(share)])

    dtype = torch.bfloat16 if given.multiplies_bfloat16(CPU) else torch.float32
    images = given.normalise(data.train_images[:batch_size], data)
    print(f"\nGFLOP/s of 3x3 convolutions by themselves, {dtype}, batches of {batch_size}\n")
    print("| channels, feature maps | how many | forward | gradient of input | of weights |")
    print("|---|---|---|---|---|")
    for (channels, side), count in find_convolutions(model, images).items():
        rates = convolution_rates(channels, side, batch_size, dtype)
        cells = [f"{channels}, {side}x{side}", str(count), *[f"{rate:,.0f}" for rate in rates]]
        bench.print_cells(cells)
    machine = bench.describe_machine().items()
    print("\n" + ", ".join(f"{key}: {value}" for key, value in machine))


if __name__ == "__main__":
    main()
