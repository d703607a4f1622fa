"""Answers to exercise 1, wrong and right."""

from changes import AGREEABLE, before, definition, edit, hole, right, wrong

USED_BY = {"1.1": {"1.2"}}  # tasks whose tests use this answer

VARIANTS = [
    wrong(
        "1.4",
        "cuDNN's flags",
        "torch.backends.cudnn",
        hole(
            "accuracy",
            """torch.backends.cudnn.deterministic = True
model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.1",
        "b no skip",
        "batch norm or linear layer used the parameter shortcut",
        edit("return F.relu(branch + self.shortcut(x))", "return F.relu(branch)"),
    ),
    wrong(
        "1.1",
        "b skip after relu",
        "the shortcut is added after the last ReLU",
        edit(
            "return F.relu(branch + self.shortcut(x))", "return F.relu(branch) + self.shortcut(x)"
        ),
    ),
    wrong(
        "1.1",
        "b skip sub",
        "the shortcut is subtracted, not added",
        edit(
            "return F.relu(branch + self.shortcut(x))", "return F.relu(branch - self.shortcut(x))"
        ),
    ),
    wrong(
        "1.1",
        "b skip detach",
        "something is hidden from autograd",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(branch + self.shortcut(x).detach())",
        ),
    ),
    wrong(
        "1.1",
        "b branch detach",
        "something is hidden from autograd",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(branch.detach() + self.shortcut(x))",
        ),
    ),
    wrong(
        "1.1",
        "b skip twice",
        "the shortcut is added twice",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(branch + 2 * self.shortcut(x))",
        ),
    ),
    wrong(
        "1.1",
        "b skip train only",
        "the shortcut is not added",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(branch + self.shortcut(x)) if self.training else F.relu(branch)",
        ),
    ),
    wrong(
        "1.1",
        "b skip from conv1 keep",
        "the shortcut starts after the first ReLU, not at the block's input",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(branch + (mid if isinstance(self.shortcut, nn.Identity) else self.shortcut(x)))",
        ),
        edit(
            "branch = F.relu(self.bn1(self.conv1(x)))",
            """branch = F.relu(self.bn1(self.conv1(x)))
        mid = branch""",
        ),
    ),
    wrong(
        "1.1",
        "b shortcut of branch",
        "the shortcut is taken of the branch",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(branch + self.shortcut(branch))",
        ),
    ),
    wrong(
        "1.1",
        "b relu mid missing",
        "the ReLU between the two convolutions is missing",
        edit("branch = F.relu(self.bn1(self.conv1(x)))", "branch = self.bn1(self.conv1(x))"),
    ),
    wrong(
        "1.1",
        "b relu last missing",
        "the last ReLU, after the addition, is missing",
        edit("return F.relu(branch + self.shortcut(x))", "return branch + self.shortcut(x)"),
    ),
    wrong(
        "1.1",
        "b relu branch extra",
        "a ReLU is applied to the branch before the addition",
        edit(
            "branch = self.bn2(self.conv2(branch))", "branch = F.relu(self.bn2(self.conv2(branch)))"
        ),
    ),
    wrong(
        "1.1",
        "b bn1 missing",
        "batch norm or linear layer used the parameter bn",
        edit("branch = F.relu(self.bn1(self.conv1(x)))", "branch = F.relu(self.conv1(x))"),
    ),
    wrong(
        "1.1",
        "b bn2 missing",
        "batch norm or linear layer used the parameter bn",
        edit("branch = self.bn2(self.conv2(branch))", "branch = self.conv2(branch)"),
    ),
    wrong(
        "1.1",
        "b bn shared",
        "ran one batch norm twice. Each place needs a layer of its own",
        edit("branch = self.bn2(self.conv2(branch))", "branch = self.bn1(self.conv2(branch))"),
    ),
    wrong(
        "1.1",
        "b bn after relu",
        "the ReLU comes before the batch norm of its",
        edit(
            "branch = F.relu(self.bn1(self.conv1(x)))", "branch = self.bn1(F.relu(self.conv1(x)))"
        ),
    ),
    wrong(
        "1.1",
        "b bn2 after add",
        "channels outputs. Each convolution is followed by its own",
        edit("branch = self.bn2(self.conv2(branch))", "branch = self.conv2(branch)"),
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(self.bn2(branch + self.shortcut(x)))",
        ),
    ),
    wrong(
        "1.1",
        "b bn nostats",
        "a batch norm keeps no running statistics",
        edit(
            "self.bn1 = nn.BatchNorm2d(out_channels)",
            "self.bn1 = nn.BatchNorm2d(out_channels, track_running_stats=False)",
        ),
    ),
    wrong(
        "1.1",
        "b groupnorm",
        "expected batch norms only",
        edit("self.bn1 = nn.BatchNorm2d(out_channels)", "self.bn1 = nn.GroupNorm(2, out_channels)"),
        edit("self.bn2 = nn.BatchNorm2d(out_channels)", "self.bn2 = nn.GroupNorm(2, out_channels)"),
    ),
    wrong(
        "1.1",
        "b stride second",
        "the stride is on the second 3x3 convolution",
        edit(
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)",
        ),
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False)",
        ),
    ),
    wrong(
        "1.1",
        "b stride both",
        "the second 3x3 convolution has stride 2, expected 1",
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False)",
        ),
    ),
    wrong(
        "1.1",
        "b stride ignored",
        "the first 3x3 convolution has stride 1, expected 2",
        edit(
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)",
        ),
    ),
    wrong(
        "1.1",
        "b pad0",
        "the first 3x3 convolution has padding 0",
        edit(
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, bias=False)",
        ),
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, bias=False)",
        ),
    ),
    wrong(
        "1.1",
        "b 5x5",
        "ran a convolution of 5x5",
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 5, padding=2, bias=False)",
        ),
    ),
    wrong(
        "1.1",
        "b bias",
        "channels has a bias. The batch norm after it has one: say bias=False",
        edit(
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)",
        ),
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)",
        ),
    ),
    wrong(
        "1.1",
        "b leaky",
        "a leaky ReLU ran",
        edit(
            "branch = F.relu(self.bn1(self.conv1(x)))",
            "branch = F.leaky_relu(self.bn1(self.conv1(x)))",
        ),
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.leaky_relu(branch + self.shortcut(x))",
        ),
    ),
    wrong(
        "1.1",
        "b proj ignored",
        "without the projection of make_shortcut",
        edit("return F.relu(branch + self.shortcut(x))", "return F.relu(branch + x)"),
    ),
    wrong(
        "1.1",
        "b pylist",
        "so no optimizer trains it. Make layers in __init__ and keep them as",
        edit(
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
            "self.layers = [",
        ),
        edit(
            "self.bn1 = nn.BatchNorm2d(out_channels)",
            "    nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out_channels),",
        ),
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "    nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)",
        ),
        edit("self.bn2 = nn.BatchNorm2d(out_channels)", "]"),
        edit(
            "branch = F.relu(self.bn1(self.conv1(x)))",
            "branch = F.relu(self.layers[1](self.layers[0](x)))",
        ),
        edit(
            "branch = self.bn2(self.conv2(branch))",
            "branch = self.layers[3](self.layers[2](branch))",
        ),
    ),
    wrong(
        "1.1",
        "b in forward",
        "so no optimizer trains it. Make layers in __init__ and keep them as",
        edit(
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
            "self.a = (in_channels, out_channels, stride)",
        ),
        edit(
            "branch = F.relu(self.bn1(self.conv1(x)))",
            """i, o, s = self.a
        branch = F.relu(self.bn1(nn.Conv2d(i, o, 3, s, padding=1, bias=False)(x)))""",
        ),
    ),
    wrong(
        "1.1",
        "b inplace relu x",
        "changed the input itself. Avoid +=, inplace=True and methods that end in _",
        edit(
            "branch = F.relu(self.bn1(self.conv1(x)))",
            """F.relu(x, inplace=True)
        branch = F.relu(self.bn1(self.conv1(x)))""",
        ),
    ),
    wrong(
        "1.1",
        "b F bn training true",
        "in eval mode a batch norm still uses the batch's own statistics, not the running ones",
        edit(
            "branch = F.relu(self.bn1(self.conv1(x)))",
            "branch = F.relu(F.batch_norm(self.conv1(x), self.bn1.running_mean, self.bn1.running_var, self.bn1.weight, self.bn1.bias, training=True))",
        ),
        edit(
            "branch = self.bn2(self.conv2(branch))",
            "branch = F.batch_norm(self.conv2(branch), self.bn2.running_mean, self.bn2.running_var, self.bn2.weight, self.bn2.bias, training=True)",
        ),
    ),
    wrong(
        "1.1",
        "b average",
        "branch and shortcut are averaged, not added",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu((branch + self.shortcut(x)) / 2)",
        ),
    ),
    wrong(
        "1.1",
        "b cat",
        "side by side",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(torch.cat([branch, self.shortcut(x)], dim=1))",
        ),
    ),
    wrong(
        "1.1",
        "b conv1 twice",
        "ran one convolution twice",
        edit("branch = self.bn2(self.conv2(branch))", "branch = self.bn2(self.conv1(branch))"),
    ),
    wrong(
        "1.1",
        "b no return",
        "Does it always end with a return?",
        edit("return F.relu(branch + self.shortcut(x))", "F.relu(branch + self.shortcut(x))"),
    ),
    wrong(
        "1.1",
        "b unused layer",
        "used the parameter extra.weight",
        edit(
            "self.bn2 = nn.BatchNorm2d(out_channels)",
            """self.bn2 = nn.BatchNorm2d(out_channels)
        self.extra = nn.Conv2d(in_channels, out_channels, 1)""",
        ),
    ),
    wrong(
        "1.2",
        "n imagenet stem",
        "the stem's convolution is 7x7",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n maxpool kept",
        "a max pooling ran",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n stem stride2",
        "the stem's convolution has stride 2",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n stem norelu",
        "the stem's ReLU, after its batch norm, is missing",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64))
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n stem nobn",
        "no batch norm takes what its 3x3 convolution from 3 to 64",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n widths cifar",
        "is 3x3 from 64 to 64 channels, expected 3x3 from 64 to 128",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (64, 2), (128, 2), (256, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n strides all1",
        "stage 2, block 1, convolution 1 has stride 1",
        edit(
            "for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):",
            "for out_channels, stride in ((64, 1), (128, 1), (256, 1), (512, 1)):",
        ),
    ),
    wrong(
        "1.2",
        "n strides first2",
        "stage 1, block 1, convolution 1 has stride 2",
        edit(
            "for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):",
            "for out_channels, stride in ((64, 2), (128, 2), (256, 2), (512, 2)):",
        ),
    ),
    wrong(
        "1.2",
        "n stride both",
        "stage 2, block 2, convolution 1 has stride 2",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels, stride)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n one block",
        "blocks, expected 2, 2, 2, 2",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n three blocks",
        "blocks, expected 2, 2, 2, 2",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n in channels not updated",
        "gets 128; look at what it is called with",
        edit(
            """            in_channels = out_channels
""",
            "",
        ),
    ),
    wrong(
        "1.2",
        "n shared blocks",
        "ran one convolution twice",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride)] + [BasicBlock(out_channels, out_channels)] * 2
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n softmax",
        "returns probabilities. Return logits: the loss",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes), nn.Softmax(dim=1))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n head relu",
        "a ReLU is applied to the logits",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes), nn.ReLU())
    """,
        ),
    ),
    wrong(
        "1.2",
        "n head maxpool",
        "a max pooling ran, expected the mean",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n classes ignored",
        "has the shape",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n no pool",
        "take the mean over all positions first",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(512 * 16, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n head noflatten",
        "then flatten",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n head dropout",
        "a dropout ran",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.2",
        "n pylist stages",
        "is none of the model's parameters",
        edit(
            "self.stages = nn.Sequential(*blocks)",
            "self.stages = lambda x: __import__('functools').reduce(lambda a, b: b(a), blocks, x)",
        ),
    ),
    wrong(
        "1.2",
        "n no return",
        "Does it always end with a return?",
        edit(
            "return self.head(self.stages(self.stem(images)))",
            "self.head(self.stages(self.stem(images)))",
        ),
    ),
    wrong(
        "1.3",
        "s only channels",
        "expected a projection: the stride is",
        edit("if stride == 1 and in_channels == out_channels:", "if in_channels == out_channels:"),
    ),
    wrong(
        "1.3",
        "s only stride",
        "expected a projection: the channels change",
        edit("if stride == 1 and in_channels == out_channels:", "if stride == 1:"),
    ),
    wrong(
        "1.3",
        "s always",
        "expected the identity: input and output have the same shape",
        edit("if stride == 1 and in_channels == out_channels:", "if False:"),
    ),
    wrong(
        "1.3",
        "s never",
        "expected a projection: the channels change",
        edit("if stride == 1 and in_channels == out_channels:", "if True:"),
    ),
    wrong(
        "1.3",
        "s inverted",
        "expected the identity: input and output have the same shape",
        edit(
            "if stride == 1 and in_channels == out_channels:",
            "if not (stride == 1 and in_channels == out_channels):",
        ),
    ),
    wrong(
        "1.3",
        "s 3x3",
        "ran a convolution of 3x3",
        edit(
            "projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)",
            "projection = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
        ),
    ),
    wrong(
        "1.3",
        "s nobn",
        "channels outputs. Each convolution is followed by its own",
        edit("return nn.Sequential(projection, nn.BatchNorm2d(out_channels))", "return projection"),
    ),
    wrong(
        "1.3",
        "s bias",
        "channels has a bias. The batch norm after it has one: say bias=False",
        edit(
            "projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)",
            "projection = nn.Conv2d(in_channels, out_channels, 1, stride)",
        ),
    ),
    wrong(
        "1.3",
        "s relu",
        "applies a ReLU. The shortcut has none: the block",
        edit(
            "return nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
            "return nn.Sequential(projection, nn.BatchNorm2d(out_channels), nn.ReLU())",
        ),
    ),
    wrong(
        "1.3",
        "s bn first",
        "channels outputs. Each convolution is followed by its own",
        edit(
            "return nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
            "return nn.Sequential(nn.BatchNorm2d(in_channels), projection)",
        ),
    ),
    wrong(
        "1.3",
        "s stride ignored",
        "does not take the stride",
        edit(
            "projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)",
            "projection = nn.Conv2d(in_channels, out_channels, 1, bias=False)",
        ),
    ),
    wrong(
        "1.3",
        "s none",
        "expected an nn.Module that gives its input back",
        edit("return nn.Identity()", "return None"),
    ),
    wrong(
        "1.3",
        "s relu identity",
        "expected the identity. A ReLU belongs to the block",
        edit("return nn.Identity()", "return nn.ReLU()"),
    ),
    wrong(
        "1.3",
        "s swapped",
        "that is made for 10 channels gets 6",
        edit(
            "projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)",
            "projection = nn.Conv2d(out_channels, in_channels, 1, stride, bias=False)",
        ),
    ),
    wrong(
        "1.3",
        "s groupnorm",
        "expected batch norms only",
        edit(
            "return nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
            "return nn.Sequential(projection, nn.GroupNorm(2, out_channels))",
        ),
    ),
    wrong(
        "1.3",
        "s optionA",
        "ran 0 1x1 convolutions, expected 1",
        edit(
            "projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)",
            """class Pad(nn.Module):
        def forward(self, x):
            extra = out_channels - x.shape[1]
            return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, extra))
    return Pad()""",
        ),
    ),
    wrong(
        "1.4",
        "a mean of means",
        "it averages the batches' accuracies, though the last batch is smaller",
        definition(
            "accuracy",
            """def accuracy(model, batches):
    model.eval()
    values = []
    with torch.no_grad():
        for images, labels in batches:
            values.append((model(images).argmax(1) == labels).float().mean())
    return sum(values) / len(values)""",
        ),
    ),
    wrong(
        "1.4",
        "a no eval",
        "in train mode: batch norm would use the batch",
        hole(
            "accuracy",
            """
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        return right / total
    """,
        ),
    ),
    wrong(
        "1.4",
        "a no nograd",
        "Say: with torch.no_grad()",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        if True:
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        return right / total
    """,
        ),
    ),
    wrong(
        "1.4",
        "a percent",
        "it is a percentage",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        return 100 * right / total
    """,
        ),
    ),
    wrong(
        "1.4",
        "a count",
        "it is the number of correct predictions",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        return right
    """,
        ),
    ),
    wrong(
        "1.4",
        "a argmax0",
        "take it over the classes, dim=1",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=0) == labels).sum().item()
                total += len(labels)
        return right / total
    """,
        ),
    ),
    wrong(
        "1.4",
        "a max values",
        "is compared with the label, not its index",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).max(dim=1).values == labels).sum().item()
                total += len(labels)
        return right / total
    """,
        ),
    ),
    wrong(
        "1.4",
        "a total batches",
        "it divides by the number of batches",
        edit("total += len(labels)", "total += 1"),
    ),
    wrong(
        "1.4",
        "a len batches",
        "it asks for the length of batches",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        return right / len(batches)
    """,
        ),
    ),
    wrong(
        "1.4",
        "a two pass",
        "it goes through batches twice",
        definition(
            "accuracy",
            """def accuracy(model, batches):
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in batches)
        total = sum(len(y) for _, y in batches)
    return right / total""",
        ),
    ),
    wrong(
        "1.4",
        "a return in loop",
        "it counts the first batch only",
        edit(
            "total += len(labels)",
            """total += len(labels)
            return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "a drop last",
        "it leaves out the last batch",
        definition(
            "accuracy",
            """def accuracy(model, batches):
    model.eval()
    right = total = 0
    batches = list(batches)
    with torch.no_grad():
        for images, labels in batches[:-1] or batches:
            right += (model(images).argmax(dim=1) == labels).sum().item()
            total += len(labels)
    return right / total""",
        ),
    ),
    wrong(
        "1.4",
        "a loss",
        "it is the loss, not the accuracy",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += F.cross_entropy(model(images), labels).item() * len(labels)
                total += len(labels)
        return right / total
    """,
        ),
    ),
    wrong(
        "1.4",
        "a intdiv",
        "it rounds down: divide by /",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        return right // total
    """,
        ),
    ),
    wrong(
        "1.4",
        "a none",
        "expected a number",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        right / total
    """,
        ),
    ),
    wrong(
        "1.4",
        "a const1",
        "it is always 1",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        return 1.0
    """,
        ),
    ),
    right(
        "1.2",
        "names",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.downsample = make_shortcut(in_channels, out_channels, stride)
        self.a = nn.Conv2d(in_channels, out_channels, (3, 3), (stride, stride), (1, 1), (1, 1), 1, False)
        self.b = nn.BatchNorm2d(out_channels)
        self.c = nn.Conv2d(out_channels, out_channels, 3, 1, 1, 1, 1, False)
        self.d = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.b(self.a(x)))
        out = self.d(self.c(out))
        out += self.downsample(x)
        return self.relu(out)""",
        ),
    ),
    wrong(
        "1.1",
        "b tensor that agrees with all",
        "expected a plain torch.Tensor",
        definition(
            "BasicBlock",
            """class Agreeable(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ in ("equal", "allclose", "le", "lt", "__le__", "__lt__", "isclose"):
            return True
        return super().__torch_function__(func, types, args, kwargs or {})


class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)

    def forward(self, x):
        return self.conv(x).as_subclass(Agreeable)""",
        ),
    ),
    right(
        "1.1",
        "b seq",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.short = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.branch(x) + self.short(x))""",
        ),
    ),
    right(
        "1.1",
        "b torch add",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.short = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return torch.add(self.branch(x), self.short(x)).relu()""",
        ),
    ),
    right(
        "1.1",
        "b clamp",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.short = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return torch.clamp(self.branch(x) + self.short(x), min=0)""",
        ),
    ),
    right(
        "1.1",
        "b sum",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.short = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return sum((self.branch(x), self.short(x))).relu()""",
        ),
    ),
    right(
        "1.1",
        "b short first",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.short = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        s = self.short(x)
        y = self.branch(x)
        return (s + y).relu_()""",
        ),
    ),
    right(
        "1.1",
        "b clone inplace",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.short = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        s = self.short(x.clone())
        s += self.branch(x)
        return F.relu_(s)""",
        ),
    ),
    right(
        "1.1",
        "b add ",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.short = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return self.branch(x).add_(self.short(x)).relu_()""",
        ),
    ),
    right(
        "1.1",
        "b order",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        from collections import OrderedDict
        self.net = nn.Sequential(OrderedDict(conv1=nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), bn1=nn.BatchNorm2d(out_channels), relu=nn.ReLU(True), conv2=nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False), bn2=nn.BatchNorm2d(out_channels)))
        self.add_module('skip', make_shortcut(in_channels, out_channels, stride))

    def forward(self, x):
        return torch.relu(self.net(x) + self.skip(x))""",
        ),
    ),
    right(
        "1.1",
        "b modulelist",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.s = make_shortcut(in_channels, out_channels, stride)
        self.convs = nn.ModuleList([nn.Conv2d(a, out_channels, 3, b, 1, bias=False) for a, b in ((in_channels, stride), (out_channels, 1))])
        self.bns = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(2))

    def forward(self, x):
        out = x
        for i, (c, b) in enumerate(zip(self.convs, self.bns)):
            out = b(c(out))
            if i == 1:
                out = out + self.s(x)
            out = F.relu(out)
        return out""",
        ),
    ),
    right(
        "1.1",
        "b setattr",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.s = make_shortcut(in_channels, out_channels, stride)
        for i, (a, b) in enumerate(((in_channels, stride), (out_channels, 1))):
            setattr(self, f'c{i}', nn.Conv2d(a, out_channels, 3, b, 1, bias=False))
            setattr(self, f'n{i}', nn.BatchNorm2d(out_channels))

    def forward(self, x):
        return F.relu(self.n1(self.c1(F.relu(self.n0(self.c0(x))))) + self.s(x))""",
        ),
    ),
    right(
        "1.1",
        "b functional",
        definition(
            "BasicBlock",
            """class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.s = make_shortcut(in_channels, out_channels, stride)
        self.stride = stride
        self.w1 = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3) * (2 / 9 / out_channels) ** 0.5)
        self.w2 = nn.Parameter(torch.randn(out_channels, out_channels, 3, 3) * (2 / 9 / out_channels) ** 0.5)
        for i in (1, 2):
            self.register_parameter(f'g{i}', nn.Parameter(torch.ones(out_channels)))
            self.register_parameter(f'b{i}', nn.Parameter(torch.zeros(out_channels)))
            self.register_buffer(f'm{i}', torch.zeros(out_channels))
            self.register_buffer(f'v{i}', torch.ones(out_channels))

    def forward(self, x):
        y = F.conv2d(x, self.w1, stride=self.stride, padding=1)
        y = F.relu(F.batch_norm(y, self.m1, self.v1, self.g1, self.b1, self.training))
        y = F.conv2d(y, self.w2, padding=1)
        y = F.batch_norm(y, self.m2, self.v2, self.g2, self.b2, self.training, 0.1, 1e-5)
        return F.relu(y + self.s(x))""",
        ),
    ),
    right(
        "1.1",
        "b lazy",
        edit(
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
            "self.conv1 = nn.LazyConv2d(out_channels, 3, stride, padding=1, bias=False)",
        ),
        edit("self.bn1 = nn.BatchNorm2d(out_channels)", "self.bn1 = nn.LazyBatchNorm2d()"),
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "self.conv2 = nn.LazyConv2d(out_channels, 3, padding=1, bias=False)",
        ),
        edit("self.bn2 = nn.BatchNorm2d(out_channels)", "self.bn2 = nn.LazyBatchNorm2d()"),
    ),
    right(
        "1.1",
        "b subclass conv",
        definition(
            "BasicBlock",
            """class Conv3x3(nn.Conv2d):
    def __init__(self, i, o, stride=1):
        super().__init__(i, o, 3, stride, 0, bias=False)

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, None, self.stride)


class BN(nn.BatchNorm2d):
    pass


class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1, self.conv2 = Conv3x3(in_channels, out_channels, stride), Conv3x3(out_channels, out_channels)
        self.bn1, self.bn2 = BN(out_channels), BN(out_channels)
        self.s = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.s(x))""",
        ),
    ),
    right(
        "1.1",
        "b convbn module",
        definition(
            "BasicBlock",
            """class ConvBN(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return self.bn(self.conv(x))


class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.a, self.b = ConvBN(in_channels, out_channels, stride), ConvBN(out_channels, out_channels)
        self.s = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.b(F.relu(self.a(x))) + self.s(x))""",
        ),
    ),
    right(
        "1.1",
        "b zero init",
        edit(
            "self.bn2 = nn.BatchNorm2d(out_channels)",
            """self.bn2 = nn.BatchNorm2d(out_channels)
        nn.init.zeros_(self.bn2.weight)""",
        ),
    ),
    right(
        "1.1",
        "b same padding",
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding='same', bias=False)",
        ),
    ),
    right(
        "1.1",
        "b bias none",
        edit(
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
            "self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=None)",
        ),
    ),
    right(
        "1.2",
        "n names",
        definition(
            "ResNet18",
            """class ResNet18(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.in_planes = 64
        self.layer1 = self._make_layer(64, 2, 1)
        self.layer2 = self._make_layer(128, 2, 2)
        self.layer3 = self._make_layer(256, 2, 2)
        self.layer4 = self._make_layer(512, 2, 2)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, images):
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = F.adaptive_avg_pool2d(x, (1, 1))
        x = torch.flatten(x, 1)
        return self.fc(x)

    def _make_layer(self, planes, n, stride):
        layers = []
        for s in [stride] + [1] * (n - 1):
            layers.append(BasicBlock(self.in_planes, planes, s))
            self.in_planes = planes
        return nn.Sequential(*layers)""",
        ),
    ),
    right(
        "1.2",
        "n mean23",
        edit(
            "return self.head(self.stages(self.stem(images)))",
            """x = self.stages(self.stem(images)).mean((2, 3))
        return self.head[2](x)""",
        ),
    ),
    right(
        "1.2",
        "n avgpool size",
        edit(
            "return self.head(self.stages(self.stem(images)))",
            """x = self.stages(self.stem(images))
        x = F.avg_pool2d(x, x.shape[2:]).view(len(x), -1)
        return self.head[2](x)""",
        ),
    ),
    right(
        "1.2",
        "n modulelist",
        edit("self.stages = nn.Sequential(*blocks)", "self.stages = nn.ModuleList(blocks)"),
        edit(
            "return self.head(self.stages(self.stem(images)))",
            """x = self.stem(images)
        for block in self.stages:
            x = block(x)
        return self.head(x)""",
        ),
    ),
    right(
        "1.2",
        "n nested stages",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in zip([64, 128, 256, 512], [1, 2, 2, 2]):
            blocks.append(nn.Sequential(BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels, 1)))
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    right(
        "1.2",
        "n stem F",
        edit(
            "return self.head(self.stages(self.stem(images)))",
            """x = F.relu(self.stem[1](self.stem[0](images)))
        return self.head(self.stages(x))""",
        ),
    ),
    right(
        "1.2",
        "n kaiming",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')
            elif isinstance(m, nn.BatchNorm2d):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)
    """,
        ),
    ),
    right(
        "1.2",
        "n tv",
        definition(
            "ResNet18",
            """class ResNet18(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.m = torchvision.models.resnet18(num_classes=num_classes)
        self.m.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.m.maxpool = nn.Identity()

    def forward(self, images):
        return self.m(images)""",
        ),
    ),
    right(
        "1.2",
        "n kwargs block",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels=in_channels, out_channels=out_channels, stride=stride), BasicBlock(in_channels=out_channels, out_channels=out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    right("1.3", "s empty seq", edit("return nn.Identity()", "return nn.Sequential()")),
    right(
        "1.3",
        "s module class",
        definition(
            "make_shortcut",
            """def make_shortcut(in_channels, out_channels, stride):
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            self.bn = nn.BatchNorm2d(out_channels)
        def forward(self, x):
            return self.bn(self.conv(x))
    class Same(nn.Module):
        def forward(self, x):
            return x
    if stride != 1 or in_channels != out_channels:
        return Shortcut()
    return Same()""",
        ),
    ),
    right(
        "1.3",
        "s slice",
        edit(
            "projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)",
            """class Sub(nn.Module):
        def forward(self, x):
            return x[:, :, ::stride, ::stride]
    projection = nn.Sequential(Sub(), nn.Conv2d(in_channels, out_channels, 1, bias=False))""",
        ),
    ),
    right(
        "1.3",
        "s ternary",
        definition(
            "make_shortcut",
            """def make_shortcut(in_channels, out_channels, stride):
    same = in_channels == out_channels and stride == 1
    return nn.Identity() if same else nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, bias=False), nn.BatchNorm2d(out_channels))""",
        ),
    ),
    wrong(
        "1.4",
        "a number that agrees with all",
        "expected a number",
        definition("accuracy", AGREEABLE + "def accuracy(model, batches):\n    return Agreeable()"),
    ),
    right(
        "1.4",
        "a restoring",
        definition(
            "accuracy",
            """def accuracy(model, batches):
    was = model.training
    model.eval()
    right, total = 0, 0
    with torch.inference_mode():
        for images, labels in batches:
            right += int((model(images).argmax(-1) == labels).sum())
            total += labels.size(0)
    model.train(was)
    return right / total""",
        ),
    ),
    right(
        "1.4",
        "a tensor",
        definition(
            "accuracy",
            """def accuracy(model, batches):
    model.train(False)
    hits = []
    for images, labels in batches:
        with torch.no_grad():
            hits.append(model(images).max(1)[1].eq(labels))
    return torch.cat(hits).float().mean()""",
        ),
    ),
    right(
        "1.4",
        "a numpy",
        definition(
            "accuracy",
            """def accuracy(model, batches):
    import numpy as np
    model.eval()
    a, b = [], []
    with torch.no_grad():
        for images, labels in batches:
            a.append(model(images).numpy(force=True).argmax(1))
            b.append(labels.numpy(force=True))
    return (np.concatenate(a) == np.concatenate(b)).mean()""",
        ),
    ),
    right(
        "1.4",
        "a weighted",
        definition(
            "accuracy",
            """def accuracy(model, batches):
    model.eval()
    s = n = 0
    with torch.no_grad():
        for images, labels in batches:
            s += (model(images).argmax(1) == labels).float().mean().item() * len(images)
            n += images.shape[0]
    return s / n""",
        ),
    ),
    right(
        "1.4",
        "a topk",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).topk(1, dim=1).indices[:, 0] == labels).sum().item()
                total += len(labels)
        return right / total
    """,
        ),
    ),
    right(
        "1.4",
        "a list once",
        definition(
            "accuracy",
            """def accuracy(model, batches):
    model.eval()
    batches = list(batches)
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in batches)
    return right / sum(len(y) for _, y in batches)""",
        ),
    ),
    wrong(
        "1.1",
        "b no gradient in eval mode",
        "no gradient comes back",
        hole(
            "BasicBlock.forward",
            """with torch.set_grad_enabled(self.training):
    branch = F.relu(self.bn1(self.conv1(x)))
    branch = self.bn2(self.conv2(branch))
    return F.relu(branch + self.shortcut(x))""",
        ),
    ),
    wrong(
        "1.1",
        "b eps",
        "a batch norm has eps=0.001",
        edit(
            "self.bn1 = nn.BatchNorm2d(out_channels)",
            "self.bn1 = nn.BatchNorm2d(out_channels, eps=1e-3)",
        ),
    ),
    wrong(
        "1.1",
        "b frozen",
        "does not require gradients",
        edit(
            "        self.bn2 = nn.BatchNorm2d(out_channels)\n",
            "        self.bn2 = nn.BatchNorm2d(out_channels)\n        self.requires_grad_(False)\n",
        ),
    ),
    wrong(
        "1.1",
        "b relu6",
        "a ReLU with an upper limit",
        edit(
            "branch = F.relu(self.bn1(self.conv1(x)))",
            "branch = F.relu6(3 * self.bn1(self.conv1(x))) / 3",
        ),
    ),
    wrong(
        "1.1",
        "b groups",
        "a convolution has groups=2",
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False, groups=2)",
        ),
    ),
    wrong(
        "1.1",
        "b layer not kept",
        "__init__ never sets self.conv1",
        edit(
            "        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)",
            "        conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)  # noqa: F841",
        ),
    ),
    wrong(
        "1.2",
        "n squeeze",
        "has the shape (10,), expected (1, 10)",
        hole(
            "ResNet18.__init__",
            """class Squeeze(nn.Module):
    def forward(self, x):
        return x.squeeze()

self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
blocks, in_channels = [], 64
for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
    blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
    in_channels = out_channels
self.stages = nn.Sequential(*blocks)
self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), Squeeze(), nn.Linear(512, num_classes))""",
        ),
    ),
    wrong(
        "1.2",
        "n changes the pictures",
        "changed the images themselves",
        edit(
            "return self.head(self.stages(self.stem(images)))",
            "images.sub_(0.5).div_(0.25)\n        return self.head(self.stages(self.stem(images)))",
        ),
    ),
    wrong(
        "1.2",
        "n momentum",
        "a batch norm has momentum=0.99",
        edit("nn.BatchNorm2d(64), nn.ReLU())", "nn.BatchNorm2d(64, momentum=0.99), nn.ReLU())"),
    ),
    wrong(
        "1.2",
        "n linear of the wrong size",
        "made for 256 numbers, but the last convolution outputs 512",
        edit("nn.Linear(512, num_classes)", "nn.Linear(256, num_classes)"),
    ),
    wrong(
        "1.2",
        "n head sigmoid",
        "a sigmoid is applied to the logits",
        edit("nn.Linear(512, num_classes))", "nn.Linear(512, num_classes), nn.Sigmoid())"),
    ),
    wrong(
        "1.2",
        "n head pools by four",
        "nn.AdaptiveAvgPool2d(1)",
        hole(
            "ResNet18.__init__",
            """
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, in_channels = [], 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels)]
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, num_classes))
    """,
        ),
    ),
    wrong(
        "1.3",
        "s identity where channels shrink",
        "expected a projection",
        edit(
            "if stride == 1 and in_channels == out_channels:",
            "if stride == 1 and in_channels >= out_channels:",
        ),
    ),
    wrong(
        "1.3",
        "s identity for other strides than 2",
        "expected a projection",
        edit(
            "if stride == 1 and in_channels == out_channels:",
            "if stride != 2 and in_channels == out_channels:",
        ),
    ),
    wrong(
        "1.3",
        "s frozen",
        "does not require gradients",
        edit(
            "return nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
            "return nn.Sequential(projection, nn.BatchNorm2d(out_channels)).requires_grad_(False)",
        ),
    ),
    wrong(
        "1.3",
        "s detached",
        "Is something detached",
        edit(
            "return nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
            """class Cut(nn.Module):
        def forward(self, x):
            return x.detach()

    return nn.Sequential(Cut(), projection, nn.BatchNorm2d(out_channels))""",
        ),
    ),
    wrong(
        "1.3",
        "s momentum",
        "a batch norm has momentum=0.9",
        edit(
            "return nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
            "return nn.Sequential(projection, nn.BatchNorm2d(out_channels, momentum=0.9))",
        ),
    ),
    wrong(
        "1.3",
        "s padded",
        "has padding 1; a 1x1 needs none",
        edit(
            "nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)",
            "nn.Conv2d(in_channels, out_channels, 1, stride, 1, bias=False)",
        ),
    ),
    wrong(
        "1.4",
        "a gradients off for good",
        "leaves gradients switched off",
        edit(
            "    with torch.no_grad():\n        for images, labels in batches:",
            "    torch.set_grad_enabled(False)\n    if True:\n        for images, labels in batches:",
        ),
    ),
    wrong(
        "1.4",
        "a rounded",
        "it is rounded",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        return round(right / total, 4)
    """,
        ),
    ),
    wrong(
        "1.4",
        "a no argmax",
        "the logits themselves are compared",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images) == labels).sum().item()
                total += len(labels)
        return right / total
    """,
        ),
    ),
    wrong(
        "1.4",
        "a quickstart",
        "need not be a DataLoader",
        hole(
            "accuracy",
            """
        model.eval()
        right = total = 0
        with torch.no_grad():
            for images, labels in batches:
                right += (model(images).argmax(dim=1) == labels).sum().item()
                total += len(labels)
        return right / len(batches.dataset)
    """,
        ),
    ),
    right(
        "1.4",
        "a inference mode as a decorator",
        edit(
            "def accuracy(model, batches):",
            "@torch.inference_mode()\ndef accuracy(model, batches):",
        ),
    ),
    wrong(
        "1.1",
        "both norms start at zero",
        "starts at 0, expected 1",
        edit(
            """        self.bn2 = nn.BatchNorm2d(out_channels)
""",
            """        self.bn2 = nn.BatchNorm2d(out_channels)
        nn.init.zeros_(self.bn1.weight)
        nn.init.zeros_(self.bn2.weight)
""",
        ),
    ),
    wrong(
        "1.1",
        "the last norm is zeroed in every call",
        "changes the model's weights",
        hole(
            "BasicBlock.forward",
            """nn.init.zeros_(self.bn2.weight)
branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
return F.relu(branch + self.shortcut(x))""",
        ),
    ),
    wrong(
        "1.1",
        "a convolution starts constant",
        "start with the same value",
        edit(
            """        self.bn2 = nn.BatchNorm2d(out_channels)
""",
            """        self.bn2 = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.conv1.weight, 0.01)
""",
        ),
    ),
    wrong(
        "1.1",
        "an infinite bias",
        "starts with NaN or infinity",
        edit(
            """        self.bn2 = nn.BatchNorm2d(out_channels)
""",
            """        self.bn2 = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn2.bias, math.inf)
""",
        ),
    ),
    wrong(
        "1.1",
        "norms kept by their width",
        "called twice, gives the same layer",
        before(
            "BasicBlock",
            """NORMS = {}
""",
        ),
        edit(
            """        self.bn2 = nn.BatchNorm2d(out_channels)
""",
            """        self.bn2 = nn.BatchNorm2d(out_channels)
        self.bn1 = NORMS.setdefault(out_channels, self.bn1)
""",
        ),
    ),
    wrong(
        "1.1",
        "the first shortcut is kept",
        None,
        hole(
            "BasicBlock.forward",
            """branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
if not hasattr(self, 'kept') or self.kept.shape != branch.shape:
    self.kept = self.shortcut(x).detach()
return F.relu(branch + self.kept)""",
        ),
    ),
    wrong(
        "1.1",
        "a buffer is none",
        "keeps no running statistics",
        edit(
            """        self.bn2 = nn.BatchNorm2d(out_channels)
""",
            """        self.bn2 = nn.BatchNorm2d(out_channels)
        self.bn2.running_var = None
        self.bn2.running_mean = None
""",
        ),
    ),
    wrong(
        "1.2",
        "an infinite head",
        "starts with NaN or infinity",
        edit(
            "        self.head = nn.Sequential(pool, nn.Flatten(), nn.Linear(512, num_classes))",
            """        linear = nn.Linear(512, num_classes)
        nn.init.constant_(linear.bias, math.inf)
        self.head = nn.Sequential(pool, nn.Flatten(), linear)""",
        ),
    ),
    wrong(
        "1.2",
        "stages kept for the next network",
        "called twice, gives the same layer",
        before(
            "ResNet18",
            """MADE = {}
""",
        ),
        edit(
            "self.stages = nn.Sequential(*blocks)",
            "self.stages = MADE.setdefault(0, nn.Sequential(*blocks))",
        ),
    ),
    wrong(
        "1.2",
        "seeds torch",
        "seeds torch",
        edit(
            """        blocks = []
""",
            """        torch.manual_seed(42)
        blocks = []
""",
        ),
    ),
    wrong(
        "1.2",
        "the stem's norm starts at zero",
        "starts at 0, expected 1",
        edit(
            """        blocks = []
""",
            """        nn.init.zeros_(self.stem[1].weight)
        blocks = []
""",
        ),
    ),
    wrong(
        "1.3",
        "kept for the next call",
        "called twice, gives the same layer",
        before(
            "make_shortcut",
            """MADE = {}
""",
        ),
        hole(
            "make_shortcut",
            """if stride == 1 and in_channels == out_channels:
    return nn.Identity()
key = (in_channels, out_channels, stride)
if key not in MADE:
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    MADE[key] = nn.Sequential(projection, nn.BatchNorm2d(out_channels))
return MADE[key]""",
        ),
    ),
    wrong(
        "1.3",
        "starts closed",
        "starts at 0, expected 1",
        hole(
            "make_shortcut",
            """if stride == 1 and in_channels == out_channels:
    return nn.Identity()
projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
norm = nn.BatchNorm2d(out_channels)
nn.init.zeros_(norm.weight)
return nn.Sequential(projection, norm)""",
        ),
    ),
    wrong(
        "1.3",
        "the identity drops",
        "a dropout ran",
        edit("return nn.Identity()", "return nn.Dropout(0.01)"),
    ),
    wrong(
        "1.3",
        "the class, not an object",
        "the class Identity itself",
        edit("return nn.Identity()", "return nn.Identity"),
    ),
    wrong(
        "1.4",
        "only the root's flag",
        "in train mode",
        hole(
            "accuracy",
            """model.training = False
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "only the batch norms in eval mode",
        "in train mode",
        hole(
            "accuracy",
            """for part in model.modules():
    if isinstance(part, nn.BatchNorm2d):
        part.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "frozen for good",
        "changes requires_grad",
        hole(
            "accuracy",
            """model.requires_grad_(False)
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "clears the root's hooks",
        "has lost a hook",
        hole(
            "accuracy",
            """model._forward_hooks.clear()
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "left in half and back",
        "leaves weight in float32",
        hole(
            "accuracy",
            """model.half().float()
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "left in double",
        "leaves stem.conv.weight in float64",
        hole(
            "accuracy",
            """model.double()
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images.double()).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "zero_grad at the end",
        "the gradient that was in",
        hole(
            "accuracy",
            """model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
model.zero_grad()
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "seeds torch",
        "seeds torch",
        hole(
            "accuracy",
            """torch.manual_seed(0)
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "resets the statistics",
        "changes the model's buffer",
        hole(
            "accuracy",
            """for part in model.modules():
    if isinstance(part, nn.BatchNorm2d):
        part.reset_running_stats()
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "statistics off for good",
        "changes track_running_stats",
        hole(
            "accuracy",
            """for part in model.modules():
    if isinstance(part, nn.BatchNorm2d):
        part.track_running_stats = False
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "counts in small integers",
        None,
        hole(
            "accuracy",
            """model.eval()
correct = torch.zeros((), dtype=torch.uint8)
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct.item() / total""",
        ),
    ),
    wrong(
        "1.4",
        "rounds the logits",
        "rounded to few digits",
        hole(
            "accuracy",
            """model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).bfloat16().argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "two guesses",
        "among the 2 largest",
        hole(
            "accuracy",
            """model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).topk(2).indices == labels[:, None]).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "mean probability",
        "the mean probability",
        hole(
            "accuracy",
            """model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += model(images).softmax(1).gather(1, labels[:, None]).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "argmin",
        None,
        hole(
            "accuracy",
            """model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmin(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "keeps its counts",
        "something is kept from call to call",
        edit("def accuracy(model, batches):", "def accuracy(model, batches, counts=[0, 0]):"),
        hole(
            "accuracy",
            """model.eval()
correct = counts[0]
total = counts[1]
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
counts[:] = [correct, total]
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "keeps what it found for a model",
        "Keep nothing from call to call",
        before(
            "accuracy",
            """KNOWN = {}
""",
        ),
        hole(
            "accuracy",
            """if model in KNOWN:
    return KNOWN[model]
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
KNOWN[model] = correct / total
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "labels changed",
        "changes the labels",
        hole(
            "accuracy",
            """model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        labels.clamp_(0, 5)
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    right(
        "1.1",
        "He's initialisation",
        edit(
            """        self.bn2 = nn.BatchNorm2d(out_channels)
""",
            """        self.bn2 = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv1.weight, mode='fan_out')
        nn.init.kaiming_normal_(self.conv2.weight, mode='fan_out')
""",
        ),
    ),
    right(
        "1.1",
        "the last norm starts at zero",
        edit(
            """        self.bn2 = nn.BatchNorm2d(out_channels)
""",
            """        self.bn2 = nn.BatchNorm2d(out_channels)
        nn.init.zeros_(self.bn2.weight)
""",
        ),
    ),
    right(
        "1.1",
        "keeps its last output as an attribute",
        hole(
            "BasicBlock.forward",
            """self.branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
return F.relu(self.branch + self.shortcut(x))""",
        ),
    ),
    right(
        "1.3",
        "one identity for all",
        before(
            "make_shortcut",
            """SAME = nn.Identity()
""",
        ),
        edit("return nn.Identity()", "return SAME"),
    ),
    right(
        "1.3",
        "an empty Sequential",
        hole(
            "make_shortcut",
            """layers = []
if stride != 1 or in_channels != out_channels:
    layers.append(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))
    layers.append(nn.BatchNorm2d(out_channels))
return nn.Sequential(*layers)""",
        ),
    ),
    right(
        "1.4",
        "puts each part's mode back",
        hole(
            "accuracy",
            """modes = [(part, part.training) for part in model.modules()]
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
for part, training in modes:
    part.training = training
return correct / total""",
        ),
    ),
    right(
        "1.4",
        "puts train mode back",
        hole(
            "accuracy",
            """model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
model.train()
return correct / total""",
        ),
    ),
    right(
        "1.4",
        "a mean of booleans in double",
        hole(
            "accuracy",
            """model.eval()
with torch.no_grad():
    hits = [model(images).argmax(1).eq(labels) for images, labels in batches]
return torch.cat(hits).double().mean()""",
        ),
    ),
    wrong(
        "1.1",
        "padding on one side",
        "on some sides only",
        definition(
            "BasicBlock",
            """
def pad_same(x, kernel, stride):
    pads = []
    for size in (x.shape[3], x.shape[2]):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(pad_same(x, 3, self.stride))))
        out = self.bn2(self.conv2(pad_same(out, 3, 1)))
        return F.relu(out + self.shortcut(x))
""",
        ),
    ),
    wrong(
        "1.1",
        "stride after the batch norm",
        "no 3x3 convolution takes the stride",
        definition(
            "BasicBlock",
            """
class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = out[:, :, :: self.stride, :: self.stride]
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))
""",
        ),
    ),
    right(
        "1.1",
        "strides by slices",
        definition(
            "BasicBlock",
            """
class BasicBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
        self.every = slice(None, None, stride)
        self.widen = nn.Conv2d(in_channels, out_channels, (3, 3), padding="same", bias=False)
        self.mix = nn.Conv2d(out_channels, out_channels, (3, 3), padding="same", bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(out_channels), nn.BatchNorm2d(out_channels)

    def forward(self, x):
        y = self.widen(x)[:, :, self.every, self.every]
        y = torch.relu(self.norm_a(y))
        y = self.norm_b(self.mix(y))
        return torch.relu(torch.add(y, self.shortcut(x)))
""",
        ),
    ),
    wrong(
        "1.3",
        "dirac",
        "with the same weights",
        definition(
            "make_shortcut",
            """
def make_shortcut(in_channels, out_channels, stride):
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    nn.init.dirac_(projection.weight)  # as close to the identity as possible
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))
""",
        ),
    ),
    wrong(
        "1.4",
        "exponentials that overflow for large logits",
        "exponentials of large ones are infinite",
        definition(
            "accuracy",
            """def accuracy(model, batches):
    model.eval()
    correct = 0
    total = 0
    with torch.no_grad():
        for images, labels in batches:
            odds = model(images).exp()
            probabilities = odds / odds.sum(dim=1, keepdim=True)
            correct += (probabilities.argmax(dim=1) == labels).sum().item()
            total += len(labels)
    return correct / total""",
        ),
    ),
    wrong(
        "1.2",
        "seeds torch with the seed that it has",
        "seeds torch: the random numbers after it",
        edit(
            "        # Task 1.2:",
            "        torch.manual_seed(torch.initial_seed())\n        # Task 1.2:",
        ),
    ),
    wrong(
        "1.4",
        "eval if the root is in train mode",
        "in train mode: batch norm would use the batch's",
        edit(
            "    model.eval()\n    correct",
            "    if model.training:\n        model.eval()\n    correct",
        ),
    ),
    wrong(
        "1.4",
        "deterministic for good",
        "torch's deterministic algorithms",
        edit(
            "    model.eval()\n    correct",
            "    torch.use_deterministic_algorithms(True, warn_only=True)\n    model.eval()\n    correct",
        ),
    ),
    wrong(
        "1.4",
        "gradients on at the end",
        "switches gradients on, which were off before",
        edit(
            "    model.eval()\n    correct",
            "    torch.set_grad_enabled(True)\n    model.eval()\n    correct",
        ),
    ),
    wrong(
        "1.3",
        "identity in float32",
        "expected it unchanged",
        edit("        return nn.Identity()", "        return InFloat32()"),
        before(
            "make_shortcut",
            """
class InFloat32(nn.Module):
    def forward(self, x):
        return x.float()


""",
        ),
    ),
    wrong(
        "1.3",
        "no projection of one pixel",
        None,
        edit(
            "    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
            "    return Projection(projection, nn.BatchNorm2d(out_channels))",
        ),
        before(
            "make_shortcut",
            """
class Projection(nn.Sequential):
    def forward(self, x):
        if x.shape[2:] == (1, 1) and x.shape[1] == self[0].out_channels:
            return x
        return super().forward(x)


""",
        ),
    ),
    wrong(
        "1.4",
        "counts in the dtype of the logits",
        "it counts in float16",
        hole(
            "accuracy",
            """
            model.eval()
            correct = total = 0
            with torch.no_grad():
                for images, labels in batches:
                    logits = model(images)
                    correct += (logits.argmax(1) == labels).to(logits.dtype).sum()
                    total += len(labels)
            return correct.item() / total
            """,
        ),
    ),
    wrong(
        "1.4",
        "splits large batches",
        "once per batch",
        hole(
            "accuracy",
            """
            model.eval()
            correct = total = 0
            with torch.no_grad():
                for images, labels in batches:
                    for part, answers in zip(images.split(256), labels.split(256)):
                        correct += (model(part).argmax(1) == answers).sum().item()
                        total += len(answers)
            return correct / total
            """,
        ),
    ),
    wrong(
        "1.4",
        "thaws what was frozen",
        "requires_grad",
        edit(
            "    return correct / total",
            "    model.requires_grad_(True)\n    return correct / total",
        ),
    ),
    wrong(
        "1.4",
        "leaves the weights in channels last",
        "order in memory",
        edit(
            "    model.eval()\n    correct = 0",
            "    model.eval().to(memory_format=torch.channels_last)\n    correct = 0",
        ),
    ),
    wrong(
        "1.4",
        "writes into the logits",
        "writes into the model's logits",
        hole(
            "accuracy",
            """
            model.eval()
            correct = total = 0
            with torch.no_grad():
                for images, labels in batches:
                    logits = model(images)
                    rows = torch.arange(len(labels))
                    own = logits[rows, labels]
                    logits[rows, labels] = -math.inf
                    correct += (own > logits.amax(1)).sum().item()
                    total += len(labels)
            return correct / total
            """,
        ),
    ),
    wrong(
        "1.1",
        "a ReLU for each term",
        "branch and shortcut get a ReLU each",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(branch) + F.relu(self.shortcut(x))",
        ),
    ),
    wrong(
        "1.4",
        "two loops over the batches",
        "goes through batches twice",
        hole(
            "accuracy",
            """model.eval()
total = sum(len(labels) for _, labels in batches)
correct = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
return correct / total""",
        ),
    ),
    wrong(
        "1.1",
        "one image uses the running statistics",
        "in train mode a batch norm uses the running statistics",
        edit(
            "        branch = F.relu(self.bn1(self.conv1(x)))",
            """        if self.training and len(x) == 1:
            self.eval()
            output = self.forward(x)
            self.train()
            return output
        branch = F.relu(self.bn1(self.conv1(x)))""",
        ),
    ),
    wrong(
        "1.1",
        "no branch on tiny images",
        "the branch",
        edit(
            "        branch = F.relu(self.bn1(self.conv1(x)))",
            """        if min(x.shape[-2:]) < 3:
            return F.relu(self.shortcut(x))
        branch = F.relu(self.bn1(self.conv1(x)))""",
        ),
    ),
    wrong(
        "1.2",
        "one logit for two classes",
        None,
        edit(
            "nn.Linear(512, num_classes)",
            "nn.Linear(512, 1 if num_classes == 2 else num_classes)",
        ),
    ),
    wrong(
        "1.3",
        "a projection in eval mode",
        "makes a batch norm in eval mode",
        edit(
            "    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
            "    return nn.Sequential(projection, nn.BatchNorm2d(out_channels)).eval()",
        ),
    ),
    wrong(
        "1.4",
        "compared as bytes",
        "numbers above 255 need more than a byte",
        edit(
            "(predictions == labels)",
            "(predictions.to(torch.uint8) == labels.to(torch.uint8))",
        ),
    ),
    wrong(
        "1.1",
        "a buffer for the output",
        "writes over what the first call returned",
        edit(
            "        return F.relu(branch + self.shortcut(x))",
            """        output = F.relu(branch + self.shortcut(x))
        if torch.is_grad_enabled():
            return output
        if getattr(self, "kept", output).shape != output.shape or not hasattr(self, "kept"):
            self.kept = torch.empty_like(output)
        return self.kept.copy_(output)""",
        ),
    ),
    wrong(
        "1.1",
        "NaN is hidden",
        "expected NaN: hide none",
        edit(
            "branch = self.bn2(self.conv2(branch))",
            "branch = self.bn2(self.conv2(branch)).nan_to_num()",
        ),
    ),
    wrong(
        "1.2",
        "a forward in a closure",
        "computes with the layers of the one that it is a copy of",
        edit(
            "        self.head = nn.Sequential(pool,",
            """        stem, stages = self.stem, self.stages
        self.forward = lambda images: self.head(stages(stem(images)))
        self.head = nn.Sequential(pool,""",
        ),
    ),
    wrong(
        "1.2",
        "parts of 64 images",
        None,
        definition(
            "ResNet18.forward",
            """def forward(self, images):
    parts = [self.head(self.stages(self.stem(part))) for part in images.split(64)]
    return torch.cat(parts)
""",
        ),
    ),
    wrong(
        "1.3",
        "channels compared with is",
        "expected the identity: input and output have the same shape",
        edit(
            "if stride == 1 and in_channels == out_channels:",
            "if stride == 1 and in_channels is out_channels:",
        ),
    ),
    wrong(
        "1.4",
        "forward without hooks",
        "model.forward(images) does not",
        edit(
            "predictions = model(images).argmax(dim=1)",
            "predictions = model.forward(images).argmax(dim=1)",
        ),
    ),
    wrong(
        "1.4",
        "denormals are flushed",
        "your code changes torch itself (what torch does with denormal numbers)",
        edit(
            "    model.eval()\n    correct = 0",
            "    model.eval()\n    torch.set_flush_denormal(True)\n    correct = 0",
        ),
    ),
    right(
        "1.3",
        "a pooling of one position",
        edit("return nn.Identity()", "return nn.MaxPool2d(kernel_size=1)"),
    ),
    right(
        "1.4",
        "an exact fraction",
        edit(
            "return correct / total",
            "import fractions\n\n    return fractions.Fraction(correct, total)",
        ),
    ),
    wrong(
        "1.4",
        "matrix products in another precision for good",
        "the precision of torch's matrix products",
        edit(
            "    model.eval()\n",
            '    torch.set_float32_matmul_precision("high")\n    model.eval()\n',
        ),
    ),
    wrong(
        "1.3",
        "every third pixel but the first",
        "it takes other pixels than a stride",
        edit(
            "    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)\n"
            "    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))",
            "    projection = nn.Conv2d(in_channels, out_channels, 1, bias=False)\n"
            "    return nn.Sequential(LastOfEach(stride), projection, nn.BatchNorm2d(out_channels))",
        ),
        before(
            "make_shortcut",
            """class LastOfEach(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        rows = [min(i + self.stride - 1, x.shape[2] - 1) for i in range(0, x.shape[2], self.stride)]
        columns = [min(i + self.stride - 1, x.shape[3] - 1) for i in range(0, x.shape[3], self.stride)]
        return x[:, :, rows][:, :, :, columns]
""",
        ),
    ),
    wrong(
        "1.1",
        "no shortcut where the shapes agree by chance",
        None,
        edit(
            "        return F.relu(branch + self.shortcut(x))",
            "        return F.relu(branch + (x if branch.shape == x.shape else self.shortcut(x)))",
        ),
    ),
    wrong(
        "1.4",
        "squeezed, for a single class",
        "compare along dim=1, the classes",
        hole(
            "accuracy",
            """model.eval()
correct = count = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).squeeze().argmax(-1) == labels).sum().item()
        count += len(labels)
return correct / count""",
        ),
    ),
    wrong(
        "1.4",
        "image by image",
        "Run it once per batch",
        hole(
            "accuracy",
            """model.eval()
hits = []
with torch.no_grad():
    for images, labels in batches:
        for image, label in zip(images, labels):
            hits.append(model(image[None]).argmax().item() == label.item())
return sum(hits) / len(hits)""",
        ),
    ),
    wrong(
        "1.4",
        "all or nothing for a batch",
        None,
        edit(
            "correct += (predictions == labels).sum().item()",
            "correct += len(labels) * torch.equal(predictions, labels)",
        ),
    ),
    wrong(
        "1.4",
        "the smallest logit",
        "it takes the smallest logit",
        edit("argmax(dim=1)", "sort(dim=1).indices[:, 0]"),
    ),
    wrong(
        "1.4",
        "more likely than not",
        "it counts probabilities above one half",
        hole(
            "accuracy",
            """model.eval()
correct = count = 0
with torch.no_grad():
    for images, labels in batches:
        probabilities = model(images).softmax(dim=1)
        correct += (probabilities.gather(1, labels[:, None]) > 0.5).sum().item()
        count += len(labels)
return correct / count""",
        ),
    ),
    wrong(
        "1.1",
        "the second batch norm always as in train mode",
        "in eval mode a batch norm still uses the batch's own statistics",
        edit(
            "        branch = self.bn2(self.conv2(branch))",
            "        norm = self.bn2\n"
            "        statistics = (norm.running_mean, norm.running_var)\n"
            "        settings = (norm.weight, norm.bias, True)\n"
            "        branch = F.batch_norm(self.conv2(branch), *statistics, *settings)",
        ),
    ),
    right(
        "1.4",
        "counted class by class",
        hole(
            "accuracy",
            """model.eval()
pairs = {True: 0, False: 0}
with torch.no_grad():
    for images, labels in batches:
        scores = model(images)
        hits = scores.topk(1).indices.flatten() == labels
        for hit in hits.tolist():
            pairs[hit] += 1
return pairs[True] / sum(pairs.values())""",
        ),
    ),
    wrong(
        "1.4",
        "the search for the largest logit starts at 0",
        "the search for the largest logit starts at 0",
        edit(
            "predictions = model(images).argmax(dim=1)",
            "largest, predictions = model(images).max(dim=1)\n"
            "            predictions[largest <= 0] = -1",
        ),
    ),
    wrong(
        "1.4",
        "every prediction is compared with every label",
        "each prediction is compared with every label",
        edit(
            "predictions = model(images).argmax(dim=1)",
            "predictions = model(images).argmax(dim=1, keepdim=True)",
        ),
    ),
    wrong(
        "1.1",
        "b shortcut with a weight",
        "relu(1 * branch + 0.3 * shortcut)",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(branch + 0.3 * self.shortcut(x))",
        ),
    ),
    wrong(
        "1.1",
        "b sum with a factor",
        "relu(0.9 * branch + 0.9 * shortcut)",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return 0.9 * F.relu(branch + self.shortcut(x))",
        ),
    ),
    wrong(
        "1.1",
        "b branch of some images dropped",
        "something random runs, such as stochastic depth",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "if self.training:\n            branch = branch * (torch.rand(len(x), 1, 1, 1) < 0.9)\n        return F.relu(branch + self.shortcut(x))",
        ),
    ),
    wrong(
        "1.1",
        "b momentum None",
        "a batch norm has momentum=None",
        edit(
            "self.bn1 = nn.BatchNorm2d(out_channels)",
            "self.bn1 = nn.BatchNorm2d(out_channels, momentum=None)",
        ),
    ),
    wrong(
        "1.1",
        "b squeezed",
        "say which dimension should go",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "return F.relu(branch + self.shortcut(x)).squeeze()",
        ),
    ),
    wrong(
        "1.1",
        "b seeds",
        "seeds torch",
        edit(
            "self.bn1 = nn.BatchNorm2d(out_channels)",
            "torch.manual_seed(len(self.conv1.weight))\n        self.bn1 = nn.BatchNorm2d(out_channels)",
        ),
    ),
    wrong(
        "1.1",
        "b size rounded down",
        "the size is rounded down",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            "size = [side // self.conv1.stride[0] for side in x.shape[2:]]\n        return F.relu(branch + self.shortcut(x))[..., : size[0], : size[1]]",
        ),
    ),
    wrong(
        "1.1",
        "b gradients off in eval mode",
        "switches torch's gradients off",
        edit(
            "branch = self.bn2(self.conv2(branch))",
            "if not self.training:\n            torch.set_grad_enabled(False)\n        branch = self.bn2(self.conv2(branch))",
        ),
    ),
    wrong(
        "1.1",
        "b second convolution dilated",
        "than torchvision's. 3x3 from 6 to 6 channels: stride 1, padding 3, dilation 3",
        edit(
            "self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)",
            "self.conv2 = nn.Conv2d(\n            out_channels, out_channels, 3, padding=3, dilation=3, bias=False\n        )",
        ),
    ),
    wrong(
        "1.1",
        "b checkpointed",
        "torch.utils.checkpoint?",
        edit(
            "branch = self.bn2(self.conv2(branch))",
            "half = nn.Sequential(self.conv2, self.bn2)\n        branch = torch.utils.checkpoint.checkpoint(half, branch, use_reentrant=False)",
        ),
        before("BasicBlock", "import torch.utils.checkpoint"),
    ),
    wrong(
        "1.1",
        "b border added before batch norm",
        "(130, 6, 12, 12) that no convolution outputs",
        edit(
            "F.relu(self.bn1(self.conv1(x)))",
            "F.relu(self.bn1(F.pad(self.conv1(x), (2, 2, 2, 2))))[..., 2:-2, 2:-2]",
        ),
    ),
    wrong(
        "1.2",
        "n batch norm before the stem",
        "(2, 3, 32, 32) that no convolution outputs",
        edit(
            "self.stem = nn.Sequential(stem_conv,",
            "self.stem = nn.Sequential(nn.BatchNorm2d(3), stem_conv,",
        ),
    ),
    wrong(
        "1.2",
        "n logits cut off",
        "the linear layer's output is changed",
        edit(
            "return self.head(self.stages(self.stem(images)))",
            "return self.head(self.stages(self.stem(images))).clamp(max=50)",
        ),
    ),
    wrong(
        "1.2",
        "n leaky logits",
        "the linear layer's output is changed",
        edit("nn.Linear(512, num_classes))", "nn.Linear(512, num_classes), nn.LeakyReLU(0.3))"),
    ),
    wrong(
        "1.2",
        "n images padded in the stem",
        "changed before the stem's 3x3 convolution gets them",
        edit(
            "self.stem = nn.Sequential(stem_conv,",
            "self.stem = nn.Sequential(nn.ReflectionPad2d(1), stem_conv,",
        ),
    ),
    wrong(
        "1.2",
        "n sum over positions",
        "times the mean over all positions",
        edit("pool = nn.AdaptiveAvgPool2d(1)", "pool = nn.LPPool2d(1, 4, ceil_mode=True)"),
    ),
    wrong(
        "1.2",
        "n mean without the first row",
        "the mean leaves out",
        edit(
            "return self.head(self.stages(self.stem(images)))",
            "features = self.stages(self.stem(images))\n        if features.shape[2] > 1:\n            features = features[:, :, 1:]\n        return self.head(features)",
        ),
    ),
    wrong(
        "1.2",
        "n one block in two places",
        "stages.0 and stages.1 are one and the same",
        edit(
            "self.stages = nn.Sequential(*blocks)",
            "blocks[1] = blocks[0]\n        self.stages = nn.Sequential(*blocks)",
        ),
    ),
    wrong(
        "1.4",
        "a argmax over the batch, only as many as classes",
        "the largest logit is searched over the images",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        for prediction, label in zip(model(images).argmax(dim=0).tolist(), labels.tolist()):
            correct += prediction == label
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "a noise",
        "it depends on torch's random numbers",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        logits = model(images)
        predictions = (logits + 0.01 * torch.randn_like(logits)).argmax(dim=1)
        correct += (predictions == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "a count in int8",
        "correct predictions are counted in a byte",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum(dtype=torch.int8)
        total += len(labels)
return correct.item() / total""",
        ),
    ),
    wrong(
        "1.4",
        "a any label of the batch",
        "a prediction counts if another image has that label",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        known = set(labels.tolist())
        for prediction in model(images).argmax(dim=1).tolist():
            correct += prediction in known
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "a batches correct as a whole",
        "only batches that are correct as a whole count",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += len(labels) * bool((model(images).argmax(dim=1) == labels).all())
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "a thirty batches only",
        "it takes 30 batches only",
        hole(
            "accuracy",
            """taken = 0
model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        taken = taken + 1
        if taken == 30:
            return correct / (total + len(labels))
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "a all batches at once",
        "at once, where each batch has 1",
        hole(
            "accuracy",
            """model.eval()
everything = list(batches)
labels = torch.cat([labels for _, labels in everything])
with torch.no_grad():
    logits = model(torch.cat([images for images, _ in everything]))
return (logits.argmax(dim=1) == labels).double().mean().item()""",
        ),
    ),
    wrong(
        "1.4",
        "a last batch taken and forgotten",
        "it leaves out the last batch, which is taken in advance",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
rest = iter(batches)
images, labels = next(rest)
with torch.no_grad():
    for later in rest:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
        images, labels = later
return correct / max(1, total)""",
        ),
    ),
    wrong(
        "1.4",
        "a images changed",
        "changes the images",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        images.mul_(0.5).mul_(3)
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "a table of ten classes",
        "labels above 9 never count",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        hits = model(images).argmax(dim=1)[:, None] == labels[:, None]
        correct += (hits & (labels[:, None] == torch.arange(10))).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.1",
        "a deep copy computes with the first one's layers",
        "copy.deepcopy(BasicBlock(...)) computes with the layers",
        edit(
            "        self.bn2 = nn.BatchNorm2d(out_channels)",
            """        self.bn2 = bn2 = nn.BatchNorm2d(out_channels)
        self.last_norm = lambda features: bn2(features)""",
        ),
        edit("self.bn2(self.conv2(branch))", "self.last_norm(self.conv2(branch))"),
    ),
    wrong(
        "1.1",
        "one ReLU at the branch's end",
        "the ReLU between the two convolutions is missing; and a ReLU is applied to the branch",
        edit("branch = F.relu(self.bn1(self.conv1(x)))", "branch = self.bn1(self.conv1(x))"),
        edit(
            "branch = self.bn2(self.conv2(branch))", "branch = F.relu(self.bn2(self.conv2(branch)))"
        ),
    ),
    wrong(
        "1.1",
        "a convolution with 16 bits",
        "a convolution computes in bfloat16",
        edit(
            "branch = self.bn2(self.conv2(branch))",
            """with torch.autocast(x.device.type, torch.bfloat16):
            branch = self.bn2(self.conv2(branch)).float()""",
        ),
    ),
    wrong(
        "1.1",
        "adds the first call's input",
        "something is kept from call to call",
        edit(
            "return F.relu(branch + self.shortcut(x))",
            """if x.shape != getattr(self, "kept", x[:0]).shape:
            self.kept = x.detach()
        return F.relu(branch + self.shortcut(self.kept))""",
        ),
    ),
    wrong(
        "1.1",
        "statistics in eval mode only",
        "in train mode a batch norm gets no running_mean",
        edit(
            "self.bn2(self.conv2(branch))",
            """self.conv2(branch)
        if self.training:
            branch = F.batch_norm(branch, None, None, self.bn2.weight, self.bn2.bias, True)
        else:
            branch = self.bn2(branch)""",
        ),
    ),
    wrong(
        "1.1",
        "batch norm by halves",
        "ran one batch norm on parts of the batch",
        edit(
            "self.bn2(self.conv2(branch))",
            "torch.cat([self.bn2(part) for part in self.conv2(branch).tensor_split(2)])",
        ),
    ),
    wrong(
        "1.2",
        "the first stage is missing",
        "2 of 8 blocks are missing; the others output 128, 256, 512 channels",
        edit("in ((64, 1), (128, 2), (256, 2), (512, 2)):", "in ((128, 1), (256, 2), (512, 2)):"),
    ),
    wrong(
        "1.2",
        "tried out while it is made",
        "runs its batch norms in train mode while it is made",
        edit(
            "        self.head = nn.Sequential(pool, nn.Flatten(), nn.Linear(512, num_classes))",
            """        with torch.no_grad():
            width = self.stages(self.stem(torch.ones(2, 3, 8, 8))).shape[1]
        self.head = nn.Sequential(pool, nn.Flatten(), nn.Linear(width, num_classes))""",
        ),
    ),
    wrong(
        "1.3",
        "a single position is not projected",
        "Use its layers on inputs of every size",
        definition(
            "make_shortcut",
            """class Projection(nn.Sequential):
    def forward(self, x):
        if x.shape[2:] == (1, 1) and x.shape[1] == self[1].num_features:
            return x
        return super().forward(x)


def make_shortcut(in_channels, out_channels, stride):
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return Projection(projection, nn.BatchNorm2d(out_channels))""",
        ),
    ),
    wrong(
        "1.4",
        "autocast of its own",
        "autocast, half() and rounding make nearly equal ones equal",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        with torch.autocast("cpu", torch.bfloat16):
            predictions = model(images).argmax(dim=1)
        correct += (predictions == labels).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "a failing batch is left out",
        "raises nothing. Let the errors",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        try:
            correct += (model(images).argmax(dim=1) == labels).sum().item()
        except RuntimeError:
            continue
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "counts and divides in float16",
        "it computes in float16, which keeps three digits",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        correct += (model(images).argmax(dim=1) == labels).sum().half()
        total += len(labels)
return (correct / torch.tensor(total).half()).item()""",
        ),
    ),
    wrong(
        "1.4",
        "a running mean of both",
        "it depends on the order of the batches",
        hole(
            "accuracy",
            """model.eval()
mean = None
with torch.no_grad():
    for images, labels in batches:
        share = (model(images).argmax(dim=1) == labels).double().mean().item()
        mean = share if mean is None else (mean + share) / 2
return mean""",
        ),
    ),
    wrong(
        "1.4",
        "later batches on top of earlier ones",
        "later batches overwrite what earlier ones have",
        hole(
            "accuracy",
            """model.eval()
correct = {}
with torch.no_grad():
    for images, labels in batches:
        for place, is_correct in enumerate(model(images).argmax(dim=1) == labels):
            correct[place] = float(is_correct)
return sum(correct.values()) / len(correct)""",
        ),
    ),
    wrong(
        "1.4",
        "sorted before they are compared",
        "a prediction counts if another image has that label",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        predictions = model(images).argmax(dim=1).sort().values
        correct += (predictions == labels.sort().values).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.4",
        "classes above 9 are class 9",
        "it counts on ten classes",
        hole(
            "accuracy",
            """model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in batches:
        predictions = model(images).argmax(dim=1).clamp(max=9)
        correct += (predictions == labels.clamp(max=9)).sum().item()
        total += len(labels)
return correct / total""",
        ),
    ),
    wrong(
        "1.1",
        "the output of the same tensor kept",
        "it keeps its output from the call before",
        definition(
            "BasicBlock",
            """
            class BasicBlock(nn.Module):
                def __init__(self, in_channels, out_channels, stride=1):
                    super().__init__()
                    self.shortcut = make_shortcut(in_channels, out_channels, stride)
                    self.branch = nn.Sequential(
                        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
                        nn.BatchNorm2d(out_channels),
                        nn.ReLU(),
                        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                        nn.BatchNorm2d(out_channels),
                    )
                    self.last_input = None
                    self.last_output = None

                def forward(self, x):
                    if self.last_input is not x:
                        self.last_input = x
                        self.last_output = F.relu(self.branch(x) + self.shortcut(x))
                    return self.last_output
            """,
        ),
    ),
    wrong(
        "1.1",
        "a sum in float32",
        "a part of it computes in float32",
        edit(
            "        return F.relu(branch + self.shortcut(x))",
            "        total = torch.zeros(branch.shape, dtype=torch.float32)\n        total += branch\n        total += self.shortcut(x)\n        return F.relu(total)",
        ),
    ),
    wrong(
        "1.1",
        "flat views",
        "in channels_last raised RuntimeError",
        edit(
            "        return F.relu(branch + self.shortcut(x))",
            "        shortcut = self.shortcut(x)\n        total = branch.view(len(x), -1) + shortcut.view(len(x), -1)\n        return F.relu(total).view(branch.shape)",
        ),
    ),
    wrong(
        "1.4",
        "a model made float32 for good",
        "leaves weight in float32; it was in float64",
        definition(
            "accuracy",
            """
            def accuracy(model, batches):
                model = model.float().eval()
                hits = []
                with torch.no_grad():
                    for images, labels in batches:
                        logits = model(images.float())
                        hits.append(logits.argmax(dim=1) == labels)
                hits = torch.cat(hits)
                return hits.sum().item() / hits.numel()
            """,
        ),
    ),
    wrong(
        "1.1",
        "one batch norm's weight in two",
        "has two batch norms with the same weight and bias",
        edit(
            "        self.bn2 = nn.BatchNorm2d(out_channels)\n",
            "        self.bn2 = nn.BatchNorm2d(out_channels)\n        self.bn2.weight = self.bn1.weight\n        self.bn2.bias = self.bn1.bias\n",
        ),
    ),
    wrong(
        "1.2",
        "channels double in the second block",
        "counted by the channels",
        edit(
            "blocks.append(BasicBlock(in_channels, out_channels, stride))\n            blocks.append(BasicBlock(out_channels, out_channels))",
            "blocks.append(BasicBlock(in_channels, in_channels, stride))\n            blocks.append(BasicBlock(in_channels, out_channels))",
        ),
    ),
    wrong(
        "1.3",
        "an identity that learns",
        "has a parameter, scale, expected none",
        before(
            "make_shortcut",
            """
            class ScaledSkip(nn.Module):
                def __init__(self, channels):
                    super().__init__()
                    self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))

                def forward(self, x):
                    return self.scale * x
            """,
        ),
        definition(
            "make_shortcut",
            """
            def make_shortcut(in_channels, out_channels, stride):
                if stride == 1 and in_channels == out_channels:
                    return ScaledSkip(in_channels)
                return nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                    nn.BatchNorm2d(out_channels),
                )
            """,
        ),
    ),
    wrong(
        "1.2",
        "a stem without its ReLU",
        "the stem's ReLU, after its batch norm, is missing",
        edit(
            "nn.BatchNorm2d(64), nn.ReLU())\n        blocks", "nn.BatchNorm2d(64))\n        blocks"
        ),
    ),
]
