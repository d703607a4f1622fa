"""How a test tells a learner what is wrong: one exception, one comparison, one way to call the learner's code."""

import contextlib
import os
import re
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType

import numpy
import torch
from torch import nn

# Small networks gain little from more threads, and a script's own run wants some of the cores at the same time: with
# more threads than cores everything takes many times as long.
torch.set_num_threads(min(2, torch.get_num_threads()))
os.environ.setdefault("OMP_NUM_THREADS", "2")


UNWRITTEN = re.compile(r"TODO (\d+\.\d+): \S+")  # what a task that is not written yet raises, or a script says of it


RAISED = {  # what Python and torch say of common slips, and what to do about them
    r"'list' object is not callable": "a list of layers cannot be called: wrap it up, nn.Sequential(*layers)",
    r"list is not a Module subclass": "nn.Sequential takes layers, not a list of them: put a star before the list",
    r"str is not a Module subclass": "a word stands where a layer belongs: call what makes the layer",
    r"type is not a Module subclass": "a class stands where a layer belongs: add the brackets, as in nn.ReLU()",
    r"'NoneType' object is not callable": "a layer is None: does the function that makes it end with a return?",
    r"Module \[(Module\w+)\] is missing the required": r"an nn.\1 cannot be called: go through it in a loop, "
    "or take nn.Sequential",
    r"Module \[(\w+)\] is missing the required": r"\1 has no method forward, or it is indented wrongly",
    r"cannot assign module before Module": "__init__ must call super().__init__() first",
    r"'NoneType' object has no attribute '(\w+)'": r"a value is None where its \1 is wanted: is a return missing, or a "
    "gradient not computed yet?",
    r"'(Tensor|Parameter|[a-z]\w+)' object has no attribute '(\w+)'": r"a value of the type \1 has no \2: is it what "
    "you take it for?",
    r"'\w+' object has no attribute '(\w+)'": r"__init__ never sets self.\1, or under another name",
    r"running_mean should contain (\d+) elements not (\d+)": r"a batch norm made for \2 channels gets \1",
    r"Output size is too small": "a pooling of fixed size does not fit: pictures of any size must work, so take "
    "nn.AdaptiveAvgPool2d(1)",
    r"expected Tensor as element \d+ in argument 0, but got (\w+)": r"torch.cat is given a \1 where a tensor belongs; "
    "a hook's inputs are a tuple, so take inputs[0]",
    r"must be a string or a real number, not 'NoneType'": "a function that should give a number, such as the loss, "
    "ends without a return",
    r"does not require grad": "something is detached, frozen or computed without gradients",
}


class Wrong(Exception):
    """The learner's code does something wrong; the message is for the learner, with the likeliest cause if known."""

    def __init__(self, message, cause=None, more=""):
        super().__init__(f"{message}{advice(cause)}{more}")
        self.message, self.cause, self.more, self.ops = message, cause, more, []  # ops: what had run, if recorded

    def because(self, cause):
        """The same, with another cause if there is one."""
        wrong = Wrong(self.message, cause or self.cause, self.more)
        wrong.ops = self.ops
        return wrong


@contextlib.contextmanager
def calling(what):
    """Around a call of the learner's code: what it raises becomes a Wrong that says what was called, and where."""
    try:
        yield
    except Wrong:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and UNWRITTEN.match(str(error)):
            raise
        if isinstance(error, AttributeError) and is_lesson(error.obj):
            raise Wrong(f"{error.obj.__name__}.py has no {error.name}. Its name may not be changed.") from None
        frames, trace = [], error.__traceback__.tb_next
        while trace:
            frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
            trace = trace.tb_next
        own = [(Path(name).name, line) for name, line in frames if Path(name).name.startswith("exercise_0")]
        place = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
        if len(own) > 1 and own[0] != own[-1]:
            place = f"{place[:-1]}, called from line {own[0][1]})"
        text = (str(error).strip().splitlines() or ["no message"])[0]
        raise Wrong(f"{what} raised {type(error).__name__}: {text}{place}", slip(text) if own else None) from error


def slip(text):
    """The likeliest cause of an exception with this text, or None."""
    found = ((re.search(pattern, text), cause) for pattern, cause in RAISED.items())
    return next((match.expand(cause) for match, cause in found if match), None)


def is_lesson(value):
    """Whether a value is a learner's file as a module."""
    return isinstance(value, ModuleType) and value.__name__.startswith("exercise_0")


def likeliest(mistakes, agrees):
    """A sentence that names the known mistake, of {words: what it gives}, that gives what was got; "" if none does.

    What a mistake gives may be a function that computes it. Where several give the same, all are named.
    """
    causes = []
    for words, value in mistakes.items():
        with contextlib.suppress(Exception):  # a mistake that does not fit what was got is not the one
            if agrees(value() if callable(value) else value):
                causes.append(words)
    return advice("; or ".join(causes))


def advice(cause):
    """The sentence that names a mistake; "" for None."""
    return f"\nThe likeliest mistake: {cause}{'' if cause.endswith('?') else '.'}" if cause else ""


# What the learner returns may be of a class of their own that calls itself equal to everything. So nothing is compared
# before its type is known to be a plain one, and type() asks no one.


def number(value, what):
    """A number that the learner returned, plain Python's, numpy's or a tensor of one, as an int or a float."""
    if type(value) in (torch.Tensor, nn.Parameter) and value.numel() == 1:
        value = value.detach().item()
    elif isinstance(value, numpy.generic) and type(value).__module__ == "numpy":
        value = value.item()
    if type(value) not in (int, float):
        raise Wrong(f"{what} returned {said(value)}, expected a number.{no_return(value)}")
    return value


def numbers(values, what):
    """A list of numbers that the learner returned, or a tuple, array or tensor of one dimension, as a list."""
    if type(values) in (torch.Tensor, numpy.ndarray) and values.ndim == 1:
        values = values.tolist()
    return [number(value, f"{what} at place {i}") for i, value in enumerate(plain(values, what, list, tuple))]


def plain(value, what, *kinds):
    """A list, tuple or dict that the learner returned."""
    if type(value) in (OrderedDict, defaultdict, Counter) and dict in kinds:
        return dict(value)
    if type(value) not in kinds:
        names = " or ".join(kind.__name__ for kind in kinds)
        raise Wrong(f"{what} returned {said(value)}, expected a {names}.{no_return(value)}")
    return value


def no_return(value):
    """A question to ask of a function that returned None; "" for anything else."""
    return " Does it end with a return?" if value is None else ""


def said(value):
    """A value that is not what it should be, in a few words."""
    return "None" if value is None else f"an object of the type {type(value).__name__}"


def shape(tensor):
    """A tensor's shape as people write it: (2, 64, 8, 8)."""
    return str(tuple(tensor.shape))


def is_close(got, expected, tolerance=1e-5):
    """Whether two tensors have one shape and agree to within a share of the expected one's largest number."""
    if got.shape != expected.shape:
        return False
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max() + 1e-30)


def check_tensor(got, expected, what, hint=""):
    """Raise Wrong unless got is a tensor of the expected shape."""
    if got is None:
        raise Wrong(f"{what} returned None. Does it end with a return?")
    if type(got) not in (torch.Tensor, nn.Parameter):
        raise Wrong(f"{what} returned {said(got)}, expected a plain torch.Tensor.")
    if got.shape != expected.shape:
        raise Wrong(f"{what} has the shape {shape(got)}, expected {shape(expected)}.{hint}")


def check_close(got, expected, what, explain=None, tolerance=1e-5):
    """Raise Wrong unless got agrees with expected; explain() names the mistake, or returns None."""
    check_tensor(got, expected, what)
    if is_close(got, expected, tolerance):
        return
    cause = None
    with contextlib.suppress(Exception):  # a mistake of an unforeseen kind may not fit the known ones at all
        cause = explain() if explain else None
    error, i = (got - expected).abs().flatten().max(dim=0)
    if not torch.isfinite(got).all():
        cause = cause or "it holds NaN or infinity"
    raise Wrong(
        f"{what} is not what torchvision computes with the same weights. Expected for instance "
        f"{expected.flatten()[i]:.4f}, got {got.flatten()[i]:.4f}." + advice(cause)
    )
