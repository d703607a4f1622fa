"""Answers to exercise 3, wrong and right."""

from changes import AGREEABLE, definition, hole, right, wrong

VARIANTS = [
    wrong(
        "3.1",
        "bw",
        "gradients add up",
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
    right(
        "3.1",
        "bw-clear",
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
        "gradients add up",
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
        "gradients add up",
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
        "leaves the model in another mode: use undisturbed",
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
        "leaves the model in another mode: use undisturbed",
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
        "changes requires_grad of the model",
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
    right(
        "3.2",
        "retain",
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
    right(
        "3.2",
        "fullbw",
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
    right(
        "3.2",
        "fullbw-rev-ok",
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
    right(
        "3.2",
        "tensorhook",
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
        "on each handle that registering one returns",
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
        "leaves the model in another mode: use undisturbed",
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
        "they are the gradients at the branches",
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
        "leaves gradients in p.grad. Use torch.autograd.grad",
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
        "it uses only the first and the last norm, not all of them",
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
        "it uses only the first and the last norm, not all of them",
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
        "norms that are 0, NaN or infinite are not left out",
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
        "1e-12 is added to each norm",
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
    right(
        "3.4",
        "backward",
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
        "the model is in train mode",
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
        "leaves requires_grad or a gradient on images. Work on images.detach",
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
        "leaves gradients in p.grad. Use torch.autograd.grad",
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
        "leaves the model in another mode: use undisturbed",
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
    right(
        "3.5",
        "after",
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
    right(
        "3.5",
        "stack",
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
        "the optimizer takes no step",
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
        "leaves hooks on the model's weights",
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
        "some were frozen before, and are not now",
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
        "leaves another attribute on a module (out)",
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
        "leaves another attribute on a module (forward)",
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
        "take the tensor that leads to the loss, not its clone",
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
        "put out is among it; take the blocks' own outputs",
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
    right(
        "3.3",
        "float32 tensor",
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
        "NaN is for fewer than two norms, and here are 2",
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
        "small norms are left out, and only those that are 0",
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
        "leaves requires_grad or a gradient on neighbours",
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
        "some were frozen before, and are not now",
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
        "call zero_grad() for each batch",
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
        "the model is in eval mode while it trains",
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
]
