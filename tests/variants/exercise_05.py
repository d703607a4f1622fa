"""Answers to exercise 5, wrong and right."""

from changes import before, definition, edit, hole, right, wrong

VARIANTS = [
    wrong(
        "5.1",
        "512",
        "the new layer takes 512 features",
        hole(
            "replace_head",
            """model.fc = nn.Linear(512, num_classes)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "noreturn",
        "expected the model itself. Does it end with return model?",
        hole("replace_head", "model.fc = nn.Linear(model.fc.in_features, num_classes)"),
    ),
    wrong(
        "5.1",
        "resize",
        "leaves the old model.fc in its place",
        hole(
            "replace_head",
            """model.fc.out_features = num_classes
return model""",
        ),
    ),
    right(
        "5.1",
        "seq",
        hole(
            "replace_head",
            """model.fc = nn.Sequential(nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device))
return model""",
        ),
    ),
    wrong(
        "5.1",
        "no device",
        "gives a head on cpu",
        hole(
            "replace_head",
            """model.fc = nn.Sequential(nn.Linear(model.fc.in_features, num_classes))
return model""",
        ),
    ),
    wrong(
        "5.1",
        "softmax",
        "gives probabilities; the head gives logits",
        hole(
            "replace_head",
            """model.fc = nn.Sequential(nn.Linear(model.fc.in_features, num_classes), nn.Softmax(1))
return model""",
        ),
    ),
    wrong(
        "5.1",
        "outfeat",
        "the new layer takes 5 features",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.out_features, num_classes)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "copyold",
        "on a frozen model gives a head that requires no gradient. Make a new",
        hole(
            "replace_head",
            """old=model.fc
model.fc = nn.Linear(old.in_features, num_classes)
model.fc.requires_grad_(old.weight.requires_grad)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "deep",
        "returned another model, such as a copy",
        hole(
            "replace_head",
            """model=copy.deepcopy(model)
model.fc = nn.Linear(model.fc.in_features, num_classes)
return model""",
        ),
    ),
    right(
        "5.1",
        "setattr",
        hole(
            "replace_head",
            """new = nn.Linear(in_features=model.fc.weight.shape[1], out_features=num_classes).to(model.fc.weight.device)
setattr(model, "fc", new)
return model""",
        ),
    ),
    wrong(
        "5.2",
        "nobn",
        "batch norms are in train mode",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
return model""",
        ),
    ),
    wrong(
        "5.2",
        "evalonly",
        "batch norms are in train mode",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d): m.eval()
return model""",
        ),
    ),
    wrong(
        "5.2",
        "modeleval",
        "batch norms are in train mode",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
return model.eval()""",
        ),
    ),
    wrong(
        "5.2",
        "mom0",
        "batch norms are in train mode",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d): m.momentum = 0.0
return model""",
        ),
    ),
    wrong(
        "5.2",
        "notrack",
        "the model gives other logits than before in eval mode. Its batch",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d): m.track_running_stats = False
return model""",
        ),
    ),
    wrong(
        "5.2",
        "all",
        "fc.weight requires no gradient. The head is to be trained",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.eval(); m.train = lambda mode=True, m=m: m
return model""",
        ),
    ),
    wrong(
        "5.2",
        "a frozen head stays frozen",
        "of a model of which everything was frozen, fc.weight requires no gradient",
        hole(
            "freeze_backbone",
            """for n, p in model.named_parameters():
    if not n.startswith("fc"): p.requires_grad = False
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.eval(); m.train = lambda mode=True, m=m: m
return model""",
        ),
    ),
    right(
        "5.2",
        "by names",
        hole(
            "freeze_backbone",
            """for name, parameter in model.named_parameters():
    parameter.requires_grad = name.startswith("fc.")
for norm in filter(lambda module: isinstance(module, nn.BatchNorm2d), model.modules()):
    norm.eval()
    norm.train = lambda mode=True, norm=norm: norm
return model""",
        ),
    ),
    wrong(
        "5.2",
        "convonly",
        "weight still requires a gradient",
        hole(
            "freeze_backbone",
            """for m in model.modules():
    if isinstance(m, nn.Conv2d): m.requires_grad_(False)
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.eval(); m.train = lambda mode=True, m=m: m
return model""",
        ),
    ),
    right(
        "5.2",
        "modeltrain",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
old = type(model).train
def train(mode=True):
    old(model, mode)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d): nn.Module.train(m, False)
    return model
model.train = train
model.train(model.training)
return model""",
        ),
    ),
    right(
        "5.2",
        "subclass",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
class Asleep(nn.BatchNorm2d):
    def train(self, mode=True): return super().train(False)
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.__class__ = Asleep
        m.eval()
return model""",
        ),
    ),
    right(
        "5.2",
        "a subclass of each class",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
def train(self, mode=True):
    self.training = False
    return self
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.__class__ = type("Asleep", (type(m),), {"train": train})
        m.eval()
return model""",
        ),
    ),
    right(
        "5.2",
        "hook",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.eval()
        m.register_forward_pre_hook(lambda m, i: nn.Module.train(m, False) and None)
return model""",
        ),
    ),
    wrong(
        "5.2",
        "frozenbn",
        "away from the model's state_dict",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
from torchvision.ops import FrozenBatchNorm2d
def swap(parent):
    for n, c in parent.named_children():
        if isinstance(c, nn.BatchNorm2d):
            f = FrozenBatchNorm2d(c.num_features, c.eps)
            f.load_state_dict(c.state_dict())
            setattr(parent, n, f)
        else: swap(c)
swap(model)
return model""",
        ),
    ),
    right(
        "5.2",
        "notrain-all",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for name, part in model.named_children():
    if name != "fc":
        part.eval()
        part.train = lambda mode=True, part=part: part
return model""",
        ),
    ),
    wrong(
        "5.3",
        "train",
        "the model is in train mode",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda l, i: features.append(i[0]))
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "grad",
        "the features carry a graph. Compute them under torch.no_grad",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda l, i: features.append(i[0]))
model.eval()
if True:
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "hookleft",
        "is left with a hook",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda l, i: features.append(i[0]))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "modeleft",
        "put each one's back",
        hole(
            "extract_features",
            """features, labels, mode = [], [], model.training
hook = model.fc.register_forward_pre_hook(lambda l, i: features.append(i[0]))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "logits",
        "the features are the logits",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda l, i: None)
model.eval()
with torch.no_grad():
    for x, y in batches:
        features.append(model(x)); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "layer4",
        "they are from before the pooling",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.layer4.register_forward_hook(lambda l, i, o: features.append(o.flatten(1)))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    right(
        "5.3",
        "pool",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.avgpool.register_forward_hook(lambda l, i, o: features.append(o.flatten(1)))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    right(
        "5.3",
        "identity",
        hole(
            "extract_features",
            """fc, mode = model.fc, [(m, m.training) for m in model.modules()]
model.fc = nn.Identity()
model.eval()
f, l = [], []
with torch.no_grad():
    for x, y in batches:
        f.append(model(x)); l.append(y)
model.fc = fc
for m, mode in mode: m.training = mode
return torch.cat(f), torch.cat(l)""",
        ),
    ),
    wrong(
        "5.3",
        "identityleft",
        "of the type Identity. Put fc back",
        hole(
            "extract_features",
            """mode = [(m, m.training) for m in model.modules()]
model.fc = nn.Identity()
model.eval()
f, l = [], []
with torch.no_grad():
    for x, y in batches:
        f.append(model(x)); l.append(y)
for m, mode in mode: m.training = mode
return torch.cat(f), torch.cat(l)""",
        ),
    ),
    right(
        "5.3",
        "adamprobe",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.Adam(p.parameters(), 0.05)
for i in range(400):
    o.zero_grad()
    (F.cross_entropy(p(features), labels) + penalty*p.weight.pow(2).sum()).backward()
    o.step()
return p""",
        ),
    ),
    wrong(
        "5.3",
        "sgd1",
        "the training stops too soon",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.SGD(p.parameters(), 0.01)
for i in range(10):
    o.zero_grad()
    F.cross_entropy(p(features), labels).backward()
    o.step()
return p""",
        ),
    ),
    wrong(
        "5.3",
        "nopenalty",
        "the penalty is left out",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels)
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "untrained",
        "the training stops too soon",
        hole("linear_probe", "return nn.Linear(features.shape[1], num_classes)"),
    ),
    right(
        "5.3",
        "decay",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.SGD([{"params":[p.weight],"weight_decay":2*penalty},{"params":[p.bias]}], 0.1, momentum=0.9)
for i in range(1500):
    o.zero_grad()
    F.cross_entropy(p(features), labels).backward()
    o.step()
return p""",
        ),
    ),
    wrong(
        "5.4",
        "nobn1",
        "so it is never trained",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1]]
return [{"params": [p for m in part for p in m.parameters()], "lr": lr * factor**i} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "reverse",
        "the order is turned round",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [{"params": [p for m in part for p in m.parameters()], "lr": lr * factor**(5-i)} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "linear",
        "raise it to that power",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [{"params": [p for m in part for p in m.parameters()], "lr": lr * factor*(i+1)} for i, part in enumerate(parts)]""",
        ),
    ),
    right(
        "5.4",
        "generator",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [{"params": (p for m in part for p in m.parameters()), "lr": lr * factor**i} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "plus1",
        "the factor is applied once too often",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [{"params": [p for m in part for p in m.parameters()], "lr": lr * factor**(i+1)} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "dup",
        "fc.weight is in two groups",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.fc, model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [{"params": [p for m in part for p in m.parameters()], "lr": lr * factor**i} for i, part in enumerate(parts)]""",
        ),
    ),
    right(
        "5.4",
        "each",
        hole(
            "parameter_groups",
            """order = ["fc","layer4","layer3","layer2","layer1"]
return [{"params": [p], "lr": lr * factor ** (order.index(n.split(".")[0]) if n.split(".")[0] in order else 5), "name": n} for n, p in model.named_parameters()]""",
        ),
    ),
    wrong(
        "5.4",
        "noload",
        "there are only two rates",
        hole(
            "parameter_groups",
            'return [{"params": list(model.fc.parameters()), "lr": lr}, {"params": [p for n, p in model.named_parameters() if "fc" not in n], "lr": lr*factor}]',
        ),
    ),
    wrong(
        "5.5",
        "noreset",
        "running_mean depends on what the model was adapted to before. Reset",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.momentum = None
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "nomom",
        "after the reset the momentum is still 0.2",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "eval",
        "In eval mode they do not move",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.eval()
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "momleft",
        "leaves the momentum at None. Put back what it was",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "nomom-noreset",
        "it is a moving average that still holds part of the old",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    pass
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    right(
        "5.5",
        "grad",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
for n in norms: n.training = True
if True:
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "onlylast",
        "only the last batch counts",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in list(batches)[-1:]:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "mom1",
        "only the last batch counts",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = 1.0
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "concat",
        "all batches are put together to one",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
for n in norms: n.training = True
with torch.no_grad():
    model(torch.cat(list(batches)))
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    right(
        "5.5",
        "bnonly",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.eval()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    right(
        "5.5",
        "manual",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = 0.1
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for i, x in enumerate(batches):
        for n in norms: n.momentum = 1/(i+1)
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.1",
        "freezes the rest",
        "changes requires_grad of conv1.weight",
        hole(
            "replace_head",
            """for q in model.parameters(): q.requires_grad = False
model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "thaws the rest",
        "changes requires_grad of layer1.0.conv1.weight",
        hole(
            "replace_head",
            """model.requires_grad_(True)
model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
return model""",
        ),
    ),
    wrong(
        "5.3",
        "a hook's tuple",
        "a hook's inputs are a tuple, so take inputs[0]",
        hole(
            "extract_features",
            """f, l, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: f.append(inputs))
model.eval()
with torch.no_grad():
    for images, labels in batches:
        model(images)
        l.append(labels)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(f), torch.cat(l)""",
        ),
    ),
    wrong(
        "5.3",
        "a closure without a return",
        "ends without a return",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def loss():
    optimizer.zero_grad()
    value = F.cross_entropy(probe(features), labels) + penalty * probe.weight.square().sum()
    value.backward()
optimizer.step(loss)
return probe""",
        ),
    ),
    wrong(
        "5.1",
        "eval mode left",
        "put each one's back",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
model.eval()
return model""",
        ),
    ),
    wrong(
        "5.1",
        "seeded",
        "Does it set the seed itself?",
        hole(
            "replace_head",
            """torch.manual_seed(42)
model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "sigmoid",
        "The head is one linear layer, without activation",
        hole(
            "replace_head",
            """model.fc = nn.Sequential(nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device), nn.Sigmoid())
return model""",
        ),
    ),
    wrong(
        "5.1",
        "relu",
        "The head is one linear layer, without activation",
        hole(
            "replace_head",
            """model.fc = nn.Sequential(nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device), nn.ReLU())
return model""",
        ),
    ),
    wrong(
        "5.1",
        "dropout",
        "in train mode fc gives something else",
        hole(
            "replace_head",
            """model.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device))
return model""",
        ),
    ),
    wrong(
        "5.1",
        "old rows",
        "copies numbers of the old head",
        hole(
            "replace_head",
            """old = model.fc
model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
n = min(num_classes, old.out_features)
with torch.no_grad(): model.fc.weight[:n] = old.weight[:n]
return model""",
        ),
    ),
    wrong(
        "5.1",
        "classifier",
        "gives the model a new part, classifier",
        hole(
            "replace_head",
            """model.classifier = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "lazy",
        "without weights until it first runs",
        hole(
            "replace_head",
            """model.fc = nn.LazyLinear(num_classes, device=model.fc.weight.device)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "own initialisation",
        "nn.Linear's own are uniform",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
nn.init.normal_(model.fc.weight, std=0.01)
nn.init.zeros_(model.fc.bias)
return model""",
        ),
    ),
    wrong(
        "5.2",
        "copy",
        "returned another model, such as a copy",
        hole(
            "freeze_backbone",
            """model = copy.deepcopy(model)
model.requires_grad_(False)
model.fc.requires_grad_(True)
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.eval(); m.train = lambda mode=True, m=m: m
return model""",
        ),
    ),
    wrong(
        "5.2",
        "train returns nothing",
        "does not return the model, as it must",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.eval(); m.train = lambda mode=True, m=m: m
old = model.train
model.train = lambda mode=True: None if old(mode) else None
return model""",
        ),
    ),
    wrong(
        "5.3",
        "squeeze",
        "squeeze() takes away the first dimension",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.avgpool.register_forward_hook(lambda l, i, o: features.append(o.squeeze()))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "forward left",
        "Put fc's own forward back",
        hole(
            "extract_features",
            """mode, features, labels = [(m, m.training) for m in model.modules()], [], []
model.fc.forward = lambda x: x
model.eval()
with torch.no_grad():
    for x, y in batches:
        features.append(model(x)); labels.append(y)
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    right(
        "5.3",
        "forward put back",
        hole(
            "extract_features",
            """mode, features, labels = [(m, m.training) for m in model.modules()], [], []
model.fc.forward = lambda x: x
model.eval()
with torch.no_grad():
    for x, y in batches:
        features.append(model(x)); labels.append(y)
del model.fc.forward
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "float labels",
        "the labels are torch.float32, expected torch.int64",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels).float()""",
        ),
    ),
    wrong(
        "5.3",
        "int labels",
        "the labels are torch.int32, expected torch.int64",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels).int()""",
        ),
    ),
    wrong(
        "5.3",
        "double",
        "the features are torch.float64, expected torch.float32",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features).double(), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "inference mode",
        "nothing can be trained on them",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.inference_mode():
    for x, y in batches:
        model(x); labels.append(y)
    result = torch.cat(features), torch.cat(labels)
hook.remove()
for m, mode in mode: m.training = mode
return result""",
        ),
    ),
    right(
        "5.3",
        "inference mode, put together outside",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.inference_mode():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "gradients off",
        "leaves gradients switched off",
        hole(
            "extract_features",
            """features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
torch.set_grad_enabled(False)
if True:
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "freezes",
        "changes requires_grad of conv1.weight",
        hole(
            "extract_features",
            """model.requires_grad_(False)
features, labels, mode = [], [], [(m, m.training) for m in model.modules()]
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
for m, mode in mode: m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "weight_decay=penalty",
        "the penalty is half as large",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.Adam(p.parameters(), 0.02, weight_decay=penalty)
for i in range(600):
    o.zero_grad()
    F.cross_entropy(p(features), labels).backward()
    o.step()
return p""",
        ),
    ),
    wrong(
        "5.3",
        "half",
        "the penalty is half as large",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels) + 0.5*penalty*p.weight.pow(2).sum()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "double penalty",
        "the penalty is twice as large",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels) + 2*penalty*p.weight.pow(2).sum()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "bias, too",
        "the bias is in the penalty, too",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels) + penalty*sum(q.pow(2).sum() for q in p.parameters())
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "no bias",
        "has no bias. Leave bias at its default",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes, bias=False)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels) + penalty*p.weight.pow(2).sum()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "norm",
        "the penalty is on the norm of the weights",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels) + penalty*p.weight.norm()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "absolute values",
        "the penalty is on the weights' absolute values",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.Adam(p.parameters(), 0.01)
for i in range(1000):
    o.zero_grad()
    (F.cross_entropy(p(features), labels) + penalty*p.weight.abs().sum()).backward()
    o.step()
return p""",
        ),
    ),
    wrong(
        "5.3",
        "mean of squares",
        "the penalty is on the mean of the squares",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels) + penalty*p.weight.pow(2).mean()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "summed loss",
        "the cross-entropy is summed over the images",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels, reduction='sum') + penalty*p.weight.pow(2).sum()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "softmax twice",
        "softmax is applied before cross_entropy",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features).softmax(1), labels) + penalty*p.weight.pow(2).sum()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "ridge",
        "it minimises squared errors",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.mse_loss(p(features), F.one_hot(labels, num_classes).float()) + penalty*p.weight.pow(2).sum()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "standardised",
        "it is trained on standardised features",
        hole(
            "linear_probe",
            """s, m = torch.std_mean(features, dim=0)
raw, features = features, (features - m) / s
p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels) + penalty*p.weight.pow(2).sum()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    wrong(
        "5.3",
        "never cleared",
        "gradients are never cleared",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.SGD(p.parameters(), 0.1)
for i in range(500):
    (F.cross_entropy(p(features), labels) + penalty*p.weight.pow(2).sum()).backward()
    o.step()
return p""",
        ),
    ),
    wrong(
        "5.3",
        "classes counted",
        "Not every class is among the labels: take num_classes",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], int(labels.max()) + 1)
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(features), labels) + penalty*p.weight.pow(2).sum()
    l.backward()
    return l
o.step(c)
return p""",
        ),
    ),
    right(
        "5.3",
        "mini-batches",
        hole(
            "linear_probe",
            """p = nn.Linear(features.shape[1], num_classes)
o = torch.optim.AdamW(p.parameters(), 0.01, weight_decay=0.0)
for i in range(150):
    for part in torch.randperm(len(features)).split(32):
        o.zero_grad()
        (F.cross_entropy(p(features[part]), labels[part]) + penalty*p.weight.pow(2).sum()).backward()
        o.step()
return p""",
        ),
    ),
    right(
        "5.3",
        "float64",
        hole(
            "linear_probe",
            """x = features.double()
p = nn.Linear(features.shape[1], num_classes).double()
o = torch.optim.LBFGS(p.parameters(), max_iter=300, line_search_fn='strong_wolfe')
def c():
    o.zero_grad()
    l = F.cross_entropy(p(x), labels) + penalty*p.weight.pow(2).sum()
    l.backward()
    return l
o.step(c)
return p.float()""",
        ),
    ),
    right(
        "5.4",
        "single tensors",
        hole(
            "parameter_groups",
            """order = ["fc","layer4","layer3","layer2","layer1"]
rank = lambda n: order.index(n) if n in order else 5
return [{"params": q, "lr": lr * factor**rank(n.split(".")[0])} for n, q in model.named_parameters()]""",
        ),
    ),
    right(
        "5.4",
        "with names",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
names = {q: n for n, q in model.named_parameters()}
return [{"params": [(names[q], q) for m in part for q in m.parameters()], "lr": lr * factor**i} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "freezes the stem",
        "changes requires_grad of conv1.weight",
        hole(
            "parameter_groups",
            """model.conv1.weight.requires_grad_(False)
parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [{"params": [p for m in part for p in m.parameters()], "lr": lr * factor**i} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "without the frozen",
        "in no group. Every parameter belongs in one, frozen or not",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [{"params": [p for m in part for p in m.parameters() if p.requires_grad], "lr": lr * factor**i} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "no return",
        "returned None, expected a list or tuple",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
[{"params": [p for m in part for p in m.parameters()], "lr": lr * factor**i} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "optimizer",
        "returned an object of the type SGD, expected a list",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return torch.optim.SGD([{"params": [p for m in part for p in m.parameters()], "lr": lr * factor**i} for i, part in enumerate(parts)])""",
        ),
    ),
    wrong(
        "5.4",
        "pairs",
        "group 0 returned an object of the type tuple, expected a dict",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [([p for m in part for p in m.parameters()], lr * factor**i) for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "modules",
        "optimizer can only optimize Tensors",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [{"params": part, "lr": lr * factor**i} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "wrong key",
        'has no "params"',
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
return [{"parameters": [p for m in part for p in m.parameters()], "lr": lr * factor**i} for i, part in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "children",
        "conv1 and bn1 are one part",
        hole(
            "parameter_groups",
            """parts = [m for m in reversed(list(model.children())) if list(m.parameters())]
return [{"params": list(m.parameters()), "lr": lr * factor**i} for i, m in enumerate(parts)]""",
        ),
    ),
    wrong(
        "5.4",
        "bn1 in name",
        "the blocks have a conv1 and a bn1 of their own",
        hole(
            "parameter_groups",
            """order = ["fc","layer4","layer3","layer2","layer1"]
def rank(n): return 5 if "bn1" in n or n.startswith("conv1") else order.index(n.split(".")[0])
return [{"params": [q], "lr": lr * factor**rank(n)} for n, q in model.named_parameters()]""",
        ),
    ),
    wrong(
        "5.5",
        "momentum 0.1 after",
        "Keep each batch norm's own",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = 0.1
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "freezes",
        "changes requires_grad of conv1.weight",
        hole(
            "adapt_batchnorm",
            """model.requires_grad_(False)
norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "hooks left",
        "is left with a hook",
        hole(
            "adapt_batchnorm",
            """import collections
seen, was = collections.defaultdict(list), [(m, m.training) for m in model.modules()]
norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
def keep(n, i):
    x = i[0].transpose(0, 1).flatten(1)
    seen[n].append((x.mean(1), x.var(1)))
hs = [n.register_forward_pre_hook(keep) for n in norms]
kept = [m.momentum for m in norms]
for n in norms: n.momentum = 0.0
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches: model(x)
    pass
    for n, k in zip(norms, kept):
        n.momentum = k
        n.running_mean.copy_(torch.stack([a for a, _ in seen[n]]).mean(0))
        n.running_var.copy_(torch.stack([b for _, b in seen[n]]).mean(0))
for m, mode in was: m.training = mode
return model""",
        ),
    ),
    right(
        "5.5",
        "hooks",
        hole(
            "adapt_batchnorm",
            """import collections
seen, was = collections.defaultdict(list), [(m, m.training) for m in model.modules()]
norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
def keep(n, i):
    x = i[0].transpose(0, 1).flatten(1)
    seen[n].append((x.mean(1), x.var(1)))
hs = [n.register_forward_pre_hook(keep) for n in norms]
kept = [m.momentum for m in norms]
for n in norms: n.momentum = 0.0
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches: model(x)
    for h in hs: h.remove()
    for n, k in zip(norms, kept):
        n.momentum = k
        n.running_mean.copy_(torch.stack([a for a, _ in seen[n]]).mean(0))
        n.running_var.copy_(torch.stack([b for _, b in seen[n]]).mean(0))
for m, mode in was: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "variance over n",
        "batch norm's running variance divides by n - 1",
        hole(
            "adapt_batchnorm",
            """import collections
seen, was = collections.defaultdict(list), [(m, m.training) for m in model.modules()]
norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
def keep(n, i):
    x = i[0].transpose(0, 1).flatten(1)
    seen[n].append((x.mean(1), x.var(1, correction=0)))
hs = [n.register_forward_pre_hook(keep) for n in norms]
kept = [m.momentum for m in norms]
for n in norms: n.momentum = 0.0
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches: model(x)
    for h in hs: h.remove()
    for n, k in zip(norms, kept):
        n.momentum = k
        n.running_mean.copy_(torch.stack([a for a, _ in seen[n]]).mean(0))
        n.running_var.copy_(torch.stack([b for _, b in seen[n]]).mean(0))
for m, mode in was: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "deviation",
        "it is the standard deviation",
        hole(
            "adapt_batchnorm",
            """import collections
seen, was = collections.defaultdict(list), [(m, m.training) for m in model.modules()]
norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
def keep(n, i):
    x = i[0].transpose(0, 1).flatten(1)
    seen[n].append((x.mean(1), x.std(1)))
hs = [n.register_forward_pre_hook(keep) for n in norms]
kept = [m.momentum for m in norms]
for n in norms: n.momentum = 0.0
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches: model(x)
    for h in hs: h.remove()
    for n, k in zip(norms, kept):
        n.momentum = k
        n.running_mean.copy_(torch.stack([a for a, _ in seen[n]]).mean(0))
        n.running_var.copy_(torch.stack([b for _, b in seen[n]]).mean(0))
for m, mode in was: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "hooks in eval mode",
        "reach a batch norm in eval mode",
        hole(
            "adapt_batchnorm",
            """import collections
seen, was = collections.defaultdict(list), [(m, m.training) for m in model.modules()]
norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
def keep(n, i):
    x = i[0].transpose(0, 1).flatten(1)
    seen[n].append((x.mean(1), x.var(1)))
hs = [n.register_forward_pre_hook(keep) for n in norms]
kept = [m.momentum for m in norms]
for n in norms: n.momentum = 0.0
model.train(False)
with torch.no_grad():
    for x in batches: model(x)
    for h in hs: h.remove()
    for n, k in zip(norms, kept):
        n.momentum = k
        n.running_mean.copy_(torch.stack([a for a, _ in seen[n]]).mean(0))
        n.running_var.copy_(torch.stack([b for _, b in seen[n]]).mean(0))
for m, mode in was: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "momentum 1/n",
        "the momentum is 1/n from the first",
        hole(
            "adapt_batchnorm",
            """batches = list(batches)
norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = 1/len(batches)
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "children only",
        "only batch norms among model.children() are adapted",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.children() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "reset_parameters",
        "reset_parameters() resets weight and bias, too",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_parameters()
    n.momentum = None
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "batches counted",
        "which can be gone through only once, is used up",
        hole(
            "adapt_batchnorm",
            """n = len(list(batches))
norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [(m, m.training) for m in model.modules()]
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
for n in norms: n.training = True
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
for m, mode in mode: m.training = mode
return model""",
        ),
    ),
    wrong(
        "5.1",
        "same number keeps head",
        "make a new one",
        hole(
            "replace_head",
            """if model.fc.out_features == num_classes:
    return model
model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "same number: reset in place",
        "make a new one",
        hole(
            "replace_head",
            """if model.fc.out_features == num_classes:
    model.fc.reset_parameters()
    return model
model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "zero_grad",
        "neither backward() nor zero_grad()",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
model.zero_grad()
return model""",
        ),
    ),
    wrong(
        "5.1",
        "train",
        "put each one's back",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
model.train()
return model""",
        ),
    ),
    wrong(
        "5.1",
        "train(model.training)",
        "put each one's back",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
model.train(model.training)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "clears hooks",
        "belongs to somebody else",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
for m in model.modules():
    m._forward_hooks.clear()
return model""",
        ),
    ),
    wrong(
        "5.1",
        "xavier",
        "nn.Linear's own are uniform",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
nn.init.xavier_uniform_(model.fc.weight)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "kaiming normal",
        "nn.Linear's own are uniform",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
nn.init.kaiming_normal_(model.fc.weight)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "zero bias",
        "the head's bias is all zeros",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
nn.init.zeros_(model.fc.bias)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "scaled down",
        "nn.Linear's own are uniform",
        hole(
            "replace_head",
            """model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
with torch.no_grad():
    model.fc.weight.mul_(0.5)
return model""",
        ),
    ),
    wrong(
        "5.1",
        "cached head",
        "one and the same head",
        hole(
            "replace_head",
            """key = (model.fc.in_features, num_classes)
if key not in HEADS:
    HEADS[key] = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
model.fc = HEADS[key]
return model""",
        ),
        before("replace_head", "HEADS = {}"),
    ),
    wrong(
        "5.2",
        "only first blocks' norms",
        "this batch norm is in train mode and others are not",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
ok = [m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and '.1.' not in n]
for module in ok:
    module.eval()
    module.train = lambda mode=True, module=module: module
return model""",
        ),
    ),
    wrong(
        "5.2",
        "only first blocks frozen",
        "still requires a gradient",
        hole(
            "freeze_backbone",
            """model.conv1.requires_grad_(False)
model.bn1.requires_grad_(False)
for s in (model.layer1, model.layer2, model.layer3, model.layer4):
    s[0].requires_grad_(False)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
        module.train = lambda mode=True, module=module: module
return model""",
        ),
    ),
    wrong(
        "5.2",
        "downsample norm not",
        "this batch norm is in train mode and others are not",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for n, module in model.named_modules():
    if isinstance(module, nn.BatchNorm2d) and 'downsample' not in n:
        module.eval()
        module.train = lambda mode=True, module=module: module
return model""",
        ),
    ),
    wrong(
        "5.2",
        "patches the class",
        "changes torch itself",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
nn.BatchNorm2d.train = lambda self, mode=True: self
return model""",
        ),
    ),
    wrong(
        "5.2",
        "reset stats",
        "No weight and no statistic may change",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.reset_running_stats()
        module.eval()
        module.train = lambda mode=True, module=module: module
return model""",
        ),
    ),
    wrong(
        "5.2",
        "detach: parameter replaced",
        "puts another parameter in the place",
        hole(
            "freeze_backbone",
            """for parent in list(model.modules()):
    for name, p in list(parent.named_parameters(recurse=False)):
        setattr(parent, name, nn.Parameter(p.detach().clone(), requires_grad=False))
for p in model.fc.parameters():
    p.requires_grad = True
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
        module.train = lambda mode=True, module=module: module
return model""",
        ),
    ),
    wrong(
        "5.3",
        "root's mode",
        "put each one's back",
        hole(
            "extract_features",
            """features, labels = [], []
modes = {m: m.training for m in model.modules()}
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for images, batch_labels in batches:
        model(images)
        labels.append(batch_labels)
hook.remove()
model.train(modes[model])
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "zero_grad",
        "neither backward() nor zero_grad()",
        hole(
            "extract_features",
            """features, labels = [], []
modes = {m: m.training for m in model.modules()}
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for images, batch_labels in batches:
        model(images)
        labels.append(batch_labels)
hook.remove()
model.zero_grad()
for m, mode in modes.items():
    m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "hooks cleared",
        "belongs to somebody else",
        hole(
            "extract_features",
            """features, labels = [], []
modes = {m: m.training for m in model.modules()}
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for images, batch_labels in batches:
        model(images)
        labels.append(batch_labels)
model.fc._forward_pre_hooks.clear()
for m, mode in modes.items():
    m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "all forward hooks cleared",
        "belongs to somebody else",
        hole(
            "extract_features",
            """features, labels = [], []
modes = {m: m.training for m in model.modules()}
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for images, batch_labels in batches:
        model(images)
        labels.append(batch_labels)
hook.remove()
for m in model.modules():
    m._forward_hooks.clear()
for m, mode in modes.items():
    m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "seeds",
        "draws random numbers, or seeds torch",
        hole(
            "extract_features",
            """torch.manual_seed(0)
features, labels = [], []
modes = {m: m.training for m in model.modules()}
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for images, batch_labels in batches:
        model(images)
        labels.append(batch_labels)
hook.remove()
for m, mode in modes.items():
    m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "leaves attribute",
        "leaves another attribute",
        hole(
            "extract_features",
            """features, labels = [], []
modes = {m: m.training for m in model.modules()}
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for images, batch_labels in batches:
        model(images)
        labels.append(batch_labels)
hook.remove()
model.features = features
for m, mode in modes.items():
    m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "images changed",
        "changes the images",
        hole(
            "extract_features",
            """features, labels = [], []
modes = {m: m.training for m in model.modules()}
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for images, batch_labels in batches:
        model(images.mul_(1.0).add_(1e-3))
        labels.append(batch_labels)
hook.remove()
for m, mode in modes.items():
    m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "cpu",
        "features or labels are taken to the CPU",
        hole(
            "extract_features",
            """features, labels = [], []
modes = {m: m.training for m in model.modules()}
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for images, batch_labels in batches:
        model(images)
        labels.append(batch_labels)
hook.remove()
for m, mode in modes.items():
    m.training = mode
return torch.cat(features).cpu(), torch.cat(labels).cpu()""",
        ),
    ),
    wrong(
        "5.3",
        "mutable default",
        None,
        hole(
            "extract_features",
            """features, labels = STORE
modes = {m: m.training for m in model.modules()}
hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
model.eval()
with torch.no_grad():
    for images, batch_labels in batches:
        model(images)
        labels.append(batch_labels)
hook.remove()
for m, mode in modes.items():
    m.training = mode
return torch.cat(features), torch.cat(labels)""",
        ),
        before("extract_features", "STORE = ([], [])"),
    ),
    wrong(
        "5.3",
        "penalty fixed",
        "the penalty is 0.001, whatever penalty says",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels) + 1e-3 * probe.weight.square().sum()
    loss.backward()
    return loss
optimizer.step(compute_loss)
return probe""",
        ),
    ),
    wrong(
        "5.3",
        "label smoothing 0.1",
        "the labels are smoothed",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels, label_smoothing=0.1) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss
optimizer.step(compute_loss)
return probe""",
        ),
    ),
    wrong(
        "5.3",
        "class-balanced",
        "rare classes count for more",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels, weight=len(labels) / num_classes / labels.bincount(minlength=num_classes).float()) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss
optimizer.step(compute_loss)
return probe""",
        ),
    ),
    wrong(
        "5.3",
        "per class mean loss",
        "rare classes count for more",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def compute_loss():
    optimizer.zero_grad()
    loss = torch.stack([F.cross_entropy(probe(features)[labels == c], labels[labels == c]) for c in labels.unique()]).mean() + penalty * probe.weight.square().sum()
    loss.backward()
    return loss
optimizer.step(compute_loss)
return probe""",
        ),
    ),
    wrong(
        "5.3",
        "unit features",
        "on features of length 1",
        hole(
            "linear_probe",
            """features = F.normalize(features)
probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss
optimizer.step(compute_loss)
return probe""",
        ),
    ),
    wrong(
        "5.3",
        "SGD few steps",
        "the training stops too soon",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.SGD(probe.parameters(), lr=0.1)
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss
for _ in range(300):
    optimizer.step(compute_loss)
return probe""",
        ),
    ),
    wrong(
        "5.3",
        "Adam 100",
        "the training stops too soon",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.Adam(probe.parameters(), lr=0.01)
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss
for _ in range(100):
    optimizer.step(compute_loss)
return probe""",
        ),
    ),
    wrong(
        "5.3",
        "minibatch first half",
        None,
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features[: len(labels) // 2]), labels[: len(labels) // 2]) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss
optimizer.step(compute_loss)
return probe""",
        ),
    ),
    wrong(
        "5.3",
        "log softmax inside",
        "expected the nn.Linear itself",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss
optimizer.step(compute_loss)
return nn.Sequential(probe, nn.LogSoftmax(1))""",
        ),
    ),
    wrong(
        "5.3",
        "cached probe",
        "returned the same probe",
        hole(
            "linear_probe",
            """key = (features.shape, num_classes, penalty)
if key in PROBES:
    return PROBES[key]
probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss
optimizer.step(compute_loss)
PROBES[key] = probe
return probe""",
        ),
        before("linear_probe", "PROBES = {}"),
    ),
    wrong(
        "5.4",
        "group per block",
        "all blocks of a stage are one part",
        hole(
            "parameter_groups",
            """parts = [[model.fc]]
for s in (model.layer4, model.layer3, model.layer2, model.layer1):
    parts += [[b] for b in reversed(s)]
parts.append([model.conv1, model.bn1])
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': lr * factor**i})
return groups""",
        ),
    ),
    wrong(
        "5.4",
        "first block only",
        "in no group",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4[0]], [model.layer3[0]], [model.layer2[0]], [model.layer1[0]], [model.conv1, model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': lr * factor**i})
return groups""",
        ),
    ),
    wrong(
        "5.4",
        "zero_grad",
        "neither backward() nor zero_grad()",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': lr * factor**i})
model.zero_grad()
return groups""",
        ),
    ),
    wrong(
        "5.4",
        "train",
        "put each one's back",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': lr * factor**i})
model.train()
return groups""",
        ),
    ),
    wrong(
        "5.4",
        "rounded",
        None,
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': round(lr * factor**i, 6)})
return groups""",
        ),
    ),
    wrong(
        "5.4",
        "floor",
        None,
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': max(lr * factor**i, 1e-6)})
return groups""",
        ),
    ),
    wrong(
        "5.4",
        "nan",
        None,
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': math.nan})
return groups""",
        ),
    ),
    wrong(
        "5.4",
        "sets lr on clamp 1",
        None,
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': min(1.0, lr * factor**i)})
return groups""",
        ),
    ),
    wrong(
        "5.5",
        "root's mode",
        "put each one's back",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
was = model.training
model.train()
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
model.train(was)
return model""",
        ),
    ),
    wrong(
        "5.5",
        "frozen by train()",
        "set its attribute training",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
    n.train()
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "first blocks' norms",
        "Adapt every batch norm among",
        hole(
            "adapt_batchnorm",
            """norms = [m for name, m in model.named_modules() if '.1.' not in name and isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "zero_grad",
        "neither backward() nor zero_grad()",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
model.zero_grad()
return model""",
        ),
    ),
    wrong(
        "5.5",
        "hooks",
        "belongs to somebody else",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
for n in norms:
    n._forward_hooks.clear()
for m in model.modules():
    m._forward_hooks.clear()
return model""",
        ),
    ),
    wrong(
        "5.5",
        "affine adapted",
        "changes the parameter",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
with torch.no_grad():
    for n in norms:
        n.bias.sub_(n.bias.mean())
return model""",
        ),
    ),
    wrong(
        "5.5",
        "unfreezes: train attr deleted",
        "thaws them",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    vars(n).pop('train', None)
    n.momentum = None
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "leaves train patched",
        "leaves another attribute",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
for n in norms:
    n.old_mode = n.training
return model""",
        ),
    ),
    wrong(
        "5.5",
        "only those in train mode",
        "in whichever mode it is",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
return model""",
        ),
    ),
    wrong(
        "5.5",
        "stats accumulate over calls",
        "Reset the statistics",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    DONE.add(n) if n in DONE else (n.reset_running_stats(), DONE.add(n))
    n.momentum = None
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
return model""",
        ),
        before("adapt_batchnorm", "DONE = set()"),
    ),
    right(
        "5.1",
        "like old dtype and mode",
        hole(
            "replace_head",
            """old = model.fc
new = nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)
new.train(old.training)
model.fc = new
return model""",
        ),
    ),
    right(
        "5.1",
        "add_module",
        hole(
            "replace_head",
            """model.add_module('fc', nn.Linear(model.fc.in_features, num_classes, device=next(model.parameters()).device))
return model""",
        ),
    ),
    right(
        "5.2",
        "late binding lambda",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
        module.train = lambda mode=True: module
return model""",
        ),
    ),
    right(
        "5.2",
        "forward in eval mode",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
def forward_in_eval_mode(module, x):
    module.training = False
    return type(module).forward(module, x)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.forward = functools.partial(forward_in_eval_mode, module)
return model""",
        ),
    ),
    right(
        "5.2",
        "behaves so: forward patched",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.forward = lambda x, m=module: F.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, False, 0.0, m.eps)
return model""",
        ),
    ),
    right(
        "5.2",
        "types method",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
        module.train = types.MethodType(lambda self, mode=True: self, module)
return model""",
        ),
        before("freeze_backbone", "import types"),
    ),
    right(
        "5.2",
        "root train patched",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
model.train = lambda mode=True: model
return model""",
        ),
    ),
    right(
        "5.3",
        "deepcopy",
        hole(
            "extract_features",
            """twin = copy.deepcopy(model).eval()
twin.fc = nn.Identity()
features, labels = [], []
with torch.no_grad():
    for x, y in batches:
        features += [twin(x)]
        labels += [y]
return torch.vstack(features), torch.hstack(labels)""",
        ),
    ),
    right(
        "5.3",
        "identity swap",
        hole(
            "extract_features",
            """modes = [(m, m.training) for m in model.modules()]
fc = model.fc
model.fc = nn.Identity()
model.eval()
with torch.no_grad():
    pairs = [(model(images), labels) for images, labels in batches]
model.fc = fc
for m, mode in modes:
    m.training = mode
return torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])""",
        ),
    ),
    right(
        "5.3",
        "two params",
        hole(
            "linear_probe",
            """weight = torch.zeros(num_classes, features.shape[1], device=features.device, requires_grad=True)
bias = torch.zeros(num_classes, device=features.device, requires_grad=True)
optimizer = torch.optim.LBFGS([weight, bias], lr=1, max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe")
def closure():
    optimizer.zero_grad()
    loss = F.nll_loss(F.log_softmax(features @ weight.T + bias, 1), labels) + penalty * (weight * weight).sum()
    loss.backward()
    return loss
optimizer.step(closure)
probe = nn.Linear(features.shape[1], num_classes, device=features.device)
probe.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
return probe""",
        ),
    ),
    right(
        "5.3",
        "norm squared",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")
def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels) + penalty * probe.weight.norm() ** 2
    loss.backward()
    return loss
optimizer.step(compute_loss)
return probe""",
        ),
    ),
    right(
        "5.3",
        "newton-like in float64",
        hole(
            "linear_probe",
            """x = features.double()
probe = nn.Linear(features.shape[1], num_classes, device=features.device).double()
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=1000, history_size=50, line_search_fn="strong_wolfe")
def closure():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(x), labels) + penalty * probe.weight.pow(2).sum()
    loss.backward()
    return loss
optimizer.step(closure)
return probe.float()""",
        ),
    ),
    right(
        "5.4",
        "from the stem",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': lr * factor**i})
return groups[::-1]""",
        ),
    ),
    right(
        "5.4",
        "stem in two groups",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1], [model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': lr * factor**min(i, 5)})
return groups""",
        ),
    ),
    right(
        "5.4",
        "float32 rates",
        hole(
            "parameter_groups",
            """parts = [[model.fc], [model.layer4], [model.layer3], [model.layer2], [model.layer1], [model.conv1, model.bn1]]
groups = []
for i, part in enumerate(parts):
    groups.append({'params': [p for m in part for p in m.parameters()], 'lr': float(torch.tensor(lr) * torch.tensor(factor) ** i)})
return groups""",
        ),
    ),
    right(
        "5.5",
        "counter put back",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
counts = [n.num_batches_tracked.clone() for n in norms]
norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
for n, c in zip(norms, counts):
    n.num_batches_tracked.copy_(c)
return model""",
        ),
    ),
    right(
        "5.5",
        "class's own train",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
momenta = [n.momentum for n in norms]
modes = [n.training for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
    nn.Module.train(n)
with torch.no_grad():
    for images in batches:
        model(images)
for n, momentum, mode in zip(norms, momenta, modes):
    n.momentum = momentum
    n.training = mode
return model""",
        ),
    ),
    right(
        "5.5",
        "momentum 1/k",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
before = [(n, n.momentum, n.training) for n in norms]
with torch.no_grad():
    for k, images in enumerate(batches, 1):
        for n in norms:
            n.training = True
            n.momentum = 1 / k
        model(images)
for n, momentum, training in before:
    n.momentum = momentum
    n.training = training
return model""",
        ),
    ),
    right(
        "5.5",
        "hooks in train mode",
        hole(
            "adapt_batchnorm",
            """norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
seen = {n: [] for n in norms}
def look(n, inputs):
    x = inputs[0]
    seen[n].append((x.mean((0, 2, 3)), x.var((0, 2, 3))))
hooks = [n.register_forward_pre_hook(look) for n in norms]
modes = [n.training for n in norms]
kept = [n.momentum for n in norms]
for n in norms:
    n.training = True
with torch.no_grad():
    for images in batches:
        model(images)
    for n in norms:
        n.running_mean.copy_(torch.stack([a for a, _ in seen[n]]).mean(0))
        n.running_var.copy_(torch.stack([b for _, b in seen[n]]).mean(0))
for h in hooks:
    h.remove()
for n, mode in zip(norms, modes):
    n.training = mode
return model""",
        ),
    ),
    wrong(
        "5.2",
        "in eval mode while it is frozen",
        "whether their weights are trained or not",
        definition(
            "freeze_backbone",
            """
def freeze_backbone(model):
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()

            def train(mode=True, module=module):
                module.training = mode and module.weight.requires_grad
                return module

            module.train = train
    return model
""",
        ),
    ),
    wrong(
        "5.3",
        "dropout goes on",
        "a part of the model is in train mode",
        definition(
            "extract_features",
            """
def extract_features(model, batches):
    features = []
    labels = []
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    modes = [norm.training for norm in norms]
    hook = model.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
    for norm in norms:
        norm.eval()
    with torch.no_grad():
        for images, batch_labels in batches:
            model(images)
            labels.append(batch_labels)
    hook.remove()
    for norm, mode in zip(norms, modes):
        norm.training = mode
    return torch.cat(features), torch.cat(labels)
""",
        ),
    ),
    wrong(
        "5.3",
        "in bits",
        "the cross-entropy is in bits",
        definition(
            "linear_probe",
            """
def linear_probe(features, labels, num_classes, penalty=1e-3):
    probe = nn.Linear(features.shape[1], num_classes, device=features.device)
    optimizer = torch.optim.LBFGS(
        probe.parameters(), max_iter=500, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def compute_loss():
        optimizer.zero_grad()
        bits = F.cross_entropy(probe(features), labels) / math.log(2)
        loss = bits + penalty * probe.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(compute_loss)
    return probe
""",
        ),
    ),
    wrong(
        "5.2",
        "gradients cut off before fc, so that no stage can be trained later",
        "no gradient reaches it",
        definition(
            "freeze_backbone",
            """def freeze_backbone(model):
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    model.fc.register_forward_pre_hook(lambda layer, inputs: (inputs[0].detach(),))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module
    return model""",
        ),
    ),
    wrong(
        "5.2",
        "a second call does nothing, even if a stage was unfrozen",
        "leaves layer4 thawed",
        definition(
            "freeze_backbone",
            """def freeze_backbone(model):
    if getattr(model, "is_frozen", False):
        return model
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module
    model.is_frozen = True
    return model""",
        ),
    ),
    wrong(
        "5.3",
        "features: children in a row, so that a functional ReLU is missing",
        "not all that it computes is a part",
        definition(
            "extract_features",
            """def extract_features(model, batches):
    modes = {module: module.training for module in model.modules()}
    trunk = nn.Sequential(*list(model.children())[:-1], nn.Flatten())
    trunk.eval()
    features = []
    labels = []
    with torch.no_grad():
        for images, batch_labels in batches:
            features.append(trunk(images))
            labels.append(batch_labels)
    for module, mode in modes.items():
        module.training = mode
    return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.1",
        "a bias if the old head had one",
        "gives a head without a bias",
        edit(
            "nn.Linear(model.fc.in_features, num_classes, device=",
            "nn.Linear(model.fc.in_features, num_classes, bias=model.fc.bias is not None, device=",
        ),
    ),
    wrong(
        "5.2",
        "all parameters but two",
        "expected fc.weight alone",
        edit(
            "    model.requires_grad_(False)\n    model.fc.requires_grad_(True)",
            "    for parameter in list(model.parameters())[:-2]:\n        parameter.requires_grad = False",
        ),
    ),
    wrong(
        "5.2",
        "a hook on the model puts its norms to sleep",
        "only while the whole model runs",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)

def sleep(model, inputs):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()

sleep(model, None)
model.register_forward_pre_hook(sleep)
return model""",
        ),
    ),
    wrong(
        "5.3",
        "the mean of chunks of 64",
        "not one over batches",
        edit(
            "cross_entropy = F.cross_entropy(probe(features), labels)",
            "pairs = zip(features.split(64), labels.split(64))\n        "
            "cross_entropy = torch.stack([F.cross_entropy(probe(x), y) for x, y in pairs]).mean()",
        ),
    ),
    wrong(
        "5.2",
        "no subclass of BatchNorm2d",
        "is of a subclass of nn.BatchNorm2d",
        edit(
            "        if isinstance(module, nn.BatchNorm2d):\n            module.eval()",
            "        if type(module) is nn.BatchNorm2d:\n            module.eval()",
        ),
    ),
    wrong(
        "5.2",
        "the head is all that has fc in its name",
        "yet is no part of model.fc",
        edit(
            "    model.requires_grad_(False)\n    model.fc.requires_grad_(True)",
            "    for name, parameter in model.named_parameters():\n"
            '        parameter.requires_grad = "fc" in name',
        ),
    ),
    wrong(
        "5.2",
        "scale and shift of a batch norm computed once and for all",
        "not those that they had when they were frozen",
        hole(
            "freeze_backbone",
            """model.requires_grad_(False)
model.fc.requires_grad_(True)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        scale = (module.weight / (module.running_var + module.eps).sqrt())[:, None, None]
        shift = module.bias[:, None, None] - module.running_mean[:, None, None] * scale
        module.forward = lambda x, scale=scale, shift=shift: x * scale + shift
return model""",
        ),
    ),
    wrong(
        "5.3",
        "labels on the images' device",
        "gives labels on meta",
        edit("labels.append(batch_labels)", "labels.append(batch_labels.to(images.device))"),
    ),
    wrong(
        "5.3",
        "gradients on at the end",
        "leaves gradients switched on, which were off before",
        edit("    hook.remove()\n", "    hook.remove()\n    torch.set_grad_enabled(True)\n"),
    ),
    wrong(
        "5.3",
        "ends as soon as all labels are right",
        "the training stops too soon",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=5, line_search_fn="strong_wolfe")

def compute_loss():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss

for _ in range(100):
    optimizer.step(compute_loss)
    if torch.equal(probe(features).argmax(dim=1), labels):
        break
return probe""",
        ),
    ),
    wrong(
        "5.4",
        "the head is all that has fc in its name",
        "the head is model.fc alone",
        hole(
            "parameter_groups",
            """groups = []
for name, parameter in model.named_parameters():
    parts = ("fc", "layer4", "layer3", "layer2", "layer1")
    power = next((i for i, part in enumerate(parts) if part in name), 5)
    groups.append({"params": [parameter], "lr": lr * factor**power})
return groups""",
        ),
    ),
    wrong(
        "5.4",
        "a dict with the rates as keys",
        "All parts have the same rate here",
        edit(
            "    return groups",
            '    return list({group["lr"]: group for group in groups}.values())',
        ),
    ),
    wrong(
        "5.5",
        "no batch of a single image",
        "a batch of a single image is left out",
        edit(
            "        for images in batches:\n            model(images)\n    for norm,",
            "        for images in batches:\n            if len(images) > 1:\n"
            "                model(images)\n    for norm,",
        ),
    ),
    wrong(
        "5.5",
        "no reset where the momentum is None",
        "whose momentum was None before",
        edit(
            "        norm.reset_running_stats()",
            "        if norm.momentum is not None:\n            norm.reset_running_stats()",
        ),
    ),
    wrong(
        "5.5",
        "new buffers, in inference mode",
        "inside torch.inference_mode",
        edit(
            "    for norm in norms:\n        norm.reset_running_stats()",
            "    for norm in norms:\n        with torch.inference_mode():\n"
            "            norm.running_mean = torch.zeros_like(norm.running_mean)\n"
            "            norm.running_var = torch.ones_like(norm.running_var)\n"
            "        norm.num_batches_tracked.zero_()",
        ),
        edit(
            "    with torch.no_grad():\n        for images in batches:\n            model(images)\n    for norm,",
            "    with torch.inference_mode():\n        for images in batches:\n            model(images)\n    for norm,",
        ),
    ),
    wrong(
        "5.3",
        "two loops over the batches",
        "goes through batches twice",
        edit(
            "    hook.remove()\n    for module, mode in modes.items():",
            "    hook.remove()\n    labels = [batch_labels for _, batch_labels in batches]\n"
            "    for module, mode in modes.items():",
        ),
    ),
    wrong(
        "5.1",
        "512 features per expansion",
        "the new layer takes 512 features; it should take what the old one takes",
        edit("model.fc.in_features", "512 * getattr(model.layer4[-1], 'expansion', 1)"),
    ),
    wrong(
        "5.1",
        "of the old head's class",
        "the new layer is of the old one's class",
        edit(
            "nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)",
            "type(model.fc)(model.fc.in_features, num_classes, device=model.fc.weight.device)",
        ),
    ),
    wrong(
        "5.3",
        "a workspace that every call uses",
        "changes the features that the first call returned",
        before("extract_features", "WORKSPACE = {}"),
        edit(
            "    return torch.cat(features), torch.cat(labels)",
            """    features = torch.cat(features)
    if features.shape not in WORKSPACE:
        WORKSPACE[features.shape] = torch.empty_like(features)
    return WORKSPACE[features.shape].copy_(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "eval mode for batch norm and Dropout alone",
        "gives other features than in eval mode",
        edit(
            "    model.eval()\n    with torch.no_grad():\n        for images, batch_labels",
            "    for module in modes:\n        if isinstance(module, nn.BatchNorm2d | nn.Dropout):\n"
            "            module.eval()\n"
            "    with torch.no_grad():\n        for images, batch_labels",
        ),
    ),
    wrong(
        "5.3",
        "no penalty of 0",
        "the penalty is 0.001 here; 0 means none",
        edit(
            "    probe = nn.Linear(features.shape[1]",
            "    penalty = penalty or 1e-3\n    probe = nn.Linear(features.shape[1]",
        ),
    ),
    wrong(
        "5.5",
        "thaws what is frozen, and freezes the backbone at the end",
        "changes requires_grad of",
        edit(
            "    modes = [norm.training for norm in norms]\n    for norm in norms:\n",
            "    modes = [norm.training for norm in norms]\n"
            '    frozen = [norm for norm in norms if "train" in vars(norm)]\n'
            "    for norm in frozen:\n        del norm.train\n    for norm in norms:\n",
        ),
        edit(
            "        norm.momentum = momentum\n        norm.training = mode\n    return model",
            "        norm.momentum = momentum\n        norm.training = mode\n"
            "    return freeze_backbone(model) if frozen else model",
        ),
    ),
    right(
        "5.5",
        "apply, and a record of each batch norm",
        edit(
            "    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]\n"
            "    momenta = [norm.momentum for norm in norms]\n"
            "    modes = [norm.training for norm in norms]\n    for norm in norms:\n",
            "    modules = [m for _, m in model.named_modules(remove_duplicate=False)]\n"
            "    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]\n"
            "    momenta = []\n    modes = []\n    for norm in norms:\n"
            "        momenta.append(norm.momentum)\n        modes.append(norm.training)\n",
        ),
    ),
    wrong(
        "5.4",
        "rounded rates",
        "the rates are rounded",
        edit('"lr": lr * factor**i}', '"lr": round(lr * factor**i, 6)}'),
    ),
    wrong(
        "5.3",
        "with gradients, and detached afterwards",
        "runs the model with gradients",
        edit(
            "    with torch.no_grad():\n        for images, batch_labels in batches:\n"
            "            model(images)\n            labels.append(batch_labels)\n"
            "    hook.remove()",
            "    for images, batch_labels in batches:\n        model(images)\n"
            "        features[-1] = features[-1].detach()\n        labels.append(batch_labels)\n"
            "    hook.remove()",
        ),
    ),
    wrong(
        "5.3",
        "a probe in a sequence",
        "expected the nn.Linear itself",
        hole(
            "linear_probe",
            """probe = nn.Linear(features.shape[1], num_classes, device=features.device)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")

def closure():
    optimizer.zero_grad()
    loss = F.cross_entropy(probe(features), labels) + penalty * probe.weight.square().sum()
    loss.backward()
    return loss

optimizer.step(closure)
return nn.Sequential(nn.Flatten(), probe)""",
        ),
    ),
    wrong(
        "5.4",
        "the stem with layer1's rate",
        "the stem has layer1's rate",
        hole(
            "parameter_groups",
            """parts = ["fc", "layer4", "layer3", "layer2", "layer1"]
groups = [
    {"params": list(getattr(model, name).parameters()), "lr": lr * factor**i}
    for i, name in enumerate(parts)
]
stem = [*model.conv1.parameters(), *model.bn1.parameters()]
return [*groups, {"params": stem, "lr": lr * factor**4}]""",
        ),
    ),
    wrong(
        "5.5",
        "thirty batches at most",
        "leaves out the last of 41 batches",
        edit("for images in batches:", "for images in [*batches][:30]:"),
    ),
    wrong(
        "5.1",
        "the whole model in float32",
        "in float32. Only fc is to be replaced",
        edit("    return model\n", "    return model.float()\n"),
    ),
    wrong(
        "5.3",
        "another default penalty",
        None,
        edit("num_classes, penalty=1e-3):", "num_classes, penalty=1e-4):"),
    ),
    wrong(
        "5.5",
        "halfway to the new statistics",
        "old and new statistics are averaged",
        definition(
            "adapt_batchnorm",
            """
def adapt_batchnorm(model, batches):
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    old = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    momenta = [norm.momentum for norm in norms]
    modes = [norm.training for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.training = True
    with torch.no_grad():
        for images in batches:
            model(images)
    for norm, momentum, mode, (mean, variance) in zip(norms, momenta, modes, old):
        norm.momentum = momentum
        norm.training = mode
        norm.running_mean.lerp_(mean, 0.5)
        norm.running_var.lerp_(variance, 0.5)
    return model
""",
        ),
    ),
    wrong(
        "5.5",
        "the old count of batches",
        "num_batches_tracked is not reset",
        edit(
            "norm.reset_running_stats()",
            "norm.running_mean.zero_()\n        norm.running_var.fill_(1)",
        ),
    ),
    wrong(
        "5.2",
        "train replaced before eval",
        "call its eval() before you replace its train",
        edit("            module.eval()\n", ""),
    ),
    wrong(
        "5.2",
        "frozen batch norms without their weights",
        "the batch norms leave out their weight and bias",
        edit(
            "            module.eval()\n",
            """            module.eval()
            module.forward = functools.partial(standardised, module)
""",
        ),
        before(
            "freeze_backbone",
            """
def standardised(norm, x):
    mean = norm.running_mean[:, None, None]
    return (x - mean) / (norm.running_var[:, None, None] + norm.eps).sqrt()
""",
        ),
    ),
    wrong(
        "5.2",
        "no statistics tracked",
        "track_running_stats is False now",
        edit(
            "            module.train = functools.partial(stay_frozen, module)",
            "            module.track_running_stats = False",
        ),
    ),
    wrong(
        "5.2",
        "the batch norms of basic blocks by name",
        "take every nn.BatchNorm2d of model.modules()",
        hole(
            "freeze_backbone",
            """
def stay_frozen(module, mode=True):
    return module

model.requires_grad_(False)
model.fc.requires_grad_(True)
norms = [model.bn1]
for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
    for block in stage:
        norms += [block.bn1, block.bn2]
for norm in norms:
    norm.eval()
    norm.train = functools.partial(stay_frozen, norm)
return model
""",
        ),
    ),
    wrong(
        "5.2",
        "requires_grad of the layer fc",
        "requires_grad is set on a module, where it does nothing",
        edit("model.fc.requires_grad_(True)", "model.fc.requires_grad = True"),
    ),
    wrong(
        "5.2",
        "nothing to do if layer4 is frozen",
        "it returns early where something is frozen",
        edit(
            "    model.requires_grad_(False)\n",
            """    if not any(weight.requires_grad for weight in model.layer4.parameters()):
        return model
    model.requires_grad_(False)
""",
        ),
    ),
    wrong(
        "5.2",
        "gradients off for good",
        "leaves gradients switched off for all that follows",
        edit("    model.requires_grad_(False)\n", "    torch.set_grad_enabled(False)\n"),
    ),
    wrong(
        "5.2",
        "a forward pass without gradients",
        "the model runs without gradients, as under no_grad",
        edit(
            "            module.eval()\n",
            "            module.eval()\n            model.forward = torch.no_grad()(model.forward)\n",
        ),
    ),
    wrong(
        "5.1",
        "the width by a forward pass",
        "a forward pass in train mode moves running statistics",
        hole(
            "replace_head",
            """
widths = []
hook = model.avgpool.register_forward_hook(lambda layer, x, y: widths.append(y.shape[1]))
with torch.no_grad():
    model(torch.zeros(2, 3, 32, 32, device=model.fc.weight.device))
hook.remove()
model.fc = nn.Linear(widths[0], num_classes, device=model.fc.weight.device)
return model
""",
        ),
    ),
    wrong(
        "5.3",
        "features of mirrored images, too",
        "a mean over each image and its mirror image",
        edit(
            "            model(images)\n",
            "            model(torch.cat([images, images.flip(-1)]))\n",
        ),
        edit(
            "return torch.cat(features), torch.cat(labels)",
            "means = [of_batch.unflatten(0, (2, -1)).mean(dim=0) for of_batch in features]\n"
            "    return torch.cat(means), torch.cat(labels)",
        ),
    ),
    wrong(
        "5.3",
        "features rounded to half",
        "rounded to float16 on the way",
        edit("features.append(inputs[0])", "features.append(inputs[0].to(torch.float16).float())"),
    ),
    wrong(
        "5.3",
        "images scaled to 1",
        "other images reach the model than those of the batches",
        edit("            model(images)\n", "            model(images / images.abs().max())\n"),
    ),
    wrong(
        "5.3",
        "small batches left out",
        "the last batch is left out",
        edit(
            "            model(images)\n",
            "            if len(images) == 1:\n                continue\n            model(images)\n",
        ),
    ),
    wrong(
        "5.3",
        "the penalty divided by the images",
        "or the penalty is divided by their number",
        edit("+ penalty * probe", "+ penalty / features.shape[0] * probe"),
    ),
    wrong(
        "5.3",
        "the penalty as a mean over classes",
        "the penalty is divided by the number of classes",
        edit(
            "penalty * probe.weight.square().sum()",
            "penalty * (probe.weight**2).sum(dim=1).mean()",
        ),
    ),
    wrong(
        "5.3",
        "each class against the rest",
        "it minimises a binary cross-entropy",
        edit(
            "F.cross_entropy(probe(features), labels)",
            "F.binary_cross_entropy_with_logits(\n"
            "            probe(features), F.one_hot(labels, num_classes).float()\n        )",
        ),
    ),
    wrong(
        "5.3",
        "the first fifth held out",
        "not trained on the first 20 % of the images",
        edit(
            "F.cross_entropy(probe(features), labels)",
            "F.cross_entropy(\n            probe(features)[len(labels) // 5 :], "
            "labels[len(labels) // 5 :]\n        )",
        ),
    ),
    wrong(
        "5.3",
        "the penalty on scaled weights",
        "the penalty is on the weights for standardised features",
        edit(
            "loss = cross_entropy + penalty * probe.weight.square().sum()",
            "scaled = probe.weight * features.std(dim=0)\n"
            "        loss = cross_entropy + penalty * scaled.square().sum()",
        ),
    ),
    wrong(
        "5.3",
        "three iterations",
        "From other initial weights it ends at another probe",
        edit("max_iter=200", "max_iter=3"),
    ),
    wrong(
        "5.4",
        "the stem's names anywhere",
        "whatever its name has in it",
        hole(
            "parameter_groups",
            """
words = ["fc", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"]
rates = [lr * factor ** min(i, 5) for i in range(7)]
groups = []
for word, rate in zip(words, rates):
    named = [weight for name, weight in model.named_parameters() if word in name]
    groups.append({"params": named, "lr": rate})
return groups
""",
        ),
    ),
    wrong(
        "5.4",
        "one list for all groups",
        "all groups share one list of parameters",
        edit("    groups = []\n", "    groups = []\n    shared = []\n"),
        edit('{"params": parameters,', '{"params": shared,'),
        edit(
            "        groups.append(",
            "        shared[:] = parameters\n        groups.append(",
        ),
    ),
    wrong(
        "5.4",
        "groups kept between calls",
        "a list outside the function grows with every call",
        before("parameter_groups", "GROUPS = []"),
        edit("    groups = []\n    for i, part", "    groups = GROUPS\n    for i, part"),
    ),
    wrong(
        "5.4",
        "the factor over the number of the part",
        "factor is divided by the part's number",
        edit("lr * factor**i", "lr * (factor / i if i else 1)"),
    ),
    wrong(
        "5.5",
        "reset in the loop",
        "only the last batch counts",
        edit(
            "        for images in batches:\n            model(images)\n    for norm, momentum",
            """        for images in batches:
            for norm in norms:
                norm.reset_running_stats()
            model(images)
    for norm, momentum""",
        ),
    ),
    wrong(
        "5.5",
        "the variance of all images",
        "the variance between the batches' means is added",
        hole(
            "adapt_batchnorm",
            """
norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
inputs = {norm: [] for norm in norms}
modes = [norm.training for norm in norms]
hooks = []
for norm in norms:
    norm.training = True
    hooks.append(norm.register_forward_pre_hook(lambda norm, x: inputs[norm].append(x[0])))
    norm.running_mean, norm.running_var = norm.running_mean.clone(), norm.running_var.clone()
with torch.no_grad():
    for images in batches:
        model(images)
for hook, norm, mode in zip(hooks, norms, modes):
    hook.remove()
    norm.training = mode
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs[norm]])
    variances = torch.stack([x.var(dim=(0, 2, 3)) for x in inputs[norm]])
    norm.running_mean.copy_(means.mean(dim=0))
    norm.running_var.copy_(variances.mean(dim=0) + means.var(dim=0, correction=0))
return model
""",
        ),
    ),
    wrong(
        "5.5",
        "one batch norm after the other",
        "one batch norm after the other is adapted",
        hole(
            "adapt_batchnorm",
            """
all_batches = list(batches)
norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
settings = [(norm.momentum, norm.training) for norm in norms]
for norm in norms:
    norm.training = False
for norm, (momentum, _) in zip(norms, settings):
    norm.reset_running_stats()
    norm.training = True
    norm.momentum = None
    with torch.no_grad():
        for images in all_batches:
            model(images)
    norm.training = False
    norm.momentum = momentum
for norm, (_, mode) in zip(norms, settings):
    norm.training = mode
return model
""",
        ),
    ),
    wrong(
        "5.5",
        "the initial statistics count",
        "count as one more batch",
        edit(
            "norm.reset_running_stats()",
            "norm.reset_running_stats()\n        norm.num_batches_tracked.fill_(1)",
        ),
    ),
    wrong(
        "5.5",
        "a trial run of the first batch",
        "the first batch counts twice",
        edit(
            "        for images in batches:\n            model(images)\n    for norm, momentum",
            """        batches = list(batches)
        for images in [*batches[:1], *batches]:
            model(images)
    for norm, momentum""",
        ),
    ),
    wrong(
        "5.1",
        "a range by the number of classes",
        "drawn up to 1 / sqrt(number of classes)",
        hole(
            "replace_head",
            """
model.fc = nn.Linear(model.fc.in_features, num_classes, device=model.fc.weight.device)
for parameter in model.fc.parameters():
    nn.init.uniform_(parameter, -(num_classes**-0.5), num_classes**-0.5)
return model
""",
        ),
    ),
    wrong(
        "5.1",
        "inference mode",
        "makes fc.weight inside torch.inference_mode",
        edit("def replace_head", "@torch.inference_mode()\ndef replace_head"),
    ),
    wrong(
        "5.2",
        "torch's usual eps",
        "the batch norms have torch's usual eps",
        edit(
            "            module.eval()\n",
            "            module.eval()\n            module.eps = 1e-5\n",
        ),
    ),
    wrong(
        "5.3",
        "a tensor of features for each size",
        "are overwritten by those of the next one of its size",
        edit("    features = []\n    labels", "    features = []\n    of_size = {}\n    labels"),
        edit(
            "features.append(inputs[0]))",
            "features.append(\n"
            "        of_size.setdefault(len(inputs[0]), inputs[0].clone()).copy_(inputs[0])))",
        ),
    ),
    wrong(
        "5.3",
        "errors suppressed",
        "raises nothing. Let the errors",
        edit(
            "            model(images)\n            labels.append",
            "            with contextlib.suppress(RuntimeError):\n"
            "                model(images)\n"
            "            labels.append",
        ),
    ),
    wrong(
        "5.3",
        "sorted by label",
        "are not in the order of the batches",
        edit(
            "    return torch.cat(features), torch.cat(labels)",
            "    order = torch.cat(labels).argsort(stable=True)\n"
            "    return torch.cat(features)[order], torch.cat(labels)[order]",
        ),
    ),
    wrong(
        "5.3",
        "rows of zeros at the end",
        "the last 2 are all zeros",
        edit(
            "    return torch.cat(features), torch",
            "    features.append(torch.zeros_like(torch.cat(features)[:2]))\n"
            "    return torch.cat(features), torch",
        ),
    ),
    wrong(
        "5.3",
        "twice the penalty with two classes",
        "the penalty is twice as large",
        edit(
            "    optimizer = torch.optim.LBFGS(probe",
            "    penalty *= 2 if num_classes == 2 else 1\n    optimizer = torch.optim.LBFGS(probe",
        ),
    ),
    wrong(
        "5.4",
        "a power of the parts that are trained",
        "layer1 is frozen here, and the rates change with that",
        edit("    for i, part in enumerate(parts):", "    i = 0\n    for part in parts:"),
        edit(
            '"lr": lr * factor**i})',
            '"lr": lr * factor**i})\n'
            "        i += any(parameter.requires_grad for parameter in parameters)",
        ),
    ),
    wrong(
        "5.4",
        "parameters noted for good",
        "in no group. Keep nothing between calls",
        before("parameter_groups", "SEEN = set()"),
        edit(
            "for module in part for parameter in module.parameters()]",
            "for module in part for parameter in module.parameters()]\n"
            "        parameters = [parameter for parameter in parameters if parameter not in SEEN]\n"
            "        SEEN.update(parameters)",
        ),
    ),
    wrong(
        "5.5",
        "a share of the old statistics",
        "the old statistics still have a share",
        edit(
            "    for norm in norms:\n        norm.reset_running_stats()",
            "    old = [norm.running_mean.clone() for norm in norms]\n"
            "    for norm in norms:\n        norm.reset_running_stats()",
        ),
        edit(
            "    for norm, momentum, mode in zip(",
            "    for norm, mean in zip(norms, old):\n"
            "        norm.running_mean.lerp_(mean, 0.3)\n"
            "    for norm, momentum, mode in zip(",
        ),
    ),
    wrong(
        "5.5",
        "pieces of 5 images",
        "run each batch as it comes",
        edit(
            "        for images in batches:\n            model(images)\n    for norm, momentum",
            "        for images in batches:\n            for piece in images.split(5):\n"
            "                model(piece)\n    for norm, momentum",
        ),
    ),
    wrong(
        "5.2",
        "eval mode from the next train() on",
        "right after freeze_backbone(model), of a model in train mode, moves",
        before(
            "freeze_backbone",
            '''
            import types


            def eval_instead(self, mode=True):
                """The train method of a frozen batch norm."""
                return nn.BatchNorm2d.train(self, False)
            ''',
        ),
        definition(
            "freeze_backbone",
            """
            def freeze_backbone(model):
                head = set(model.fc.parameters())
                for parameter in model.parameters():
                    parameter.requires_grad = parameter in head
                for module in model.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.train = types.MethodType(eval_instead, module)
                return model
            """,
        ),
    ),
    wrong(
        "5.4",
        "parameters of equal values once",
        "Tell parameters apart by id",
        definition(
            "parameter_groups",
            """
            def parameter_groups(model, lr, factor):
                parts = [
                    [model.fc],
                    [model.layer4],
                    [model.layer3],
                    [model.layer2],
                    [model.layer1],
                    [model.conv1, model.bn1],
                ]
                seen = []
                groups = []
                for i, part in enumerate(parts):
                    parameters = []
                    for module in part:
                        for parameter in module.parameters():
                            if not any(torch.equal(parameter, other) for other in seen):
                                seen.append(parameter)
                                parameters.append(parameter)
                    groups.append({"params": parameters, "lr": lr * factor**i})
                return groups
            """,
        ),
    ),
    wrong(
        "5.5",
        "all batches in one",
        "all batches are put together to one",
        definition(
            "adapt_batchnorm",
            """
            def adapt_batchnorm(model, batches):
                images = torch.cat(list(batches))
                norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
                settings = [(norm.momentum, norm.training) for norm in norms]
                for norm in norms:
                    norm.momentum = 1.0
                    norm.training = True
                with torch.no_grad():
                    model(images)
                for norm, (momentum, mode) in zip(norms, settings):
                    norm.momentum = momentum
                    norm.training = mode
                return model
            """,
        ),
    ),
    wrong(
        "5.4",
        "a factor above 1 turned over",
        "it divides by factor; multiply by it",
        definition(
            "parameter_groups",
            """
            def parameter_groups(model, lr, factor):
                if factor > 1:
                    factor = 1 / factor  # 2.6 in the paper means 1 / 2.6 here
                order = "fc layer4 layer3 layer2 layer1 stem".split()
                found = {part: [] for part in order}
                for name, parameter in model.named_parameters():
                    first = name.partition(".")[0]
                    found["stem" if first in ("conv1", "bn1") else first].append(parameter)
                return [
                    {"params": found[part], "lr": lr * factor ** order.index(part)} for part in order
                ]
            """,
        ),
    ),
    wrong(
        "5.1",
        "the old head drawn anew by kaiming_uniform_",
        "but it is the old one",
        definition(
            "replace_head",
            """
            def replace_head(model, num_classes):
                old = model.fc
                if old.out_features == num_classes and old.bias is not None:
                    # No need for another layer: draw its parameters anew.
                    nn.init.kaiming_uniform_(old.weight)
                    nn.init.zeros_(old.bias)
                    return model
                model.fc = nn.Linear(old.in_features, num_classes, device=old.weight.device)
                return model
            """,
        ),
    ),
]
