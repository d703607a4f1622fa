"""How accurate is your small network after three minutes of CPU time? (EXERCISES.md, last part)

    python tools/challenge.py my_network.py
    python tools/challenge.py my_network.py --data cifar10 --seed 1

my_network.py has build_network(num_classes). It returns a network of at most 500 parameters for
shapes, 100,000 for CIFAR-10, that takes normalised images (batch, 3, 32, 32) and returns logits
(batch, num_classes). The file may also set RATE, the highest learning rate of SGD (default 0.05),
and BATCH_SIZE (default 64).
"""

import argparse
import contextlib
import runpy
import sys
import time
from pathlib import Path

import given
import torch
import torch.nn.functional as F
from tqdm import tqdm

# A network of 100,000 parameters classifies 99.9 % of the shapes correctly: 500 are a challenge.
MOST_PARAMETERS = {"shapes": 500, "cifar10": 100_000}
WARM_UP = 0.2  # the share of the time in which the learning rate rises; then it falls to zero


def parse_args():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("network", type=Path, metavar="my_network.py")
    parser.add_argument("--data", choices=("shapes", "cifar10"), default="shapes")
    parser.add_argument("--data-dir", type=Path, default="data", metavar="DIR")
    parser.add_argument("--minutes", type=float, default=3, metavar="N", help="of CPU time")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--train-images", type=int, default=10_000, metavar="N")
    parser.add_argument("--test-images", type=int, default=2_000, metavar="N")
    args = parser.parse_args()
    if not args.network.is_file():
        parser.error(f"there is no file {args.network}")
    args.device = torch.device("cpu")
    args.epochs = 0  # not used: the clock decides
    return args


def load_network(path, num_classes, most_parameters):
    """The network that the file builds, and the file's settings; ends the script if it is large."""
    sys.path.insert(0, str(path.resolve().parent))
    settings = runpy.run_path(str(path))
    if "build_network" not in settings:
        sys.exit(f"{path}: has no function build_network(num_classes)")
    network = settings["build_network"](num_classes)
    with torch.no_grad():
        logits = network.eval()(torch.zeros(2, 3, 32, 32))  # lazy layers take their shapes
    if logits.shape != (2, num_classes):
        shape = tuple(logits.shape)
        sys.exit(f"{path}: for two images the network returns {shape}, not {(2, num_classes)}")
    count = count_parameters(network)
    if count > most_parameters:
        sys.exit(f"{path}: the network has {count:,} parameters, {most_parameters:,} are allowed")
    return network, settings


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def train_for(network, data, rate, batch_size, seed, seconds):
    """Train the network in place for so many seconds of CPU time; returns how many epochs."""
    network.train()
    optimizer = given.make_sgd(network, rate, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(seed)
    seen = 0
    start = time.process_time()
    with tqdm(total=round(seconds), unit="s", desc="training") as bar:
        while True:
            for images, labels in given.random_batches(data, batch_size, generator):
                used = time.process_time() - start
                if used >= seconds:
                    return seen / len(data.train_labels)
                for group in optimizer.param_groups:
                    group["lr"] = rate * share_of_rate(used / seconds)
                with given.autocast(images.device):
                    logits = network(given.normalise(images, data))
                loss = F.cross_entropy(logits.float(), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen += len(labels)
                bar.update(min(round(used), bar.total) - bar.n)


def share_of_rate(progress):
    """The share of the highest learning rate at a moment of the training, from 0 to 1."""
    return min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP))


def main():
    args = parse_args()
    torch.set_num_threads(1)  # the CPU time of all threads counts
    # In channels last, oneDNN's strided 1x1 convolutions of fewer than 16 channels corrupt memory
    # (its issue 6035).
    given.memory_format = lambda device: torch.contiguous_format
    with contextlib.redirect_stdout(None):  # it says how many epochs, and here the clock decides
        data = given.load_data(args)
    torch.manual_seed(args.seed)
    network, settings = load_network(args.network, len(data.classes), MOST_PARAMETERS[args.data])
    epochs = train_for(
        network,
        data,
        rate=settings.get("RATE", 0.05),
        batch_size=settings.get("BATCH_SIZE", 64),
        seed=args.seed,
        seconds=60 * args.minutes,
    )
    test_accuracy = given.accuracy(network, given.test_batches(data))
    print(
        f"{args.network.stem}: {count_parameters(network):,} parameters, {epochs:.1f} epochs in "
        f"{args.minutes:g} minutes of CPU time; classifies "
        f"{given.percent(test_accuracy, digits=1)} of {len(data.test_labels):,} test images "
        f"correctly ({data.name}, seed {args.seed})"
    )


if __name__ == "__main__":
    main()
