"""Does what EXERCISES.md says hold with other seeds, too? Run a solution with several, and see.

    python tools/claims.py 2                          exercise 2, with --seed 0 to 4
    python tools/claims.py 2 5 --data cifar10         two exercises, on CIFAR-10
    python tools/claims.py 3 --keep DIR               keep the runs, and use those that are in DIR

Prints a table: each claim, and the seeds with which it holds. The runs use one CPU thread each, so
that several commands can run side by side; how many threads there are changes a run's numbers.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, median, stdev

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from course import SOLUTIONS  # noqa: E402

CLAIMS = {}  # {exercise: [(sentence, function of a run's numbers), ...]}


def claim(exercise, sentence):
    """Make a function of a run's numbers the check of a sentence about an exercise."""

    def add(holds):
        CLAIMS.setdefault(exercise, []).append((sentence, holds))
        return holds

    return add


# Exercise 1


@claim("1", "the first epoch's loss is above that of guessing")
def starts_above_guessing(results):
    return results["history"][0]["loss"] > math.log(10)


@claim("1", "from the second epoch on the loss is below that of guessing")
def falls_below_guessing(results):
    return all(epoch["loss"] < math.log(10) for epoch in results["history"][1:])


@claim("1", "after four of five epochs test accuracy leads training accuracy by 3 points or more")
def test_is_ahead(results):
    epoch = results["history"][-2]
    return epoch["test_accuracy"] - epoch["accuracy"] >= 0.03


@claim("1", "the most frequent mistake is to classify a square as a disc")
def squares_look_like_discs(results):
    disc, square = 0, 2  # the places of these classes among the shapes
    mistakes = {}
    for label, counts in enumerate(results["confusion"]):
        for prediction, count in enumerate(counts):
            if prediction != label:
                mistakes[label, prediction] = count
    return max(mistakes, key=mistakes.get) == (square, disc)


@claim("1", "the test accuracy ends at 85 % or more")
def classifies_most(results):
    return results["history"][-1]["test_accuracy"] >= 0.85


# Exercise 2


def final_loss(results, kind, depth):
    """The last epoch's training loss in nats, the mean over the run's seeds."""
    losses = []
    for name, history in results["histories"].items():
        if name.startswith(f"{kind}-{depth}-"):
            losses.append(history[-1]["loss"])
    return fmean(losses)


def without_a_block(results, network):
    """The mean test accuracy of a network such as plain-20 without one of its blocks."""
    return fmean(results["accuracy_intact_and_without_each_block"][network][1:])


@claim("2", "each deeper plain network ends with a higher training loss")
def plain_degrades(results):
    losses = [final_loss(results, "plain", depth) for depth in results["settings"]["depths"]]
    return losses == sorted(losses)


@claim("2", "depth adds over 0.1 nats without shortcuts, and less than half of that with them")
def shortcuts_help(results):
    gaps = results["degradation"]
    return gaps["plain"] > 0.1 and gaps["residual"] < gaps["plain"] / 2


@claim("2", "with shortcuts depth adds at most 0.01 nats")
def depth_does_no_harm(results):
    return results["degradation"]["residual"] <= 0.01


@claim("2", "all networks train (their loss ends 0.2 nats or more below that of guessing)")
def all_train(results):
    losses = [history[-1]["loss"] for history in results["histories"].values()]
    return max(losses) < math.log(10) - 0.2


@claim("2", "plain-20 without a block falls below 20 % on average")
def plain_breaks(results):
    return without_a_block(results, "plain-20") < 0.2


@claim("2", "without a block residual-44 keeps more than residual-20, and that more than plain-20")
def deeper_keeps_more(results):
    kept = [without_a_block(results, name) for name in ("plain-20", "residual-20", "residual-44")]
    return kept == sorted(kept)


@claim("2", "the block that residual-44 misses most is one of the first third")
def first_blocks_matter(results):
    accuracies = results["accuracy_intact_and_without_each_block"]["residual-44"][1:]
    return accuracies.index(min(accuracies)) < len(accuracies) / 3


@claim(
    "2",
    "branch over shortcut, the median of the blocks, is smaller in residual-44 than in residual-20",
)
def deeper_has_smaller_branches(results):
    ratios = results["branch_over_shortcut_of_each_block"]
    return median(ratios["residual-44"]) < median(ratios["residual-20"])


# Exercise 3


def factor(results, network):
    """The factor per layer, towards the input, of the features' gradient at 56 layers."""
    return results["at_initialisation"][network]["56"]["change_towards_input"]


def deep_ratio(results, network):
    """The first layer's gradient over the last layer's, at 56 layers."""
    return results["at_initialisation"][network]["56"]["first_over_last"]


def stage_factors(results, network):
    """The factor per layer, towards the input, in each of the three stages, at 56 layers."""
    features = results["at_initialisation"][network]["56"]["feature_gradients"]
    blocks = len(features) // 3
    factors = []
    for start in range(0, len(features), blocks):
        stage = features[start : start + blocks]
        layers = 2 * (blocks - 1)
        factors.append((stage[0] / stage[-1]) ** (1 / layers))
    return factors


@claim("3", "plain: 0.38 to 0.44 per layer in the first stage (√(1/6) = 0.41), less in the last")
def plain_shrinks_as_expected(results):
    first, _, last = stage_factors(results, "plain")
    return 0.38 <= first <= 0.44 and last < first


@claim("3", "plain, He: the factor is nearer to 1 in the first stage than in the last")
def last_stage_loses_most(results):
    first, _, last = stage_factors(results, "plain, He")
    return abs(first - 1) < abs(last - 1)


@claim("3", "plain, torch's default: the gradient vanishes, by 0.7 or less per layer")
def plain_vanishes(results):
    return factor(results, "plain") <= 0.7


@claim("3", "plain + BN: the gradient explodes, by 1.1 or more per layer, 100 times in 56 layers")
def plain_norm_explodes(results):
    return factor(results, "plain + BN") >= 1.1 and deep_ratio(results, "plain + BN") > 100


@claim("3", "residual, He: the gradient explodes, by 1.1 or more per layer")
def residual_explodes(results):
    return factor(results, "residual, He") >= 1.1


@claim("3", "residual and residual + BN: the gradient changes by at most 7 % per layer")
def residual_stays(results):
    factors = [factor(results, kind) for kind in ("residual", "residual + BN")]
    return all(0.93 <= change <= 1.07 for change in factors)


@claim("3", "after 120 steps plain + BN has a loss above 2, residual + BN one below 1")
def only_residual_learns(results):
    losses = {name: record["loss"][-1] for name, record in results["runs"].items()}
    return losses["plain + BN"] > 2 and losses["residual + BN"] < 1


@claim("3", "plain + BN: the first convolution's weights grow 10-fold or more in 120 steps")
def early_weights_grow(results):
    return results["runs"]["plain + BN"]["weight_growth"][0] >= 10


@claim("3", "plain + BN: the weights of the second half of the layers grow by 20 % or less")
def late_weights_stay(results):
    growth = results["runs"]["plain + BN"]["weight_growth"]
    return max(growth[len(growth) // 2 :]) <= 1.2


@claim(
    "3", "plain + BN, last 60 steps: gradients of the first half are below a fifth of the last's"
)
def early_gradients_are_small(results):
    ratios = []
    for norms in results["runs"]["plain + BN"]["norms"][-60:]:
        ratios += [norm / norms[-1] for norm in norms[: len(norms) // 2]]
    return median(ratios) < 0.2


@claim(
    "3", "at 56 layers neighbouring gradients are more alike in residual + BN than in plain + BN"
)
def shortcuts_slow_shattering(results):
    return (
        min(results["correlation"]["residual + BN"][-1])
        > max(results["correlation"]["plain + BN"][-1]) + 0.05
    )


# Exercise 4


def final_accuracy(results, depth, seed):
    return results["runs"][f"{depth}-{seed}"]["accuracy"]


def gains_between(results, shallow, deep):
    """The points of accuracy from one depth to another, seed by seed."""
    seeds = sorted({row["seed"] for row in results["runs"].values()})
    return [
        100 * (final_accuracy(results, deep, seed) - final_accuracy(results, shallow, seed))
        for seed in seeds
    ]


@claim("4", "ResNet-34 is more accurate than ResNet-10")
def depth_pays_at_first(results):
    return fmean(gains_between(results, 10, 34)) > 0


@claim("4", "ResNet-50 is less accurate than ResNet-34")
def bottlenecks_lag(results):
    return fmean(gains_between(results, 34, 50)) < 0


@claim("4", "ResNet-50 is less accurate than ResNet-18")
def bottlenecks_do_not_pay(results):
    return fmean(gains_between(results, 18, 50)) < 0


@claim("4", "ResNet-101 is at most 1 point more accurate than ResNet-34")
def depth_stops_paying(results):
    return fmean(gains_between(results, 34, 101)) <= 1


@claim("4", "ResNet-50 takes 1.3 or more times as long as ResNet-34")
def bottlenecks_take_time(results):
    seconds = {row["depth"]: row["seconds"] for row in results["table"]}
    return seconds[50] >= 1.3 * seconds[34]


# Exercise 5


def lead(results, leader, follower, labels):
    """By how many points one strategy leads another: mean and standard error over the seeds."""
    index = results["labels_per_class"].index(labels)
    pairs = zip(results["accuracy"][leader][index], results["accuracy"][follower][index])
    differences = [100 * (one - other) for one, other in pairs]
    return fmean(differences), stdev(differences) / math.sqrt(len(differences))


def leads(results, leader, follower, labels):
    """Whether one strategy leads another by more than three standard errors."""
    mean, error = lead(results, leader, follower, labels)
    return mean > 3 * error


@claim("5", "all layers are the most accurate, or not clearly behind, at every number of labels")
def all_layers_always(results):
    others = ("from scratch", "linear probe", "last stage")
    counts = results["labels_per_class"]
    return not any(
        leads(results, other, "all layers", count) for other in others for count in counts
    )


@claim("5", "2 labels: the last stage and all layers are level (within 3 standard errors)")
def few_labels(results):
    pair = ("last stage", "all layers")
    return not leads(results, *pair, 2) and not leads(results, *reversed(pair), 2)


@claim(
    "5", "5 and 20 labels: all layers lead the last stage and the probe by over 3 standard errors"
)
def more_labels(results):
    followers = ("last stage", "linear probe")
    pairs = itertools.product(followers, (5, 20))
    return all(leads(results, "all layers", follower, count) for follower, count in pairs)


@claim("5", "2 labels: pretraining is worth 25 points or more")
def pretraining_pays(results):
    return lead(results, "all layers", "from scratch", 2)[0] >= 25


@claim("5", "20 labels: training from scratch leads the probe by over 3 standard errors")
def negative_transfer(results):
    return leads(results, "from scratch", "linear probe", 20)


@claim("5", "the linear probe is never the most accurate, on average")
def probe_never_leads(results):
    means = {}
    for strategy, by_count in results["accuracy"].items():
        means[strategy] = [fmean(per_seed) for per_seed in by_count]
    best = [max(values) for values in zip(*means.values())]
    return all(probe < top for probe, top in zip(means["linear probe"], best))


@claim("5", "AdaBN gains 30 points or more on dark, hazy and low-contrast images")
def adaptation_helps(results):
    changes = results["before_and_after_adaptation"]
    shifts = ("dark", "haze", "low contrast")
    return all(changes[shift][1] - changes[shift][0] >= 0.3 for shift in shifts)


@claim("5", "AdaBN does not help on outlines")
def adaptation_fails(results):
    before, after = results["before_and_after_adaptation"]["outlines"]
    return after <= before


# Runs


def run_solution(exercise, seed, folder, flags):
    """The numbers of a run with this seed; a run that is in the folder already is only read."""
    path = folder / f"exercise_0{exercise}.json"
    if not path.exists():
        command = [sys.executable, SOLUTIONS[exercise], "--seed", str(seed), *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, "--out", folder], check=True, env=environment)
        (written,) = folder.rglob(path.name)  # a dry run writes to a folder in it
        path = written
    text = re.sub(r'"(NaN|-?Infinity)"', r"\1", path.read_text("utf-8"))  # words in a run's file
    return json.loads(text)


def holds_with(check, runs):
    """The seeds with which a claim holds, in words.

    A run that has no such number counts neither way; "-" if no run has it.
    """
    answers = {}
    for seed, run in runs.items():
        with contextlib.suppress(LookupError, ValueError):
            answers[seed] = check(run)
    if not answers:
        return "-"
    seeds = [str(seed) for seed, holds in answers.items() if holds]
    return f"{', '.join(seeds) or 'none'} of {', '.join(map(str, answers))}"


def table(exercise, runs):
    """A Markdown table of an exercise's claims."""
    lines = [f"| exercise {exercise} | holds with --seed |", "|---|---|"]
    for sentence, check in CLAIMS[exercise]:
        lines.append(f"| {sentence} | {holds_with(check, runs)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("exercises", nargs="+", metavar="N", choices=list(CLAIMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5), metavar="N")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="default: nothing is kept")
    args, flags = parser.parse_known_args()  # other flags are the solutions'
    tables = []
    with tempfile.TemporaryDirectory() as temporary:
        for exercise in args.exercises:
            runs = {}
            for seed in args.seeds:
                folder = (args.keep or Path(temporary)) / f"exercise_0{exercise}-{seed}"
                runs[seed] = run_solution(exercise, seed, folder.resolve(), flags)
            tables.append(table(exercise, runs))
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
