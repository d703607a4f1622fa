"""Answers to exercise 4, wrong and right."""

from changes import AGREEABLE, before, definition, edit, hole, right, wrong

USED_BY = {"4.1": {"4.2", "4.4"}, "4.2": {"4.4"}}  # tasks whose tests use this answer

VARIANTS = [
    right(
        "4.4",
        "a function that seeds everything",
        before(
            "train_depths",
            """def seed_everything(seed):
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
""",
        ),
        edit("        torch.manual_seed(seed)\n", "        seed_everything(seed)\n"),
    ),
    wrong(
        "4.4",
        "no gradients in fit",
        "calls fit with gradients switched off",
        edit("def train_depths(", "@torch.no_grad()\ndef train_depths("),
    ),
    wrong(
        "4.1",
        "noskip",
        "the shortcut is not added",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.relu(self.branch(x))


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "afterrelu",
        "the shortcut is added after the last ReLU",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.relu(self.branch(x)) + self.shortcut(x)


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "nolastrelu",
        "the last ReLU, after the addition, is missing",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return self.branch(x) + self.shortcut(x)


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "relubranch",
        "a ReLU is applied to the branch before the addition",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.relu(F.relu(self.branch(x)) + self.shortcut(x))


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "minus",
        "the shortcut is subtracted, not added",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.relu(self.branch(x) - self.shortcut(x))


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "twice",
        "the shortcut is added twice",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.relu(self.branch(x) + 2*self.shortcut(x))


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "detach",
        "no_grad): here the shortcut",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.relu(self.branch(x) + self.shortcut(x).detach())


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "detachbranch",
        "no_grad): here the branch",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.relu(self.branch(x).detach() + self.shortcut(x))


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "onlyskip",
        "batch norm or linear layer used the parameter branch",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.relu(self.shortcut(x))


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "evalonly",
        "the shortcut is not added",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.relu(self.branch(x) + (self.shortcut(x) if self.training else 0))


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "gelu",
        "GELU ran, expected ReLUs",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        return F.gelu(self.branch(x) + self.shortcut(x))


LAYERS""",
        ),
    ),
    right(
        "4.1",
        "layers by name",
        hole(
            "Bottleneck.__init__",
            """
            out = 4 * channels
            self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)
            self.conv3 = nn.Conv2d(channels, out, kernel_size=1, bias=False)
            self.bn3 = nn.BatchNorm2d(out)
            nn.init.zeros_(self.bn3.weight)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = None
            if stride != 1 or in_channels != out:
                self.downsample = nn.Sequential(nn.Conv2d(in_channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            """,
        ),
        hole(
            "Bottleneck.forward",
            """
            identity = x if self.downsample is None else self.downsample(x)
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.relu(self.bn2(self.conv2(out)))
            out = self.bn3(self.conv3(out))
            out += identity
            return self.relu(out)
            """,
        ),
    ),
    right(
        "4.1",
        "module lists",
        hole(
            "Bottleneck.__init__",
            """
            sizes = [(in_channels, channels, 1, 1), (channels, channels, 3, stride), (channels, 4 * channels, 1, 1)]
            self.convs = nn.ModuleList(nn.Conv2d(a, b, k, s, padding=k // 2, bias=False) for a, b, k, s in sizes)
            self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _, _ in sizes)
            self.norms[-1].weight.data.zero_()
            self.shortcut = make_shortcut(in_channels, 4 * channels, stride)
            """,
        ),
        hole(
            "Bottleneck.forward",
            """
            out = x
            for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
                out = norm(conv(out))
                if i < 2:
                    out = torch.relu(out)
            return torch.relu(torch.add(out, self.shortcut(x)))
            """,
        ),
    ),
    right(
        "4.1",
        "parameters and functions",
        hole(
            "Bottleneck.__init__",
            """
            self.stride = stride
            self.narrow = nn.Parameter(torch.randn(channels, in_channels, 1, 1) / in_channels**0.5)
            self.middle = nn.Parameter(torch.randn(channels, channels, 3, 3) / (3 * channels**0.5))
            self.widen = nn.Parameter(torch.randn(4 * channels, channels, 1, 1) / channels**0.5)
            self.a, self.b, self.c = (nn.BatchNorm2d(n) for n in (channels, channels, 4 * channels))
            nn.init.constant_(self.c.weight, 0)
            self.shortcut = make_shortcut(in_channels, 4 * channels, stride)
            """,
        ),
        hole(
            "Bottleneck.forward",
            """
            out = F.relu(self.a(F.conv2d(x, self.narrow)))
            out = F.relu(self.b(F.conv2d(out, self.middle, stride=self.stride, padding=1)))
            return F.relu(self.c(F.conv2d(out, self.widen)) + self.shortcut(x))
            """,
        ),
    ),
    right(
        "4.1",
        "last norm starts at zero",
        edit(
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n\n    def forward(self, x):\n"
            '        """Features in, features out."""\n        # Task 4.1',
            "        nn.init.zeros_(self.branch[-1].weight)\n"
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n\n    def forward(self, x):\n"
            '        """Features in, features out."""\n        # Task 4.1',
        ),
    ),
    right(
        "4.1",
        "padding by name",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.ZeroPad2d(1), nn.Conv2d(channels, channels, 3, stride, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    right(
        "4.1",
        "shortcutfirst",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        s = self.shortcut(x)
        return (s + self.branch(x)).relu()


LAYERS""",
        ),
    ),
    right(
        "4.1",
        "inplace",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        out = self.branch(x)
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


LAYERS""",
        ),
    ),
    wrong(
        "4.1",
        "norelu1",
        "the ReLU after the first convolution's batch norm is missing",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.1",
        "norelu2",
        "the ReLU after the 3x3 convolution's batch norm is missing",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    right(
        "4.1",
        "paperstride",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.1",
        "stridelast",
        "the stride is on the last 1x1",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.1",
        "stridetwice",
        "two convolutions take the stride",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.1",
        "projsmall",
        "the projection outputs 6 channels",
        edit(
            '''self.shortcut = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        """Features in''',
            '''self.shortcut = make_shortcut(in_channels, channels, stride)

    def forward(self, x):
        """Features in''',
        ),
    ),
    wrong(
        "4.1",
        "projonlystride",
        "makes one that does",
        edit(
            '''self.shortcut = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        """Features in''',
            '''self.shortcut = make_shortcut(in_channels, out_channels, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        """Features in''',
        ),
    ),
    wrong(
        "4.1",
        "nopad",
        "the 3x3 convolution has no padding",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.1",
        "bias",
        "channels has a bias. The batch norm after it has one: say bias=False",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.1",
        "nobn3",
        "channels outputs. Each convolution is followed by its own",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    right(
        "4.1",
        "zeroinit",
        edit(
            '''        self.shortcut = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        """Features in''',
            '''        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        """Features in''',
        ),
    ),
    wrong(
        "4.1",
        "groups",
        "a convolution has groups=2",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=1, groups=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.1",
        "expansion2",
        "It outputs expansion * channels =",
        edit(
            "        out_channels = self.expansion * channels",
            "        out_channels = 2 * channels",
        ),
    ),
    right(
        "4.1",
        "functional on parameters",
        definition(
            "Bottleneck",
            """class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.stride, self.shortcut = stride, make_shortcut(in_channels, 4 * channels, stride)
        sizes = [(channels, in_channels, 1, 1), (channels, channels, 3, 3), (4 * channels, channels, 1, 1)]
        self.kernels = nn.ParameterList([nn.Parameter(0.1 * torch.randn(size)) for size in sizes])
        self.norms = nn.ModuleList([nn.BatchNorm2d(size[0]) for size in sizes])
        nn.init.zeros_(self.norms[2].weight)

    def forward(self, x):
        h = F.relu(self.norms[0](F.conv2d(x, self.kernels[0])))
        h = F.relu(self.norms[1](F.conv2d(h, self.kernels[1], stride=self.stride, padding=1)))
        return F.relu(self.norms[2](F.conv2d(h, self.kernels[2])) + self.shortcut(x))""",
        ),
    ),
    right(
        "4.1",
        "functional batch norm",
        definition(
            "Bottleneck",
            """class Norm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x):
        return F.batch_norm(x, self.mean, self.var, self.weight, self.bias, self.training)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.convs = nn.ModuleList([
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.Conv2d(channels, 4 * channels, 1, bias=False)])
        self.norms = nn.ModuleList(Norm(conv.out_channels) for conv in self.convs)
        self.norms[-1].weight = nn.Parameter(torch.zeros(4 * channels))
        self.shortcut = make_shortcut(in_channels, 4 * channels, stride)

    def forward(self, x):
        h = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            h = norm(conv(h))
            h = h.relu() if i < 2 else h
        return torch.relu(h.add(self.shortcut(x)))""",
        ),
    ),
    right(
        "4.1",
        "a subclass of Sequential",
        definition(
            "Bottleneck",
            """class Bottleneck(nn.Sequential):
    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding="same" if stride == 1 else 1, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
            nn.Conv2d(channels, 4 * channels, 1, bias=False), nn.BatchNorm2d(4 * channels))
        nn.init.zeros_(self[7].weight)
        self.side = [make_shortcut(in_channels, 4 * channels, stride)]
        self.add_module("shortcut", self.side[0])

    def forward(self, x):
        h = x
        for layer in list(self)[:8]:
            h = layer(h)
        return F.relu(self.shortcut(x) + h)""",
        ),
    ),
    right(
        "4.1",
        "shortcut first, last batch norm from zero",
        definition(
            "Bottleneck",
            """class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        wide = channels * self.expansion
        self.project = None
        if in_channels != wide or stride > 1:
            self.project = nn.Conv2d(in_channels, wide, 1, stride, bias=False)
            self.project_norm = nn.BatchNorm2d(wide)
        self.reduce, self.reduce_norm = nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv, self.conv_norm = nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.widen, self.widen_norm = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)
        nn.init.zeros_(self.widen_norm.weight)

    def forward(self, x):
        kept = x if self.project is None else self.project_norm(self.project(x))
        out = F.relu(self.reduce_norm(self.reduce(x)), inplace=True)
        out = F.relu(self.conv_norm(self.conv(out)), inplace=True)
        return F.relu(self.widen_norm(self.widen(out)) + kept)""",
        ),
    ),
    wrong(
        "4.2",
        "stagestride0",
        "has stride 2, expected 1",
        edit("stride = 2 if i > 0 and j == 0 else 1", "stride = 2 if j == 0 else 1"),
    ),
    wrong(
        "4.2",
        "nostride",
        "has stride 1, expected 2",
        edit("stride = 2 if i > 0 and j == 0 else 1", "stride = 1"),
    ),
    wrong(
        "4.2",
        "inch",
        "and at its in_channels",
        edit("in_channels = block.expansion * channels", "in_channels = channels"),
    ),
    wrong(
        "4.2",
        "width64",
        "3x3 convolutions output [4, 64",
        edit("        channels = width * 2**i", "        channels = 64 * 2**i"),
    ),
    wrong(
        "4.2",
        "onefewer",
        "blocks, expected 2, 2, 2, 2",
        edit(
            "for j in range(count):",
            "for j in range(count - 1):",
        ),
    ),
    wrong(
        "4.2",
        "stemignored",
        "the stem's convolution is 3x3 from 3 to 64 channels, expected 7x7",
        edit("make_stem(stem, width), nn.Seq", 'make_stem("cifar", width), nn.Seq'),
    ),
    wrong(
        "4.2",
        "classes10",
        "the linear layer outputs 10 numbers, expected num_classes = 1000",
        edit(
            """nn.Linear(in_channels, num_classes))
    return""",
            """nn.Linear(in_channels, 10))
    return""",
        ),
    ),
    wrong(
        "4.2",
        "softmax",
        "softmax is applied to the logits",
        edit(
            """nn.Linear(in_channels, num_classes))
    return""",
            """nn.Linear(in_channels, num_classes), nn.Softmax(1))
    return""",
        ),
    ),
    wrong(
        "4.2",
        "maxpool",
        "a max pooling ran, expected the mean",
        edit(
            "head = nn.Sequential(nn.AdaptiveAvgPool2d(1)",
            "head = nn.Sequential(nn.AdaptiveMaxPool2d(1)",
        ),
    ),
    wrong(
        "4.2",
        "same",
        "are one and the same block",
        edit(
            "blocks.append(block(in_channels, channels, stride))",
            "blocks.append(block(in_channels, channels, stride) if j < 2 else blocks[-1])",
        ),
    ),
    right(
        "4.2",
        "layerslist",
        edit(
            "return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)",
            """stages = nn.ModuleList(blocks)
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = make_stem(stem, width), stages, head
        def forward(self, x):
            x = self.a(x)
            for b in self.b: x = b(x)
            return self.c(x)
    return Net()""",
        ),
    ),
    wrong(
        "4.3",
        "trainable",
        "it leaves out what is frozen",
        hole(
            "count_parameters",
            "return sum(p.numel() for p in model.parameters() if p.requires_grad)",
        ),
    ),
    wrong(
        "4.3",
        "state",
        "it counts all of state_dict()",
        hole("count_parameters", "return sum(p.numel() for p in model.state_dict().values())"),
    ),
    wrong(
        "4.3",
        "numbers that agree with all",
        "expected a number",
        definition(
            "count_macs",
            AGREEABLE + "def count_macs(model, shape=(3, 32, 32)):\n    return Agreeable()",
        ),
    ),
    right(
        "4.3",
        "sizes of shapes",
        hole(
            "count_parameters",
            """return sum(torch.Size(size).numel() for size in [p.shape for p in model.parameters()])""",
        ),
    ),
    right(
        "4.3",
        "named",
        hole(
            "count_parameters",
            """total = 0
for _, p in model.named_parameters():
    total += torch.tensor(p.shape).prod().item()
return total""",
        ),
    ),
    right(
        "4.3",
        "base",
        hole(
            "count_macs",
            """macs, mode = [], {m: m.training for m in model.modules()}
def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape))
[k.remove() for k in hooks]
for m, training in mode.items(): m.training = training
return sum(macs)""",
        ),
    ),
    wrong(
        "4.3",
        "flops",
        "it counts operations, two for each multiply-add",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(2*output.numel() * layer.weight[0].numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape))
[k.remove() for k in hooks]
model.train(mode)
return sum(macs)""",
        ),
    ),
    wrong(
        "4.3",
        "nolinear",
        "it leaves the linear layers out",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, nn.Conv2d)]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape))
[k.remove() for k in hooks]
model.train(mode)
return sum(macs)""",
        ),
    ),
    wrong(
        "4.3",
        "nogroups",
        "groups are forgotten",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel() * getattr(layer, "groups", 1))
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape))
[k.remove() for k in hooks]
model.train(mode)
return sum(macs)""",
        ),
    ),
    wrong(
        "4.3",
        "the whole weight",
        "it multiplies by the whole weight",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight.numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape))
[k.remove() for k in hooks]
model.train(mode)
return sum(macs)""",
        ),
    ),
    wrong(
        "4.3",
        "hooksleft",
        "Each part of the model may be in its own mode",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape))
pass
model.train(mode)
return sum(macs)""",
        ),
    ),
    wrong(
        "4.3",
        "trainmode",
        "Each part of the model may be in its own mode",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model(torch.zeros(1, *shape))
[k.remove() for k in hooks]
model.train(mode)
return sum(macs)""",
        ),
    ),
    wrong(
        "4.3",
        "inputsize",
        "it takes the size of what reaches a layer",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(inputs[0].numel() * layer.weight[:, 0].numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape))
[k.remove() for k in hooks]
model.train(mode)
return sum(macs)""",
        ),
    ),
    wrong(
        "4.3",
        "square",
        "it takes images to be as high as wide",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(output.shape[-1]**2 * layer.weight.numel() if output.dim() == 4 else layer.weight.numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape))
[k.remove() for k in hooks]
model.train(mode)
return sum(macs)""",
        ),
    ),
    right(
        "4.3",
        "flopcounter",
        hole(
            "count_macs",
            """from torch.utils.flop_counter import FlopCounterMode
modes = [m.training for m in model.modules()]
model.eval()
with FlopCounterMode(display=False) as c, torch.no_grad():
    model(torch.zeros(1, *shape))
for m, mode in zip(model.modules(), modes): m.training = mode
return c.get_total_flops() // 2""",
        ),
    ),
    wrong(
        "4.3",
        "evalleft",
        "may be in its own mode",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape))
[k.remove() for k in hooks]
return sum(macs)""",
        ),
    ),
    wrong(
        "4.3",
        "batch2",
        "it runs two images",
        hole(
            "count_macs",
            """macs, mode = [], model.training
def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())
hooks = [l.register_forward_hook(count) for l in model.modules() if isinstance(l, (nn.Conv2d, nn.Linear))]
with torch.no_grad():
    model.eval()(torch.zeros(2, *shape))
[k.remove() for k in hooks]
model.train(mode)
return sum(macs)""",
        ),
    ),
    wrong(
        "4.4",
        "seedout",
        "starts from other weights than in a run by one process. Call",
        hole(
            "train_depths",
            """rows = {}
torch.manual_seed(0)
for depth, seed in list(itertools.product(depths, seeds))[rank::world_size]:
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows""",
        ),
    ),
    wrong(
        "4.4",
        "seedonce",
        "Train only those of this process's share",
        hole(
            "train_depths",
            """rows = {}
for seed in seeds:
    torch.manual_seed(seed)
    for depth in depths:
        rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return {k: v for i, (k, v) in enumerate(rows.items()) if i % world_size == rank}""",
        ),
    ),
    wrong(
        "4.4",
        "norank",
        "is in the share of another process",
        hole(
            "train_depths",
            """rows = {}
for depth, seed in itertools.product(depths, seeds):
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows""",
        ),
    ),
    wrong(
        "4.4",
        "contig",
        "rocesses none trains",
        hole(
            "train_depths",
            """jobs = list(itertools.product(depths, seeds))
n = len(jobs)//world_size
rows = {}
for depth, seed in jobs[rank*n:(rank+1)*n]:
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows""",
        ),
    ),
    wrong(
        "4.4",
        "bydepth",
        "runs. Deal them out evenly",
        hole(
            "train_depths",
            """rows = {}
for depth, seed in list(itertools.product(list(depths)[rank::world_size], seeds)):
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows""",
        ),
    ),
    wrong(
        "4.4",
        "noinit",
        "are not drawn by initialise",
        hole(
            "train_depths",
            """rows = {}
for depth, seed in list(itertools.product(depths, seeds))[rank::world_size]:
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth, width), depth, seed)
return rows""",
        ),
    ),
    wrong(
        "4.4",
        "nowidth",
        "Pass width on",
        hole(
            "train_depths",
            """rows = {}
for depth, seed in list(itertools.product(depths, seeds))[rank::world_size]:
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth).apply(initialise), depth, seed)
return rows""",
        ),
    ),
    right(
        "4.4",
        "seedfirst",
        hole(
            "train_depths",
            """rows = {}
for depth, seed in [(d, s) for s in seeds for d in depths][rank::world_size]:
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows""",
        ),
    ),
    right(
        "4.4",
        "enumerate",
        hole(
            "train_depths",
            """rows = {}
i = 0
for depth in depths:
    for seed in seeds:
        if i % world_size == rank:
            torch.manual_seed(seed)
            net = build_resnet(depth, width)
            net.apply(initialise)
            rows[(depth, seed)] = fit(net, depth, seed)
        i += 1
return rows""",
        ),
    ),
    wrong(
        "4.4",
        "initfirst",
        "starts from other weights than in a run by one process. Call",
        hole(
            "train_depths",
            """rows = {}
for depth, seed in list(itertools.product(depths, seeds))[rank::world_size]:
    net = build_resnet(depth, width)
    torch.manual_seed(seed)
    rows[depth, seed] = fit(net.apply(initialise), depth, seed)
return rows""",
        ),
    ),
    wrong(
        "4.4",
        "keyswap",
        "its keys are (seed, depth)",
        hole(
            "train_depths",
            """rows = {}
for depth, seed in list(itertools.product(depths, seeds))[rank::world_size]:
    torch.manual_seed(seed)
    rows[seed, depth] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows""",
        ),
    ),
    wrong(
        "4.5",
        "share",
        "a hundredth of what it should be",
        hole(
            "marginal_gains",
            """ordered = sorted(rows, key=lambda r: r["macs"])
return [(b["accuracy"]-a["accuracy"])/((b["macs"]-a["macs"])/1e9) for a,b in zip(ordered,ordered[1:])]""",
        ),
    ),
    wrong(
        "4.5",
        "nosort",
        "the rows are not sorted by multiply-adds",
        hole(
            "marginal_gains",
            'return [100*(b["accuracy"]-a["accuracy"])/((b["macs"]-a["macs"])/1e9) for a,b in zip(rows,rows[1:])]',
        ),
    ),
    wrong(
        "4.5",
        "nog",
        "it divides by multiply-adds",
        hole(
            "marginal_gains",
            """ordered = sorted(rows, key=lambda r: r["macs"])
return [100*(b["accuracy"]-a["accuracy"])/(b["macs"]-a["macs"]) for a,b in zip(ordered,ordered[1:])]""",
        ),
    ),
    wrong(
        "4.5",
        "first",
        "each network is compared with the smallest, not with the one before",
        hole(
            "marginal_gains",
            """ordered = sorted(rows, key=lambda r: r["macs"])
return [100*(b["accuracy"]-ordered[0]["accuracy"])/((b["macs"]-ordered[0]["macs"])/1e9) for b in ordered[1:]]""",
        ),
    ),
    wrong(
        "4.5",
        "sign",
        "smaller minus larger",
        hole(
            "marginal_gains",
            """ordered = sorted(rows, key=lambda r: r["macs"])
return [100*(a["accuracy"]-b["accuracy"])/((b["macs"]-a["macs"])/1e9) for a,b in zip(ordered,ordered[1:])]""",
        ),
    ),
    right(
        "4.5",
        "numpy",
        hole(
            "marginal_gains",
            """import numpy as np
a=np.array(sorted((r["macs"],r["accuracy"]) for r in rows)).reshape(-1,2)
return 1e11*np.diff(a[:,1])/np.diff(a[:,0])""",
        ),
    ),
    wrong(
        "4.5",
        "abs",
        "it drops the sign",
        hole(
            "marginal_gains",
            """ordered = sorted(rows, key=lambda r: r["macs"])
return [abs(100*(b["accuracy"]-a["accuracy"])/((b["macs"]-a["macs"])/1e9)) for a,b in zip(ordered,ordered[1:])]""",
        ),
    ),
    wrong(
        "4.5",
        "sortacc",
        "the rows are sorted by accuracy",
        hole(
            "marginal_gains",
            """ordered = sorted(rows, key=lambda r: r["accuracy"])
return [100*(b["accuracy"]-a["accuracy"])/((b["macs"]-a["macs"])/1e9) for a,b in zip(ordered,ordered[1:])]""",
        ),
    ),
    right(
        "4.2",
        "stage by stage",
        hole(
            "build_resnet",
            """
            def stage(inputs, channels, count, stride):
                outputs = channels * block.expansion
                return nn.Sequential(block(inputs, channels, stride), *(block(outputs, channels) for _ in range(count - 1)))

            e = block.expansion
            stages = nn.Sequential(
                stage(width, width, counts[0], 1),
                *(stage(e * width * 2 ** (i - 1), width * 2**i, counts[i], 2) for i in (1, 2, 3)))
            head = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(8 * e * width, num_classes))
            return nn.Sequential(make_stem(stem, width), stages, head)
            """,
        ),
    ),
    right(
        "4.5",
        "a loop",
        hole(
            "marginal_gains",
            """
            gains, last = [], None
            for macs, share in sorted((row["macs"], row["accuracy"]) for row in rows):
                if last is not None:
                    gains.append((share - last[1]) * 100 / (macs - last[0]) * 10**9)
                last = macs, share
            return tuple(gains)
            """,
        ),
    ),
    wrong(
        "4.1",
        "stride forgotten",
        "no convolution of the branch takes the stride",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.1",
        "dilated",
        "channels has dilation 2, expected 1",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=2, dilation=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.1",
        "momentum",
        "a batch norm has momentum=0.9",
        hole(
            "Bottleneck.__init__",
            """
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels, momentum=0.9))
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
    """,
        ),
    ),
    wrong(
        "4.2",
        "dropout",
        "a dropout ran",
        edit(
            "nn.Flatten(), nn.Linear(in_channels, num_classes))",
            "nn.Flatten(), nn.Dropout(0.5), nn.Linear(in_channels, num_classes))",
        ),
    ),
    wrong(
        "4.2",
        "squeeze",
        "has the shape (10,), expected (1, 10)",
        hole(
            "build_resnet",
            """class Squeeze(nn.Module):
    def forward(self, x):
        return x.squeeze()

blocks, in_channels = [], width
for i, count in enumerate(counts):
    for j in range(count):
        blocks.append(block(in_channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
        in_channels = block.expansion * width * 2**i
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), Squeeze(), nn.Linear(in_channels, num_classes))
return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "4.2",
        "changes the pictures",
        "changed the images themselves",
        edit(
            "    return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)",
            """    class Scale(nn.Module):
        def forward(self, x):
            return x.sub_(0.5).div_(0.25)

    return nn.Sequential(Scale(), make_stem(stem, width), nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "4.2",
        "head of fixed size",
        "made for 512 numbers, but the last convolution outputs",
        edit("nn.Linear(in_channels, num_classes))", "nn.Linear(512, num_classes))"),
    ),
    wrong(
        "4.3",
        "with gradients",
        "runs the model with gradients",
        edit(
            "    with torch.no_grad():\n        model(image)",
            "    if True:\n        model(image)",
        ),
    ),
    wrong(
        "4.3",
        "freezes the model",
        "changes requires_grad of",
        edit(
            "    with torch.no_grad():\n        model(image)",
            "    model.requires_grad_(False)\n    with torch.no_grad():\n        model(image)",
        ),
    ),
    wrong(
        "4.3",
        "gradients off for good",
        "leaves gradients switched off",
        edit(
            "    with torch.no_grad():\n        model(image)",
            "    torch.set_grad_enabled(False)\n    if True:\n        model(image)",
        ),
    ),
    wrong(
        "4.3",
        "hook on everything",
        "runs for every module there is",
        edit(
            "    hooks = [",
            "    torch.nn.modules.module.register_module_forward_hook(lambda *args: None)\n    hooks = [",
        ),
    ),
    wrong(
        "4.3",
        "parameters by kind of layer",
        "it counts layer by layer",
        hole(
            "count_parameters",
            """total = 0
for m in model.modules():
    if isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
        total += m.weight.numel() + (m.bias.numel() if m.bias is not None else 0)
return total""",
        ),
    ),
    wrong(
        "4.3",
        "a dict of layers",
        "a layer that runs twice counts once",
        hole(
            "count_macs",
            """macs, mode = {}, model.training
def count(layer, inputs, output):
    macs[layer] = output.numel() * layer.weight[0].numel()
hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
with torch.no_grad():
    model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
for hook in hooks:
    hook.remove()
model.train(mode)
return sum(macs.values())""",
        ),
    ),
    wrong(
        "4.4",
        "one network for all seeds of a depth",
        "has trained before",
        hole(
            "train_depths",
            """rows, networks = {}, {}
for depth, seed in list(itertools.product(depths, seeds))[rank::world_size]:
    torch.manual_seed(seed)
    if depth not in networks:
        networks[depth] = build_resnet(depth, width)
    rows[depth, seed] = fit(networks[depth].apply(initialise), depth, seed)
return rows""",
        ),
    ),
    wrong(
        "4.4",
        "arguments of fit swapped",
        "Say fit(network, depth, seed)",
        edit("= fit(network, depth, seed)", "= fit(network, seed, depth)"),
    ),
    wrong(
        "4.5",
        "sorts in place",
        "changes the rows that it is given",
        hole(
            "marginal_gains",
            """rows.sort(key=lambda row: row["macs"])
return [100 * (b["accuracy"] - a["accuracy"]) / ((b["macs"] - a["macs"]) / 1e9) for a, b in zip(rows, rows[1:])]""",
        ),
    ),
    wrong(
        "4.1",
        "no zero",
        "the weight of the last batch norm is not set to zero",
        edit(
            "        nn.init.zeros_(self.branch[-1].weight)\n        self.shortcut = make_shortcut(in_channels, out_channels",
            "        self.shortcut = make_shortcut(in_channels, out_channels",
        ),
    ),
    right(
        "4.2",
        "lazy head",
        edit("nn.Linear(in_channels, num_classes))", "nn.LazyLinear(num_classes))"),
    ),
    right(
        "4.4",
        "an ordered dict",
        edit(
            "    rows = {}\n    for depth, seed",
            "    import collections\n    rows = collections.OrderedDict()\n    for depth, seed",
        ),
    ),
    wrong(
        "4.1",
        "no zero start",
        "the weight of the last batch norm is not set to zero",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
pass
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    wrong(
        "4.1",
        "all three zero",
        "more batch norms start at zero",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
for n in (1, 4, 7):
    nn.init.zeros_(self.branch[n].weight)
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    wrong(
        "4.1",
        "first norm zero",
        "another batch norm starts at zero",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
nn.init.zeros_(self.branch[1].weight)
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    wrong(
        "4.1",
        "shortcut norm zero too",
        "more batch norms start at zero",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
nn.init.zeros_(self.branch[-1].weight)
self.shortcut = make_shortcut(in_channels, out_channels, stride)
for m in self.shortcut.modules():
    if isinstance(m, nn.BatchNorm2d):
        nn.init.zeros_(m.weight)
""",
        ),
    ),
    wrong(
        "4.1",
        "only shortcut norm zero",
        "another batch norm starts at zero",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
pass
self.shortcut = make_shortcut(in_channels, out_channels, stride)
for m in self.shortcut.modules():
    if isinstance(m, nn.BatchNorm2d):
        nn.init.zeros_(m.weight)
""",
        ),
    ),
    wrong(
        "4.1",
        "last conv zero too",
        "are all zero",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
nn.init.zeros_(self.branch[-1].weight)
nn.init.zeros_(self.branch[-2].weight)
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    wrong(
        "4.1",
        "nearly zero",
        "expected 0",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
nn.init.constant_(self.branch[-1].weight, 1e-3)
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    wrong(
        "4.1",
        "bias one",
        "the bias of a new batch norm is 1",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
nn.init.zeros_(self.branch[-1].weight)
nn.init.ones_(self.branch[-1].bias)
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    wrong(
        "4.1",
        "norm zeroed each forward",
        "forward sets it to zero each time",
        hole(
            "Bottleneck.forward",
            """
nn.init.zeros_(self.branch[-1].weight)
return F.relu(self.branch(x) + self.shortcut(x))
""",
        ),
    ),
    wrong(
        "4.1",
        "cached shortcut",
        "share weights",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
nn.init.zeros_(self.branch[-1].weight)
self.shortcut = SHORTCUTS.setdefault((in_channels, out_channels, stride), make_shortcut(in_channels, out_channels, stride))
""",
        ),
        before(
            "Bottleneck",
            """
SHORTCUTS = {}
""",
        ),
    ),
    wrong(
        "4.1",
        "seeds",
        "it seeds torch",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
nn.init.zeros_(self.branch[-1].weight)
torch.manual_seed(0)
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    wrong(
        "4.1",
        "eval",
        "parts in eval mode",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
nn.init.zeros_(self.branch[-1].weight)
self.branch.eval()
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    right(
        "4.1",
        "zero replaced parameter",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
self.branch[-1].weight = nn.Parameter(torch.zeros(out_channels))
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    right(
        "4.1",
        "zero via data",
        hole(
            "Bottleneck.__init__",
            """
out_channels = self.expansion * channels
self.branch = nn.Sequential(
    nn.Conv2d(in_channels, channels, 1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, out_channels, 1, bias=False),
    nn.BatchNorm2d(out_channels),
)
self.branch[-1].weight.data.zero_()
self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
    ),
    wrong(
        "4.2",
        "cached network",
        "share weights",
        hole(
            "build_resnet",
            """
key = (depth, width, num_classes, stem)
if key in NETS:
    return NETS[key]
blocks = []
in_channels = width
for i, count in enumerate(counts):
    for j in range(count):
        blocks.append(block(in_channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
        in_channels = block.expansion * width * 2**i
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
NETS[key] = nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)
return NETS[key]
""",
        ),
        before(
            "build_resnet",
            """
NETS = {}
""",
        ),
    ),
    wrong(
        "4.2",
        "seeds",
        "it seeds torch",
        hole(
            "build_resnet",
            """
torch.manual_seed(0)
blocks = []
in_channels = width
for i, count in enumerate(counts):
    for j in range(count):
        blocks.append(block(in_channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
        in_channels = block.expansion * width * 2**i
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)
""",
        ),
    ),
    wrong(
        "4.2",
        "eval",
        "parts in eval mode",
        hole(
            "build_resnet",
            """
blocks = []
in_channels = width
for i, count in enumerate(counts):
    for j in range(count):
        blocks.append(block(in_channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
        in_channels = block.expansion * width * 2**i
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head).eval()
""",
        ),
    ),
    wrong(
        "4.2",
        "all norms zero",
        "more batch norms start at zero",
        hole(
            "build_resnet",
            """
blocks = []
in_channels = width
for i, count in enumerate(counts):
    for j in range(count):
        blocks.append(block(in_channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
        in_channels = block.expansion * width * 2**i
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
for bl in blocks:
    for m in bl.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.zeros_(m.weight)
return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)
""",
        ),
    ),
    wrong(
        "4.2",
        "norms back to one",
        "the weight of the last batch norm is not set to zero",
        hole(
            "build_resnet",
            """
blocks = []
in_channels = width
for i, count in enumerate(counts):
    for j in range(count):
        blocks.append(block(in_channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
        in_channels = block.expansion * width * 2**i
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
for bl in blocks:
    for m in bl.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.ones_(m.weight)
return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)
""",
        ),
    ),
    wrong(
        "4.2",
        "inf head bias",
        "logits that are not finite",
        hole(
            "build_resnet",
            """
blocks = []
in_channels = width
for i, count in enumerate(counts):
    for j in range(count):
        blocks.append(block(in_channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
        in_channels = block.expansion * width * 2**i
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
nn.init.constant_(head[-1].bias, math.inf)
return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)
""",
        ),
    ),
    right(
        "4.2",
        "nested stages",
        hole(
            "build_resnet",
            """
blocks = []
stages = []
in_channels = width
for i, count in enumerate(counts):
    stages.append(nn.Sequential())
    for j in range(count):
        stages[-1].append(block(in_channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
        in_channels = block.expansion * width * 2**i
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
return nn.Sequential(make_stem(stem, width), nn.Sequential(*stages), head)
""",
        ),
    ),
    wrong(
        "4.3",
        "shared twice",
        "counts twice",
        hole(
            "count_parameters",
            """
return sum(p.numel() for m in model.modules() for p in m.parameters(recurse=False))
""",
        ),
    ),
    wrong(
        "4.3",
        "matrices only",
        "two dimensions and more only",
        hole(
            "count_parameters",
            """
return sum(parameter.numel() for parameter in model.parameters() if parameter.dim() > 1)
""",
        ),
    ),
    wrong(
        "4.3",
        "bytes",
        "it counts bytes",
        hole(
            "count_parameters",
            """
return sum(parameter.nbytes for parameter in model.parameters())
""",
        ),
    ),
    wrong(
        "4.3",
        "float",
        "returned a float",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return float(sum(macs))
""",
        ),
    ),
    wrong(
        "4.3",
        "thaws",
        "changes requires_grad of",
        hole(
            "count_parameters",
            """
model.requires_grad_(True)
return sum(parameter.numel() for parameter in model.parameters())
""",
        ),
    ),
    wrong(
        "4.3",
        "root mode only",
        "Each part of the model may be in its own mode",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    model.train(mode)
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.3",
        "random image",
        "draws random numbers",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.randn(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.3",
        "ones",
        "on other images than zeros",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.ones(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.3",
        "runs twice",
        "runs the model more than once",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
        macs.clear()
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.3",
        "clears hooks",
        "has lost a hook",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for layer in layers:
        layer._forward_hooks.clear()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.3",
        "zero grad",
        "deletes the gradient that was in",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    model.zero_grad()
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.3",
        "double",
        "in float64",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    model.double()
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape).double())
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.3",
        "minus one",
        "it counts the additions only",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * (layer.weight[0].numel() - 1))

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.3",
        "strides as real",
        "positions of what reaches a convolution",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append((output.numel() if isinstance(layer, nn.Linear) else layer.weight.shape[0] * inputs[0].shape[2] * inputs[0].shape[3]) * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.3",
        "cached",
        "the model is not run in this call",
        hole(
            "count_macs",
            """
if model in KNOWN:
    return KNOWN[model]
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
KNOWN[model] = sum(macs)
return sum(macs)
""",
        ),
        before(
            "count_macs",
            """
KNOWN = {}
""",
        ),
    ),
    right(
        "4.3",
        "numpy",
        hole(
            "count_parameters",
            """
import numpy
return numpy.sum([parameter.numel() for parameter in model.parameters()])
""",
        ),
    ),
    right(
        "4.3",
        "tensor",
        hole(
            "count_parameters",
            """
return torch.tensor([parameter.numel() for parameter in model.parameters()]).sum()
""",
        ),
    ),
    right(
        "4.3",
        "careful",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    right(
        "4.3",
        "deepcopy",
        hole(
            "count_macs",
            """
model = copy.deepcopy(model)
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    right(
        "4.3",
        "conv by in/out",
        hole(
            "count_macs",
            """
macs = []
mode = model.training

def count(layer, inputs, output):
    macs.append(output.numel() * (layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels // layer.groups * math.prod(layer.kernel_size)))

layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
hooks = [layer.register_forward_hook(count) for layer in layers]
modes = [(m, m.training) for m in model.modules()]
try:
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
finally:
    for hook in hooks:
        hook.remove()
    for m, t in modes:
        m.training = t
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.4",
        "seed by place",
        "the seed's place in the list",
        hole(
            "train_depths",
            """
trainings = list(itertools.product(depths, seeds))
rows = {}
for depth, seed in trainings[rank::world_size]:
    torch.manual_seed(list(seeds).index(seed))
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows
""",
        ),
    ),
    wrong(
        "4.4",
        "seed relative to the first",
        "the seed's place in the list",
        hole(
            "train_depths",
            """
trainings = list(itertools.product(depths, seeds))
rows = {}
for depth, seed in trainings[rank::world_size]:
    torch.manual_seed(seed - list(seeds)[0])
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows
""",
        ),
    ),
    wrong(
        "4.4",
        "seed mod 3",
        "give the same weights",
        hole(
            "train_depths",
            """
trainings = list(itertools.product(depths, seeds))
rows = {}
for depth, seed in trainings[rank::world_size]:
    torch.manual_seed(seed % 3)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows
""",
        ),
    ),
    wrong(
        "4.4",
        "contiguous",
        "each process takes neighbours",
        hole(
            "train_depths",
            """
trainings = list(itertools.product(depths, seeds))
rows = {}
for depth, seed in trainings[rank * len(trainings) // world_size:(rank + 1) * len(trainings) // world_size]:
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows
""",
        ),
    ),
    right(
        "4.4",
        "seeds outer",
        hole(
            "train_depths",
            """
trainings = [(d, s) for s in seeds for d in depths]
rows = {}
for depth, seed in trainings[rank::world_size]:
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows
""",
        ),
    ),
    wrong(
        "4.4",
        "norms to one",
        "start at zero",
        hole(
            "train_depths",
            """
trainings = list(itertools.product(depths, seeds))
rows = {}
for depth, seed in trainings[rank::world_size]:
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise).apply(lambda m: m.reset_parameters() if isinstance(m, nn.BatchNorm2d) else None), depth, seed)
return rows
""",
        ),
    ),
    wrong(
        "4.4",
        "eval",
        "parts in eval mode",
        hole(
            "train_depths",
            """
trainings = list(itertools.product(depths, seeds))
rows = {}
for depth, seed in trainings[rank::world_size]:
    torch.manual_seed(seed)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise).eval(), depth, seed)
return rows
""",
        ),
    ),
    right(
        "4.4",
        "own function of both",
        hole(
            "train_depths",
            """
trainings = list(itertools.product(depths, seeds))
rows = {}
for depth, seed in trainings[rank::world_size]:
    torch.manual_seed(1000 * seed + depth)
    rows[depth, seed] = fit(build_resnet(depth, width).apply(initialise), depth, seed)
return rows
""",
        ),
    ),
    right(
        "4.4",
        "fork_rng",
        hole(
            "train_depths",
            """
trainings = list(itertools.product(depths, seeds))
rows = {}
for depth, seed in trainings[rank::world_size]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_resnet(depth, width).apply(initialise)
    rows[depth, seed] = fit(network, depth, seed)
return rows
""",
        ),
    ),
    wrong(
        "4.5",
        "dicts extended",
        "Neither the list nor the dicts",
        hole(
            "marginal_gains",
            """
ordered = sorted(rows, key=lambda row: row["macs"])
gains = []
for row in ordered:
    row['gmacs'] = row['macs'] / 1e9
for smaller, larger in itertools.pairwise(ordered):
    points = 100 * (larger["accuracy"] - smaller["accuracy"])
    gmacs = (larger["macs"] - smaller["macs"]) / 1e9
    gains.append(points / gmacs)
return gains
""",
        ),
    ),
    wrong(
        "4.5",
        "mmacs",
        "it divides by millions",
        hole(
            "marginal_gains",
            """
ordered = sorted(rows, key=lambda row: row["macs"])
gains = []
for smaller, larger in itertools.pairwise(ordered):
    points = 100 * (larger["accuracy"] - smaller["accuracy"])
    gmacs = (larger["macs"] - smaller["macs"]) / 1e6
    gains.append(points / gmacs)
return gains
""",
        ),
    ),
    wrong(
        "4.5",
        "gibi",
        "10^9 multiply-adds, not 2^30",
        hole(
            "marginal_gains",
            """
ordered = sorted(rows, key=lambda row: row["macs"])
gains = []
for smaller, larger in itertools.pairwise(ordered):
    points = 100 * (larger["accuracy"] - smaller["accuracy"])
    gmacs = (larger["macs"] - smaller["macs"]) / 2**30
    gains.append(points / gmacs)
return gains
""",
        ),
    ),
    wrong(
        "4.5",
        "inverse",
        "upside down",
        hole(
            "marginal_gains",
            """
ordered = sorted(rows, key=lambda row: row["macs"])
gains = []
for smaller, larger in itertools.pairwise(ordered):
    points = 100 * (larger["accuracy"] - smaller["accuracy"])
    gmacs = (larger["macs"] - smaller["macs"]) / 1e9
    gains.append(gmacs / points)
return gains
""",
        ),
    ),
    wrong(
        "4.5",
        "clamped",
        "a loss of accuracy counts as 0",
        hole(
            "marginal_gains",
            """
ordered = sorted(rows, key=lambda row: row["macs"])
gains = []
for smaller, larger in itertools.pairwise(ordered):
    points = 100 * (larger["accuracy"] - smaller["accuracy"])
    gmacs = (larger["macs"] - smaller["macs"]) / 1e9
    gains.append(max(points / gmacs, 0.0))
return gains
""",
        ),
    ),
    wrong(
        "4.5",
        "percent relative",
        "in per cent of the smaller",
        hole(
            "marginal_gains",
            """
ordered = sorted(rows, key=lambda row: row["macs"])
gains = []
for smaller, larger in itertools.pairwise(ordered):
    points = 100 * (larger["accuracy"] / smaller["accuracy"] - 1)
    gmacs = (larger["macs"] - smaller["macs"]) / 1e9
    gains.append(points / gmacs)
return gains
""",
        ),
    ),
    wrong(
        "4.5",
        "rounded",
        "the numbers are rounded",
        hole(
            "marginal_gains",
            """
ordered = sorted(rows, key=lambda row: row["macs"])
gains = []
for smaller, larger in itertools.pairwise(ordered):
    points = 100 * (larger["accuracy"] - smaller["accuracy"])
    gmacs = (larger["macs"] - smaller["macs"]) / 1e9
    gains.append(round(points / gmacs, 1))
return gains
""",
        ),
    ),
    right(
        "4.5",
        "numpy diff",
        hole(
            "marginal_gains",
            """
ordered = sorted(rows, key=lambda row: row["macs"])
import numpy
a = numpy.diff([100 * r['accuracy'] for r in ordered])
g = numpy.diff([r['macs'] / 1e9 for r in ordered])
return (a / g).tolist()
gains = []
for smaller, larger in itertools.pairwise(ordered):
    points = 100 * (larger["accuracy"] - smaller["accuracy"])
    gmacs = (larger["macs"] - smaller["macs"]) / 1e9
    gains.append(points / gmacs)
return gains
""",
        ),
    ),
    wrong(
        "4.3",
        "by their address in memory",
        "Tell parameters apart by id",
        definition(
            "count_parameters",
            """
def count_parameters(model):
    sizes = {p.data_ptr(): p.numel() for p in model.parameters()}
    return sum(sizes.values())
""",
        ),
    ),
    wrong(
        "4.5",
        "a dict by accuracy",
        "of networks of equal accuracy only one is left",
        definition(
            "marginal_gains",
            """
def marginal_gains(rows):
    macs = {row["accuracy"]: row["macs"] for row in rows}
    ordered = sorted(macs.items(), key=lambda item: item[1])
    gains = []
    for (accuracy, cost), (next_accuracy, next_cost) in itertools.pairwise(ordered):
        gains.append(100 * (next_accuracy - accuracy) / ((next_cost - cost) / 1e9))
    return gains
""",
        ),
    ),
    wrong(
        "4.5",
        "beside the best so far",
        "accuracies are compared with the best so far",
        definition(
            "marginal_gains",
            """
def marginal_gains(rows):
    ordered = sorted(rows, key=lambda row: row["macs"])
    best = ordered[0]["accuracy"]
    gains = []
    for smaller, larger in itertools.pairwise(ordered):
        gmacs = (larger["macs"] - smaller["macs"]) / 1e9
        gains.append(100 * (larger["accuracy"] - best) / gmacs)
        best = max(best, larger["accuracy"])
    return gains
""",
        ),
    ),
    wrong(
        "4.1",
        "frozen at zero",
        "does not require gradients",
        definition(
            "Bottleneck",
            """
class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        nn.init.zeros_(self.branch[-1].weight)
        self.branch[-1].weight.requires_grad_(False)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        return F.relu(self.branch(x) + self.shortcut(x))
""",
        ),
    ),
    wrong(
        "4.2",
        "dropout in the head",
        "a dropout ran",
        definition(
            "build_resnet",
            """
def build_resnet(depth, width=64, num_classes=10, stem="cifar"):
    if depth not in LAYERS:
        raise ValueError(f"depth {depth} is not one of {list(LAYERS)}")
    block, counts = LAYERS[depth]
    blocks = []
    in_channels = width
    for i, count in enumerate(counts):
        channels = width * 2**i
        for j in range(count):
            stride = 2 if i > 0 and j == 0 else 1
            blocks.append(block(in_channels, channels, stride))
            in_channels = block.expansion * channels
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(in_channels, num_classes))
    return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)
""",
        ),
    ),
    wrong(
        "4.3",
        "with biases",
        None,
        definition(
            "count_macs",
            """
def count_macs(model, shape=(3, 32, 32)):
    macs = []
    modes = [(module, module.training) for module in model.modules()]

    def count(layer, inputs, output):
        macs.append(output.numel() * (layer.weight[0].numel() + (layer.bias is not None)))

    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    image = torch.zeros(1, *shape, device=next(model.parameters()).device)
    model.eval()
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    for module, mode in modes:
        module.training = mode
    return sum(macs)
""",
        ),
    ),
    wrong(
        "4.4",
        "every second depth",
        "Deal them out evenly",
        definition(
            "train_depths",
            """
def train_depths(fit, depths, seeds, width=64, rank=0, world_size=1):
    trainings = list(itertools.product(depths, seeds))
    rows = {}
    own_depths = list(depths)[rank::world_size]
    for depth, seed in itertools.product(own_depths, seeds):
        torch.manual_seed(seed)
        network = build_resnet(depth, width)
        network.apply(initialise)
        rows[depth, seed] = fit(network, depth, seed)
    return rows
""",
        ),
    ),
    wrong(
        "4.2",
        "checks the shapes in train mode, which moves the running statistics",
        "Something has run in train mode",
        definition(
            "build_resnet",
            """def build_resnet(depth, width=64, num_classes=10, stem="cifar"):
    if depth not in LAYERS:
        raise ValueError(f"depth {depth} is not one of {list(LAYERS)}")
    block, counts = LAYERS[depth]
    blocks = []
    in_channels = width
    for i, count in enumerate(counts):
        for j in range(count):
            blocks.append(block(in_channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
            in_channels = block.expansion * width * 2**i
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
    network = nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)
    with torch.no_grad():
        assert network(torch.ones(2, 3, 64, 64)).shape == (2, num_classes)
    return network""",
        ),
    ),
    wrong(
        "4.3",
        "parameters: a float32 sum, rounded above 2**24",
        "Count in Python's whole numbers",
        definition(
            "count_parameters",
            """def count_parameters(model):
    sizes = torch.tensor([p.numel() for p in model.parameters()], dtype=torch.float32)
    return int(sizes.sum())""",
        ),
    ),
    wrong(
        "4.5",
        "multiply-adds rounded to float32: close networks divide by a wrong difference",
        None,
        definition(
            "marginal_gains",
            """def marginal_gains(rows):
    ordered = sorted(rows, key=lambda row: row["macs"])
    macs = torch.tensor([row["macs"] for row in ordered], dtype=torch.float32)
    accuracies = torch.tensor([row["accuracy"] for row in ordered], dtype=torch.float32)
    return (100 * accuracies.diff() / (macs.diff() / 1e9)).tolist()""",
        ),
    ),
    wrong(
        "4.3",
        "adds up in float32",
        "the sum is kept in float32",
        edit("return sum(macs)", "return int(torch.tensor(macs, dtype=torch.float32).sum())"),
    ),
    wrong(
        "4.3",
        "gradients on at the end",
        "switches gradients on, which were off before",
        edit("    for hook in hooks:", "    torch.set_grad_enabled(True)\n    for hook in hooks:"),
    ),
    wrong(
        "4.4",
        "initialise on the blocks only",
        "or some of them, are not drawn by initialise",
        edit(
            "        network.apply(initialise)\n        rows",
            "        network[1].apply(initialise)\n        rows",
        ),
    ),
    wrong(
        "4.4",
        "depth added to the row",
        "not what fit returned, whole and unchanged",
        edit(
            "= fit(network, depth, seed)",
            "= {'depth': depth, **fit(network, depth, seed)}",
        ),
    ),
    wrong(
        "4.1",
        "asks the input for gradients",
        "leaves requires_grad of its input at True",
        edit(
            """        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
            """        x.requires_grad_(self.training)
        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS""",
        ),
    ),
    wrong(
        "4.2",
        "basic blocks everywhere",
        "its blocks are basic blocks",
        edit("blocks.append(block(", "blocks.append(BasicBlock("),
    ),
    wrong(
        "4.2",
        "bottlenecks everywhere",
        "its blocks are bottlenecks",
        edit(
            "    blocks = []\n    in_channels = width",
            "    block = Bottleneck\n    blocks = []\n    in_channels = width",
        ),
    ),
    wrong(
        "4.2",
        "stride 2 from 64 channels on",
        "At any width, the first block of each stage but the first has stride 2",
        edit("stride = 2 if i > 0 and j == 0", "stride = 2 if channels > 64 and j == 0"),
    ),
    wrong(
        "4.2",
        "never more than 512 channels",
        "3x3 convolutions output",
        edit("channels = width * 2**i", "channels = min(width * 2**i, 512)"),
    ),
    wrong(
        "4.2",
        "a whole number of the depth first",
        "raised nothing, expected a ValueError",
        edit("    if depth not in LAYERS", "    depth = int(depth)\n    if depth not in LAYERS"),
    ),
    wrong(
        "4.3",
        "layers without modules inside only",
        "it leaves out layers that have modules inside",
        edit(
            "    hooks = [layer.register_forward_hook(count) for layer in layers]",
            "    childless = [layer for layer in layers if not list(layer.children())]\n"
            "    hooks = [layer.register_forward_hook(count) for layer in childless]",
        ),
    ),
    wrong(
        "4.3",
        "modes put back with train",
        "Each part of the model may be in its own mode",
        edit("        module.training = mode", "        module.train(mode)"),
    ),
    wrong(
        "4.3",
        "float32 as the default",
        "Leave torch's settings to the caller",
        edit(
            "    image = torch.zeros",
            "    torch.set_default_dtype(torch.float32)\n    image = torch.zeros",
        ),
    ),
    wrong(
        "4.4",
        "empty rows left out",
        "for which fit returned an empty dict",
        edit(
            "    return rows\n\n\ndef marginal_gains",
            "    return {key: row for key, row in rows.items() if row}\n\n\ndef marginal_gains",
        ),
    ),
    wrong(
        "4.4",
        "sixteen bits of the seed",
        "seeds 1 and 65537 give the same weights",
        edit("torch.manual_seed(seed)", "torch.manual_seed((depth << 16) | (seed & 0xFFFF))"),
    ),
    wrong(
        "4.5",
        "no network of accuracy 0",
        "the first step is left out",
        edit("sorted(rows, ", 'sorted((row for row in rows if row["accuracy"]), '),
    ),
    wrong(
        "4.1",
        "the branch is added in place",
        "changed the input itself",
        edit(
            "return F.relu(self.branch(x) + self.shortcut(x))\n\n\nLAYERS",
            "out = self.shortcut(x)\n        out += self.branch(x)\n"
            "        return F.relu(out)\n\n\nLAYERS",
        ),
    ),
    wrong(
        "4.2",
        "a head from a seed of its own",
        "gives 2.2.weight the same weights",
        edit(
            "    head = nn.Sequential(",
            """    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = nn.Linear(in_channels, num_classes)
    head = nn.Sequential(""",
        ),
        edit("nn.Linear(in_channels, num_classes))", "linear)"),
    ),
    right(
        "4.3",
        "an image like the weights",
        edit(
            "torch.zeros(1, *shape, device=next(model.parameters()).device)",
            "torch.zeros(1, *shape).to(next(model.parameters()))",
        ),
    ),
    wrong(
        "4.1",
        "surplus channels are cut off",
        "the shortcut runs no convolution",
        edit(
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n\n"
            "    def forward(self, x):\n"
            '        """Features in, features out."""\n        # Task 4.1',
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n"
            "        if stride == 1 and in_channels > out_channels:\n"
            "            self.shortcut = nn.Identity()\n\n"
            "    def forward(self, x):\n"
            '        """Features in, features out."""\n        # Task 4.1',
        ),
        edit(
            "return F.relu(self.branch(x) + self.shortcut(x))\n\n\nLAYERS",
            "branch = self.branch(x)\n"
            "        return F.relu(branch + self.shortcut(x)[:, : branch.shape[1]])\n\n\nLAYERS",
        ),
    ),
    wrong(
        "4.2",
        "the stem for large images with 1000 classes",
        "starts with a 7x7 convolution",
        edit(
            "    blocks = []\n    in_channels = width",
            "    if num_classes >= 1000:\n"
            '        stem = "imagenet"\n'
            "    blocks = []\n    in_channels = width",
        ),
    ),
    wrong(
        "4.3",
        "half of what two images take",
        "runs the model on images (2, 3, 32, 32)",
        edit("image = torch.zeros(1,", "image = torch.zeros(2,"),
        edit("return sum(macs)", "return sum(macs) // 2"),
    ),
    wrong(
        "4.4",
        "the environment's rank first",
        "Its arguments rank and world_size say which process it is",
        edit(
            "    rows = {}\n    for depth, seed in runs[rank::world_size]:",
            '    rank = int(os.environ.get("RANK", rank))\n'
            '    world_size = int(os.environ.get("WORLD_SIZE", world_size))\n'
            "    rows = {}\n    for depth, seed in runs[rank::world_size]:",
        ),
    ),
    wrong(
        "4.4",
        "a seed from the hash of a text",
        "the seed comes from hash() of a text",
        edit(
            "torch.manual_seed(seed)",
            'torch.manual_seed(hash(f"ResNet-{depth}, seed {seed}") % 2**32)',
        ),
    ),
    wrong(
        "4.5",
        "remembered by cost",
        "it returns what an earlier call with other rows gave",
        edit(
            "    gains = []\n    for smaller, larger in itertools.pairwise(ordered):",
            '    gains = KNOWN_GAINS.setdefault(tuple(row["macs"] for row in ordered), [])\n'
            "    if gains:\n"
            "        return list(gains)\n"
            "    for smaller, larger in itertools.pairwise(ordered):",
        ),
        before("marginal_gains", "KNOWN_GAINS = {}\n"),
    ),
    right(
        "4.2",
        "an average over a window of the whole image",
        edit(
            "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))",
            "nn.Sequential(WholeMean(), nn.Flatten(), nn.Linear(in_channels, num_classes))",
        ),
        before(
            "build_resnet",
            """class WholeMean(nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, x.shape[2:])
""",
        ),
    ),
    wrong(
        "4.2",
        "a mean over a square",
        "images of any size must work",
        edit(
            "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))",
            "nn.Sequential(SquareMean(), nn.Flatten(), nn.Linear(in_channels, num_classes))",
        ),
        before(
            "build_resnet",
            """class SquareMean(nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, x.shape[-1])
""",
        ),
    ),
    wrong(
        "4.3",
        "cached by the model",
        "what an earlier call found is kept",
        edit("def count_parameters(", "@functools.cache\ndef count_parameters("),
    ),
    wrong(
        "4.3",
        "a copy in the mode that the model is in",
        "the network runs in train mode",
        hole(
            "count_macs",
            """
model = copy.deepcopy(model)
macs = []

def count(layer, inputs, output):
    macs.append(output.numel() * layer.weight[0].numel())

for layer in model.modules():
    if isinstance(layer, nn.Conv2d | nn.Linear):
        layer.register_forward_hook(count)
with torch.no_grad():
    model(torch.zeros(1, *shape, device=next(model.parameters()).device))
return sum(macs)
""",
        ),
    ),
    wrong(
        "4.4",
        "seed 0 is taken for none",
        None,
        edit("torch.manual_seed(seed)", "torch.manual_seed(seed or 42)"),
    ),
    wrong(
        "4.5",
        "whole GMACs",
        "multiply-adds are cut to whole GMACs",
        edit(
            'gmacs = (larger["macs"] - smaller["macs"]) / 1e9',
            'gmacs = larger["macs"] // 10**9 - smaller["macs"] // 10**9',
        ),
    ),
    right(
        "4.1",
        "the shortcut takes every stride-th pixel first",
        edit(
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n\n    def forward(self, x):\n"
            '        """Features in, features out."""',
            "        self.stride = stride\n"
            "        self.shortcut = make_shortcut(in_channels, out_channels, 1)\n"
            "        if stride > 1 and in_channels == out_channels:\n"
            "            convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)\n"
            "            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))\n\n"
            "    def forward(self, x):\n"
            '        """Features in, features out."""',
        ),
        edit(
            "        # Task 4.1: add the shortcut of x to its residual branch; a last ReLU.\n"
            "        return F.relu(self.branch(x) + self.shortcut(x))",
            "        shortcut = self.shortcut(x[:, :, :: self.stride, :: self.stride])\n"
            "        return F.relu(shortcut + self.branch(x))",
        ),
    ),
    wrong(
        "4.2",
        "pooled in windows of four",
        None,
        before(
            "build_resnet",
            """
class FirstWindow(nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, 4, ceil_mode=True)[:, :, 0, 0]
""",
        ),
        edit(
            "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels",
            "nn.Sequential(FirstWindow(), nn.Linear(in_channels",
        ),
    ),
    wrong(
        "4.2",
        "a depth of its own",
        "raised nothing, expected a ValueError",
        edit(
            "    if depth not in LAYERS:\n"
            '        raise ValueError(f"depth {depth} is not one of {list(LAYERS)}")\n'
            "    block, counts = LAYERS[depth]",
            "    layers = LAYERS | {152: (Bottleneck, (3, 8, 36, 3))}\n"
            "    if depth not in layers:\n"
            '        raise ValueError(f"depth {depth} is not one of {list(layers)}")\n'
            "    block, counts = layers[depth]",
        ),
    ),
    wrong(
        "4.3",
        "statistics reset afterwards",
        "changes the model's buffer",
        edit(
            "    return sum(macs)",
            "    for module in model.modules():\n"
            "        if isinstance(module, nn.BatchNorm2d):\n"
            "            module.reset_running_stats()\n"
            "    return sum(macs)",
        ),
    ),
    wrong(
        "4.3",
        "frozen layers left out",
        "it leaves out frozen layers",
        edit(
            "        macs.append(output.numel() * layer.weight[0].numel())",
            "        if layer.weight.requires_grad:\n"
            "            macs.append(output.numel() * layer.weight[0].numel())",
        ),
    ),
    wrong(
        "4.3",
        "parameters of one size counted once",
        "parameters of equal size count once",
        hole("count_parameters", "return sum({p.numel() for p in model.parameters()})"),
    ),
    wrong(
        "4.3",
        "one output channel",
        "it counts one output channel of each convolution",
        edit(
            "        macs.append(output.numel() * layer.weight[0].numel())",
            "        channels = output.shape[1] if output.dim() == 4 else 1\n"
            "        macs.append(output.numel() // channels * layer.weight[0].numel())",
        ),
    ),
    wrong(
        "4.5",
        "sorted as text",
        "multiply-adds are sorted as text",
        edit('key=lambda row: row["macs"]', 'key=lambda row: str(row["macs"])'),
    ),
    wrong(
        "4.5",
        "a difference of quotients",
        "accuracies over multiply-adds are subtracted",
        hole(
            "marginal_gains",
            """ordered = sorted(rows, key=lambda row: row["macs"])
worth = [100 * row["accuracy"] / (row["macs"] / 1e9) for row in ordered]
return [after - before for before, after in itertools.pairwise(worth)]""",
        ),
    ),
    right(
        "4.3",
        "one long vector",
        hole(
            "count_parameters",
            "return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numel()",
        ),
    ),
    wrong(
        "4.3",
        "bytes, four for each number",
        "it counts bytes, and takes each number for four",
        hole(
            "count_parameters",
            "return sum(parameter.nbytes for parameter in model.parameters()) // 4",
        ),
    ),
    wrong(
        "4.3",
        "a product of the sizes that needs one",
        None,
        before("count_parameters", "import operator\n"),
        hole(
            "count_parameters",
            """shapes = [parameter.shape for parameter in model.parameters()]
return sum(functools.reduce(operator.mul, shape) for shape in shapes)""",
        ),
    ),
    wrong(
        "4.3",
        "a hook for each name of a layer",
        "a layer that the model holds in two places gets two hooks",
        edit(
            "layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | "
            "nn.Linear)]",
            "names = model.named_modules(remove_duplicate=False)\n"
            "    layers = [layer for _, layer in names if isinstance(layer, nn.Conv2d | nn.Linear)]",
        ),
    ),
    wrong(
        "4.5",
        "the gain per 10 million multiply-adds",
        "it is a hundredth of what it should be",
        edit("/ 1e9", "/ 1e7"),
    ),
    wrong(
        "4.1",
        "a stride of two at most",
        "the stride 3 is taken for 2",
        edit(
            "        out_channels = self.expansion * channels\n",
            "        out_channels = self.expansion * channels\n        stride = min(stride, 2)\n",
        ),
    ),
    wrong(
        "4.1",
        "height and width cut to a multiple of the stride",
        "rounded down; round them up",
        edit(
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n",
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n"
            "        self.whole = stride\n",
        ),
        edit(
            '        """Features in, features out."""\n',
            "        height, width = [side // self.whole * self.whole for side in x.shape[2:]]\n"
            "        x = x[:, :, :height, :width]\n",
        ),
    ),
    wrong(
        "4.1",
        "in eval mode from the first single image on",
        "leaves parts of the block in eval mode",
        edit(
            '        """Features in, features out."""\n',
            "        self.train(self.training and len(x) > 1)\n",
        ),
    ),
    wrong(
        "4.1",
        "every second channel starts at zero",
        "is zero in 12 of its 24 channels only",
        edit(
            "        nn.init.zeros_(self.branch[-1].weight)\n"
            "        self.shortcut = make_shortcut(in_channels, out",
            "        self.branch[-1].weight.data[::2] = 0\n"
            "        self.shortcut = make_shortcut(in_channels, out",
        ),
    ),
    wrong(
        "4.1",
        "starts at zero with as many channels as before",
        "is set to zero under a condition",
        edit(
            "        nn.init.zeros_(self.branch[-1].weight)\n"
            "        self.shortcut = make_shortcut(in_channels, out",
            "        if in_channels == out_channels:\n"
            "            nn.init.zeros_(self.branch[-1].weight)\n"
            "        self.shortcut = make_shortcut(in_channels, out",
        ),
    ),
    wrong(
        "4.1",
        "the branch follows the shortcut",
        "the branch starts from what the shortcut outputs",
        edit(
            "            nn.Conv2d(in_channels, channels, 1, bias=False),\n",
            "            nn.Conv2d(out_channels, channels, 1, bias=False),\n",
        ),
        edit(
            "            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),\n",
            "            nn.Conv2d(channels, channels, 3, padding=1, bias=False),\n",
        ),
        edit(
            "        return F.relu(self.branch(x) + self.shortcut(x))\n\n\nLAYERS",
            "        x = self.shortcut(x)\n        return F.relu(self.branch(x) + x)\n\n\nLAYERS",
        ),
    ),
    wrong(
        "4.1",
        "the shortcut is pooled at the end",
        "whose statistics are then those of all positions",
        edit(
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n",
            "        shortcut = make_shortcut(in_channels, out_channels, 1)\n"
            "        self.shortcut = nn.Sequential(shortcut, nn.MaxPool2d(1, stride))\n",
        ),
    ),
    wrong(
        "4.1",
        "noise in the branch",
        "it draws random numbers each time",
        edit(
            "        return F.relu(self.branch(x) + self.shortcut(x))\n\n\nLAYERS",
            "        return F.relu(self.branch(x + 0.1 * torch.randn_like(x)) + self.shortcut(x))\n"
            "\n\nLAYERS",
        ),
    ),
    wrong(
        "4.1",
        "a projection everywhere",
        "the shortcut is a convolution; where the shape stays it is the identity",
        edit(
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n",
            "        projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)\n"
            "        self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))\n",
        ),
    ),
    wrong(
        "4.1",
        "a projection without a batch norm",
        "the shortcut's convolution has no batch norm",
        edit(
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n",
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n"
            "        if not isinstance(self.shortcut, nn.Identity):\n"
            "            self.shortcut = self.shortcut[0]\n",
        ),
    ),
    wrong(
        "4.2",
        "three stages with a stride",
        "stage 4, block 1's first 3x3 convolution has stride 1, expected 2",
        edit(
            "stride = 2 if i > 0 and j == 0 else 1",
            "stride = 2 if 0 < i < 3 and j == 0 else 1",
        ),
    ),
    wrong(
        "4.2",
        "images are enlarged first",
        "what reaches the stem's convolution is (2, 3, 18, 28)",
        edit(
            "return nn.Sequential(make_stem(stem, width),",
            "return nn.Sequential(nn.Upsample(scale_factor=2), make_stem(stem, width),",
        ),
    ),
    wrong(
        "4.2",
        "the mean over 16 positions, however many there are",
        "times the mean over all positions",
        before(
            "build_resnet",
            """class MeanOfSixteen(nn.Module):
    def forward(self, x):
        return x.flatten(2).sum(dim=2) / 16
""",
        ),
        edit("nn.AdaptiveAvgPool2d(1), nn.Flatten(),", "MeanOfSixteen(),"),
    ),
    wrong(
        "4.2",
        "a list with one block many times",
        "[block(...)] * n is one block",
        edit(
            "        for j in range(count):\n"
            "            stride = 2 if i > 0 and j == 0 else 1\n"
            "            blocks.append(block(in_channels, channels, stride))\n"
            "            in_channels = block.expansion * channels\n",
            "        blocks.append(block(in_channels, channels, 2 if i > 0 else 1))\n"
            "        in_channels = block.expansion * channels\n"
            "        blocks += [block(in_channels, channels)] * (count - 1)\n",
        ),
    ),
    wrong(
        "4.2",
        "logits without a bias",
        "the linear layer has no bias",
        edit(
            "nn.Linear(in_channels, num_classes))",
            "nn.Linear(in_channels, num_classes, bias=False))",
        ),
    ),
    wrong(
        "4.2",
        "a stem of the paper's width",
        "the stem's convolution outputs 64 channels, expected width = 4",
        edit(
            "    blocks = []\n    in_channels = width\n",
            "    blocks = []\n    in_channels = 64\n",
        ),
        edit(
            "nn.Sequential(make_stem(stem, width),",
            "nn.Sequential(make_stem(stem, 64),",
        ),
    ),
    wrong(
        "4.2",
        "one stem for all",
        "share weights: 3 of 62 parameters, such as 0.0.weight",
        before(
            "build_resnet",
            "make_one_stem = functools.cache(make_stem)\n",
        ),
        edit(
            "nn.Sequential(make_stem(stem, width),",
            "nn.Sequential(make_one_stem(stem, width),",
        ),
    ),
    wrong(
        "4.3",
        "each mode put back with train, the model's own last",
        "model.train(mode) sets all parts below, too",
        edit(
            "    for module, mode in modes:\n        module.training = mode\n",
            "    for module, mode in reversed(modes):\n        module.train(mode)\n",
        ),
    ),
    wrong(
        "4.3",
        "images as wide as high",
        "it takes images to be as wide as high",
        edit(
            "macs.append(output.numel() * layer.weight[0].numel())",
            "numbers = output.numel()\n"
            "        if output.ndim == 4:\n"
            "            numbers = numbers // output.shape[3] * output.shape[2]\n"
            "        macs.append(numbers * layer.weight[0].numel())",
        ),
    ),
    wrong(
        "4.3",
        "every layer at all positions of the image",
        "the model is not run in this call",
        hole(
            "count_macs",
            "rows = shape[1] * shape[2]\n"
            "layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]\n"
            "return sum(layer.weight.numel() * rows // layer.stride[0] for layer in layers)",
        ),
    ),
    wrong(
        "4.3",
        "the layers below the model",
        "the model itself can be such a layer: model.modules() has it, too",
        edit(
            "layers = [layer for layer in model.modules() if isinstance(",
            "layers = [layer for layer in list(model.modules())[1:] if isinstance(",
        ),
    ),
    wrong(
        "4.3",
        "two images at once",
        "In eval mode, one is enough for batch norm",
        edit(
            "image = torch.zeros(1,",
            "image = torch.zeros(2,",
        ),
        edit(
            "macs.append(output.numel() *",
            "macs.append(output[0].numel() *",
        ),
    ),
    wrong(
        "4.4",
        "runs out of memory in silence",
        "raises nothing. Let the errors",
        edit(
            "        rows[depth, seed] = fit(network, depth, seed)\n",
            "        with contextlib.suppress(RuntimeError):\n"
            "            rows[depth, seed] = fit(network, depth, seed)\n",
        ),
    ),
    wrong(
        "4.4",
        "every process begins with the first run",
        "rank is not used; process number rank begins with run number rank",
        edit(
            "runs[rank::world_size]",
            "runs[::world_size]",
        ),
    ),
    wrong(
        "4.4",
        "no process without a run",
        "there are 9 runs for 10 processes",
        edit(
            "    rows = {}\n    for depth, seed in runs[rank::world_size]:",
            "    rows = {}\n"
            "    rank = min(rank, len(runs) - 1)\n"
            "    for depth, seed in runs[rank::world_size]:",
        ),
    ),
    wrong(
        "4.4",
        "a seed for each process",
        "the seed must not depend on rank",
        edit(
            "torch.manual_seed(seed)",
            "torch.manual_seed(seed + 1000 * rank)",
        ),
    ),
    wrong(
        "4.4",
        "seeds are taken off their list",
        "depths and seeds belong to the caller",
        hole(
            "train_depths",
            "rows = {}\n"
            "place = 0\n"
            "while len(seeds):\n"
            "    seed = seeds.pop()\n"
            "    for depth in depths:\n"
            "        if place % world_size == rank:\n"
            "            torch.manual_seed(seed)\n"
            "            network = build_resnet(depth, width).apply(initialise)\n"
            "            rows[depth, seed] = fit(network, depth, seed)\n"
            "        place += 1\n"
            "return rows",
        ),
    ),
    wrong(
        "4.4",
        "a row for each depth",
        "one of its keys is an object of the type int",
        edit(
            "        rows[depth, seed] = fit",
            "        rows[depth] = fit",
        ),
    ),
    wrong(
        "4.4",
        "one dict for all calls",
        "rows of an earlier call are among them",
        edit(
            'world_size=1):\n    """Train a network of every depth with',
            'world_size=1, rows={}):  # noqa: B006\n    """Train a network of every depth with',
        ),
        edit(
            "    rows = {}\n    for depth, seed in runs[rank::world_size]:",
            "    for depth, seed in runs[rank::world_size]:",
        ),
    ),
    wrong(
        "4.5",
        "beside the best network so far",
        "each network is compared with the most accurate smaller one",
        edit(
            '        points = 100 * (larger["accuracy"] - smaller["accuracy"])\n',
            '        smaller = max(ordered[: ordered.index(larger)], key=lambda row: row["accuracy"])\n'
            '        points = 100 * (larger["accuracy"] - smaller["accuracy"])\n',
        ),
    ),
    wrong(
        "4.5",
        "no less than 10 million multiply-adds",
        "every step is divided by 0.01 GMACs, though they add 0.001",
        edit(
            "gains.append(points / gmacs)",
            "gains.append(points / max(gmacs, 1e-2))",
        ),
    ),
    wrong(
        "4.5",
        "gains only",
        "a step to a less accurate network is left out",
        edit(
            "        gains.append(points / gmacs)\n",
            "        if points >= 0:\n            gains.append(points / gmacs)\n",
        ),
    ),
    wrong(
        "4.1",
        "groups in wide blocks",
        "a convolution has groups=32",
        edit(
            "nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),\n"
            "            nn.BatchNorm2d(channels),\n"
            "            nn.ReLU(),\n"
            "            nn.Conv2d(channels, out",
            "nn.Conv2d(channels, channels, 3, stride, 1, 1, 1 + 31 * (channels > 63), False),\n"
            "            nn.BatchNorm2d(channels),\n"
            "            nn.ReLU(),\n"
            "            nn.Conv2d(channels, out",
        ),
    ),
    wrong(
        "4.1",
        "zero when first run",
        "in its first forward pass",
        edit(
            """        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
            """        self.is_new = True
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
""",
        ),
        hole(
            "Bottleneck.forward",
            """
            if self.is_new:
                self.branch[-1].weight.data.zero_()
                self.is_new = False
            return F.relu(self.branch(x) + self.shortcut(x))
            """,
        ),
    ),
    wrong(
        "4.1",
        "pooling after the 3x3 convolution",
        "pixels are averaged in the branch",
        hole(
            "Bottleneck.forward",
            """
            branch = self.branch[:6](x)
            if self.stride > 1:
                branch = F.avg_pool2d(branch, self.stride, ceil_mode=True)
            return F.relu(self.branch[6:](branch) + self.shortcut(x))
            """,
        ),
        edit(
            """        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride,""",
            """        self.stride = stride
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1,""",
        ),
    ),
    wrong(
        "4.1",
        "eps for momentum",
        "each in the other's place",
        edit(
            "        nn.init.zeros_(self.branch[-1].weight)\n"
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n",
            "        nn.init.zeros_(self.branch[-1].weight)\n"
            "        self.branch[1] = nn.BatchNorm2d(channels, 0.1, 1e-5)\n"
            "        self.shortcut = make_shortcut(in_channels, out_channels, stride)\n",
        ),
    ),
    wrong(
        "4.2",
        "copies of one network",
        "it returns copies of what was made before",
        before("build_resnet", "MADE = {}"),
        edit(
            "    return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)",
            "    network = nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)\n"
            "    key = (depth, width, num_classes, stem)\n"
            "    return copy.deepcopy(MADE.setdefault(key, network))",
        ),
    ),
    wrong(
        "4.2",
        "a batch norm before the head",
        "a batch norm of 512 channels follows no convolution",
        edit(
            "nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)",
            "nn.Sequential(\n"
            "        make_stem(stem, width), *blocks, nn.BatchNorm2d(in_channels), head\n"
            "    )",
        ),
    ),
    wrong(
        "4.2",
        "a maximum of means",
        "the maximum over the height of the means over the width",
        edit(
            "head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(),",
            "head = nn.Sequential(\n"
            "        nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveMaxPool2d(1), nn.Flatten(),",
        ),
    ),
    wrong(
        "4.3",
        "errors of the model caught",
        "raises nothing. Let the errors",
        edit(
            "        model(image)\n    for hook",
            "        with contextlib.suppress(RuntimeError):\n"
            "            model(image)\n"
            "    for hook",
        ),
    ),
    wrong(
        "4.3",
        "modes noted too late",
        "note the mode of each module before model.eval()",
        edit(
            "    modes = [(module, module.training)",
            "    model.eval()\n    modes = [(module, module.training)",
        ),
    ),
    wrong(
        "4.3",
        "eval mode for the model itself only",
        "the model itself runs in eval mode, but a part of it does not",
        edit("    model.eval()\n    with torch", "    model.training = False\n    with torch"),
    ),
    wrong(
        "4.4",
        "a second try",
        "raises nothing. Let the errors",
        edit(
            "        rows[depth, seed] = fit(network, depth, seed)\n",
            "        try:\n"
            "            rows[depth, seed] = fit(network, depth, seed)\n"
            "        except Exception:\n"
            "            rows[depth, seed] = fit(network, depth, seed)\n",
        ),
    ),
    wrong(
        "4.4",
        "all networks are built first",
        "which build_resnet draws, starts as it should",
        hole(
            "train_depths",
            """
            networks = {}
            for depth, seed in itertools.product(depths, seeds):
                torch.manual_seed(seed)
                networks[depth, seed] = build_resnet(depth, width)
            rows = {}
            for depth, seed in list(networks)[rank::world_size]:
                network = networks[depth, seed].apply(initialise)
                rows[depth, seed] = fit(network, depth, seed)
            return rows
            """,
        ),
    ),
    wrong(
        "4.4",
        "copies of the first network of a depth",
        "in one call (10, 3) and (10, 5) start from the same weights",
        edit(
            "        network = build_resnet(depth, width)\n        network.apply(initialise)\n        rows",
            "        if not any(depth == done for done, _ in rows):\n            first = build_resnet(depth, width).apply(initialise)\n        network = copy.deepcopy(first)\n        rows",
        ),
    ),
    wrong(
        "4.4",
        "two runs at once",
        "runs go on at once",
        hole(
            "train_depths",
            """
            from multiprocessing.pool import ThreadPool

            def train(key):
                torch.manual_seed(key[1])
                return fit(build_resnet(key[0], width).apply(initialise), *key)

            runs = list(itertools.product(depths, seeds))[rank::world_size]
            with ThreadPool(2) as pool:
                return dict(zip(runs, pool.map(train, runs, chunksize=1)))
            """,
        ),
    ),
    wrong(
        "4.4",
        "an empty row for the others' runs",
        "for which it did not call fit",
        edit(
            "    rows = {}\n    for depth, seed in runs[rank::world_size]:",
            "    rows = {key: {} for key in runs}\n    for depth, seed in runs[rank::world_size]:",
        ),
    ),
    wrong(
        "4.4",
        "layers of the network before",
        "it has weights of a network that was trained before",
        edit(
            "        rows[depth, seed] = fit(network, depth, seed)\n",
            "        if rows:\n"
            "            network[1][0].load_state_dict(block)\n"
            "        rows[depth, seed] = fit(network, depth, seed)\n"
            "        block = network[1][0].state_dict()\n",
        ),
    ),
    wrong(
        "4.5",
        "float32",
        "it computes in float32",
        hole(
            "marginal_gains",
            """
            pairs = sorted((row["macs"], row["accuracy"]) for row in rows)
            macs, accuracies = torch.tensor(pairs).T
            return (100 * accuracies.diff() / (macs.diff() / 1e9)).tolist()
            """,
        ),
    ),
    wrong(
        "4.5",
        "a network and the next but one",
        "a number takes both neighbours of a network",
        hole(
            "marginal_gains",
            """
            import numpy

            pairs = sorted((row["macs"] / 1e9, 100 * row["accuracy"]) for row in rows)
            if len(pairs) < 2:
                return []
            gmacs, points = numpy.array(pairs).T
            return (numpy.gradient(points) / numpy.gradient(gmacs))[:-1].tolist()
            """,
        ),
    ),
    wrong(
        "4.5",
        "pairs without overlap",
        "every second step is left out",
        edit("itertools.pairwise(ordered)", "zip(ordered[::2], ordered[1::2])"),
    ),
    wrong(
        "4.3",
        "outputs per row of the first dimension",
        "expected 2,268",
        definition(
            "count_macs",
            """
            def count_macs(model, shape=(3, 32, 32)):
                total = 0
                modes = [(module, module.training) for module in model.modules()]

                def count(layer, inputs, output):
                    nonlocal total
                    per_image = output.numel() // output.shape[0]
                    total += per_image * math.prod(layer.weight.shape[1:])

                layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
                hooks = [layer.register_forward_hook(count) for layer in layers]
                image = torch.zeros(1, *shape, device=next(model.parameters()).device)
                model.eval()
                with torch.no_grad():
                    model(image)
                for hook in hooks:
                    hook.remove()
                for module, mode in modes:
                    module.training = mode
                return total
            """,
        ),
    ),
    wrong(
        "4.4",
        "the width for basic blocks only",
        "ResNet-50 has the width 64, expected 4",
        edit(
            "        torch.manual_seed(seed)\n        network = build_resnet(depth, width)\n",
            "        torch.manual_seed(seed)\n        network = build_resnet(depth, width if depth < 50 else 64)\n",
        ),
    ),
    wrong(
        "4.4",
        "the depth's place in the seed",
        "than in a sweep over other depths",
        edit(
            "torch.manual_seed(seed)\n        network",
            "torch.manual_seed(1000 * seed + list(depths).index(depth))\n        network",
        ),
    ),
    wrong(
        "4.1",
        "ReLUs after the second and third norm",
        "no ReLU follows the first batch norm, and one follows the last",
        definition(
            "Bottleneck",
            """
            class Bottleneck(nn.Module):
                expansion = 4

                def __init__(self, in_channels, channels, stride=1):
                    super().__init__()
                    wide = self.expansion * channels
                    sizes = [in_channels, channels, channels, wide]
                    kernels = [1, 3, 1]
                    strides = [1, stride, 1]
                    layers = []
                    for i, (kernel, step) in enumerate(zip(kernels, strides)):
                        conv = nn.Conv2d(
                            sizes[i], sizes[i + 1], kernel, step, padding=kernel // 2, bias=False
                        )
                        norm = nn.BatchNorm2d(sizes[i + 1])
                        layers.extend([conv, norm])
                        if i > 0:
                            layers.append(nn.ReLU())
                    nn.init.zeros_(norm.weight)
                    self.branch = nn.Sequential(*layers)
                    self.shortcut = make_shortcut(in_channels, wide, stride)

                def forward(self, x):
                    return F.relu(self.branch(x) + self.shortcut(x))
            """,
        ),
    ),
]
