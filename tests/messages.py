"""How a test tells you what is wrong: an exception, a comparison, and a way to call your code."""

import contextlib
import math
import os
import re
from collections import Counter, OrderedDict, defaultdict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import ModuleType

# A thread that waits for another one leaves its core to other programs after a moment, such as the
# learner's own run. torch reads this when it is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy
import torch
from torch import nn

# Small networks gain little from more threads, and a script's own run wants some of the cores at
# the same time: with more threads than cores everything takes many times as long.
torch.set_num_threads(min(2, torch.get_num_threads()))
os.environ.setdefault("OMP_NUM_THREADS", "2")


DRAW = 0  # which random inputs the tests use: --draw


def draw(seed):
    """The seed that a test takes for its inputs: this one, unless --draw asks for others."""
    return seed + 1_000_003 * DRAW


# What a task that is not written yet raises, or a script says of it.
UNWRITTEN = re.compile(r"TODO (\d+\.\d+): \S+")
LONGEST = 300  # characters of an exception's text; of a longer one the first sentence is shown


FIXED_POOLING = (
    "a pooling of fixed size does not fit: images of any size must work, "
    "so take nn.AdaptiveAvgPool2d(1)"
)
SLIPS = {  # what Python and torch say of common slips, and what to do about them
    r"'list' object is not callable": (
        "a list of layers cannot be called: put them into nn.Sequential(*layers)"
    ),
    r"list is not a Module subclass": (
        "nn.Sequential takes layers, not a list of them: put a star before the list"
    ),
    r"str is not a Module subclass": (
        "a string stands where a layer belongs: call what makes the layer"
    ),
    r"type is not a Module subclass": (
        "a class stands where a layer belongs: add parentheses, as in nn.ReLU()"
    ),
    r"'NoneType' object is not callable": (
        "what is called here is None: look at where it is set, or whether what makes it returns it"
    ),
    r"Module \[(Module\w+)\] is missing the required": (
        r"an nn.\1 cannot be called: go through it in a loop, or take nn.Sequential"
    ),
    r"Module \[(\w+)\] is missing the required": (
        r"\1 has no method forward, or it is indented wrongly"
    ),
    r"cannot assign module before Module": "__init__ must call super().__init__() first",
    r"'NoneType' object has no attribute 'requires_grad'": (
        "a value is None where its requires_grad is wanted, such as the bias of a layer without one"
    ),
    r"'NoneType' object has no attribute '(\w+)'": r"a value is None where its \1 is wanted",
    r"'(Tensor|Parameter|[a-z]\w+)' object has no attribute '(\w+)'": (
        r"a value of the type \1 has no \2: is it what you expect?"
    ),
    r"running_mean should contain (\d+) elements not (\d+)": (
        r"a batch norm made for \2 channels gets \1"
    ),
    r"padding='same' is not supported": "with a stride, give the padding as a number: padding=1",
    r"stack expects each tensor to be equal size": (
        "torch.stack needs tensors of one size; torch.cat joins others"
    ),
    r"Output size is too small": FIXED_POOLING,
    r"expected Tensor as element \d+ in argument 0, but got (\w+)": (
        r"torch.cat is given a \1 where a tensor belongs; "
        "a hook's inputs are a tuple, so take inputs[0]"
    ),
    r"must be a string or a real number, not 'NoneType'": (
        "a function that should give a number, such as the loss, ends without a return"
    ),
    r"has no len\(\)": "it asks for a length, which an iterator does not have; count in the loop",
    r"`inputs` argument to `grad\(\)` cannot be empty": (
        "no layer was found; model.modules() goes through all, also those inside other modules"
    ),
    r"does not require grad": "something is detached, frozen or computed without gradients",
}


LIKELIEST = "\nThe likeliest mistake: "


class Wrong(Exception):
    """Your code does something wrong; the message says what, with the likeliest cause if known.

    A message names at most one mistake: of several causes the last is kept, as the most exact one.
    """

    def __init__(self, message, cause=None, more=""):
        first, *causes = f"{message}{advice(cause)}".split(LIKELIEST)
        super().__init__(LIKELIEST.join([first, *causes[-1:]]) + more)
        self.message = message
        self.cause = cause
        self.more = more
        self.ops = []  # what had run, if that was recorded

    def because(self, cause):
        """The same, with another cause if there is one."""
        wrong = Wrong(self.message, cause or self.cause, self.more)
        wrong.ops = self.ops
        return wrong


@contextlib.contextmanager
def calling(what):
    """Around a call of the learner's code: what it raises becomes a Wrong that says where."""
    try:
        yield
    except Wrong:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and UNWRITTEN.match(str(error)):
            raise
        if isinstance(error, AttributeError) and is_lesson(error.obj):
            name = error.obj.__name__
            message = f"{name}.py has no {error.name}. Its name may not be changed."
            raise Wrong(message) from None
        lines = lesson_lines(error)
        first, *others = str(error).strip().splitlines() or ["no message"]
        if len(first) > LONGEST:
            first = first.partition(". ")[0]
        text = f"{first} {others[0].strip()}" if others and first.endswith(":") else first
        message = f"{what} raised {type(error).__name__}: {text}{place(lines)}"
        raise Wrong(message, slip(error, text) if lines else None) from error


def check_lets_errors_through(what, call, failure):
    """Raise Wrong unless call() ends with this very exception, which something it calls raises."""
    with calling(what):
        try:
            call()
        except Exception as error:
            if error is failure:
                return
            if failure in (error.__cause__, error.__context__):
                raise Wrong(
                    f"{what} raises another one, {type(error).__name__}. Let the error itself come "
                    "through: catch none."
                ) from None
            raise
    raise Wrong(
        f"{what} raises nothing. Let the errors of what you call come through: catch none, and "
        "leave no call out."
    )


def lesson_lines(error):
    """The lines of the learner's file that an exception came through: [(file name, line), ...]."""
    lines = []
    trace = error.__traceback__.tb_next
    while trace:
        name = Path(trace.tb_frame.f_code.co_filename).name
        if name.startswith("exercise_0"):
            lines.append((name, trace.tb_lineno))
        trace = trace.tb_next
    return lines


def place(lines):
    """Where in the learner's file an exception was raised, and who called that, in brackets."""
    if not lines:
        return ""
    name, line = lines[-1]
    if lines[0] == lines[-1]:
        return f" ({name}, line {line})"
    return f" ({name}, line {line}, called from line {lines[0][1]})"


def slip(error, text):
    """The likeliest cause of an exception with this text, or None."""
    if isinstance(error, AttributeError) and is_learners_own(error.obj):
        return f"__init__ never sets self.{error.name}, or under another name"
    for pattern, cause in SLIPS.items():
        match = re.search(pattern, text)
        if match:
            return match.expand(cause)
    return None


def is_lesson(value):
    """Whether a value is a learner's file as a module."""
    return isinstance(value, ModuleType) and value.__name__.startswith("exercise_0")


def is_learners_own(value):
    """Whether a value is of a class that the learner's file defines."""
    return type(value).__module__.startswith("exercise_0")


def likeliest(mistakes, agrees):
    """A sentence that names the known mistake that gives what the learner's code gave, or "".

    mistakes: {the mistake: what it gives, or a function that computes that}. agrees(value) says
    whether the learner's code gave that value. Where several mistakes give it, none is named.
    """
    causes = agreeing(mistakes, agrees)
    return advice(causes[0]) if len(causes) == 1 else ""


def agreeing(mistakes, agrees):
    """All of the known mistakes that give what the learner's code gave; see likeliest."""
    causes = []
    for mistake, value in mistakes.items():
        with contextlib.suppress(Exception):  # a mistake that does not fit the output is not it
            if callable(value):
                value = value()
            if agrees(value):
                causes.append(mistake)
    return causes


def advice(cause):
    """The sentence that names a mistake; "" for None."""
    if not cause:
        return ""
    end = "" if cause.endswith("?") else "."
    return f"{LIKELIEST}{cause}{end}"


# What the learner's code returns may be of a class of its own that calls itself equal to
# everything. So nothing is compared before its type is known to be a plain one, and type() asks
# nobody.


def number(value, what, whole=True):
    """A number that the learner's code returned, as an int or a float.

    It may be plain Python's, one of its exact fractions or decimals, numpy's, or a tensor of one
    number. whole: whether it is all that the function returned, and not a part of it.
    """
    if type(value) in (torch.Tensor, nn.Parameter) and value.numel() == 1:
        check_has_numbers(value, what)
        value = value.detach().item()
    elif isinstance(value, numpy.generic) and type(value).__module__ == "numpy":
        value = value.item()
    elif type(value) in (Fraction, Decimal):
        value = float(value)
    if type(value) not in (int, float):
        raise refused(value, what, "a number", whole)
    return value


def numbers(values, what):
    """Numbers that the learner's code returned, as a list.

    They may come in a list, a tuple, or an array or tensor of one dimension.
    """
    if type(values) in (torch.Tensor, numpy.ndarray) and values.ndim == 1:
        if type(values) is torch.Tensor:
            check_has_numbers(values, what)
        values = values.tolist()
    values = plain(values, what, list, tuple)
    return [number(value, f"{what}[{i}]", whole=False) for i, value in enumerate(values)]


def plain(value, what, *kinds, whole=True):
    """A list, tuple or dict that the learner's code returned.

    whole: whether it is all that the function returned, and not a part of it.
    """
    if type(value) in (OrderedDict, defaultdict, Counter) and dict in kinds:
        return dict(value)
    if type(value) not in kinds:
        names = " or ".join(kind.__name__ for kind in kinds)
        raise refused(value, what, f"a {names}", whole)
    return value


def check_module(value, what):
    """An nn.Module that the learner's code returned."""
    if not issubclass(type(value), nn.Module):
        raise refused(value, what, "an nn.Module", whole=True)
    return value


def refused(value, what, expected, whole):
    """The exception about a value of the wrong type; whole: it is all that a function returned."""
    if whole:
        return Wrong(f"{what} returned {in_words(value)}, expected {expected}.{no_return(value)}")
    return Wrong(f"{what} is {in_words(value)}, expected {expected}.")


def no_return(value):
    """A question to ask of a function that returned None; "" for anything else."""
    return " Does it always end with a return?" if value is None else ""


def in_words(value):
    """A value that is not what it should be, in a few words."""
    if value is None:
        return "None"
    if issubclass(type(value), type):
        return f"the class {value.__name__} itself"
    if type(value) in (torch.Tensor, nn.Parameter):
        return f"a tensor {shape(value)}"
    return f"an object of the type {type(value).__name__}"


def shape(tensor):
    """A tensor's shape as people write it: (2, 64, 8, 8)."""
    return str(tuple(tensor.shape))


class Once:
    """An iterator over batches that counts how many times somebody begins to go through it."""

    def __init__(self, batches):
        self.rest = iter(batches)
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return self

    def __next__(self):
        return next(self.rest)

    def cause(self):
        """That somebody has begun twice, in words, or None."""
        if self.passes > 1:
            return (
                "it goes through batches twice, or takes one in advance, but they come only once: "
                "do all in one loop"
            )
        return None


def counted(number, noun, ending="s"):
    """1 convolution, 2 convolutions; with the ending "es": 2 batches."""
    return f"{number} {noun}{'' if number == 1 else ending}"


def mode_name(training):
    """What a module's mode is called."""
    return "train" if training else "eval"


def rounded_like(got, expected, digits=6):
    """expected, rounded to as few digits as make it equal got; NaN if fewer than digits do not."""
    for count in range(digits):
        if abs(round(expected, count) - got) < 1e-9:
            return round(expected, count)
    return math.nan


def is_close(got, expected, tolerance=1e-5):
    """Whether two tensors have one shape and agree.

    tolerance is the largest difference, as a share of the expected tensor's largest number. What
    is NaN or infinite agrees with nothing, for any number is within a share of infinity.
    """
    if got.shape != expected.shape or got.is_meta or expected.is_meta:
        return False
    if not is_finite(expected):
        return False
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max() + 1e-30)


def is_finite(tensor):
    """Whether a tensor holds neither NaN nor infinity."""
    return bool(tensor.isfinite().all())


def check_tensor(got, expected, what, hint=""):
    """Raise Wrong unless got is a tensor of the expected shape, and of numbers of that kind."""
    if got is None:
        raise Wrong(f"{what} returned None. Does it always end with a return?")
    if type(got) not in (torch.Tensor, nn.Parameter):
        raise Wrong(f"{what} returned {in_words(got)}, expected a plain torch.Tensor.")
    if got.shape != expected.shape:
        if not hint and expected.shape[:1] == (1,) and got.shape == expected.squeeze().shape:
            hint = advice("squeeze() drops a batch of one, too; say which dimension should go")
        raise Wrong(f"{what} has the shape {shape(got)}, expected {shape(expected)}.{hint}")
    if got.is_floating_point() != expected.is_floating_point():
        raise Wrong(f"{what} has the dtype {dtype(got)}, expected {dtype(expected)}.")
    if not expected.is_meta:
        check_has_numbers(got, what)


def check_has_numbers(tensor, what):
    """Raise Wrong if a tensor has no values that can be looked at."""
    if tensor.is_meta:
        raise Wrong(f"{what} is a tensor on the device meta, which has a shape and no values.")
    if tensor.layout != torch.strided:
        raise Wrong(f"{what} is a sparse tensor, expected a dense one.")


def dtype(tensor):
    """A tensor's dtype as people write it: float32."""
    return str(tensor.dtype).removeprefix("torch.")


def check_close(got, expected, what, explain=None, tolerance=1e-5):
    """Raise Wrong unless got agrees with expected; explain() names the mistake, or gives None."""
    check_tensor(got, expected, what)
    if is_close(got, expected, tolerance):
        return
    if not is_finite(expected):
        raise Wrong(f"{what}: with your layers' own weights, torchvision gets NaN or infinity.")
    cause = None
    if explain:
        with contextlib.suppress(Exception):  # an unforeseen mistake may not fit the known ones
            cause = explain()
    if not cause and not torch.isfinite(got).all():
        cause = "it holds NaN or infinity"
    worst = (got - expected).abs().flatten().argmax()
    raise Wrong(
        f"{what} is not what torchvision computes with the same weights. Expected for instance "
        f"{expected.flatten()[worst]:.4f}, got {got.flatten()[worst]:.4f}.",
        cause,
    )


def check_dry_run(script, dry_run):
    """Raise Wrong unless a script's dry run has written its figure and its numbers.

    Returns the folder with them.
    """
    folder = dry_run.finish()
    exercise = script.name[: len("exercise_01")]
    for name in (f"{exercise}.json", f"{exercise}.png"):
        if not (folder / name).is_file():
            raise Wrong(f"python {script.name} --dry-run wrote no {name}")
    return folder
