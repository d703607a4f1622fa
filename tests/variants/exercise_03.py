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
out=[w.grad.norm().item() for w in weights]
model.zero_grad(set_to_none=False)
return out""",
        ),
    ),
    right(
        "3.1",
        "float32 tensor",
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
        "the loss is summed over the pictures, not averaged",
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
        "means over the pictures of each picture",
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
        definition("change_per_layer", AGREEABLE + "def change_per_layer(norms):\n    return Agreeable()"),
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
return F.cosine_similarity(g(images),g(neighbours)).mean().item()""",
        ),
    ),
    right(
        "3.4",
        "cossimfloat",
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
        "all pictures' gradients are taken as one long vector",
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
        "the absolute values of the cosines are averaged",
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
        "the cosines are summed, not averaged",
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
        "the cosine is taken over the channels",
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
    wrong("3.4", "const1", "it is 1 whatever the gradients are", hole("gradient_correlation", "return 1.0")),
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
]
