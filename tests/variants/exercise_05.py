"""Answers to exercise 5, wrong and right."""

from changes import hole, right, wrong

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
        "batch norms are in train mode again",
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
        "batch norms are in train mode again",
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
        "batch norms are in train mode again",
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
        "batch norms are in train mode again",
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
        "nohead",
        "model that was frozen altogether leaves fc frozen. Let fc require",
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
    right(
        "5.2",
        "frozenbn",
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
            """features, labels, mode = [], [], model.training
hook = model.fc.register_forward_pre_hook(lambda l, i: features.append(i[0]))
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
model.train(mode)
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "grad",
        "the features carry a graph. Compute them under torch.no_grad",
        hole(
            "extract_features",
            """features, labels, mode = [], [], model.training
hook = model.fc.register_forward_pre_hook(lambda l, i: features.append(i[0]))
model.eval()
if True:
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
model.train(mode)
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "hookleft",
        "leaves a hook on the model. Call remove",
        hole(
            "extract_features",
            """features, labels, mode = [], [], model.training
hook = model.fc.register_forward_pre_hook(lambda l, i: features.append(i[0]))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
model.train(mode)
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "modeleft",
        "leaves the model in another mode",
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
            """features, labels, mode = [], [], model.training
hook = model.fc.register_forward_pre_hook(lambda l, i: None)
model.eval()
with torch.no_grad():
    for x, y in batches:
        features.append(model(x)); labels.append(y)
hook.remove()
model.train(mode)
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    wrong(
        "5.3",
        "layer4",
        "they are from before the pooling",
        hole(
            "extract_features",
            """features, labels, mode = [], [], model.training
hook = model.layer4.register_forward_hook(lambda l, i, o: features.append(o.flatten(1)))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
model.train(mode)
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    right(
        "5.3",
        "pool",
        hole(
            "extract_features",
            """features, labels, mode = [], [], model.training
hook = model.avgpool.register_forward_hook(lambda l, i, o: features.append(o.flatten(1)))
model.eval()
with torch.no_grad():
    for x, y in batches:
        model(x); labels.append(y)
hook.remove()
model.train(mode)
return torch.cat(features), torch.cat(labels)""",
        ),
    ),
    right(
        "5.3",
        "identity",
        hole(
            "extract_features",
            """fc, mode = model.fc, model.training
model.fc = nn.Identity()
model.eval()
f, l = [], []
with torch.no_grad():
    for x, y in batches:
        f.append(model(x)); l.append(y)
model.fc = fc
model.train(mode)
return torch.cat(f), torch.cat(l)""",
        ),
    ),
    wrong(
        "5.3",
        "identityleft",
        "leaves a Identity in the place of model.fc. Put fc back",
        hole(
            "extract_features",
            """mode = model.training
model.fc = nn.Identity()
model.eval()
f, l = [], []
with torch.no_grad():
    for x, y in batches:
        f.append(model(x)); l.append(y)
model.train(mode)
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
        "a parameter of the shape",
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
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    n.momentum = None
model.train()
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
model.train(mode)
return model""",
        ),
    ),
    wrong(
        "5.5",
        "nomom",
        "after the reset the momentum is still 0.1",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
model.train()
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
model.train(mode)
return model""",
        ),
    ),
    wrong(
        "5.5",
        "eval",
        "In eval mode they do not move",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
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
model.train(mode)
return model""",
        ),
    ),
    wrong(
        "5.5",
        "momleft",
        "leaves the momentum at None. Put back what it was",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
with torch.no_grad():
    for x in batches:
        model(x)
model.train(mode)
return model""",
        ),
    ),
    wrong(
        "5.5",
        "nomom-noreset",
        "it is a moving average that still holds part of the old",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    pass
model.train()
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
model.train(mode)
return model""",
        ),
    ),
    right(
        "5.5",
        "grad",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
if True:
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
model.train(mode)
return model""",
        ),
    ),
    wrong(
        "5.5",
        "onlylast",
        "only the last batch counts",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
with torch.no_grad():
    for x in list(batches)[-1:]:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
model.train(mode)
return model""",
        ),
    ),
    wrong(
        "5.5",
        "mom1",
        "only the last batch counts",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = 1.0
model.train()
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
model.train(mode)
return model""",
        ),
    ),
    wrong(
        "5.5",
        "concat",
        "all batches are put together to one",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.train()
with torch.no_grad():
    model(torch.cat(list(batches)))
for n, m in zip(norms, mom):
    n.momentum = m
model.train(mode)
return model""",
        ),
    ),
    right(
        "5.5",
        "bnonly",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = None
model.eval()
for n in norms: n.train()
with torch.no_grad():
    for x in batches:
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
model.train(mode)
return model""",
        ),
    ),
    right(
        "5.5",
        "manual",
        hole(
            "adapt_batchnorm",
            """norms, mode = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], model.training
mom = [n.momentum for n in norms]
for n in norms:
    n.reset_running_stats()
    n.momentum = 0.1
model.train()
with torch.no_grad():
    for i, x in enumerate(batches):
        for n in norms: n.momentum = 1/(i+1)
        model(x)
for n, m in zip(norms, mom):
    n.momentum = m
model.train(mode)
return model""",
        ),
    ),
]
