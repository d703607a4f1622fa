"""Names a mistake: the known wrong ways are computed with the learner's own weights, and the one that matches is it."""

import itertools
import re
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from messages import is_close
from what_ran import EXTRAS, describe, first, kernel, norm_after, projections_last

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
    "the shortcut is not added": lambda p: p.n2.relu(),
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
    "the shortcut is taken of the branch, not of the block's input": lambda p: (2 * p.n2).relu(),
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


def extra(ops, oracle_ops=()):
    """What ran that the oracle has not, in words, or None."""
    expected = {op.kind for op in oracle_ops}
    return next((EXTRAS[op.kind] for op in ops if op.kind in EXTRAS and op.kind not in expected), None)


def wide(ops):
    """The convolutions that are larger than 1x1, in running order: the way through the branches."""
    return [op for op in ops if op.kind == "conv2d" and op.weight.shape[2:] != (1, 1)]


def repeated(convs):
    """Whether one of these convolutions ran more than once, in words, or None."""
    if len({id(op.weight) for op in convs}) < len(convs):
        return "one convolution runs twice; each place needs a layer of its own"
    return None


def wrong_layer(ops, oracle_ops, place):
    """The first convolution that is not made as the oracle's, in words, or None; place(i) says where number i lies."""
    for i, (own, oracle) in enumerate(zip(wide(ops), wide(oracle_ops))):
        if describe(own) != describe(oracle):
            return f"{place(i)} is {describe(own)}, expected {describe(oracle)}"
        for name in ("stride", "dilation", "groups"):
            got, expected = first(getattr(own, name)), first(getattr(oracle, name))
            if got != expected:
                return f"{place(i)} has {name} {got}, expected {expected}"
        if own.output.shape[2:] != oracle.output.shape[2:] and own.input.shape[2:] == oracle.input.shape[2:]:
            return f"{place(i)} has padding {first(own.padding)}, expected {first(oracle.padding)}"
    return None


def wrong_block(wrong, oracle_ops, in_channels, out_channels):
    """Why a basic block fails to run, in words, or None."""
    ran = wide(wrong.ops)
    if repeated(ran):
        return repeated(ran)
    fault = wrong_layer(wrong.ops, oracle_ops, lambda i: f"the {('first', 'second')[i]} 3x3 convolution")
    if fault:
        return fault
    if len(ran) == 2 and f"to have {in_channels} channels, but got {out_channels} channels" in str(wrong):
        return "the shortcut is taken of the branch, not of the block's input"
    if len(ran) == 2 and len(oracle_ops) > 4 and not any(op.kind == "conv2d" and kernel(op) == 1 for op in wrong.ops):
        return "the block's input is added as it is, without the projection of make_shortcut"
    return wrong_channels(wrong)


def wrong_channels(wrong):
    """A sentence part for a layer that does not fit what reaches it, or None."""
    found = re.search(r"to have (\d+) channels, but got (\d+) channels", str(wrong))
    if found:
        return (
            f"a convolution that is made for {found[1]} channels gets {found[2]}; its in_channels must be what "
            "the layer before it puts out"
        )
    found = re.search(r"mat1 and mat2.*\((\d+)x(\d+) and (\d+)x(\d+)\)", str(wrong))
    channels = next((len(op.weight) for op in reversed(wrong.ops) if op.kind == "conv2d"), None)
    if found and int(found[2]) == channels:
        return f"the linear layer is made for {found[3]} numbers, but the last stage puts out {channels} channels"
    if found:
        return (
            "what reaches the linear layer is not (batch, channels of the last stage): take the mean over all places, "
            "then flatten"
        )
    return None


def wrong_network(ops, oracle_ops, blocks, place):
    """What is wrong with a network's layers, in words, or None. blocks: how many each stage has; place: see above."""
    if repeated(wide(ops)):
        return repeated(wide(ops))
    own, oracle = [
        [len(list(same)) for _, same in itertools.groupby(len(op.weight) for op in wide(group)[1:])]
        for group in (ops, oracle_ops)
    ]
    if len(own) == len(oracle) and own != oracle:
        counts = [f"{convs * sum(blocks) / sum(oracle):g}" for convs in own]
        return f"the stages have {', '.join(counts)} blocks, expected {', '.join(map(str, blocks))}"
    fault = wrong_layer(ops, oracle_ops, place)
    if fault:
        return fault
    linear, right = [next((op for op in group if op.kind == "linear"), None) for group in (ops, oracle_ops)]
    if linear is not None and linear.weight.shape[1] != right.weight.shape[1]:
        return (
            f"the linear layer takes {linear.weight.shape[1]} numbers, expected {right.weight.shape[1]}: take the mean "
            "over all places first"
        )
    if linear is not None and len(linear.weight) != len(right.weight):
        return f"the linear layer puts out {len(linear.weight)} numbers, expected num_classes = {len(right.weight)}"
    return None


def wrong_head(got, expected, ops, oracle_ops):
    """What is wrong with a network whose stages are right, in words."""
    mistakes = {
        "a ReLU is applied to the logits": expected.relu(),
        "softmax is applied to the logits; the loss applies it itself": expected.softmax(dim=1),
        "the logarithm of softmax is returned; return logits": expected.log_softmax(dim=1),
        "a sigmoid is applied to the logits; the loss takes logits": expected.sigmoid(),
        "tanh is applied to the logits; the loss takes logits": expected.tanh(),
    }
    named = next((words for words, value in mistakes.items() if is_close(got, value, 1e-3)), None)
    return (
        named
        or extra(ops, oracle_ops)
        or ("the stages are right, so it is the head: the mean over all places, then one linear layer")
    )


def wrong_between(pairs, ops, oracle_ops, place, number):
    """What is wrong before the 3x3 convolution with this number, whose input is the first to differ, in words."""
    own = [a for a, b in pairs if a.kind == "conv2d" and kernel(a) == 3][number]
    bare = [op for op in ops if op.kind == "batch_norm" and is_close(op.output, own.input)]
    if bare:
        return f"the ReLU before {place(number)} is missing"
    return extra(ops, oracle_ops)


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
            return other_settings(convs)
        for mistake, wrong in BLOCK_MISTAKES.items():
            try:
                value = wrong(parts)
            except RuntimeError:  # this mistake is impossible with these shapes
                continue
            if value is not None and is_close(got, value, 1e-4):
                return mistake
    return extra(ops)


def other_settings(convs):
    """The settings of convolutions, for a block whose steps are right and whose numbers are not."""
    said = [f"{describe(op)}: " + ", ".join(f"{k} {first(getattr(op, k))}" for k in SETTINGS) for op in convs]
    return "the steps are right, but a convolution has other settings than torchvision's. " + "; ".join(said)


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
    "the shortcut is not added": lambda p: p.a3.relu(),
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
    "the block's input is added as it is, without the projection": lambda p: (
        (p.a3 + p.x).relu() if p.s is not p.x else None
    ),
    "branch and shortcut are averaged, not added": lambda p: ((p.a3 + p.s) / 2).relu(),
    "branch and shortcut are multiplied, not added": lambda p: (p.a3 * p.s).relu(),
}


def wrong_bottleneck(ops, channels):
    """What is wrong with the layers of a bottleneck, or of as much of it as ran, in words, or None."""
    convs = [op for op in ops if op.kind == "conv2d"]
    middle = next((op for op in convs if kernel(op) == 3), None)
    ones = [op for op in convs if kernel(op) == 1]
    narrow = next((op for op in ones if len(op.weight) == channels), None)
    last = next((op for op in ones if middle is not None and op.input.shape[1] == channels and op is not narrow), None)
    projection = next((op for op in ones if op is not narrow and op is not last), None)
    strides = [first(op.stride) for op in convs if op is not projection]
    if projection is not None and first(projection.stride) > 1 and last is not None and max(strides) == 1:
        return "no convolution of the branch takes the stride; the 3x3 convolution should"
    if last is not None and first(last.stride) > 1:
        return "the stride is on the last 1x1 convolution; it belongs on the 3x3 convolution"
    if middle is not None and narrow is not None and first(middle.stride) > 1 and first(narrow.stride) > 1:
        return "two convolutions take the stride; only the 3x3 convolution should"
    padded = next((op for op in ones if first(op.padding) > 0), None)
    if padded is not None:
        return f"the convolution of {describe(padded)} has padding {first(padded.padding)}; a 1x1 needs none"
    if middle is not None and first(middle.padding) == 0 and middle.output.shape[2] < middle.input.shape[2]:
        return "the 3x3 convolution has no padding, so it shrinks the picture; say padding=1"
    if projection is not None and len(projection.weight) != 4 * channels:
        return f"the projection puts out {len(projection.weight)} channels, expected 4 * channels = {4 * channels}"
    return None
