"""Names a mistake: the known wrong ways are computed with the learner's own weights.

The one that gives what the learner's network gave is the mistake.
"""

import re
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from messages import FIXED_POOLING, dtype, is_close
from what_ran import (
    EXTRAS,
    KINDS,
    convolutions,
    describe,
    first,
    kernel,
    norm_after,
    of_kind,
    projections_last,
)

SETTINGS = ("stride", "padding", "dilation", "groups")
IN_EVAL = "in eval mode a batch norm still uses the batch's own statistics, not the running ones"
IN_TRAIN = "in train mode a batch norm uses the running statistics, not the batch's own"


def conv(x, op):
    """Run a recorded convolution on x."""
    return F.conv2d(x, op.weight, op.bias, op.stride, op.padding, op.dilation, op.groups)


def norm(x, op, training):
    """Run a recorded batch norm on x without changing its running statistics."""
    if training:
        return F.batch_norm(x, None, None, op.weight, op.bias, True, 0.0, op.eps)
    return F.batch_norm(x, op.running_mean, op.running_var, op.weight, op.bias, False, 0.0, op.eps)


# The basic block


class BlockParts:
    """What a correct block computes on its way from x, with the weights of the learner's block."""

    def __init__(self, x, ops, training):
        self.training = training
        self.conv1, self.conv2 = convolutions(ops, 3)
        self.norm1 = norm_after(ops, self.conv1)
        self.norm2 = norm_after(ops, self.conv2)
        self.x = x
        self.after_conv1 = conv(x, self.conv1)
        self.after_norm1 = norm(self.after_conv1, self.norm1, training)
        self.after_conv2 = conv(self.after_norm1.relu(), self.conv2)
        self.branch = norm(self.after_conv2, self.norm2, training)
        self.shortcut = x
        self.has_projection = False
        projections = convolutions(ops, 1)
        if projections:
            self.has_projection = True
            projection_norm = norm_after(ops, projections[0])
            self.shortcut = norm(conv(x, projections[0]), projection_norm, training)

    @property
    def output(self):
        """What the block should give."""
        return (self.branch + self.shortcut).relu()

    def first_half(self, x):
        """The first convolution, its batch norm, and a ReLU."""
        return norm(conv(x, self.conv1), self.norm1, self.training).relu()

    def second_half(self, features):
        """The second convolution and its batch norm."""
        return norm(conv(features, self.conv2), self.norm2, self.training)


def added_as_it_is(p):
    if not p.has_projection:
        return None
    return (p.branch + p.x).relu()


def without_inner_relu(p):
    branch = p.second_half(p.after_norm1)
    return (branch + p.shortcut).relu()


def with_relu_at_the_input(p):
    branch = p.second_half(p.first_half(p.x.relu()))
    return (branch + p.shortcut).relu()


def with_relu_of_the_input(p):
    if p.has_projection:
        return None
    return (p.second_half(p.first_half(p.x.relu())) + p.x.relu()).relu()


def with_relu_before_norm(p):
    features = norm(p.after_conv1.relu(), p.norm1, p.training)
    return (p.second_half(features) + p.shortcut).relu()


def with_norm_after_addition(p):
    return norm(p.after_conv2 + p.shortcut, p.norm2, p.training).relu()


def with_norms_swapped(p):
    features = norm(p.after_conv1, p.norm2, p.training).relu()
    branch = norm(conv(features, p.conv2), p.norm1, p.training)
    return (branch + p.shortcut).relu()


ADDITION_MISTAKES = {  # of any block; what the block did: what that gives
    "the shortcut is not added": lambda p: p.branch.relu(),
    "the shortcut is added after the last ReLU; add first, then apply the ReLU": (
        lambda p: p.branch.relu() + p.shortcut
    ),
    "branch and shortcut get a ReLU each; add first, then apply one ReLU": (
        lambda p: p.branch.relu() + p.shortcut.relu()
    ),
    "the last ReLU, after the addition, is missing": lambda p: p.branch + p.shortcut,
    "the shortcut is subtracted, not added": lambda p: (p.branch - p.shortcut).relu(),
    "the branch is subtracted from the shortcut, not added": (
        lambda p: (p.shortcut - p.branch).relu()
    ),
    "the shortcut is added twice": lambda p: (p.branch + 2 * p.shortcut).relu(),
    "branch and shortcut are averaged, not added": lambda p: ((p.branch + p.shortcut) / 2).relu(),
    "branch and shortcut are multiplied, not added": lambda p: (p.branch * p.shortcut).relu(),
    "the branch is left out: only the shortcut comes out": lambda p: p.shortcut.relu(),
    "a ReLU is applied to the branch before the addition": (
        lambda p: (p.branch.relu() + p.shortcut).relu()
    ),
    "a ReLU is applied to the shortcut before the addition": (
        lambda p: (p.branch + p.shortcut.relu()).relu()
    ),
    "the block's input is added as it is, without the projection": added_as_it_is,
}
BLOCK_MISTAKES = ADDITION_MISTAKES | {
    "the larger of branch and shortcut comes out; add them": (
        lambda p: torch.maximum(p.branch, p.shortcut).relu()
    ),
    "the output ends at 6; a ReLU has no upper limit": (
        lambda p: (p.branch + p.shortcut).clamp(0, 6)
    ),
    "the absolute value is taken at the end, not the ReLU": (
        lambda p: (p.branch + p.shortcut).abs()
    ),
    "the ReLU between the two convolutions is missing": without_inner_relu,
    "the shortcut is taken of the branch, not of the block's input": lambda p: (
        2 * p.branch
    ).relu(),
    "the shortcut starts after the first ReLU, not at the block's input": (
        lambda p: (p.branch + p.after_norm1.relu()).relu()
    ),
    "the shortcut starts after the first batch norm, not at the block's input": (
        lambda p: (p.branch + p.after_norm1).relu()
    ),
    "the shortcut starts after the first convolution, not at the block's input": (
        lambda p: (p.branch + p.after_conv1).relu()
    ),
    "the input passes a ReLU before the first convolution": with_relu_at_the_input,
    "the block's input passes a ReLU first; branch and shortcut start from the input itself": (
        with_relu_of_the_input
    ),
    "the ReLU comes before the first batch norm; it belongs after it": with_relu_before_norm,
    "the second batch norm comes after the addition; it belongs before it": (
        with_norm_after_addition
    ),
    "batch norm comes in the wrong order: the two are swapped": with_norms_swapped,
}


def name_block_mistake(got, x, ops, training):
    """The mistake, in words, that gives what the learner's block gave; None if none does."""
    layers = other_precision(ops) or other_padding(ops) or without_stride(ops, x, got)
    if layers:
        return layers
    with torch.no_grad():
        other_mode = BlockParts(x, ops, not training)
        if is_close(got, other_mode.output, 1e-4):
            return IN_TRAIN if training else IN_EVAL
        if other_mode_of_one(ops, training):
            return IN_TRAIN if training else IN_EVAL
        parts = BlockParts(x, ops, training)
        if is_close(got, parts.output, 1e-4):
            if first(parts.conv1.stride) == 1 and first(parts.conv2.stride) > 1:
                return "the stride is on the second 3x3 convolution; it belongs on the first"
            return other_settings(of_kind(ops, "conv2d"))
        return (
            matching(BLOCK_MISTAKES, parts, got)
            or weighted(parts, got)
            or extra(ops)
            or without_inner_relu_and_more(parts, got)
        )


def other_mode_of_one(ops, training):
    """Whether a batch norm ran in the mode that the block is not in."""
    return any(bool(op.training) != training for op in of_kind(ops, "batch_norm"))


def matching(mistakes, parts, got):
    """The one mistake that gives what the learner's block gave, or None."""
    found = []
    for mistake, compute in mistakes.items():
        try:
            value = compute(parts)
        except RuntimeError:  # this mistake is impossible with these shapes
            continue
        if value is not None and is_close(got, value, 1e-4):
            found.append(mistake)
    return found[0] if len(found) == 1 else None


def weighted(parts, got):
    """That branch and shortcut are added with other weights than 1, in words, or None."""
    positive = got > 0
    if not positive.any():
        return None
    sides = torch.stack([parts.branch, parts.shortcut], dim=-1)
    weights = torch.linalg.lstsq(sides[positive], got[positive][:, None]).solution.flatten()
    if not is_close(got, (sides @ weights).relu(), 1e-4):
        return None
    branch, shortcut = (f"{round(weight, 4):g}" for weight in weights.tolist())
    return (
        f"the output is relu({branch} * branch + {shortcut} * shortcut), "
        "expected relu(branch + shortcut)"
    )


def without_inner_relu_and_more(parts, got):
    """That the ReLU between the convolutions is missing and the addition is wrong, or None."""
    parts.branch = parts.second_half(parts.after_norm1)
    mistake = matching(ADDITION_MISTAKES, parts, got)
    return mistake and f"the ReLU between the two convolutions is missing; and {mistake}"


def other_precision(ops):
    """That a layer computes with 16 bits, in words, or None."""
    for op in ops:
        if op.kind in KINDS and op.output.dtype in (torch.float16, torch.bfloat16):
            return (
                f"a {KINDS[op.kind]} computes in {dtype(op.output)} (autocast?); compute in the "
                "input's own precision"
            )
    return None


def other_padding(ops):
    """That a 3x3 convolution gets an image that was padded in another way, or None."""
    if any(first(op.padding) for op in convolutions(ops, 1)):
        return "a 1x1 convolution pads; only 3x3 convolutions should, with padding=1"
    for op in convolutions(ops, 3):
        rows, columns = op.input.shape[2:]
        sides = [op.input[:, :, 0], op.input[:, :, rows - 1]]
        sides += [op.input[..., 0], op.input[..., columns - 1]]
        filled = [bool(side.any()) for side in sides]
        shrinks = op.output.shape[2] < op.input.shape[2]
        if first(op.padding) == 0 and shrinks and any(filled):
            return (
                "a 3x3 convolution pads its input "
                + ("with other numbers than zeros; " if all(filled) else "on some sides only; ")
                + "say padding=1 and leave padding_mode at its default"
            )
    return None


def without_stride(ops, x, got):
    """That a block makes its input smaller, but not in its 3x3 convolutions; or None."""
    strides = [first(op.stride) for op in convolutions(ops, 3)]
    if got.shape[2:] != x.shape[2:] and set(strides) == {1}:
        return "no 3x3 convolution takes the stride; it belongs on the first"
    return None


def other_settings(convs):
    """The settings of convolutions, for a block whose steps are right and whose output is not."""
    unusual = [op for op in convs if not has_usual_settings(op)]
    descriptions = [f"{describe(op)}: {settings(op)}" for op in unusual or convs]
    return (
        "the steps are right, but a convolution has other settings than torchvision's. "
        + "; ".join(descriptions)
    )


def has_usual_settings(op):
    """Whether a 3x3 convolution pads with 1, a 1x1 with 0; neither is dilated or grouped."""
    padding = (0, "valid", "same") if kernel(op) == 1 else (1, "same")
    return first(op.padding) in padding and first(op.dilation) == 1 and op.groups == 1


def settings(op):
    """A convolution's settings in words: stride 1, padding 1, dilation 1, groups 1."""
    return ", ".join(f"{name} {first(getattr(op, name))}" for name in SETTINGS)


def wrong_block(wrong, oracle_ops, in_channels, out_channels):
    """Why a basic block fails to run, in words, or None."""
    convs = wide(wrong.ops)
    if repeated(convs):
        return repeated(convs)
    layer = wrong_layer(wrong.ops, oracle_ops, place_in_block)
    if layer:
        return layer
    if len(convs) == 2:  # the branch ran, so it is the shortcut
        mismatch = f"to have {in_channels} channels, but got {out_channels} channels"
        if mismatch in str(wrong):
            return "the shortcut is taken of the branch, not of the block's input"
        needs_projection = len(oracle_ops) > 4
        if needs_projection and not convolutions(wrong.ops, 1):
            return "the block's input is added as it is, without the projection of make_shortcut"
    return wrong_channels(wrong)


def place_in_block(index):
    """Which of a basic block's 3x3 convolutions has this index, in words."""
    return f"the {('first', 'second')[index]} 3x3 convolution"


# Networks


def extra(ops, oracle_ops=()):
    """What ran that the oracle does not have, in words, or None."""
    expected = {op.kind for op in oracle_ops}
    for op in ops:
        if op.kind in EXTRAS and op.kind not in expected:
            return EXTRAS[op.kind]
    return None


def wide(ops):
    """The convolutions larger than 1x1, in running order: the way through the branches."""
    return [op for op in of_kind(ops, "conv2d") if op.weight.shape[2:] != (1, 1)]


def repeated(convs):
    """Whether one of these convolutions ran more than once, in words, or None."""
    if len({id(op.weight) for op in convs}) < len(convs):
        return "one convolution runs twice; each place needs a layer of its own"
    return None


def wrong_layer(ops, oracle_ops, place):
    """The first convolution that is not made as the oracle's, in words, or None.

    place(index) says where the convolution with this index is.
    """
    for index, (own, oracle) in enumerate(zip(wide(ops), wide(oracle_ops))):
        difference = layer_difference(own, oracle)
        if difference:
            return f"{place(index)} {difference}"
    return None


def layer_difference(own, oracle):
    """In what a convolution differs from the oracle's, in words, or None."""
    if describe(own) != describe(oracle):
        return f"is {describe(own)}, expected {describe(oracle)}"
    for name in ("stride", "dilation", "groups"):
        got = first(getattr(own, name))
        expected = first(getattr(oracle, name))
        if got != expected:
            return f"has {name} {got}, expected {expected}"
    same_input = own.input.shape[2:] == oracle.input.shape[2:]
    if same_input and own.output.shape[2:] != oracle.output.shape[2:]:
        return f"has padding {first(own.padding)}, expected {first(oracle.padding)}"
    return None


def wrong_channels(wrong):
    """What to say of a layer that does not fit what reaches it, or None."""
    mismatch = re.search(r"to have (\d+) channels, but got (\d+) channels", str(wrong))
    if mismatch:
        return (
            f"a convolution that is made for {mismatch[1]} channels gets {mismatch[2]}; look at "
            "what it is called with, and at its in_channels"
        )
    if "Output size is too small" in str(wrong):
        return FIXED_POOLING
    mismatch = re.search(r"mat1 and mat2.*\((\d+)x(\d+) and (\d+)x(\d+)\)", str(wrong))
    if not mismatch:
        return None
    convs = of_kind(wrong.ops, "conv2d")
    channels = len(convs[-1].weight) if convs else None
    if int(mismatch[2]) == channels:
        return (
            f"the linear layer is made for {mismatch[3]} numbers, "
            f"but the last convolution outputs {channels} channels"
        )
    return (
        "what reaches the linear layer is not (batch, channels of the last stage): "
        "take the mean over all positions, then flatten"
    )


def wrong_network(ops, oracle_ops, blocks, place):
    """What is wrong with a network's layers, in words, or None.

    blocks: how many each stage has. place(index) says where a convolution is.
    """
    if repeated(wide(ops)):
        return repeated(wide(ops))
    return (
        wrong_counts(ops, oracle_ops, blocks)
        or wrong_layer(ops, oracle_ops, place)
        or wrong_linear(ops, oracle_ops)
    )


def wrong_counts(ops, oracle_ops, blocks):
    """How many blocks the stages have, in words, if that is wrong; or None."""
    own = stage_lengths(ops)
    oracle = stage_lengths(oracle_ops)
    convs_per_block = sum(oracle) / sum(blocks)
    missing = (sum(oracle) - sum(own)) / convs_per_block
    if len(own) < len(oracle) and missing in blocks:
        channels = dict.fromkeys(str(len(op.weight)) for op in wide(ops)[1:])
        return (
            f"{missing:g} of {sum(blocks)} blocks are missing; the others output "
            f"{', '.join(channels)} channels"
        )
    if len(own) != len(oracle) or own == oracle:
        return None
    counts = [f"{convs / convs_per_block:g}" for convs in own]
    return (
        "counted by the channels that their convolutions output, the stages have "
        f"{', '.join(counts)} blocks, expected {', '.join(map(str, blocks))}"
    )


def stage_lengths(ops):
    """How many convolutions in a row output the same number of channels, the stem's left out."""
    lengths = []
    before = None
    for op in wide(ops)[1:]:
        channels = len(op.weight)
        if channels == before:
            lengths[-1] += 1
        else:
            lengths.append(1)
        before = channels
    return lengths


def wrong_linear(ops, oracle_ops):
    """What is wrong with the size of the linear layer, in words, or None."""
    linears = of_kind(ops, "linear")
    if not linears:
        return None
    outputs, inputs = linears[0].weight.shape
    expected_outputs, expected_inputs = of_kind(oracle_ops, "linear")[0].weight.shape
    if inputs != expected_inputs:
        return (
            f"the linear layer takes {inputs} numbers, expected {expected_inputs}: "
            "take the mean over all positions first"
        )
    if outputs != expected_outputs:
        return (
            f"the linear layer outputs {outputs} numbers, expected num_classes = {expected_outputs}"
        )
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
    matches = [words for words, value in mistakes.items() if is_close(got, value, 1e-3)]
    if len(matches) == 1:
        return matches[0]
    return extra(ops, oracle_ops) or (
        "all is right up to the last 3x3 convolution; look at the end of the last block, and at "
        "the head: the mean over all positions, then one linear layer"
    )


def wrong_between(pairs, ops, oracle_ops, place, index):
    """What is wrong before the 3x3 convolution with this index, in words, or None.

    Its input is the first to differ from the oracle's.
    """
    own = convolution_pairs(pairs)[index][0]
    for op in of_kind(ops, "batch_norm"):
        if is_close(op.output, own.input) and index == 1:
            return "the stem's ReLU, after its batch norm, is missing"
        if is_close(op.output, own.input):
            return f"the ReLU before {place(index)} is missing"
    return extra(ops, oracle_ops)


def convolution_pairs(pairs):
    """The pairs of a network's 3x3 convolutions and the oracle's."""
    return [pair for pair in pairs if pair[0].kind == "conv2d" and kernel(pair[0]) == 3]


def first_difference(pairs, tolerance=1e-4):
    """The index of the first 3x3 convolution whose input is not the oracle's, or None.

    Index 0 is the stem's.
    """
    for index, (own, oracle) in enumerate(convolution_pairs(pairs)):
        if not is_close(own.input, oracle.input, tolerance):
            return index
    return None


def place_in_resnet18(index):
    """Where in ResNet-18 the 3x3 convolution with this index is, the stem's being 0."""
    if index == 0:
        return "the stem's convolution"
    stage, rest = divmod(index - 1, 4)
    return f"stage {stage + 1}, block {rest // 2 + 1}, convolution {rest % 2 + 1}"


def lost_digits(got, expected):
    """That a part of a block rounded to fewer digits, in words, or None."""
    if is_close(got, expected):
        return "a part of it computes in float32, and rounds; leave the dtype as it comes"
    return None


def what_is_kept(output, earlier_output, kept):
    """That a block still computes what it computed in an earlier call, in words, or None."""
    if is_close(output, earlier_output):
        return f"it keeps its {kept} from the call before; compute anew in every call"
    return None


# Exercise 4: the bottleneck


def bottleneck_parts(x, ops, training):
    """What a correct bottleneck computes on its way, with the learner's weights."""
    middle = convolutions(ops, 3)[0]
    first_conv, last_conv, *projections = projections_last(convolutions(ops, 1))

    def step(value, op):
        return norm(conv(value, op), norm_after(ops, op), training)

    after_first = step(x, first_conv)
    after_middle = step(after_first.relu(), middle)
    branch = step(after_middle.relu(), last_conv)
    shortcut = x
    late_shortcut = None  # of which positions are left out after its batch norm, not before
    if projections:
        stride = max(first(op.stride) for op in (first_conv, middle, last_conv))
        shortcut = step(x, projections[0])
        if shortcut.shape != branch.shape:
            late_shortcut = shortcut[:, :, ::stride, ::stride]
            shortcut = step(x[:, :, ::stride, ::stride], projections[0])
    middle_without_relu = step(after_first, middle)
    return SimpleNamespace(
        x=x,
        branch=branch,
        shortcut=shortcut,
        late_shortcut=late_shortcut,
        output=(branch + shortcut).relu(),
        without_first_relu=step(middle_without_relu.relu(), last_conv),
        without_second_relu=step(after_middle, last_conv),
        without_both_relus=step(middle_without_relu, last_conv),
        has_projection=bool(projections),
    )


def with_late_shortcut(p):
    if p.late_shortcut is None:
        return None
    return (p.branch + p.late_shortcut).relu()


BOTTLENECK_MISTAKES = ADDITION_MISTAKES | {
    "the shortcut leaves positions out after its batch norm, whose statistics are then those of "
    "all positions; give its 1x1 convolution the stride": with_late_shortcut,
    "the shortcut is taken of the branch, not of the block's input": (
        lambda p: (2 * p.branch).relu()
    ),
    "the ReLU after the first convolution's batch norm is missing": (
        lambda p: (p.without_first_relu + p.shortcut).relu()
    ),
    "the ReLU after the 3x3 convolution's batch norm is missing": (
        lambda p: (p.without_second_relu + p.shortcut).relu()
    ),
    "no ReLU follows the first batch norm, and one follows the last, before the addition; the "
    "ReLUs belong after the first two": (
        lambda p: (p.without_first_relu.relu() + p.shortcut).relu()
    ),
    "both ReLUs inside the branch are missing": (
        lambda p: (p.without_both_relus + p.shortcut).relu()
    ),
}


def wrong_bottleneck(ops, channels):
    """What is wrong with the layers of a bottleneck, or of as much of it as ran, or None."""
    parts = bottleneck_convolutions(ops, channels)
    return (
        wrong_stride(parts) or wrong_padding(parts) or wrong_projection(parts.projection, channels)
    )


def bottleneck_convolutions(ops, channels):
    """The convolutions of a bottleneck, or of as much of it as ran; None for one that did not."""
    ones = convolutions(ops, 1)
    middle = next(iter(convolutions(ops, 3)), None)
    narrow = next((op for op in ones if len(op.weight) == channels), None)
    rest = [op for op in ones if op is not narrow]
    last = None
    if middle is not None:
        last = next((op for op in rest if op.input.shape[1] == channels), None)
    projection = next((op for op in rest if op is not last), None)
    branch = [op for op in of_kind(ops, "conv2d") if op is not projection]
    return SimpleNamespace(
        ones=ones,
        middle=middle,
        narrow=narrow,
        last=last,
        projection=projection,
        branch=branch,
    )


def takes_stride(op):
    """Whether there is a convolution, and it has a stride above 1."""
    return op is not None and first(op.stride) > 1


def wrong_stride(parts):
    """What is wrong with the strides of a bottleneck, in words, or None."""
    in_branch = any(takes_stride(op) for op in parts.branch)
    if takes_stride(parts.projection) and parts.last is not None and not in_branch:
        return "no convolution of the branch takes the stride; the 3x3 convolution should"
    if takes_stride(parts.last):
        return "the stride is on the last 1x1 convolution; it belongs on the 3x3 convolution"
    if takes_stride(parts.middle) and takes_stride(parts.narrow):
        return "two convolutions take the stride; only the 3x3 convolution should"
    return None


def wrong_padding(parts):
    """What is wrong with the padding of a bottleneck, in words, or None."""
    for op in parts.ones:
        padding = first(op.padding)
        if padding not in (0, "same", "valid"):  # for a 1x1 convolution these words mean 0
            return f"the convolution of {describe(op)} has padding {padding}; a 1x1 needs none"
    middle = parts.middle
    if middle is None or first(middle.padding) != 0:
        return None
    if middle.output.shape[2] < middle.input.shape[2]:
        return "the 3x3 convolution has no padding, so it shrinks the image; say padding=1"
    return None


def wrong_projection(projection, channels):
    """What is wrong with the width of a bottleneck's projection, in words, or None."""
    if projection is not None and len(projection.weight) != 4 * channels:
        return (
            f"the projection outputs {len(projection.weight)} channels, "
            f"expected 4 * channels = {4 * channels}"
        )
    return None
