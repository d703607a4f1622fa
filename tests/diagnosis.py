"""Names a mistake: the known wrong ways are computed with the learner's own weights, and the one that matches is it."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from messages import is_close
from what_ran import describe, first, kernel, norm_after, projections_last

SETTINGS = ("stride", "padding", "dilation", "groups")


def conv(x, op, stride=None):
    """Run a recorded convolution on x."""
    return F.conv2d(x, op.weight, op.bias, stride or op.stride, op.padding, op.dilation, op.groups)


def norm(x, op, training):
    """Run a recorded batch norm on x without changing its running statistics."""
    if training:
        return F.batch_norm(x, None, None, op.weight, op.bias, True, 0.0, op.eps)
    return F.batch_norm(x, op.running_mean, op.running_var, op.weight, op.bias, False, 0.0, op.eps)


def block_parts(x, ops, training):
    """What a right block computes on its way, with the learner's weights: c1, n1, c2, n2 and s, the shortcut."""
    first, second = [op for op in ops if op.kind == "conv2d" and kernel(op) == 3]
    projection = next((op for op in ops if op.kind == "conv2d" and kernel(op) == 1), None)
    norms = [norm_after(ops, op) for op in (first, second)]
    s = x if projection is None else norm(conv(x, projection), norm_after(ops, projection), training)
    c1 = conv(x, first)
    n1 = norm(c1, norms[0], training)
    c2 = conv(n1.relu(), second)
    return SimpleNamespace(
        x=x,
        first=first,
        second=second,
        norms=norms,
        projection=projection,
        s=s,
        c1=c1,
        n1=n1,
        c2=c2,
        n2=norm(c2, norms[1], training),
        training=training,
    )


BLOCK_MISTAKES = {  # what the block did: what that gives
    "the shortcut is never added": lambda p: p.n2.relu(),
    "the shortcut is added after the last ReLU; add first, then apply the ReLU": lambda p: p.n2.relu() + p.s,
    "the last ReLU, after the addition, is missing": lambda p: p.n2 + p.s,
    "the shortcut is subtracted, not added": lambda p: (p.n2 - p.s).relu(),
    "the branch is subtracted from the shortcut, not added": lambda p: (p.s - p.n2).relu(),
    "the shortcut is added twice": lambda p: (p.n2 + 2 * p.s).relu(),
    "branch and shortcut are averaged, not added": lambda p: ((p.n2 + p.s) / 2).relu(),
    "branch and shortcut are multiplied, not added": lambda p: (p.n2 * p.s).relu(),
    "the branch is left out: only the shortcut comes out": lambda p: p.s.relu(),
    "the ReLU between the two convolutions is missing": lambda p: (
        norm(conv(p.n1, p.second), p.norms[1], p.training) + p.s
    ).relu(),
    "a ReLU is applied to the branch before the addition": lambda p: (p.n2.relu() + p.s).relu(),
    "a ReLU is applied to the shortcut before the addition": lambda p: (p.n2 + p.s.relu()).relu(),
    "the shortcut starts after the first convolution, not at the block's input": lambda p: (p.n2 + p.n1.relu()).relu(),
    "the shortcut starts after the first convolution's batch norm, not at the input": lambda p: (p.n2 + p.n1).relu(),
    "the shortcut starts after the first convolution, not at the input": lambda p: (p.n2 + p.c1).relu(),
    "the block's input is added as it is, without the projection": lambda p: (
        (p.n2 + p.x).relu() if p.projection is not None else None
    ),
    "the input passes a ReLU before the first convolution": lambda p: (branch(p, p.x.relu()) + p.s).relu(),
    "the ReLU comes before the first batch norm; it belongs after it": lambda p: (
        norm(conv(norm(p.c1.relu(), p.norms[0], p.training), p.second), p.norms[1], p.training) + p.s
    ).relu(),
    "the second batch norm comes after the addition; it belongs before it": lambda p: norm(
        p.c2 + p.s, p.norms[1], p.training
    ).relu(),
    "batch norm comes in the wrong order: the two are swapped": lambda p: (
        norm(conv(norm(p.c1, p.norms[1], p.training).relu(), p.second), p.norms[0], p.training) + p.s
    ).relu(),
}


def branch(p, x):
    """The residual branch of x."""
    inner = norm(conv(x, p.first), p.norms[0], p.training).relu()
    return norm(conv(inner, p.second), p.norms[1], p.training)


def name_block_mistake(got, x, ops, training):
    """The mistake, in words, that gives what the learner's block gave; None if no known one does."""
    with torch.no_grad():
        if not training and is_close(got, right_block(block_parts(x, ops, True)), 1e-4):
            return "in eval mode a batch norm still uses the batch's own statistics, not the running ones"
        if training and is_close(got, right_block(block_parts(x, ops, False)), 1e-4):
            return "in train mode a batch norm uses the running statistics, not the batch's own"
        parts = block_parts(x, ops, training)
        if is_close(got, right_block(parts), 1e-4):
            convs = [op for op in ops if op.kind == "conv2d"]
            if first(parts.first.stride) == 1 and first(parts.second.stride) > 1:
                return "the stride is on the second 3x3 convolution; it belongs on the first"
            said = [f"{describe(op)}: " + ", ".join(f"{k} {first(getattr(op, k))}" for k in SETTINGS) for op in convs]
            return "the steps are right, but a layer has other settings than torchvision's. " + "; ".join(said)
        for mistake, wrong in BLOCK_MISTAKES.items():
            try:
                value = wrong(parts)
            except RuntimeError:  # this mistake is impossible with these shapes
                continue
            if value is not None and is_close(got, value, 1e-4):
                return mistake
    return None


def right_block(p):
    """What a right block gives."""
    return (p.n2 + p.s).relu()


def first_difference(pairs, tolerance=1e-4):
    """Which of a network's 3x3 convolutions is the first whose input is not the oracle's: 0 is the stem's; or None."""
    convs = [(own, oracle) for own, oracle in pairs if own.kind == "conv2d" and kernel(own) == 3]
    return next((i for i, (own, oracle) in enumerate(convs) if not is_close(own.input, oracle.input, tolerance)), None)


def place_in_resnet18(index):
    """Where in ResNet-18 the 3x3 convolution with this number lies, the stem's being 0."""
    if index == 0:
        return "the stem's convolution"
    stage, rest = divmod(index - 1, 4)
    return f"stage {stage + 1}, block {rest // 2 + 1}, convolution {rest % 2 + 1}"


# --- exercise 4: the bottleneck ---------------------------------------------------------------------------------------


def bottleneck_parts(x, ops, training):
    """What a right bottleneck computes on its way, with the learner's weights: a1, a2, a3 after each norm, and s."""
    convs = [op for op in ops if op.kind == "conv2d"]
    middle = next(op for op in convs if kernel(op) == 3)
    ones = projections_last([op for op in convs if kernel(op) == 1])
    first_op, last_op, projection = ones[0], ones[1], ones[2] if len(ones) > 2 else None

    def step(value, op):
        return norm(conv(value, op), norm_after(ops, op), training)

    a1 = step(x, first_op)
    a2 = step(a1.relu(), middle)
    return SimpleNamespace(
        x=x,
        a1=a1,
        a2=a2,
        a3=step(a2.relu(), last_op),
        s=x if projection is None else step(x, projection),
        without_first=step(step(a1, middle).relu(), last_op),
        without_second=step(a2, last_op),
        without_both=step(step(a1, middle), last_op),
    )


BOTTLENECK_MISTAKES = {
    "the shortcut is never added": lambda p: p.a3.relu(),
    "the shortcut is added after the last ReLU; add first, then apply the ReLU": lambda p: p.a3.relu() + p.s,
    "the last ReLU, after the addition, is missing": lambda p: p.a3 + p.s,
    "a ReLU is applied to the branch before the addition": lambda p: (p.a3.relu() + p.s).relu(),
    "the shortcut is subtracted, not added": lambda p: (p.a3 - p.s).relu(),
    "the branch is subtracted from the shortcut, not added": lambda p: (p.s - p.a3).relu(),
    "the shortcut is added twice": lambda p: (p.a3 + 2 * p.s).relu(),
    "the branch is left out: only the shortcut comes out": lambda p: p.s.relu(),
    "the ReLU after the first convolution's batch norm is missing": lambda p: (p.without_first + p.s).relu(),
    "the ReLU after the 3x3 convolution's batch norm is missing": lambda p: (p.without_second + p.s).relu(),
    "both ReLUs inside the branch are missing": lambda p: (p.without_both + p.s).relu(),
    "a ReLU is applied to the shortcut before the addition": lambda p: (p.a3 + p.s.relu()).relu(),
    "the block's input is added as it is, without the projection": lambda p: (p.a3 + p.x).relu(),
    "branch and shortcut are multiplied, not added": lambda p: (p.a3 * p.s).relu(),
}
