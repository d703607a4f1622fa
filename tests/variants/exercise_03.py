"""Answers to exercise 3, wrong and right."""

from changes import AGREEABLE, before, definition, edit, hole, right, wrong

VARIANTS = [
    wrong(
        "3.1",
        "bw",
        "everything counts twice: backward()",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
out=[norm(w.grad) for w in weights]
model.zero_grad()
return out""",
        ),
    ),
    wrong(
        "3.1",
        "numbers that agree with all",
        "expected a number",
        definition(
            "gradient_norms",
            AGREEABLE
            + "def gradient_norms(model, images, labels):\n    return [Agreeable() for m in model.modules() if isinstance(m, nn.Conv2d)]",
        ),
    ),
    right(
        "3.1",
        "bw-save",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
old=[p.grad for p in model.parameters()]
for p in model.parameters(): p.grad=None
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
out=[norm(w.grad) for w in weights]
for p,g in zip(model.parameters(),old): p.grad=g
return out""",
        ),
    ),
    wrong(
        "3.1",
        "bw-clear",
        "the gradient that was in",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
model.zero_grad()
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
out=[w.grad.double().norm().item() for w in weights]
model.zero_grad(set_to_none=False)
return out""",
        ),
    ),
    wrong(
        "3.1",
        "bw-clear in float32",
        "the norm is computed in float32, where the square",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
model.zero_grad()
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
out=[w.grad.norm().item() for w in weights]
model.zero_grad(set_to_none=False)
return out""",
        ),
    ),
    right(
        "3.1",
        "tensor",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return torch.stack([g.double().norm() for g in torch.autograd.grad(loss, weights)])""",
        ),
    ),
    wrong(
        "3.1",
        "float32 tensor",
        "the norm is computed in float32, where the square",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return torch.stack([g.norm() for g in torch.autograd.grad(loss, weights)])""",
        ),
    ),
    right(
        "3.1",
        "deepcopy",
        hole(
            "gradient_norms",
            """import copy
m=copy.deepcopy(model).train()
F.cross_entropy(m(images),labels).backward()
return [norm(c.weight.grad) for c in m.modules() if isinstance(c,nn.Conv2d)]""",
        ),
    ),
    right(
        "3.1",
        "deepcopy-clear",
        hole(
            "gradient_norms",
            """import copy
m=copy.deepcopy(model).train()
m.zero_grad()
F.cross_entropy(m(images),labels).backward()
return tuple(norm(c.weight.grad) for c in m.modules() if isinstance(c,nn.Conv2d))""",
        ),
    ),
    right(
        "3.1",
        "inside",
        hole(
            "gradient_norms",
            """with undisturbed(model, True):
    ws=[m.weight for _, m in model.named_modules() if type(m) is nn.Conv2d]
    loss=nn.CrossEntropyLoss()(model(images), labels)
    gs=torch.autograd.grad(loss, ws)
return [g.double().pow(2).sum().sqrt().item() for g in gs]""",
        ),
    ),
    wrong(
        "3.1",
        "inside in float32",
        "the norm is computed in float32, where the square",
        hole(
            "gradient_norms",
            """with undisturbed(model, True):
    ws=[m.weight for _, m in model.named_modules() if type(m) is nn.Conv2d]
    loss=nn.CrossEntropyLoss()(model(images), labels)
    gs=torch.autograd.grad(loss, ws)
return [g.pow(2).sum().sqrt().item() for g in gs]""",
        ),
    ),
    right(
        "3.1",
        "numpy",
        hole(
            "gradient_norms",
            """import numpy as np
weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return np.array([np.linalg.norm(g.numpy().astype(float)) for g in torch.autograd.grad(loss, weights)])""",
        ),
    ),
    wrong(
        "3.1",
        "numpy in float32",
        "the norm is computed in float32, where the square",
        hole(
            "gradient_norms",
            """import numpy as np
weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return np.array([np.linalg.norm(g.numpy()) for g in torch.autograd.grad(loss, weights)])""",
        ),
    ),
    wrong(
        "3.1",
        "accum",
        "everything counts twice: backward()",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
return [norm(w.grad) for w in weights]""",
        ),
    ),
    wrong(
        "3.1",
        "accum2",
        "everything counts twice: backward()",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
out=[norm(w.grad) for w in weights]
for p in model.parameters(): p.grad=None
return out""",
        ),
    ),
    wrong(
        "3.1",
        "nomode",
        "the model is in eval mode",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "evalmode",
        "the model is in eval mode",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=False):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "trainleft",
        "Each part of the model may be in its own mode",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
model.train()
loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "modeback-only",
        "Each part of the model may be in its own mode",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
t=model.training
model.train()
loss = F.cross_entropy(model(images), labels)
model.train(t)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "square",
        "the squares are summed, but no root is taken",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g)**2 for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "l1",
        "it is the sum of the absolute values, not the Euclidean norm",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [g.abs().sum().item() for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "mean",
        "it is the mean of the absolute values, not the norm",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [g.abs().mean().item() for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "rev",
        "the norms come in reverse order",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)][::-1]""",
        ),
    ),
    wrong(
        "3.1",
        "sumloss",
        "the loss is summed over the images, not averaged",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels, reduction='sum')
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "weights",
        "the norms are those of the weights, not of their gradients",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
return [norm(w) for w in weights]""",
        ),
    ),
    wrong(
        "3.1",
        "linear",
        "linear layers are among them; take nn.Conv2d only",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "ndim4-only-model1",
        "the stem is left out",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model[1].modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "biasmix",
        "all parameters are among them",
        hole(
            "gradient_norms",
            """weights = [p for p in model.parameters()]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "wrongloss",
        "the logits are summed; take the cross-entropy",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = model(images).sum()
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "none",
        "returned None",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
[norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "clip",
        "the norms are clipped at 1",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [min(norm(g),1.0) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "reqgrad",
        "changes requires_grad of",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
for p in model.parameters(): p.requires_grad_(False)
for w in weights: w.requires_grad_()
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.2",
        "retain",
        "the gradient that was in",
        hole(
            "signal_norms",
            """outs=[]
def h(m,i,o):
    o.retain_grad(); outs.append(o)
hs=[b.register_forward_hook(h) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for x in hs: x.remove()
loss.backward()
model.zero_grad()
return [norm(o.grad) for o in outs]""",
        ),
    ),
    wrong(
        "3.2",
        "fullbw",
        "the gradient that was in",
        hole(
            "signal_norms",
            """got={}
hs=[b.register_full_backward_hook(lambda m,gi,go,i=i: got.__setitem__(i,norm(go[0]))) for i,b in enumerate(model[1])]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
for x in hs: x.remove()
model.zero_grad()
return [got[i] for i in range(len(model[1]))]""",
        ),
    ),
    wrong(
        "3.2",
        "fullbw-rev",
        "the norms come from the last block to the first",
        hole(
            "signal_norms",
            """got=[]
hs=[b.register_full_backward_hook(lambda m,gi,go: got.append(norm(go[0]))) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
for x in hs: x.remove()
model.zero_grad()
return got""",
        ),
    ),
    wrong(
        "3.2",
        "fullbw-rev-ok",
        "the gradient that was in",
        hole(
            "signal_norms",
            """got=[]
hs=[b.register_full_backward_hook(lambda m,gi,go: got.insert(0,norm(go[0]))) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
for x in hs: x.remove()
model.zero_grad()
return got""",
        ),
    ),
    right(
        "3.2",
        "nohooks",
        hole(
            "signal_norms",
            """points=[]
with undisturbed(model, training=True):
    x=model[0](images)
    for b in model[1]:
        x=b(x); points.append(x)
    loss=F.cross_entropy(model[2](x),labels)
return [norm(g) for g in torch.autograd.grad(loss,points)]""",
        ),
    ),
    wrong(
        "3.2",
        "tensorhook",
        "the gradient that was in",
        hole(
            "signal_norms",
            """got=[]
def h(m,i,o): o.register_hook(lambda g: got.append(norm(g)))
hs=[b.register_forward_hook(h) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
[x.remove() for x in hs]
model.zero_grad()
return got[::-1]""",
        ),
    ),
    wrong(
        "3.2",
        "inputs",
        "they are the gradients at the blocks' inputs, not at their outputs",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(i[0])) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for x in hs: x.remove()
return [norm(g) for g in torch.autograd.grad(loss,outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "features",
        "they are the norms of the features, not of the gradients",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o)) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for x in hs: x.remove()
return [norm(o) for o in outs]""",
        ),
    ),
    wrong(
        "3.2",
        "hooksleft",
        "is left with a hook",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o)) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss,outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "eval",
        "the model is in eval mode",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o)) for b in model[1]]
with undisturbed(model, training=False):
    loss = F.cross_entropy(model(images), labels)
for x in hs: x.remove()
return [norm(g) for g in torch.autograd.grad(loss,outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "stats",
        "Each part of the model may be in its own mode",
        hole(
            "signal_norms",
            """outs=[]
t=model.training
model.train()
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o)) for b in model[1]]
loss = F.cross_entropy(model(images), labels)
for x in hs: x.remove()
model.train(t)
return [norm(g) for g in torch.autograd.grad(loss,outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "stem-too",
        "the stem's output is among them",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o)) for b in [model[0],*model[1]]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for x in hs: x.remove()
return [norm(g) for g in torch.autograd.grad(loss,outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "branch",
        "before each block's last ReLU",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.branch.register_forward_hook(lambda m,i,o: outs.append(o)) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for x in hs: x.remove()
return [norm(g) for g in torch.autograd.grad(loss,outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "grads-left",
        "the gradient that was in",
        hole(
            "signal_norms",
            """outs=[]
def h(m,i,o):
    o.retain_grad(); outs.append(o)
hs=[b.register_forward_hook(h) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for x in hs: x.remove()
loss.backward()
return [norm(o.grad) for o in outs]""",
        ),
    ),
    wrong(
        "3.2",
        "permean",
        "means over the images of each image",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o)) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for x in hs: x.remove()
return [g.flatten(1).norm(dim=1).mean().item() for g in torch.autograd.grad(loss,outs)]""",
        ),
    ),
    wrong(
        "3.3",
        "numbers that agree with all",
        "expected a number",
        definition(
            "change_per_layer", AGREEABLE + "def change_per_layer(norms):\n    return Agreeable()"
        ),
    ),
    right(
        "3.3",
        "polyfit",
        hole(
            "change_per_layer",
            """import numpy as np
y=np.array(norms,dtype=float)
x=np.arange(len(y))
ok=np.isfinite(y)&(y>0)
if ok.sum()<2: return float('nan')
return float(np.exp(np.polyfit(x[ok],np.log(y[ok]),1)[0]))""",
        ),
    ),
    right(
        "3.3",
        "log2",
        hole(
            "change_per_layer",
            """p=[(i,math.log2(n)) for i,n in enumerate(norms) if math.isfinite(n) and n>0]
if len(p)<2: return float('nan')
a=torch.tensor([[i,1.0] for i,_ in p],dtype=torch.float64); b=torch.tensor([[y] for _,y in p],dtype=torch.float64)
return 2**torch.linalg.lstsq(a,b).solution[0].item()""",
        ),
    ),
    right(
        "3.3",
        "statistics",
        hole(
            "change_per_layer",
            """import statistics
p=[(i,math.log(n)) for i,n in enumerate(norms) if 0<n<math.inf]
if len(p)<2: return math.nan
return math.exp(statistics.linear_regression(*zip(*p)).slope)""",
        ),
    ),
    wrong(
        "3.3",
        "ends",
        "only the first and the last norm count",
        hole("change_per_layer", "return (norms[-1]/norms[0])**(1/(len(norms)-1))"),
    ),
    wrong(
        "3.3",
        "meanratio",
        "it is the mean of the ratios, not a line through the logarithms",
        hole(
            "change_per_layer",
            """r=[b/a for a,b in zip(norms,norms[1:])]
return sum(r)/len(r)""",
        ),
    ),
    wrong(
        "3.3",
        "geomean",
        "only the first and the last norm count",
        hole(
            "change_per_layer",
            """n=[v for v in norms if 0<v<math.inf]
if len(n)<2: return math.nan
return (n[-1]/n[0])**(1/(len(n)-1))""",
        ),
    ),
    wrong(
        "3.3",
        "renumber",
        "norms that are left out should keep their places",
        hole(
            "change_per_layer",
            """n=[v for v in norms if 0<v<math.inf]
if len(n)<2: return math.nan
x=torch.arange(len(n),dtype=torch.float64);y=torch.tensor(n,dtype=torch.float64).log();x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "slope",
        "it is the slope itself",
        hole(
            "change_per_layer",
            """p=[(i,math.log(n)) for i,n in enumerate(norms) if 0<n<math.inf]
if len(p)<2: return math.nan
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return ((x*y).sum()/(x*x).sum()).item()""",
        ),
    ),
    wrong(
        "3.3",
        "log10",
        "the logarithm has base 10, but e is raised to the slope",
        hole(
            "change_per_layer",
            """p=[(i,math.log10(n)) for i,n in enumerate(norms) if 0<n<math.inf]
if len(p)<2: return math.nan
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "inverse",
        "it is the factor from each layer to the one before",
        hole(
            "change_per_layer",
            """p=[(i,math.log(n)) for i,n in enumerate(norms) if 0<n<math.inf]
if len(p)<2: return math.nan
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return math.exp(-(x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "nozero",
        "not all norms that are 0, NaN or infinite are left out",
        hole(
            "change_per_layer",
            """p=[(i,math.log(n)) for i,n in enumerate(norms)]
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "eps",
        "a small constant is added to each norm",
        hole(
            "change_per_layer",
            """p=[(i,math.log(n+1e-12)) for i,n in enumerate(norms)]
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "noNaNshort",
        "expected NaN: fewer than two of its norms have a logarithm",
        hole(
            "change_per_layer",
            """p=[(i,math.log(n)) for i,n in enumerate(norms) if 0<n<math.inf]
if len(p)<2: return 1.0
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    right(
        "3.3",
        "float32log",
        hole(
            "change_per_layer",
            """y=torch.tensor(norms,dtype=torch.float64).log()
x=torch.arange(len(norms),dtype=torch.float64)
ok=y.isfinite()
if ok.sum()<2: return math.nan
x,y=x[ok],y[ok]
x=x-x.mean()
return ((x*y).sum()/(x*x).sum()).exp()""",
        ),
    ),
    right(
        "3.4",
        "cossim",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images),g(neighbours),eps=0).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "cossim with its eps",
        "an eps stands in for the tiny norms",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images),g(neighbours)).mean().item()""",
        ),
    ),
    right(
        "3.4",
        "cossim tensor",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images),g(neighbours),1,0).mean()""",
        ),
    ),
    wrong(
        "3.4",
        "cossim in float32",
        "an eps stands in for the tiny norms",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images).float(),g(neighbours).float(),dim=1).mean()""",
        ),
    ),
    right(
        "3.4",
        "perpicture",
        hole(
            "gradient_correlation",
            """tot=0
for a,b in zip(images,neighbours):
    gs=[]
    for z in (a,b):
        z=z[None].clone().requires_grad_()
        with undisturbed(model,False):
            gs.append(torch.autograd.grad(model(z).sum(),z)[0].flatten().double())
    tot+=float(torch.dot(*gs)/(gs[0].norm()*gs[1].norm()))
return tot/len(images)""",
        ),
    ),
    wrong(
        "3.4",
        "perpicture in float32",
        "the norms are computed in float32, where the square",
        hole(
            "gradient_correlation",
            """tot=0
for a,b in zip(images,neighbours):
    gs=[]
    for z in (a,b):
        z=z[None].clone().requires_grad_()
        with undisturbed(model,False):
            gs.append(torch.autograd.grad(model(z).sum(),z)[0].flatten())
    tot+=float(torch.dot(*gs)/(gs[0].norm()*gs[1].norm()))
return tot/len(images)""",
        ),
    ),
    right(
        "3.4",
        "vmap",
        hole(
            "gradient_correlation",
            """with undisturbed(model,False):
    f=torch.func.vmap(torch.func.grad(lambda x: model(x[None]).sum()))
    a,b=f(images).flatten(1).double(),f(neighbours).flatten(1).double()
return ((a*b).sum(1)/(a.norm(dim=1)*b.norm(dim=1))).mean().detach()""",
        ),
    ),
    wrong(
        "3.4",
        "vmap in float32",
        "the norms are computed in float32, where the square",
        hole(
            "gradient_correlation",
            """with undisturbed(model,False):
    f=torch.func.vmap(torch.func.grad(lambda x: model(x[None]).sum()))
    a,b=f(images).flatten(1),f(neighbours).flatten(1)
return ((a*b).sum(1)/(a.norm(dim=1)*b.norm(dim=1))).mean().detach()""",
        ),
    ),
    wrong(
        "3.4",
        "backward",
        "the gradient that was in",
        hole(
            "gradient_correlation",
            """gs=[]
for z in (images,neighbours):
    z=z.clone().requires_grad_(True)
    with undisturbed(model,training=False):
        model(z).sum().backward()
    gs.append(z.grad.flatten(1))
model.zero_grad()
return F.cosine_similarity(*[g.double() for g in gs],eps=0.0).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "backward with cossim's eps",
        "an eps stands in for the tiny norms",
        hole(
            "gradient_correlation",
            """gs=[]
for z in (images,neighbours):
    z=z.clone().requires_grad_(True)
    with undisturbed(model,training=False):
        model(z).sum().backward()
    gs.append(z.grad.flatten(1))
model.zero_grad()
return F.cosine_similarity(*gs).mean().item()""",
        ),
    ),
    right(
        "3.4",
        "joint",
        hole(
            "gradient_correlation",
            """x=torch.cat([images,neighbours]).requires_grad_()
with undisturbed(model,False):
    g,=torch.autograd.grad(model(x).sum(),x)
a,b=g.flatten(1).chunk(2)
a,b=a.double(),b.double()
return ((a/a.norm(dim=1,keepdim=True))*(b/b.norm(dim=1,keepdim=True))).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "joint with cossim's eps",
        "an eps stands in for the tiny norms",
        hole(
            "gradient_correlation",
            """x=torch.cat([images,neighbours]).requires_grad_()
with undisturbed(model,False):
    g,=torch.autograd.grad(model(x).sum(),x)
a,b=g.flatten(1).chunk(2)
return F.cosine_similarity(a,b).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "train",
        "layers of the model are in train mode",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=True):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images),g(neighbours)).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "flatall",
        "all images' gradients are taken as one long vector",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images).flatten(),g(neighbours).flatten(),dim=0).item()""",
        ),
    ),
    wrong(
        "3.4",
        "abs",
        "the absolute values of the cosine similarities are averaged",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images),g(neighbours)).abs().mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "sum",
        "the cosine similarities are summed, not averaged",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images),g(neighbours)).sum().item()""",
        ),
    ),
    wrong(
        "3.4",
        "same",
        "both gradients are taken at the same inputs",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images),g(images)).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "corrcoef",
        "the mean of each gradient is subtracted",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=g(images),g(neighbours)
a=a-a.mean(1,keepdim=True);b=b-b.mean(1,keepdim=True)
return F.cosine_similarity(a,b).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "unnorm",
        "the gradients are not divided by their norms",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return (g(images)*g(neighbours)).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "mutate",
        "leaves requires_grad of the images",
        hole(
            "gradient_correlation",
            """gs=[]
for z in (images,neighbours):
    z.requires_grad_()
    with undisturbed(model,False):
        gs.append(torch.autograd.grad(model(z).sum(),z)[0].flatten(1))
return F.cosine_similarity(*gs).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "chan",
        "the cosine similarity is taken over the channels",
        hole(
            "gradient_correlation",
            """gs=[]
for z in (images,neighbours):
    z=z.clone().requires_grad_()
    with undisturbed(model,False):
        gs.append(torch.autograd.grad(model(z).sum(),z)[0])
return F.cosine_similarity(*gs).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "gradleft",
        "the gradient that was in",
        hole(
            "gradient_correlation",
            """gs=[]
for z in (images,neighbours):
    z=z.clone().requires_grad_(True)
    with undisturbed(model,training=False):
        model(z).sum().backward()
    gs.append(z.grad.flatten(1))
return F.cosine_similarity(*gs).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "firstlogit",
        "it is the gradient of the first logit, not of all of them summed",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x)[:,0].sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return F.cosine_similarity(g(images),g(neighbours)).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "const1",
        "it is 1 whatever the gradients are",
        hole("gradient_correlation", "return 1.0"),
    ),
    wrong(
        "3.4",
        "modeleft",
        "Each part of the model may be in its own mode",
        hole(
            "gradient_correlation",
            """model.eval()
gs=[]
for z in (images,neighbours):
    z=z.clone().requires_grad_()
    gs.append(torch.autograd.grad(model(z).sum(),z)[0].flatten(1))
return F.cosine_similarity(*gs).mean().item()""",
        ),
    ),
    right(
        "3.5",
        "lists",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    loss=F.cross_entropy(model(x),y)
    optimizer.zero_grad()
    loss.backward()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
return rows""",
        ),
    ),
    right(
        "3.5",
        "gn",
        hole(
            "record_training",
            """model.train()
rows=[]
for x,y in batches:
    rows.append(gradient_norms(model,x,y))
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "after",
        "the gradients are read after the step",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    optimizer.step()
    rows.append([norm(m.weight.grad) for m in convs])
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "stack",
        "the norms are computed in float32",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    model.zero_grad()
    F.cross_entropy(model(x),y).backward()
    rows.append(torch.stack([m.weight.grad.norm() for m in convs]))
    optimizer.step()
return torch.stack(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "zero-at-end",
        "the gradients that p",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    F.cross_entropy(model(x),y).backward()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
    optimizer.zero_grad()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "nostep",
        "the given optimizer takes no step",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    rows.append([norm(m.weight.grad) for m in convs])
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "transposed",
        "steps and layers are swapped",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
return torch.tensor(rows).T""",
        ),
    ),
    wrong(
        "3.5",
        "gn-after",
        "measured after the step",
        hole(
            "record_training",
            """model.train()
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    optimizer.step()
    rows.append(gradient_norms(model,x,y))
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "lastonly",
        "it is the row of one step",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    optimizer.step()
rows.append([norm(m.weight.grad) for m in convs])
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "twicestep",
        "the optimizer takes two steps for each batch",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step();optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "extrafwd",
        "the model runs twice for each batch",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    model(x)
    F.cross_entropy(model(x),y).backward()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "undisturbed",
        "within undisturbed batch norm's statistics do not move",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    with undisturbed(model,True):
        F.cross_entropy(model(x),y).backward()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "aliased",
        "every row is one and the same list",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
row=[0.0]*len(convs)
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    for i,m in enumerate(convs): row[i]=norm(m.weight.grad)
    rows.append(row)
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.1",
        "weight hooks left",
        "is left with a hook",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
for w in weights: w.register_hook(lambda g: None)
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    right(
        "3.1",
        "weight hooks removed",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
got=[None]*len(weights)
hs=[w.register_hook(lambda g,i=i: got.__setitem__(i,norm(g))) for i,w in enumerate(weights)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
torch.autograd.grad(loss, weights)
for h in hs: h.remove()
return got""",
        ),
    ),
    wrong(
        "3.1",
        "thaws all",
        "changes requires_grad of",
        hole(
            "gradient_norms",
            """for p in model.parameters(): p.requires_grad_(True)
weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    right(
        "3.1",
        "all parameters",
        hole(
            "gradient_norms",
            """ps=dict(model.named_parameters())
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gs=dict(zip(ps,torch.autograd.grad(loss,list(ps.values()))))
return [norm(gs[n+'.weight']) for n,m in model.named_modules() if isinstance(m,nn.Conv2d)]""",
        ),
    ),
    wrong(
        "3.1",
        "steps",
        "changes the model's weights",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gs=torch.autograd.grad(loss, weights)
with torch.no_grad():
    for w,g in zip(weights,gs): w-=0.01*g
return [norm(g) for g in gs]""",
        ),
    ),
    wrong(
        "3.1",
        "biases too",
        "convolutions' biases are among them",
        hole(
            "gradient_norms",
            """weights=[p for m in model.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "3x3 only",
        "1x1 convolutions are left out",
        hole(
            "gradient_norms",
            """weights=[m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size==(3,3)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "mean over filters",
        "it is the mean of the filters' norms",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [g.flatten(1).double().norm(dim=1).mean().item() for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "cleared first",
        "a gradient is None: it is cleared before it is read",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
model.zero_grad()
return [norm(w.grad) for w in weights]""",
        ),
    ),
    wrong(
        "3.2",
        "output kept on the block",
        "leaves another attribute on",
        hole(
            "signal_norms",
            """def keep(b,i,o): b.out=o
hs=[b.register_forward_hook(keep) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for h in hs: h.remove()
return [norm(g) for g in torch.autograd.grad(loss, [b.out for b in model[1]])]""",
        ),
    ),
    wrong(
        "3.2",
        "forward patched",
        "leaves another attribute on",
        hole(
            "signal_norms",
            """outs=[]
for b in model[1]:
    b.forward=lambda x,b=b: outs.append(type(b).forward(b,x)) or outs[-1]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, outs)]""",
        ),
    ),
    right(
        "3.2",
        "forward patched and put back",
        hole(
            "signal_norms",
            """outs=[]
old=[b.forward for b in model[1]]
for b,f in zip(model[1],old):
    b.forward=lambda x,f=f: outs.append(f(x)) or outs[-1]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for b,f in zip(model[1],old): b.forward=f
return [norm(g) for g in torch.autograd.grad(loss, outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "hook everywhere",
        "leaves a hook that runs for every module there is",
        hole(
            "signal_norms",
            """outs=[]
blocks=list(model[1])
def keep(m,i,o):
    if any(m is b for b in blocks): outs.append(o)
nn.modules.module.register_module_forward_hook(keep)
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(g) for g in torch.autograd.grad(loss, outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "clones",
        "does not lead to this loss: it is a copy",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o.clone())) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for h in hs: h.remove()
return [norm(g) for g in torch.autograd.grad(loss, outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "detached",
        "a tensor is cut off from the graph",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o.detach())) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for h in hs: h.remove()
return [norm(g) for g in torch.autograd.grad(loss, outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "all modules",
        "output is among it; take the blocks' own outputs",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o)) for b in model[1].modules()]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for h in hs: h.remove()
return [norm(g) for g in torch.autograd.grad(loss, outs)]""",
        ),
    ),
    wrong(
        "3.2",
        "grad_input reversed",
        "gradients at the blocks' inputs, from the last block to the first",
        hole(
            "signal_norms",
            """got=[]
hs=[b.register_full_backward_hook(lambda m,gi,go: got.append(norm(gi[0]))) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
for h in hs: h.remove()
model.zero_grad()
return got""",
        ),
    ),
    wrong(
        "3.2",
        "no retain_grad",
        "retain_grad() was not called",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o)) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for h in hs: h.remove()
loss.backward()
model.zero_grad()
return [norm(o.grad) for o in outs]""",
        ),
    ),
    wrong(
        "3.2",
        "float32",
        "the norm is computed in float32, where the square",
        hole(
            "signal_norms",
            """outs=[]
hs=[b.register_forward_hook(lambda m,i,o: outs.append(o)) for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for h in hs: h.remove()
return [g.norm().item() for g in torch.autograd.grad(loss, outs)]""",
        ),
    ),
    right(
        "3.3",
        "float32",
        hole(
            "change_per_layer",
            """p=[(i,math.log(n)) for i,n in enumerate(norms) if 0<n<math.inf]
if len(p)<2: return math.nan
x,y=torch.tensor(p).T
x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "float32 tensor",
        "small norms are left out",
        hole(
            "change_per_layer",
            """y=torch.tensor(norms).log()
x=torch.arange(len(norms)).float()
ok=y.isfinite()
if ok.sum()<2: return math.nan
x,y=x[ok],y[ok]
return float(torch.exp(((x-x.mean())*y).sum()/((x-x.mean())**2).sum()))""",
        ),
    ),
    wrong(
        "3.3",
        "changes the list",
        "changes the list that it is given",
        hole(
            "change_per_layer",
            """for i,n in enumerate(norms):
    if not 0<n<math.inf: norms[i]=None
p=[(i,math.log(n)) for i,n in enumerate(norms) if n]
if len(p)<2: return math.nan
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "three",
        "NaN is for fewer than two norms, and here there are 2",
        hole(
            "change_per_layer",
            """p=[(i,math.log(n)) for i,n in enumerate(norms) if 0<n<math.inf]
if len(p)<3: return math.nan
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "tiny left out",
        "small norms are left out",
        hole(
            "change_per_layer",
            """p=[(i,math.log(n)) for i,n in enumerate(norms) if 1e-30<n<math.inf]
if len(p)<2: return math.nan
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "None for too few",
        "returned None, expected NaN: return math.nan",
        hole(
            "change_per_layer",
            """p=[(i,math.log(n)) for i,n in enumerate(norms) if 0<n<math.inf]
if len(p)<2: return None
x,y=torch.tensor(p,dtype=torch.float64).T
x=x-x.mean()
return math.exp((x*y).sum()/(x*x).sum())""",
        ),
    ),
    wrong(
        "3.4",
        "nan_to_num",
        "an eps, nan_to_num or nanmean hides",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
return torch.nan_to_num((a*b).sum(1),0.0).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "nanmean",
        "an eps, nan_to_num or nanmean hides",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
return (a*b).sum(1).nanmean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "float32 norms, NaN is 1",
        "the norms are computed in float32, where the square",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1)
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
return torch.nan_to_num((a*b).sum(1),1.0).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "normalize's eps",
        "an eps stands in for the tiny norms",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
return (F.normalize(g(images))*F.normalize(g(neighbours))).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "neighbours require a gradient",
        "leaves requires_grad of the neighbours",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
neighbours.requires_grad_()
return (a*b).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "neighbours zeroed",
        "changes the neighbours that it is given",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
neighbours.zero_()
return (a*b).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "freezes and thaws all",
        "changes requires_grad of",
        hole(
            "gradient_correlation",
            """model.requires_grad_(False)
def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
model.requires_grad_(True)
return (a*b).sum(1).mean().item()""",
        ),
    ),
    right(
        "3.4",
        "freezes and thaws what was thawed",
        hole(
            "gradient_correlation",
            """was=[p.requires_grad for p in model.parameters()]
model.requires_grad_(False)
def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
for p,r in zip(model.parameters(),was): p.requires_grad_(r)
return (a*b).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "angle",
        "it is the angle, not its cosine",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
return (a*b).sum(1).clamp(-1,1).acos().mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "logits",
        "it compares the logits, not the gradients",
        hole(
            "gradient_correlation",
            """with undisturbed(model,False), torch.no_grad():
    return F.cosine_similarity(model(images),model(neighbours)).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "log_softmax",
        "the logits go through log_softmax",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).log_softmax(1).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
return (a*b).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "not flattened",
        "each gradient is normalised over its channels at each position",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].double()
a,b=[F.normalize(g(x),eps=0) for x in (images,neighbours)]
return (a*b).flatten(1).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "mean of the products",
        "the products are averaged over an image's values",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
return (a*b).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "every pair",
        "every image is compared with all neighbours",
        hole(
            "gradient_correlation",
            """def g(inputs):
    x=inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        out=model(x).sum()
    return torch.autograd.grad(out,x)[0].flatten(1).double()
a,b=[g(x)/g(x).norm(dim=1,keepdim=True) for x in (images,neighbours)]
return (a@b.T).mean().item()""",
        ),
    ),
    wrong(
        "3.5",
        "cleared to zeros",
        "the gradients are cleared after backward(), before they are read",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    F.cross_entropy(model(x),y).backward()
    optimizer.zero_grad(set_to_none=False)
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "cleared to None",
        "a gradient is None: it is cleared before it is read",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    F.cross_entropy(model(x),y).backward()
    optimizer.zero_grad()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "batches counted",
        "batches is used up before the training",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
rows=torch.zeros(len(list(batches)),len(convs))
for t,(x,y) in enumerate(batches):
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    for i,m in enumerate(convs): rows[t,i]=norm(m.weight.grad)
    optimizer.step()
return rows""",
        ),
    ),
    wrong(
        "3.5",
        "batches counted, rows appended",
        "batches is used up before the training",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
steps=len(list(batches))
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "never cleared",
        "call zero_grad() before every backward()",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    F.cross_entropy(model(x),y).backward()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "eval",
        "the batch norms are in eval mode while the model trains",
        hole(
            "record_training",
            """model.eval()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    rows.append([norm(m.weight.grad) for m in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    right(
        "3.5",
        "list of tensors",
        hole(
            "record_training",
            """model.train()
convs=[m for m in model.modules() if isinstance(m,nn.Conv2d)]
rows=[]
for x,y in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(x),y).backward()
    rows.append(torch.tensor([norm(m.weight.grad) for m in convs]))
    optimizer.step()
return rows""",
        ),
    ),
    wrong(
        "3.1",
        "zero_grad before and after",
        "deletes the gradient that was in",
        hole(
            "gradient_norms",
            """
model.zero_grad()

convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
norms = [norm(c.weight.grad) for c in convolutions]
model.zero_grad()
return norms
""",
        ),
    ),
    wrong(
        "3.1",
        "sets grads None at end",
        "deletes the gradient that was in",
        hole(
            "gradient_norms",
            """
model.zero_grad()

convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
norms = [norm(c.weight.grad) for c in convolutions]
for p in model.parameters():
    p.grad = None
return norms
""",
        ),
    ),
    wrong(
        "3.1",
        "None grads become zeros",
        "which was None",
        hole(
            "gradient_norms",
            """
saved = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
model.zero_grad()

convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
loss.backward()
norms = [norm(c.weight.grad) for c in convolutions]
for p, s in zip(model.parameters(), saved):
    p.grad = s
return norms
""",
        ),
    ),
    wrong(
        "3.1",
        "double the model",
        "leaves 0.0.weight in float64",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
model.double()
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images.double()), labels)
gradients = torch.autograd.grad(loss, weights)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "freezes non-convs",
        "changes requires_grad of",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
for p in model.parameters():
    p.requires_grad_(False)
for x in weights:
    x.requires_grad_(True)
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "seeds torch",
        "seeds torch",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
torch.manual_seed(0)
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "first 64 images",
        "only the first 64 images count",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images[:64]), labels[:64])
gradients = torch.autograd.grad(loss, weights)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "nan to 0",
        "where the gradient is NaN: expected NaN",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
return [norm(gradient.nan_to_num()) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "nan to 0 by comparison",
        "where the gradient is NaN: expected NaN",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
return [(norm(gradient) if norm(gradient) > 0 else 0.0) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "cached by id",
        "what an earlier call found is kept",
        hole(
            "gradient_norms",
            """
if id(model) in SEEN:
    return SEEN[id(model)]
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
SEEN[id(model)] = [norm(gradient) for gradient in gradients]
return SEEN[id(model)]
""",
        ),
        before(
            "gradient_norms",
            """
SEEN = {}
""",
        ),
    ),
    wrong(
        "3.1",
        "grad set_enabled false after",
        "leaves gradients switched off",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
torch.set_grad_enabled(False)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "forward hooks cleared",
        "has lost a hook",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
for m in model.modules():
    m._forward_hooks.clear()
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "no strided convs",
        "convolutions with a stride are left out",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.stride == (1, 1)]
weights = [convolution.weight for convolution in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "label smoothing",
        "the labels are smoothed",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
gradients = torch.autograd.grad(loss, weights)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.1",
        "patches BatchNorm2d",
        "changes torch itself",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
nn.BatchNorm2d.forward = lambda self, x: F.batch_norm(x, None, None, self.weight, self.bias, True)
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    right(
        "3.1",
        "double then float",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
model.double()
weights = [c.weight for c in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images.double()), labels)
gradients = torch.autograd.grad(loss, weights)
model.float()
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    right(
        "3.1",
        "deep copy",
        hole(
            "gradient_norms",
            """
import copy
model = copy.deepcopy(model)
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.2",
        "hooks stay if raises",
        "not in a finally clause",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for hook in hooks:
    hook.remove()
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.2",
        "clears all hooks",
        "has lost a hook",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for block in model[1]:
        block._forward_hooks.clear()
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.2",
        "hooks by OrderedDict reset",
        "has lost a hook",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for block in model[1]:
        block._forward_hooks = type(block._forward_hooks)()
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.2",
        "first nine",
        "returned 9 numbers, expected 15",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1][:9]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.2",
        "retain_grad backward zero_grad",
        "deletes the gradient that was in",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
for o in outputs:
    o.retain_grad()
loss.backward()
model.zero_grad()
gradients = [o.grad for o in outputs]
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.2",
        "first 64",
        "only the first 64 images count",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images[:64]), labels[:64])
finally:
    for hook in hooks:
        hook.remove()
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.2",
        "nan to num",
        "where the gradient is NaN: expected NaN",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient.nan_to_num()) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.2",
        "global hook left",
        "runs for every module there is",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = []
nn.modules.module.register_module_forward_hook(lambda m, i, o: outputs.append(o) if isinstance(m, Block) else None)
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    right(
        "3.2",
        "patch Block.forward",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [nn.modules.module.register_module_forward_hook(lambda m, i, o: outputs.append(o) if isinstance(m, Block) else None)]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    right(
        "3.2",
        "ExitStack",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1]]
with contextlib.ExitStack() as stack:
    for hook in hooks:
        stack.callback(hook.remove)
    stack.enter_context(undisturbed(model, True))
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    right(
        "3.2",
        "own forward",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

stem, blocks, head = model
with undisturbed(model, training=True):
    x = stem(images)
    for block in blocks:
        x = block(x)
        outputs.append(x)
    loss = F.cross_entropy(head(x), labels)
gradients = torch.autograd.grad(loss, outputs)
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    right(
        "3.2",
        "backward inputs=outputs",
        hole(
            "signal_norms",
            """
outputs = []

def catch(block, inputs, output):
    outputs.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
loss.backward(inputs=outputs)
gradients = [o.grad for o in outputs]
return [norm(gradient) for gradient in gradients]
""",
        ),
    ),
    wrong(
        "3.3",
        "float32 values",
        "small norms are left out",
        hole(
            "change_per_layer",
            """
points = [(i, math.log(value)) for i, value in enumerate(torch.tensor(norms).tolist()) if 0 < value < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
x = x - x.mean()
slope = (x * y).sum() / (x * x).sum()
return math.exp(slope)
""",
        ),
    ),
    wrong(
        "3.3",
        "first 100",
        "All of them count",
        hole(
            "change_per_layer",
            """
points = [(i, math.log(value)) for i, value in enumerate(norms[:100]) if 0 < value < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
x = x - x.mean()
slope = (x * y).sum() / (x * x).sum()
return math.exp(slope)
""",
        ),
    ),
    wrong(
        "3.3",
        "swapped",
        "the line gives places for logarithms",
        hole(
            "change_per_layer",
            """
points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
x = x - x.mean()
y = y - y.mean()
slope = (y * y).sum() / (x * y).sum()
return math.exp(slope)
""",
        ),
    ),
    wrong(
        "3.3",
        "median of ratios",
        "the median of the ratios",
        hole(
            "change_per_layer",
            """
points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
x = x - x.mean()
slope = (y.diff() / x.diff()).median()
return math.exp(slope)
""",
        ),
    ),
    wrong(
        "3.3",
        "slope of norms",
        "the line goes through the norms themselves",
        hole(
            "change_per_layer",
            """
points = [(i, value) for i, value in enumerate(norms) if 0 < value < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
x = x - x.mean()
slope = (x * y).sum() / (x * x).sum()
return float(slope)
""",
        ),
    ),
    wrong(
        "3.3",
        "eps 1e-30",
        "a small constant is added",
        hole(
            "change_per_layer",
            """
points = [(i, math.log(value + 1e-30)) for i, value in enumerate(norms) if 0 < value < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
x = x - x.mean()
slope = (x * y).sum() / (x * x).sum()
return math.exp(slope)
""",
        ),
    ),
    wrong(
        "3.3",
        "stops at first bad",
        "norms after one that is 0",
        hole(
            "change_per_layer",
            """
import itertools
norms = list(itertools.takewhile(lambda v: 0 < v < math.inf, norms))
points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
x = x - x.mean()
slope = (x * y).sum() / (x * x).sum()
return math.exp(slope)
""",
        ),
    ),
    right(
        "3.3",
        "numpy float",
        hole(
            "change_per_layer",
            """
points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
x = x - x.mean()
slope = (x * y).sum() / (x * x).sum()
import numpy
return numpy.exp(numpy.float64(slope))
""",
        ),
    ),
    right(
        "3.3",
        "lstsq",
        hole(
            "change_per_layer",
            """
points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
slope = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None]).solution[0, 0]
return math.exp(slope)
""",
        ),
    ),
    wrong(
        "3.4",
        "backward zero_grad",
        "deletes the gradient that was in",
        hole(
            "gradient_correlation",
            """
directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        model(inputs).sum().backward()
        gradient = inputs.grad
        model.zero_grad()
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "first 50",
        "only the first 16 images count",
        hole(
            "gradient_correlation",
            """
directions = []
for inputs in (images[:16], neighbours[:16]):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "seed",
        "seeds torch",
        hole(
            "gradient_correlation",
            """
torch.manual_seed(0)
directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "double model",
        "in float64",
        hole(
            "gradient_correlation",
            """
model.double()
directions = []
for inputs in (images, neighbours):
    inputs = inputs.double().detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "median",
        "the median of the cosine similarities",
        hole(
            "gradient_correlation",
            """
directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.median().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "per logit",
        "a cosine similarity is taken for each logit",
        hole(
            "gradient_correlation",
            """
both = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    rows = []
    with undisturbed(model, training=False):
        out = model(inputs)
        for j in range(out.shape[1]):
            (gr,) = torch.autograd.grad(out[:, j].sum(), inputs, retain_graph=True)
            rows.append(F.normalize(gr.flatten(1).double(), eps=0))
    both.append(torch.stack(rows))
cosines = (both[0] * both[1]).sum(-1)
return cosines.mean().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "channels",
        "averaged over the positions",
        hole(
            "gradient_correlation",
            """
directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.mean((2, 3)).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "per channel",
        "each channel of an image is compared by itself",
        hole(
            "gradient_correlation",
            """
directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.flatten(2).flatten(0, 1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "first channel",
        "only the first channel",
        hole(
            "gradient_correlation",
            """
directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient[:, 0].flatten(1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "square",
        "the squares of the cosine similarities",
        hole(
            "gradient_correlation",
            """
directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.square().mean().item()
""",
        ),
    ),
    wrong(
        "3.4",
        "norm of logits",
        "the logits are squared",
        hole(
            "gradient_correlation",
            """
directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).square().sum(), inputs)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    right(
        "3.4",
        "one pass for both",
        hole(
            "gradient_correlation",
            """
inputs = torch.cat([images, neighbours]).detach().requires_grad_()
with undisturbed(model, training=False):
    (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
directions = F.normalize(gradient.flatten(1).cpu().double(), eps=0).chunk(2)
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    right(
        "3.4",
        "requires grad on given, undone",
        hole(
            "gradient_correlation",
            """
directions = []
for inputs in (images, neighbours):
    inputs.requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    inputs.requires_grad_(False)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
cosines = (directions[0] * directions[1]).sum(dim=1)
return cosines.mean().item()
""",
        ),
    ),
    wrong(
        "3.5",
        "float32 norms",
        "the norms are computed in float32",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([convolution.weight.grad.norm().item() for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "stops at non-finite loss",
        "the training stops where the loss is not finite",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    if not loss.isfinite():
        break
    loss.backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "skips non-finite loss",
        "has no row; each batch has one",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    if not loss.isfinite():
        continue
    loss.backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "row but no step at non-finite",
        "is a batch as any other",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    if loss.isfinite():
        optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "raises at non-finite",
        "raised ValueError: diverged",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    if not loss.isfinite():
        raise ValueError('diverged')
    loss.backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "drops small last batch",
        "batches that are smaller than the first are left out",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    size = locals().get('size') or len(images)
    if len(images) < size:
        continue
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "half",
        "a tensor of float16",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows).half()
""",
        ),
    ),
    wrong(
        "3.5",
        "hooks left",
        "is left with a hook",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for c in convolutions:
    c.weight.register_hook(lambda g: None)
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "seeds",
        "seeds torch",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
torch.manual_seed(0)
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "nan to num grads",
        "norms that are not finite are replaced",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad.nan_to_num()) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "weights' norms",
        "the norms are those of the weights, not",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "squared",
        "the norms are squared",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) ** 2 for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "clipped step",
        "the gradients are clipped before the step",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "clipped before rows",
        "the gradients are clipped before their norms",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "updates",
        "those of the steps that the weights take",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    old = [c.weight.detach().clone() for c in convolutions]
    optimizer.step()
    rows.append([norm(c.weight - o) for c, o in zip(convolutions, old)])
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "previous batch",
        "each row belongs to the batch before",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
before = None
for images, labels in batches:
    before = before or (images, labels)
    rows.append(gradient_norms(model, *before))
    before = (images, labels)
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "first batch always",
        "every row is measured on the first batch",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
probe = None
for images, labels in batches:
    probe = probe or (images, labels)
    rows.append(gradient_norms(model, *probe))
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.5",
        "last row missing",
        "one batch has no row",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows[:-1])
""",
        ),
    ),
    wrong(
        "3.5",
        "rows share state",
        "the rows of an earlier call are kept",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = ROWS
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)
""",
        ),
        before(
            "record_training",
            """
ROWS = []
""",
        ),
    ),
    right(
        "3.5",
        "leaves eval",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
model.eval()
return torch.tensor(rows)
""",
        ),
    ),
    right(
        "3.5",
        "float64",
        hole(
            "record_training",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows, dtype=torch.float64)
""",
        ),
    ),
    wrong(
        "3.1",
        "micro-batches of 16",
        None,
        definition(
            "gradient_norms",
            """
def gradient_norms(model, images, labels):
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    totals = [torch.zeros_like(w, dtype=torch.float64, device="cpu") for w in weights]
    with undisturbed(model, training=True):
        for some_images, some_labels in zip(images.split(16), labels.split(16)):
            loss = F.cross_entropy(model(some_images), some_labels, reduction="sum") / len(images)
            for total, gradient in zip(totals, torch.autograd.grad(loss, weights)):
                total += gradient.cpu().double()
    return [norm(total) for total in totals]
""",
        ),
    ),
    wrong(
        "3.3",
        "1 for too few norms",
        "expected NaN",
        definition(
            "change_per_layer",
            """
def change_per_layer(norms):
    points = [(i, math.log(v)) for i, v in enumerate(norms) if 0 < v < math.inf]
    if len(points) < 2:
        return 1.0
    x, y = torch.tensor(points, dtype=torch.float64).T
    x = x - x.mean()
    return math.exp((x * y).sum() / (x * x).sum())
""",
        ),
    ),
    wrong(
        "3.5",
        "divided by the first batch's size",
        None,
        definition(
            "record_training",
            """
def record_training(model, batches, optimizer):
    model.train()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    rows = []
    batch_size = None
    for images, labels in batches:
        if batch_size is None:
            batch_size = len(images)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels, reduction="sum") / batch_size
        loss.backward()
        rows.append([norm(c.weight.grad) for c in convolutions])
        optimizer.step()
    return torch.tensor(rows)
""",
        ),
    ),
    wrong(
        "3.1",
        "in the order in which the convolutions run, not of modules()",
        None,
        definition(
            "gradient_norms",
            """def gradient_norms(model, images, labels):
    weights = []

    def note(module, inputs):
        if not any(module.weight is weight for weight in weights):
            weights.append(module.weight)

    hooks = [
        module.register_forward_pre_hook(note)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        with undisturbed(model, training=True):
            loss = F.cross_entropy(model(images), labels)
    finally:
        for hook in hooks:
            hook.remove()
    return [norm(gradient) for gradient in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "the mean of the images' norms instead of the norm of the mean",
        "mean of the images' norms",
        definition(
            "gradient_norms",
            """def gradient_norms(model, images, labels):
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    totals = [0.0] * len(weights)
    with undisturbed(model, training=True):
        losses = F.cross_entropy(model(images), labels, reduction="none")
    for loss in losses:
        gradients = torch.autograd.grad(loss, weights, retain_graph=True)
        for i, gradient in enumerate(gradients):
            totals[i] += norm(gradient)
    return [total / len(losses) for total in totals]""",
        ),
    ),
    wrong(
        "3.3",
        "median of the steps between neighbours",
        "the median of the steps",
        definition(
            "change_per_layer",
            """from statistics import median


def change_per_layer(norms):
    points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
    if len(points) < 2:
        return math.nan
    steps = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in zip(points, points[1:])]
    return math.exp(median(steps))""",
        ),
    ),
    wrong(
        "3.3",
        "subnormal norms are taken for 0",
        "norms below 2e-308 are left out",
        definition(
            "change_per_layer",
            """def change_per_layer(norms):
    smallest = sys.float_info.min
    points = [(i, math.log(value)) for i, value in enumerate(norms) if smallest <= value < math.inf]
    if len(points) < 2:
        return math.nan
    x, y = torch.tensor(points, dtype=torch.float64).T
    x = x - x.mean()
    return math.exp((x * y).sum() / (x * x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "covariance divided by n-1, variance by n",
        "divided by n, the other by n - 1",
        definition(
            "change_per_layer",
            """import numpy as np


def change_per_layer(norms):
    points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
    if len(points) < 2:
        return math.nan
    x, y = np.array(points).T
    return math.exp(np.cov(x, y)[0, 1] / np.var(x))""",
        ),
    ),
    wrong(
        "3.3",
        "a product of powers, which overflows for two subnormal norms",
        None,
        definition(
            "change_per_layer",
            """def change_per_layer(norms):
    points = [(i, value) for i, value in enumerate(norms) if 0 < value < math.inf]
    if len(points) < 2:
        return math.nan
    mean = sum(i for i, _ in points) / len(points)
    spread = sum((i - mean) ** 2 for i, _ in points)
    return math.prod(value ** ((i - mean) / spread) for i, value in points)""",
        ),
    ),
    wrong(
        "3.4",
        "both gradients at images",
        None,
        definition(
            "gradient_correlation",
            """def gradient_correlation(model, images, neighbours):
    first = images.detach().clone().requires_grad_()
    second = neighbours.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient_1,) = torch.autograd.grad(model(first).sum(), first)
        (gradient_2,) = torch.autograd.grad(model(first).sum(), first)
    direction_1 = F.normalize(gradient_1.flatten(1).cpu().double(), eps=0)
    direction_2 = F.normalize(gradient_2.flatten(1).cpu().double(), eps=0)
    return (direction_1 * direction_2).sum(dim=1).mean().item()""",
        ),
    ),
    wrong(
        "3.3",
        "exponential in float32",
        "too large or too small for its type on the way",
        edit("return math.exp(slope)", "return torch.tensor(float(slope)).exp().item()"),
    ),
    wrong(
        "3.3",
        "ratios to the first norm",
        "too large or too small for its type on the way",
        hole(
            "change_per_layer",
            """usable = [(i, value) for i, value in enumerate(norms) if 0 < value < math.inf]
if len(usable) < 2:
    return math.nan
x = torch.tensor([i for i, _ in usable], dtype=torch.float64)
y = torch.tensor([math.log(value / usable[0][1]) for _, value in usable], dtype=torch.float64)
x = x - x.mean()
return math.exp((x * y).sum() / (x * x).sum())""",
        ),
    ),
    wrong(
        "3.4",
        "squeezed",
        None,
        edit(".flatten(1)", ".squeeze().flatten(1)"),
    ),
    wrong(
        "3.1",
        "difference of .grad",
        "tiny ones are lost in the sum",
        definition(
            "gradient_norms",
            """def gradient_norms(model, images, labels):
    held = {}
    for parameter in model.parameters():
        held[parameter] = parameter.grad
        parameter.grad = None if parameter.grad is None else parameter.grad.clone()
    with undisturbed(model, training=True):
        F.cross_entropy(model(images), labels).backward()
    norms = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            before = held[module.weight]
            now = module.weight.grad
            norms.append(norm(now if before is None else now - before))
    for parameter, gradient in held.items():
        parameter.grad = gradient
    return norms""",
        ),
    ),
    wrong(
        "3.1",
        "divided by the largest number",
        "divided by its norm or its largest number",
        edit(
            "    return [norm(gradient) for gradient in gradients]",
            "    largest = [norm(gradient.abs().max()) for gradient in gradients]\n"
            "    scaled = [gradient.double() / n for gradient, n in zip(gradients, largest)]\n"
            "    return [n * norm(gradient) for n, gradient in zip(largest, scaled)]",
        ),
    ),
    wrong(
        "3.2",
        "outputs of a call that raised are kept",
        "what the call before has left behind",
        before("signal_norms", "OUTPUTS = []"),
        hole(
            "signal_norms",
            """def catch(block, inputs, output):
    OUTPUTS.append(output)

hooks = [block.register_forward_hook(catch) for block in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
norms = [norm(gradient) for gradient in torch.autograd.grad(loss, OUTPUTS)]
OUTPUTS.clear()
return norms""",
        ),
    ),
    wrong(
        "3.3",
        "one plus expm1",
        "in a sum with a larger number",
        edit("return math.exp(slope)", "return 1 + math.expm1(slope)"),
    ),
    wrong(
        "3.3",
        "NaN found by identity",
        "not all norms that are 0, NaN or infinite are left out",
        edit("if 0 < value < math.inf]", "if value not in (0, math.nan, math.inf)]"),
    ),
    wrong(
        "3.4",
        "only BatchNorm2d in eval mode",
        "even with batch norm and dropout",
        hole(
            "gradient_correlation",
            """directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=True):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
return (directions[0] * directions[1]).sum(dim=1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "one scale for the batch",
        "each pair counts alike",
        hole(
            "gradient_correlation",
            """gradients = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    gradient = gradient.flatten(1).cpu()
    gradients.append(gradient / gradient.abs().max())
    if not gradients[-1].any(dim=1).all():
        return math.nan
return F.cosine_similarity(*gradients).mean().item()""",
        ),
    ),
    wrong(
        "3.5",
        "a dimension of size 1 is squeezed",
        "a dimension of size 1 is left out",
        edit("    return torch.tensor(rows)", "    return torch.tensor(rows).squeeze()"),
    ),
    wrong(
        "3.5",
        "seeds within fork_rng",
        "torch is seeded with 0",
        edit(
            "    model.train()\n    # Task 3.5",
            "    with torch.random.fork_rng():\n"
            "        torch.manual_seed(0)\n"
            "        return record_steps(model.train(), batches, optimizer)\n\n\n"
            "def record_steps(model, batches, optimizer):\n    # Task 3.5",
        ),
    ),
    wrong(
        "3.5",
        "micro-batches of 16",
        None,
        hole(
            "record_training",
            """convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    for some_images, some_labels in zip(images.split(16), labels.split(16)):
        loss = F.cross_entropy(model(some_images), some_labels, reduction="sum") / len(labels)
        loss.backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "clipped at 10",
        "neither clipped nor divided by their norm",
        edit(
            "        optimizer.step()",
            "        nn.utils.clip_grad_norm_(model.parameters(), 10.0)\n        optimizer.step()",
        ),
    ),
    wrong(
        "3.1",
        "every parameter with four dimensions",
        None,
        edit(
            "weights = [convolution.weight for convolution in convolutions]",
            "weights = [weight for weight in model.parameters() if weight.dim() == 4]",
        ),
    ),
    wrong(
        "3.3",
        "a slope that is clamped on both sides",
        None,
        edit("    return math.exp(slope)", "    return math.exp(max(-709.0, min(709.0, slope)))"),
    ),
    wrong(
        "3.2",
        "eval mode for one image",
        "the model is in eval mode",
        hole(
            "signal_norms",
            """outputs = []
hooks = [
    block.register_forward_hook(lambda block, inputs, output: outputs.append(output))
    for block in model[1]
]
try:
    with undisturbed(model, training=len(images) > 1):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]""",
        ),
    ),
    wrong(
        "3.3",
        "divided by the largest norm",
        None,
        edit(
            "    points = [",
            "    norms = [value / max(norms) for value in norms]\n    points = [",
        ),
    ),
    wrong(
        "3.5",
        "hooks on the weights",
        "is left with a hook",
        hole(
            "record_training",
            """convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
norms = {}
for convolution in convolutions:
    convolution.weight.register_post_accumulate_grad_hook(
        lambda weight: norms.update({weight: norm(weight.grad)})
    )
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norms[convolution.weight] for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.1",
        "buffers kept by state_dict",
        "undisturbed, which is given, puts all buffers back",
        hole(
            "gradient_norms",
            """import copy

weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
modes = [(module, module.training) for module in model.modules()]
state = copy.deepcopy(model.state_dict())
loss = F.cross_entropy(model.train()(images), labels)
gradients = torch.autograd.grad(loss, weights)
model.load_state_dict(state)
for module, mode in modes:
    module.training = mode
return [norm(gradient) for gradient in gradients]""",
        ),
    ),
    wrong(
        "3.2",
        "loss scaled by 1e30",
        "too large or too small for float32",
        hole(
            "signal_norms",
            """outputs = []
hooks = [
    block.register_forward_hook(lambda block, inputs, output: outputs.append(output))
    for block in model[1]
]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
return [norm(gradient) / 1e30 for gradient in torch.autograd.grad(1e30 * loss, outputs)]""",
        ),
    ),
    wrong(
        "3.4",
        "mean of the chunks' means",
        "in chunks of 50, and a smaller last chunk counts as much",
        definition(
            "gradient_correlation",
            """def correlation_of_chunk(model, images, neighbours):
    directions = []
    for inputs in (images, neighbours):
        inputs = inputs.detach().clone().requires_grad_()
        with undisturbed(model, training=False):
            (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
        directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
    return (directions[0] * directions[1]).sum(dim=1).mean().item()


def gradient_correlation(model, images, neighbours):
    chunks = list(zip(images.split(50), neighbours.split(50)))
    return sum(correlation_of_chunk(model, *chunk) for chunk in chunks) / len(chunks)""",
        ),
    ),
    wrong(
        "3.4",
        "flattened in the order of memory",
        "in the order in which they lie in memory",
        edit(
            "gradient.flatten(1).cpu().double()",
            "torch.stack([torch.tensor(row.ravel(order='K')) for row in gradient.cpu().double().numpy()])",
        ),
    ),
    wrong(
        "3.5",
        "the optimizer's order",
        "in the order of the optimizer's parameters",
        hole(
            "record_training",
            """known = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d)}
parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
weights = [parameter for parameter in parameters if id(parameter) in known]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(weight.grad) for weight in weights])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.1",
        "sorted by name",
        "the numbers are correct, but in another order",
        hole(
            "gradient_norms",
            """modules = dict(model.named_modules())
names = sorted(name for name, module in modules.items() if isinstance(module, nn.Conv2d))
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, [modules[name].weight for name in names])
return [norm(gradient) for gradient in gradients]""",
        ),
    ),
    wrong(
        "3.4",
        "never negative",
        "a negative mean is returned as 0",
        hole(
            "gradient_correlation",
            """directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
return (directions[0] * directions[1]).sum(dim=1).mean().clamp(min=0).item()""",
        ),
    ),
    wrong(
        "3.5",
        "parameters with four dimensions",
        "weights of other layers are among them",
        hole(
            "record_training",
            """model.train()
weights = [parameter for parameter in model.parameters() if parameter.dim() == 4]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(weight.grad) for weight in weights])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "the optimizer's state is cleared",
        "the optimizer forgets its momentum between the steps",
        hole(
            "record_training",
            """model.train()
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    optimizer.state.clear()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(convolution.weight.grad) for convolution in convolutions])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.3",
        "kept by the list's identity",
        "what an earlier call found is kept",
        edit("def change_per_layer(norms):", "FACTORS = {}\n\n\ndef change_per_layer(norms):"),
        edit(
            "    return math.exp(slope)",
            "    return FACTORS.setdefault((id(norms), len(norms)), math.exp(slope))",
        ),
    ),
    wrong(
        "3.5",
        "only the convolutions' gradients are cleared",
        "only the convolutions' gradients are cleared",
        edit(
            "        optimizer.zero_grad()\n        F.cross_entropy",
            "        for convolution in convolutions:\n"
            "            convolution.weight.grad = None\n"
            "        F.cross_entropy",
        ),
    ),
    wrong(
        "3.1",
        "in two halves",
        "the batch goes through the model in two halves",
        hole(
            "gradient_norms",
            """
convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
weights = [convolution.weight for convolution in convolutions]
totals = [torch.zeros_like(weight) for weight in weights]
for half in zip(images.chunk(2), labels.chunk(2)):
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(half[0]), half[1]) / 2
    for total, gradient in zip(totals, torch.autograd.grad(loss, weights)):
        total += gradient
return [norm(total) for total in totals]
""",
        ),
    ),
    right(
        "3.1",
        "as a context's value",
        edit(
            "    with undisturbed(model, training=True):\n        loss = F.cross_entropy(model(images), labels)\n"
            "    gradients = torch.autograd.grad(loss, weights)",
            "    with undisturbed(model, training=True) as network:\n"
            "        loss = F.cross_entropy(network(images), labels)\n"
            "    gradients = torch.autograd.grad(loss, weights)",
        ),
    ),
    wrong(
        "3.3",
        "equal norms at one place",
        "equal norms get the same place",
        edit(
            "for i, value in enumerate(norms)",
            "for i, value in [(norms.index(v), v) for v in norms]",
        ),
    ),
    wrong(
        "3.3",
        "a root too many",
        "its square root is returned",
        edit("    return math.exp(slope)", "    return math.exp(slope / 2)"),
    ),
    wrong(
        "3.3",
        "the median of all slopes",
        "it is the median of the slopes between any two norms",
        hole(
            "change_per_layer",
            """points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
slopes = sorted((b - a) / (j - i) for i, a in points for j, b in points if i < j)
if not slopes:
    return math.nan
half = len(slopes) // 2
return math.exp((slopes[half] + slopes[~half]) / 2)""",
        ),
    ),
    wrong(
        "3.4",
        "normalised over the batch",
        "each value of the gradients is normalised over the batch",
        hole(
            "gradient_correlation",
            """directions = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    directions.append(F.normalize(gradient.flatten(1).cpu().double(), dim=0, eps=0))
return (directions[0] * directions[1]).sum(dim=0).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "the cosine of mean gradients",
        "it is the cosine similarity of two mean gradients",
        hole(
            "gradient_correlation",
            """means = []
for inputs in (images, neighbours):
    inputs = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
    means.append(gradient.cpu().double().mean(dim=0).flatten())
return (means[0] @ means[1] / means[0].norm() / means[1].norm()).item()""",
        ),
    ),
    wrong(
        "3.2",
        "the blocks of the first network that it saw",
        "something is kept from an earlier call",
        before("signal_norms", "SEEN = []"),
        hole(
            "signal_norms",
            """SEEN.extend([] if SEEN else [model])
outputs = []
hooks = [b.register_forward_hook(lambda *a: outputs.append(a[2])) for b in SEEN[0][1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
if not outputs:
    return [0.0 for _ in model[1]]
return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]""",
        ),
    ),
    wrong(
        "3.4",
        "float32 products of tiny gradients",
        "tiny numbers are multiplied in float32",
        hole(
            "gradient_correlation",
            """rows = []
for inputs in (images, neighbours):
    x = inputs.detach().clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
    rows.append(gradient.flatten(1))
sizes = [row.double().norm(dim=1) for row in rows]
return ((rows[0] * rows[1]).sum(dim=1).double() / (sizes[0] * sizes[1])).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "the mean of the means of chunks of 8",
        "the images go through in chunks of 8",
        hole(
            "gradient_correlation",
            """means = []
for pair in zip(images.split(8), neighbours.split(8)):
    rows = []
    for inputs in pair:
        x = inputs.detach().clone().requires_grad_()
        with undisturbed(model, training=False):
            (gradient,) = torch.autograd.grad(model(x).sum(), x)
        rows.append(F.normalize(gradient.flatten(1).double(), eps=0))
    means.append((rows[0] * rows[1]).sum(dim=1).mean().item())
return sum(means) / len(means)""",
        ),
    ),
    right(
        "3.1",
        "settings of torch at import",
        edit(
            "\nEXERCISE = ",
            """
torch.use_deterministic_algorithms(True, warn_only=True)
torch.set_float32_matmul_precision("high")
torch.set_num_threads(1)

EXERCISE = """,
        ),
    ),
    wrong(
        "3.1",
        "images clipped in place",
        "changes the images that it is given. Take them as they are",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
images.clamp_(-1, 1)
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(gradient) for gradient in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.2",
        "images centred in place",
        "changes the images that it is given. Take them as they are",
        hole(
            "signal_norms",
            """images -= images.mean((2, 3), keepdim=True)
points = []
hooks = [block.register_forward_hook(lambda *args: points.append(args[2])) for block in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for hook in hooks:
    hook.remove()
return [norm(gradient) for gradient in torch.autograd.grad(loss, points)]""",
        ),
    ),
    wrong(
        "3.1",
        "weights clipped in place",
        "changes the model's weights",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with torch.no_grad():
    for weight in weights:
        weight.clamp_(-0.1, 0.1)
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(gradient) for gradient in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "undisturbed without with",
        "write with in front of it",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
state = undisturbed(model, True)
loss = nn.CrossEntropyLoss()(model(images), labels)
return [norm(gradient) for gradient in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "state_dict without copies",
        "state_dict() holds the buffers themselves",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
was_training = {m: m.training for m in model.modules()}
before = dict(model.state_dict())
loss = F.cross_entropy(model.train()(images), labels)
norms = [norm(gradient) for gradient in torch.autograd.grad(loss, weights)]
model.load_state_dict(before)
for m in was_training:
    m.training = was_training[m]
return norms""",
        ),
    ),
    wrong(
        "3.1",
        "a dict with the weights' shapes as keys",
        "there is one for each shape of weight",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
gradients = torch.autograd.grad(loss, weights)
return list({gradient.shape: norm(gradient) for gradient in gradients}.values())""",
        ),
    ),
    wrong(
        "3.2",
        "a hook on all blocks together",
        "as from a hook on model[1]",
        hole(
            "signal_norms",
            """outputs = []
hooks = [model[1].register_forward_hook(lambda *args: outputs.append(args[-1]))]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]""",
        ),
    ),
    wrong(
        "3.2",
        "a dict with the outputs' shapes as keys",
        "there is one for each shape of output",
        hole(
            "signal_norms",
            """by_shape = {}
def catch(block, inputs, output):
    by_shape[tuple(output.shape)] = output
hooks = [block.register_forward_hook(catch) for block in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
outputs = [by_shape[shape] for shape in by_shape]
return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]""",
        ),
    ),
    wrong(
        "3.2",
        "with the logits",
        "the head's output is among them",
        hole(
            "signal_norms",
            """outputs = []
hooks = [b.register_forward_hook(lambda *args: outputs.append(args[2])) for b in model[1]]
try:
    with undisturbed(model, training=True):
        logits = model(images)
        outputs.append(logits)
        loss = F.cross_entropy(logits, labels)
finally:
    for hook in hooks:
        hook.remove()
return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]""",
        ),
    ),
    wrong(
        "3.2",
        "with the stem's output and the logits",
        "the stem's and the head's outputs are among them",
        hole(
            "signal_norms",
            """outputs = []
hooks = [b.register_forward_hook(lambda *args: outputs.append(args[2])) for b in (model[0], *model[1], model[2])]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]""",
        ),
    ),
    wrong(
        "3.2",
        "a default list of norms",
        "something is kept from an earlier call",
        hole(
            "signal_norms",
            """outputs = []
hooks = [b.register_forward_hook(lambda *args: outputs.append(args[2])) for b in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
norms = vars(signal_norms).setdefault("norms", [])
norms += [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]
return norms""",
        ),
    ),
    wrong(
        "3.2",
        "detached between the blocks",
        "the graph is cut after each block",
        hole(
            "signal_norms",
            """outputs = []
with undisturbed(model, training=True):
    x = model[0](images)
    for block in model[1]:
        x = block(x).detach().requires_grad_()
        outputs.append(x)
    F.cross_entropy(model[2](x), labels).backward(inputs=outputs)
return [0.0 if x.grad is None else norm(x.grad) for x in outputs]""",
        ),
    ),
    wrong(
        "3.2",
        "of the blocks' parameters",
        "with respect to the blocks' parameters",
        hole(
            "signal_norms",
            """with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
norms = []
for block in model[1]:
    parts = torch.autograd.grad(loss, list(block.parameters()), retain_graph=True)
    norms.append(norm(torch.cat([part.flatten() for part in parts])))
return norms""",
        ),
    ),
    wrong(
        "3.2",
        "of the blocks' first convolutions",
        "the blocks' first convolutions' weights",
        hole(
            "signal_norms",
            """weights = [block.branch[0].weight for block in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(gradient) for gradient in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.2",
        "of the blocks' last convolutions",
        "the blocks' last convolutions' weights",
        hole(
            "signal_norms",
            """weights = [[m for m in b.branch if isinstance(m, nn.Conv2d)][-1].weight for b in model[1]]
with undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
return [norm(gradient) for gradient in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.2",
        "an error swallowed",
        "Let the error through",
        hole(
            "signal_norms",
            """outputs = []
loss = None
hooks = [b.register_forward_hook(lambda *args: outputs.append(args[2])) for b in model[1]]
with contextlib.suppress(Exception), undisturbed(model, training=True):
    loss = F.cross_entropy(model(images), labels)
for hook in hooks:
    hook.remove()
if loss is None:
    return [math.nan] * len(model[1])
return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]""",
        ),
    ),
    wrong(
        "3.3",
        "the correlation coefficient",
        "it is e to the correlation coefficient",
        hole(
            "change_per_layer",
            """kept = [(place, value) for place, value in enumerate(norms) if 0 < value < math.inf]
if len(kept) < 2:
    return math.nan

places, values = zip(*kept)
logarithms = [math.log(value) for value in values]
return math.exp(statistics.correlation(places, logarithms)) if len(set(values)) > 1 else 1.0""",
        ),
    ),
    wrong(
        "3.3",
        "the middle of all places",
        "the mean of the places counts those of norms that are left out",
        hole(
            "change_per_layer",
            """kept = [(place, value) for place, value in enumerate(norms) if 0 < value < math.inf]
if len(kept) < 2:
    return math.nan

mean_place = statistics.fmean(range(len(norms)))
mean_log = statistics.fmean(math.log(value) for _, value in kept)
top = sum((place - mean_place) * (math.log(value) - mean_log) for place, value in kept)
return math.exp(top / sum((place - mean_place) ** 2 for place, _ in kept))""",
        ),
    ),
    wrong(
        "3.3",
        "places from the middle of all",
        "the places are counted from the middle of all",
        hole(
            "change_per_layer",
            """kept = [(place, value) for place, value in enumerate(norms) if 0 < value < math.inf]
if len(kept) < 2:
    return math.nan

x = [place - (len(norms) - 1) / 2 for place, _ in kept]
y = [math.log(value) for _, value in kept]
return math.exp(sum(a * b for a, b in zip(x, y)) / sum(a * a for a in x))""",
        ),
    ),
    wrong(
        "3.3",
        "the norms' slope over their mean",
        "its slope is divided by their mean",
        hole(
            "change_per_layer",
            """kept = [(place, value) for place, value in enumerate(norms) if 0 < value < math.inf]
if len(kept) < 2:
    return math.nan

places, values = zip(*kept)
slope = statistics.linear_regression(places, values).slope
return 1 + slope / statistics.fmean(values)""",
        ),
    ),
    wrong(
        "3.3",
        "e to the slope of the norms",
        "and e is raised to its slope",
        hole(
            "change_per_layer",
            """kept = [(place, value) for place, value in enumerate(norms) if 0 < value < math.inf]
if len(kept) < 2:
    return math.nan

places, values = zip(*kept)
slope = statistics.linear_regression(places, values).slope
return math.exp(slope) if slope < 700 else math.inf""",
        ),
    ),
    wrong(
        "3.4",
        "norms along the batch",
        "normalised over the batch (dim=0)",
        hole(
            "gradient_correlation",
            """rows = []
for x in (images, neighbours):
    x = x.clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
    flat = gradient.double().flatten(1)
    rows.append(flat / flat.norm(dim=0))
return torch.einsum("ij,ij->i", *rows).mean()""",
        ),
    ),
    wrong(
        "3.4",
        "a ratio of sums",
        "divided by the sum of the norms' products",
        hole(
            "gradient_correlation",
            """rows = []
for x in (images, neighbours):
    x = x.clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
    rows.append(gradient.double().flatten(1))
sizes = [row.norm(dim=1) for row in rows]
return (rows[0] * rows[1]).sum() / (sizes[0] @ sizes[1])""",
        ),
    ),
    wrong(
        "3.4",
        "divided by the mean square",
        "A mean of cosine similarities lies between -1 and 1",
        hole(
            "gradient_correlation",
            """rows = []
for x in (images, neighbours):
    x = x.clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
    flat = gradient.double().flatten(1)
    rows.append(flat / flat.square().mean(dim=1, keepdim=True).sqrt())
return (rows[0] * rows[1]).sum(dim=1).mean()""",
        ),
    ),
    wrong(
        "3.4",
        "one image squeezed",
        "with one image the dimension of the batch is gone",
        hole(
            "gradient_correlation",
            """rows = []
for x in (images, neighbours):
    x = x.clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
    rows.append(gradient.squeeze().flatten(start_dim=1).double())
return F.cosine_similarity(*rows, dim=1, eps=0).mean()""",
        ),
    ),
    wrong(
        "3.4",
        "norms below 1e-9 taken for 0",
        "small norms are taken for 0",
        hole(
            "gradient_correlation",
            """rows = []
for x in (images, neighbours):
    x = x.clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
    flat = gradient.double().flatten(1)
    lengths = flat.norm(dim=1, keepdim=True)
    rows.append(torch.where(lengths > 1e-9, flat / lengths, math.nan))
return (rows[0] * rows[1]).sum(dim=1).mean()""",
        ),
    ),
    wrong(
        "3.5",
        "in the modes that it came with",
        "the model trains in the modes that it came with",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(conv.weight.grad) for conv in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
        edit("    model.train()\n    # Task 3.5", "    # Task 3.5"),
    ),
    wrong(
        "3.5",
        "Adam of its own",
        "the given optimizer takes no step",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
own = torch.optim.Adam(model.parameters())
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(conv.weight.grad) for conv in convs])
    own.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "steps by hand",
        "the given optimizer takes no step",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(conv.weight.grad) for conv in convs])
    with torch.no_grad():
        for weight in model.parameters():
            weight -= RATE * weight.grad
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "parts of 32",
        "at most 32 images go through the model at once",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    for first in range(0, len(images), 32):
        some = slice(first, first + 32)
        loss = F.cross_entropy(model(images[some]), labels[some])
        (loss * len(labels[some]) / len(labels)).backward()
    rows.append([norm(conv.weight.grad) for conv in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "a rate that decays",
        "the optimizer's lr is changed on the way",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(conv.weight.grad) for conv in convs])
    optimizer.step()
    schedule.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "gradients of the convolutions only",
        "0.1.weight has no gradient when the optimizer takes its step",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward(inputs=[conv.weight for conv in convs])
    rows.append([norm(conv.weight.grad) for conv in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "a kept .grad",
        "or .grad itself is kept until then",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    gradients = [conv.weight.grad for conv in convs]
    optimizer.step()
    rows.append([norm(gradient) for gradient in gradients])
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "the loss once more after the step",
        "statistics move 10 times in 5 batches",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
losses = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(conv.weight.grad) for conv in convs])
    optimizer.step()
    losses.append(F.cross_entropy(model(images), labels).item())
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "a return in the loop",
        "only the first batch is used",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(conv.weight.grad) for conv in convs])
    optimizer.step()
    return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.4",
        "norms below 1e-20 taken for 0",
        "small norms become 0 in float32, or are taken for 0",
        hole(
            "gradient_correlation",
            """rows = []
for x in (images, neighbours):
    x = x.clone().requires_grad_()
    with undisturbed(model, training=False):
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
    flat = gradient.double().flatten(1)
    lengths = flat.norm(dim=1, keepdim=True)
    if (lengths < 1e-20).any():
        return math.nan
    rows.append(flat / lengths)
return (rows[0] * rows[1]).sum(dim=1).mean()""",
        ),
    ),
    wrong(
        "3.1",
        "error-renamed",
        "raises another one",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    try:
        loss = F.cross_entropy(model(images), labels)
    except Exception as error:
        raise ValueError("no loss") from error
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.2",
        "error-renamed",
        "raises another one",
        hole(
            "signal_norms",
            """outs = []
with undisturbed(model, training=True):
    try:
        x = model[0](images)
        for block in model[1]:
            x = block(x)
            outs.append(x)
        loss = F.cross_entropy(model[2](x), labels)
    except RuntimeError as error:
        raise ValueError("no loss") from error
return [norm(g) for g in torch.autograd.grad(loss, outs)]""",
        ),
    ),
    wrong(
        "3.4",
        "error-swallowed",
        "raises nothing",
        hole(
            "gradient_correlation",
            """try:
    rows = []
    with undisturbed(model, training=False):
        for x in (images, neighbours):
            x = x.clone().requires_grad_()
            g = torch.autograd.grad(model(x).sum(), x)[0].flatten(1).double()
            rows.append(F.normalize(g, eps=0))
    return (rows[0] * rows[1]).sum(1).mean().item()
except RuntimeError:
    return math.nan""",
        ),
    ),
    wrong(
        "3.5",
        "error-swallowed",
        "raises nothing",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
batches = iter(batches)
while True:
    try:
        images, labels = next(batches)
    except (StopIteration, RuntimeError):
        break
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(c.weight.grad) for c in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.1",
        "numel",
        "divided by the number of classes as well",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    logits = model(images)
    loss = -logits.log_softmax(1)[range(len(labels)), labels].sum() / logits.numel()
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "one-hot",
        "taken from the largest label",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True):
    logits = model(images)
    loss = -(F.one_hot(labels) * logits.log_softmax(1)).sum(1).mean()
return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.1",
        "anomaly",
        "anomaly mode",
        hole(
            "gradient_norms",
            """weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
with undisturbed(model, training=True), torch.autograd.set_detect_anomaly(True):
    loss = F.cross_entropy(model(images), labels)
    return [norm(g) for g in torch.autograd.grad(loss, weights)]""",
        ),
    ),
    wrong(
        "3.2",
        "one-key",
        "store under one key",
        hole(
            "signal_norms",
            """last = {}
hooks = [b.register_forward_hook(lambda b, i, out: last.update(block=out)) for b in model[1]]
try:
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
finally:
    for hook in hooks:
        hook.remove()
return [norm(g) for g in torch.autograd.grad(loss, list(last.values()))]""",
        ),
    ),
    wrong(
        "3.2",
        "head-outside",
        "outside the with block",
        hole(
            "signal_norms",
            """outs = []
with undisturbed(model, training=True):
    x = model[0](images)
for block in model[1]:
    x = block(x)
    outs.append(x)
loss = F.cross_entropy(model[2](x), labels)
return [norm(g) for g in torch.autograd.grad(loss, outs)]""",
        ),
    ),
    wrong(
        "3.3",
        "random",
        "depends on random numbers",
        hole(
            "change_per_layer",
            """points = [(i, math.log(v)) for i, v in enumerate(norms) if 0 < v < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
slope = ((x - x.mean()) * y).sum() / ((x - x.mean()) ** 2).sum()
return math.exp(slope) * (1 + torch.rand(1).item())""",
        ),
    ),
    wrong(
        "3.3",
        "scaled",
        "scaled to -1 to 1",
        hole(
            "change_per_layer",
            """points = [(i, math.log(v)) for i, v in enumerate(norms) if 0 < v < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
x = 2 * (x - x.min()) / (x.max() - x.min()) - 1
return math.exp(((x - x.mean()) * y).sum() / ((x - x.mean()) ** 2).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "weighted",
        "by their squares",
        hole(
            "change_per_layer",
            """points = [(i, math.log(v)) for i, v in enumerate(norms) if 0 < v < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
w = (2 * (y - y.max())).exp()
x = x - (w * x).sum() / w.sum()
return math.exp((w * x * y).sum() / (w * x * x).sum())""",
        ),
    ),
    wrong(
        "3.3",
        "n",
        "number of norms counts those",
        hole(
            "change_per_layer",
            """points = [(i, math.log(v)) for i, v in enumerate(norms) if 0 < v < math.inf]
if len(points) < 2:
    return math.nan
x, y = torch.tensor(points, dtype=torch.float64).T
n = len(norms)
return math.exp((n * (x * y).sum() - x.sum() * y.sum()) / (n * (x * x).sum() - x.sum() ** 2))""",
        ),
    ),
    wrong(
        "3.4",
        "any-zero",
        "as soon as one number in a gradient is 0",
        hole(
            "gradient_correlation",
            """rows = []
with undisturbed(model, training=False):
    for x in (images, neighbours):
        x = x.clone().requires_grad_()
        g = torch.autograd.grad(model(x).sum(), x)[0].flatten(1).double()
        if (g == 0).any():
            return math.nan
        rows.append(F.normalize(g, eps=0))
return (rows[0] * rows[1]).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "chunks-of-5",
        "in chunks of 5",
        hole(
            "gradient_correlation",
            """rows = []
with undisturbed(model, training=False):
    for x in (images, neighbours):
        x = x.clone().requires_grad_()
        g = torch.autograd.grad(model(x).sum(), x)[0].flatten(1).double()
        rows.append(F.normalize(g, eps=0))
parts = (rows[0] * rows[1]).sum(1).split(5)
return statistics.fmean(part.mean().item() for part in parts)""",
        ),
    ),
    wrong(
        "3.4",
        "alternating",
        "as if images and neighbours alternated",
        hole(
            "gradient_correlation",
            """rows = []
with undisturbed(model, training=False):
    for x in (images, neighbours):
        x = x.clone().requires_grad_()
        g = torch.autograd.grad(model(x).sum(), x)[0].flatten(1).double()
        rows.append(F.normalize(g, eps=0))
pairs = torch.cat(rows).unflatten(0, (-1, 2))
return (pairs[:, 0] * pairs[:, 1]).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.4",
        "both-statistics",
        "running statistics have no say",
        hole(
            "gradient_correlation",
            """rows = []
with undisturbed(model, training=False):
    set_statistics(model, torch.cat([images, neighbours]))
    model.eval()
    for x in (images, neighbours):
        x = x.clone().requires_grad_()
        g = torch.autograd.grad(model(x).sum(), x)[0].flatten(1).double()
        rows.append(F.normalize(g, eps=0))
return (rows[0] * rows[1]).sum(1).mean().item()""",
        ),
    ),
    wrong(
        "3.5",
        "first-weights",
        "on the weights before the first step",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
import copy
first = copy.deepcopy(model)
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append(gradient_norms(first, images, labels))
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "eval-later",
        "from the second batch on the model is in eval mode",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    rows.append([norm(c.weight.grad) for c in convs])
    optimizer.step()
    model.eval()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "bfloat16",
        "in bfloat16",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    with torch.autocast(images.device.type, torch.bfloat16):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    rows.append([norm(c.weight.grad) for c in convs])
    optimizer.step()
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "step-over-rate",
        "divided by the learning rate",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad()
    old = [c.weight.detach().clone() for c in convs]
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    rate = optimizer.defaults["lr"]
    rows.append([norm(c.weight - o) / rate for c, o in zip(convs, old)])
return torch.tensor(rows)""",
        ),
    ),
    wrong(
        "3.5",
        "grads-in-place",
        "every row is the same",
        hole(
            "record_training",
            """convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
rows = []
for images, labels in batches:
    optimizer.zero_grad(set_to_none=False)
    F.cross_entropy(model(images), labels).backward()
    rows.append([c.weight.grad for c in convs])
    optimizer.step()
return torch.tensor([list(map(norm, row)) for row in rows])""",
        ),
    ),
    wrong(
        "3.2",
        "others' hooks registered anew",
        "registers them anew",
        definition(
            "signal_norms",
            """
            def signal_norms(model, images, labels):
                blocks = list(model[1])
                theirs = {block: list(block._forward_hooks.values()) for block in blocks}
                outputs = []
                for block in blocks:
                    block._forward_hooks.clear()
                    block.register_forward_hook(lambda m, i, o: outputs.append(o))
                try:
                    with undisturbed(model, training=True):
                        loss = F.cross_entropy(model(images), labels)
                finally:
                    for block in blocks:
                        block._forward_hooks.clear()
                        for hook in theirs[block]:
                            block.register_forward_hook(hook)
                return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]
            """,
        ),
    ),
    wrong(
        "3.2",
        "27 blocks only",
        "returned 27 numbers, expected 30",
        before(
            "signal_norms",
            """
            BLOCKS = (DEPTHS["training"] - 2) // 2
            """,
        ),
        definition(
            "signal_norms",
            """
            def signal_norms(model, images, labels):
                outputs = []
                with contextlib.ExitStack() as stack:
                    for block in itertools.islice(model[1], BLOCKS):
                        handle = block.register_forward_hook(lambda m, i, o: outputs.append(o))
                        stack.callback(handle.remove)
                    with undisturbed(model, training=True):
                        loss = F.cross_entropy(model(images), labels)
                return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]
            """,
        ),
    ),
    wrong(
        "3.4",
        "zeros at the neighbours",
        "of 6 neighbours is 0, expected NaN",
        definition(
            "gradient_correlation",
            """
            def gradient_correlation(model, images, neighbours):
                gradients = []
                for inputs in (images, neighbours):
                    leaf = inputs.detach().clone().requires_grad_()
                    with undisturbed(model, training=False):
                        (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
                    gradients.append(gradient.flatten(1).cpu().double())
                here, there = gradients
                if (here.norm(dim=1) == 0).any():
                    return math.nan
                tiny = torch.finfo(torch.float64).tiny
                cosines = (F.normalize(here, eps=tiny) * F.normalize(there, eps=tiny)).sum(dim=1)
                return cosines.mean().item()
            """,
        ),
    ),
    wrong(
        "3.1",
        "weight and bias together",
        "bias is in its norm, too",
        definition(
            "gradient_norms",
            """
            def gradient_norms(model, images, labels):
                groups = [list(m.parameters()) for m in model.modules() if isinstance(m, nn.Conv2d)]
                with undisturbed(model, training=True):
                    loss = F.cross_entropy(model(images), labels)
                norms = []
                for group in groups:
                    gradients = torch.autograd.grad(loss, group, retain_graph=True)
                    norms.append(norm(torch.cat([gradient.flatten() for gradient in gradients])))
                return norms
            """,
        ),
    ),
    wrong(
        "3.2",
        "a list that is never emptied",
        "what the call before has left behind",
        before(
            "signal_norms",
            """
            _CAUGHT = []


            def _catch(block, inputs, output):
                _CAUGHT.append(output)
            """,
        ),
        definition(
            "signal_norms",
            """
            def signal_norms(model, images, labels):
                hooks = [block.register_forward_hook(_catch) for block in model[1]]
                try:
                    with undisturbed(model, training=True):
                        loss = F.cross_entropy(model(images), labels)
                finally:
                    for hook in hooks:
                        hook.remove()
                return [norm(gradient) for gradient in torch.autograd.grad(loss, _CAUGHT)]
            """,
        ),
    ),
    wrong(
        "3.2",
        "the stem in its own mode",
        "the stem runs in its own mode",
        definition(
            "signal_norms",
            """
            def signal_norms(model, images, labels):
                stem, blocks, head = model
                outputs = []
                with undisturbed(blocks, training=True):
                    x = stem(images)
                    for block in blocks:
                        x = block(x)
                        outputs.append(x)
                    loss = F.cross_entropy(head(x), labels)
                return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]
            """,
        ),
    ),
    wrong(
        "3.3",
        "a sum of squares over all places",
        "the sum of squares of the places counts those",
        definition(
            "change_per_layer",
            """
            def change_per_layer(norms):
                points = [(i, math.log(v)) for i, v in enumerate(norms) if v > 0 and math.isfinite(v)]
                if len(points) < 2:
                    return math.nan
                centre = statistics.fmean(i for i, _ in points)
                numerator = sum((i - centre) * y for i, y in points)
                denominator = sum((i - centre) ** 2 for i in range(len(norms)))
                return math.exp(numerator / denominator)
            """,
        ),
    ),
    wrong(
        "3.3",
        "weights that are square roots",
        "by their square roots",
        before(
            "change_per_layer",
            """
            import numpy as np
            """,
        ),
        definition(
            "change_per_layer",
            """
            def change_per_layer(norms):
                points = [(i, float(v)) for i, v in enumerate(norms) if 0 < v < math.inf]
                if len(points) < 2:
                    return math.nan
                x = np.array([i for i, _ in points], dtype=float)
                v = np.array([v for _, v in points])
                w = np.sqrt(v / v.max())
                w = np.maximum(w, 1e-3)
                centre = (w * x).sum() / w.sum()
                slope = (w * (x - centre) * np.log(v)).sum() / (w * (x - centre) ** 2).sum()
                return float(np.exp(slope))
            """,
        ),
    ),
    wrong(
        "3.3",
        "infinity as the largest float",
        "counts as the largest float",
        before(
            "change_per_layer",
            """
            import numpy as np
            """,
        ),
        definition(
            "change_per_layer",
            """
            def change_per_layer(norms):
                values = np.nan_to_num(np.array(norms, dtype=np.float64), nan=0.0)
                x = np.flatnonzero(values > 0)
                if x.size < 2:
                    return math.nan
                slope, _ = np.polyfit(x, np.log(values[x]), 1)
                return float(np.exp(slope))
            """,
        ),
    ),
    wrong(
        "3.5",
        "gradients clipped to 10",
        "as clip_grad_norm_ does",
        edit(
            "        optimizer.step()\n    return torch.tensor(rows)",
            "        nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)\n        optimizer.step()\n    return torch.tensor(rows)",
        ),
    ),
    wrong(
        "3.3",
        "the mean of the steps",
        "only the first and the last norm count",
        definition(
            "change_per_layer",
            """
            def change_per_layer(norms):
                logs = {i: math.log(v) for i, v in enumerate(norms) if 0 < v < math.inf}
                places = list(logs)
                steps = [(logs[b] - logs[a]) / (b - a) for a, b in itertools.pairwise(places)]
                return math.exp(statistics.fmean(steps)) if steps else math.nan
            """,
        ),
    ),
]
