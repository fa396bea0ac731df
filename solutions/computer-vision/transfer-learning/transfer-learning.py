# %% [markdown]
# # Transfer Learning
#
# Somebody has trained a network on a million photographs. You have a dozen of each kind. In this workshop you find out how much of the first helps with the second, which part of the network to take, what of it to train further, and how to notice that it does not help. Derivations are in the [README](README.md).

# %%
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from torch import nn
from torch.nn import functional as F

import atlas
from atlas import plot

lab = atlas.open("transfer-learning")
device = atlas.device()
stamps = atlas.data.load("stamps")
weights = atlas.data.load("efficientnet-lite0")
stamps

# %% [markdown]
# ## 1 · A network that has seen a million pictures (6 min)
#
# EfficientNet-Lite0 (Tan and Le, 2019; the weights are under the licence Apache-2.0) was trained on ImageNet's 1.3 million photographs in 1,000 classes. It is a chain of the inverted residual blocks of *modern-cnns-resnet-densenet* (more channels within than at both ends), without squeeze-and-excitation (weights for channels) and with ReLU6, $\min(6, \max(0, x))$. We take it apart into 18 *stages*, of which stage 0 is the first convolution, 1 to 16 are blocks, and 17 is a last convolution to 1,280 channels. Then come the mean over all places, and a linear *head*.


# %%
def load_network():
    """EfficientNet-Lite0: features (18 stages), pool, flatten, head; (B, 3, H, W) to (B, 1000)."""
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(weights.tensors)
    stem = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6())
    last = nn.Sequential(net._conv_head, net._bn1, nn.ReLU6())
    model = nn.Sequential()
    model.features = nn.Sequential(stem, *net._blocks, last)
    model.pool, model.flatten, model.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), net._fc
    return model.eval().to(device, memory_format=torch.channels_last)


network = load_network()
h = torch.zeros(1, 3, 224, 224, device=device)
for k, stage in enumerate(network.features):
    with torch.no_grad():
        h = stage(h)
    n = sum(p.numel() for p in stage.parameters())
    if k in (0, 1, 2, 4, 6, 9, 12, 16, 17):
        print(f"stage {k:2}: {n:9,} parameters, out {tuple(h.shape[1:])}")
print(f"head:     {sum(p.numel() for p in network.head.parameters()):9,} parameters, out (1000,)")

# %% [markdown]
# Our own data are small: 219 photographs in seven classes, from a drawing program for children (Tux Paint; licence GPL-2.0-or-later). The things are cut out, so we put each on a white square.


# %%
def on_white(rgba):
    """A picture with opacity, uint8 (H, W, 4), in the middle of a white square: uint8 (S, S, 3)."""
    picture = Image.fromarray(rgba)
    square = Image.new("RGBA", (max(picture.size),) * 2, "white")
    square.alpha_composite(picture, tuple((square.width - n) // 2 for n in picture.size))
    return np.asarray(square.convert("RGB"))


y, classes = stamps.labels, stamps.classes
squares = [on_white(rgba) for rgba in stamps.images]
names = [path.stem for path in stamps.paths]
small = np.stack([np.asarray(Image.fromarray(s).resize((64, 64))) for s in squares])
first = [np.flatnonzero(y == c)[n] for c in range(7) for n in (3, 8, 10, 13)]
title = "Four of each class: photographs of things, cut out, on white"
_ = plot.images(small[first], [classes[y[i]] for i in first], columns=14, title=title)

# %% [markdown]
# ## 2 · Its preprocessing is part of it (9 min)
#
# A network's weights fit the numbers that it was trained on: their range, the order of the colours, the size of things. Whoever made this one scaled by $(x - 127)/128$, which takes $0 \dots 255$ to about $-1 \dots 1$, and cut the middle square. Other networks want other numbers, and none will complain.
#
# By hand: a picture of $90 \times 60$ pixels (width × height), size 40: scaled by $40/60$ to $60 \times 40$, then columns $10$ to $49$. White becomes $128/128 = 1$, black $-127/128 = -0.992$.


# %%
def preprocess(image, size):
    """A picture as EfficientNet-Lite wants it.

    image: uint8 (H, W, 3), red, green, blue, 0 to 255, of any size.
    Scaled (PIL, bicubic) so that its shorter side is `size` and the longer one in proportion,
    rounded; then the middle square is cut out, then (x - 127) / 128.
    Returns a tensor, float32 (3, size, size).
    """
    # TODO: Image.fromarray(image).resize takes (width, height). Subtract in float32, not in uint8.
    ### BEGIN SOLUTION
    H, W, _ = image.shape
    scale = size / min(H, W)
    scaled = Image.fromarray(image).resize((round(W * scale), round(H * scale)), Image.BICUBIC)
    left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
    square = np.asarray(scaled)[top : top + size, left : left + size]
    return (torch.tensor(square, dtype=torch.float32).permute(2, 0, 1) - 127) / 128
    ### END SOLUTION


lab.check(preprocess)

# %% [markdown]
# What does the network itself say, with its own head of 1,000 classes? Twelve pictures, and the words of those of ImageNet's classes that it chooses.

# %%
WORDS = {340: "zebra", 105: "koala", 954: "banana", 949: "strawberry", 937: "broccoli"}
WORDS |= {849: "teapot", 417: "balloon", 555: "fire engine", 987: "corn", 784: "screwdriver"}
WORDS |= {836: "sunglass", 51: "triceratops"}
ASKED = ["zebra", "koala", "banana", "strawberry", "broccoli", "teapot", "balloon360", "firetruck"]
ASKED += ["rubberduck", "chilepepper", "eggplant", "sheep_lamb"]
asked = [names.index(name) for name in ASKED]
with torch.no_grad():
    p = network(torch.stack([preprocess(squares[i], 224) for i in asked]).to(device)).softmax(1)
sure, said = (each.tolist() for each in p.max(1))
answers = [f"{WORDS.get(k, k)} {q:.0%}" for k, q in zip(said, sure, strict=True)]
title = "Right where ImageNet has the thing (first eight); it never says: I do not know"
_ = plot.images(small[asked], answers, columns=6, title=title)

# %% tags=["instructor"]
right = [340, 105, 954, 949, 937, 849, 417, 555]
assert said[:8] == right, "weights, network and preprocess fit together"
assert max(sure[8:]) < min(sure[:1] + sure[2:5])

# %% [markdown]
# **Question.** Some of our classes are animals and vehicles, and ImageNet is full of those. Is what follows a fair test of transfer?
#
# <details><summary>Answer</summary>
#
# It is an easy one: source and target are both photographs of things, and they share many kinds. No single photograph need be shared for that. Section 11 goes where nothing is shared.
#
# </details>

# %% [markdown]
# ## 3 · A split that does not leak (9 min)
#
# Some things are in the data twice: mirrored, open and closed. With one of the two in training and the other in the test, a network that merely recognises pictures looks like one that understands. `stamps.groups` says what belongs together, and a group never sits on both sides.
#
# By hand: class 0 has pictures 0, 1, 2 of groups a, b, b, class 1 has 3, 4 of groups c, d. With `per_class=1` and the draw b, c: train is 1, 3 (the first of each group), test is 0, 4. Picture 2 is in neither.


# %%
def few_shot_split(labels, groups, per_class, rng):
    """A few training pictures of each class; test on all groups that none of them belongs to.

    labels: whole numbers (N,), the class of each picture. groups: list of N names; pictures of one
    name show one thing, and belong to one class. rng: np.random.Generator.
    Of each class `per_class` different groups are drawn, all sets of them equally likely.
    Returns (train, test), arrays of picture numbers in any order. train: of each drawn group the
    picture with the lowest number. test: all pictures of the groups that were not drawn.
    Raises ValueError where a class has no more than per_class groups: nothing is left to test.
    """
    # TODO: np.asarray(groups); class by class its different groups, rng.choice(..., replace=False).
    ### BEGIN SOLUTION
    labels, groups = np.asarray(labels), np.asarray(groups)
    drawn = []
    for c in np.unique(labels):
        own = np.unique(groups[labels == c])
        if len(own) <= per_class:
            raise ValueError(f"class {c} has {len(own)} groups, and {per_class} are to be drawn")
        drawn += list(rng.choice(own, per_class, replace=False))
    train = np.array([np.flatnonzero(groups == g)[0] for g in drawn])
    test = np.flatnonzero(~np.isin(groups, drawn))
    return train, test
    ### END SOLUTION


lab.check(few_shot_split)

# %%
SPLITS = [few_shot_split(y, stamps.groups, 12, np.random.default_rng(seed)) for seed in range(6)]
train, test = SPLITS[0]
twice = [g for g in sorted(set(stamps.groups)) if stamps.groups.count(g) > 1]
print(f"train {len(train)} pictures, 12 of each class; test {len(test)}:")
print(", ".join(f"{n} {name}" for n, name in zip(np.bincount(y[test]), classes, strict=True)))
print(f"{len(twice)} groups have several pictures, such as {', '.join(twice[:4])}")
majority = np.mean([(y[te] == np.bincount(y[te]).argmax()).mean() for _, te in SPLITS])
print(f"who always says mammals is right in {majority:.1%} of the test pictures")

# %% [markdown]
# ## 4 · Features, once (7 min)
#
# Take the head off, and what comes out is 1,280 numbers for each picture, its *features* $f(x)$. The network that makes them does not change, so they need to be computed only once, and every experiment after that costs nearly nothing.


# %%
def extract_features(model, pictures, batch_size=32):
    """What a model makes of each picture, in batches.

    model: maps (B, 3, H, W) to (B, D), in whatever mode; it is in evaluation mode afterwards.
    pictures: (N, 3, H, W). Each goes through once, never more than batch_size together, and no
    graph is recorded, which would keep all maps in memory.
    Returns a tensor (N, D) in the order of the pictures. What comes out for a picture does not
    depend on those beside it.
    """
    # TODO: the mode, no graph (torch.no_grad), pictures.split(batch_size), torch.cat.
    ### BEGIN SOLUTION
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in pictures.split(batch_size)])
    ### END SOLUTION


lab.check(extract_features)

# %%
body = nn.Sequential(network.features, network.pool, network.flatten)
x = torch.stack([preprocess(s, 96) for s in squares])
x = x.to(device, memory_format=torch.channels_last)  # (219, 3, 96, 96)
begin = time.process_time()
features = extract_features(body, x).cpu().numpy()
seconds = time.process_time() - begin
print(f"{features.shape}: {1000 * seconds / len(x):.0f} ms a picture, kept from now on")

unit = features / np.linalg.norm(features, axis=1, keepdims=True)
likeness = unit @ unit.T  # cosine
likeness[np.equal.outer(stamps.groups, stamps.groups)] = -1  # another group
queries = [names.index(q) for q in ("owl", "zebra", "banana", "saw", "sedan", "carrot", "rose")]
nearest = likeness[queries].argmax(1)
titles = [names[i] for i in queries] + [f"{names[i]} {likeness[i].max():.2f}" for i in nearest]
shown = small[[*queries, *nearest]]
title = "Below each picture the one whose features are nearest"
_ = plot.images(shown, titles, columns=7, title=title)
neighbour = (y[likeness.argmax(1)] == y).mean()
print(f"the nearest picture of another group is of the same class in {neighbour:.0%} of the cases")

# %% tags=["instructor"]
assert neighbour > 0.8

# %% [markdown]
# ## 5 · A linear probe (13 min)
#
# A *linear probe* is logistic regression on frozen features: $\hat y = \text{softmax}(W f(x) + b)$. Its loss is convex, so there are no rates and no seeds to choose. One number remains, $C$, the weight of the data against the penalty $\lVert W \rVert^2/2$. We have 84 pictures and no validation set, so it is chosen on *folds*: the 84 are cut into four parts, each part is predicted by a probe that saw the other three, and the mean of the four accuracies decides. The test pictures stay out of it.


# %%
def linear_probe(X, y, folds, Cs):
    """Logistic regression whose C is chosen on folds.

    X: features (N, D), y: labels (N,). folds: a list of (train, val), arrays of row numbers.
    Cs: values to try, rising. Every fit is LogisticRegression(C=C, max_iter=5000) on X as it is.
    Returns (probe, scores). scores: array (len(Cs),), for each C the mean of the accuracies on the
    folds' val rows. probe: fitted to all rows with the C of the best score, the smallest at a tie.
    """

    # TODO: .fit(X[train], y[train]).score(X[val], y[val]) for each C and fold; then the last fit.
    ### BEGIN SOLUTION
    def fitted(C, rows):
        return LogisticRegression(C=C, max_iter=5000).fit(X[rows], y[rows])

    def score(C):
        return np.mean([fitted(C, train).score(X[val], y[val]) for train, val in folds])

    scores = np.array([score(C) for C in Cs])
    return fitted(Cs[scores.argmax()], np.arange(len(X))), scores
    ### END SOLUTION


lab.check(linear_probe)

# %% [markdown]
# Beside it a baseline without transfer, tuned on the same folds: a support vector machine on the pixels. Six splits, for the spread. (A machine that learned from as many of each class may do worse than one that always says *mammals*, of which the test has most.)

# %%
CS = (0.01, 0.1, 1, 10)


def folds_of(rows):
    return list(StratifiedKFold(4, shuffle=True, random_state=0).split(rows, y[rows]))


tiny = np.stack([np.asarray(Image.fromarray(s).resize((16, 16))) for s in squares])
pixels = tiny.reshape(len(y), -1) / 255


def pixel_score(train, test):
    """The best of four SVMs on pixels, chosen on folds."""

    def score(C, a, b):
        return SVC(C=C).fit(pixels[a], y[a]).score(pixels[b], y[b])

    rows = [(train[a], train[b]) for a, b in folds_of(train)]
    best = max((1, 3, 10, 30), key=lambda C: np.mean([score(C, a, b) for a, b in rows]))
    return score(best, train, test)


probes, reached, by_pixels = [], [], []
for n, (tr, te) in enumerate(SPLITS):
    probe, scores = linear_probe(features[tr], y[tr], folds_of(tr), CS)
    probes.append(probe)
    reached.append(probe.score(features[te], y[te]))
    by_pixels.append(pixel_score(tr, te))
    folds_say = " ".join(f"{s:.2f}" for s in scores)
    print(f"split {n}: folds {folds_say}  C = {probe.C:<5g} test {reached[-1]:.1%}")
print(f"probe on features {np.mean(reached):.1%} ± {np.std(reached):.1%}")
print(f"SVM on pixels     {np.mean(by_pixels):.1%} ± {np.std(by_pixels):.1%}")
print(f"always 'mammals'  {majority:.1%}")
predicted = probes[0].predict(features[test])
wrong = [(y[i], k) for i, k in zip(test, predicted, strict=True) if y[i] != k]
one, other = max(wrong, key=wrong.count)
title = f"{reached[0]:.0%} right; the commonest error: {classes[one]} taken for {classes[other]}"
_ = plot.confusion(y[test], predicted, classes, title=title)

# %% tags=["instructor"]
assert 0.8 < np.mean(reached) < 0.9
assert np.mean(by_pixels) < majority < 0.5

# %% [markdown]
# The $C$ that is chosen may sit at either end of `CS`: scores on folds of 21 pictures differ by a picture or two, and between such values it matters little.
#
# Now feed the network what it was not trained on, and ask whether a probe that gets used to it can mend it. About 10 s.

# %%
mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]
CHANGES = {
    "as it was trained": lambda v: v,
    "0 to 1": lambda v: (128 * v + 127) / 255,
    "blue, green, red": lambda v: v.flip(1),
    "other networks' mean and spread": lambda v: ((128 * v + 127) / 255 - mean) / std,
    "0 to 255": lambda v: 128 * v + 127,
}
wrongly = {}
for name, change in CHANGES.items():
    X = extract_features(body, change(x)).cpu().numpy()
    test_only = [p.score(X[te], y[te]) for p, (_, te) in zip(probes, SPLITS, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # features of raw pixels are huge: it does not converge
        fits = [LogisticRegression(C=1, max_iter=300).fit(X[tr], y[tr]) for tr, _ in SPLITS]
    both = [p.score(X[te], y[te]) for p, (_, te) in zip(fits, SPLITS, strict=True)]
    wrongly[name] = np.mean(test_only), np.mean(both)
    print(f"{name:32} at test only {wrongly[name][0]:.1%}   in training too {wrongly[name][1]:.1%}")
fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
places = np.arange(len(CHANGES))
for n, (label, values) in enumerate(
    zip(("at test only", "in training too"), zip(*wrongly.values(), strict=True), strict=True)
):
    ax.barh(places + 0.38 * n, 100 * np.array(values), 0.36, label=label, color=plot.COLOURS[n])
ax.set_yticks(places + 0.19, list(CHANGES))
ax.invert_yaxis()
ax.set(xlabel="test accuracy (%), mean of six splits", xlim=(0, 100))
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
title = "Wrong input numbers cost points, silently; retraining mends some of it, not all"
_ = ax.set_title(title, loc="left", size=11, weight="bold", x=-0.4)

# %% tags=["instructor"]
right = wrongly["as it was trained"][1]
assert wrongly["0 to 255"][0] < right - 0.3 and wrongly["0 to 255"][1] < right - 0.1
assert max(wrongly["other networks' mean and spread"]) < right - 0.03
assert abs(wrongly["0 to 1"][1] - right) < 0.05

# %% [markdown]
# **Question.** Numbers from 0 to 1 cost least. Why is that no reason to be careless?
#
# <details><summary>Answer</summary>
#
# It halves the contrast and moves the zero, and batch norm's stored statistics happen to bear it for this network and these pictures. The mistake that costs one or two points is the one that nobody finds. Take the preprocessing from where the weights come from, and test it on pictures whose answer you know, as with the zebra.
#
# </details>

# %% [markdown]
# **Break.**

# %% [markdown]
# ## 6 · Which layer's features? (4 min)
#
# The last features were made for telling 1,000 classes of ImageNet apart. Earlier stages know less of ImageNet, and of everything else. Take the mean over all places of each stage's maps, and probe it with $C = 10$. Yosinski, Clune, Bengio and Lipson (2014) asked the same by training on from each layer.


# %%
def all_stages(pictures):
    """The mean over all places after each stage: a list of 18 arrays (N, C)."""
    parts = []
    with torch.no_grad():
        for h in pictures.split(64):
            parts.append([(h := stage(h)).mean((2, 3)) for stage in network.features])
    return [torch.cat(stage).cpu().numpy() for stage in zip(*parts, strict=True)]


def plain_probe(X, y, fit, look):
    """Accuracy on the rows `look` of a probe with C = 10, fitted to the rows `fit`."""
    probe = LogisticRegression(C=10, max_iter=1000, tol=1e-3).fit(X[fit], y[fit])
    return probe.score(X[look], y[look])


curve = {}
for k, X in enumerate(all_stages(x)):
    curve[k] = [plain_probe(X, y, tr, te) for tr, te in SPLITS[:3]]
    if k % 3 == 2:
        print(f"stage {k:2}, {X.shape[1]:4} channels: {np.mean(curve[k]):.1%}")
means = 100 * np.array([np.mean(curve[k]) for k in curve])
ax = plot.curves(
    {"probe": (list(curve), means)},
    xlabel="stage whose features are probed",
    ylabel="test accuracy (%), three splits",
    title="What these seven classes need is made late: the curve rises to the last stages",
)

# %% tags=["instructor"]
assert means[:3].max() < 65 < 78 < means[14:].min() and means[14:].max() - means[17] < 4

# %% [markdown]
# ## 7 · Frozen, statistics too (10 min)
#
# Next we train stages further. Most stay *frozen*: no gradient, so no step. But batch norm has a second way to change. In training mode it normalises by the batch and moves its running mean and variance towards it, gradient or not. With a dozen pictures in a batch that exchanges statistics of a million photographs for those of twelve. So when fine-tuning on few pictures, batch norm stays in evaluation mode *everywhere*; its scale and shift may learn.


# %%
def freeze(model, upto):
    """Make a model ready for a training epoch in which only its last stages learn.

    model: has `features`, an nn.Sequential of stages, `head`, and perhaps other modules. Called
    anew after each evaluation, also with another upto, from 0 to len(features).
    The stages features[0] ... features[upto - 1] are frozen: their parameters need no gradient, and
    all their modules are in evaluation mode. All other parameters of the model need gradients, and
    all other modules are in training mode, but every batch norm of the model (1d, 2d, 3d) is in
    evaluation mode, wherever it stands. The model itself is changed.
    """
    # TODO: wake everything up, then put to sleep. nn.modules.batchnorm._BatchNorm is all three.
    ### BEGIN SOLUTION
    model.train().requires_grad_(True)
    model.features[:upto].eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    ### END SOLUTION


lab.check(freeze)

# %% [markdown]
# Two copies, no gradient anywhere. In one the weights alone are frozen, and four passes over the 84 training pictures are made in training mode; in the other your `freeze` decides.


# %%
def statistics(model):
    """Running means of all batch norms, in units of their running spreads."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return torch.cat([m.running_mean / (m.running_var + m.eps).sqrt() for m in norms])


torch.manual_seed(0)
drift, shifted = {}, {}
for name, passes in (("weights only", 4), ("by your freeze", 1)):
    model = load_network().requires_grad_(False)
    before = statistics(model)
    for _ in range(passes):
        if name == "weights only":
            model.train()
        else:
            freeze(model, 18)
        with torch.no_grad():
            for batch in torch.tensor(train)[torch.randperm(len(train))].split(12):
                model(x[batch])
    drift[name] = (statistics(model) - before).abs().mean().item()
    X = extract_features(nn.Sequential(model.features, model.pool, model.flatten), x[test])
    shifted[name] = X.cpu().numpy()
    changed = (probes[0].predict(shifted[name]) != predicted).mean()
    score = probes[0].score(shifted[name], y[test])
    print(
        f"{name:15} means moved by {drift[name]:.3f} spreads, {changed:.0%} of the answers changed,"
        f" accuracy {reached[0]:.1%} → {score:.1%}"
    )
off = np.linalg.norm(shifted["weights only"] - features[test], axis=1)
off /= np.linalg.norm(features[test], axis=1)
fig, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
ax.hist(100 * off, 30, color=plot.COLOURS[0])
ax.set(xlabel="change of a test picture's features (% of their length)", ylabel="pictures")
title = "No weight has moved, and every picture's features have"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert drift["by your freeze"] == 0 and drift["weights only"] > 0.01
assert off.min() > 0.02

# %% [markdown]
# **Question.** After `freeze` comes an evaluation with `model.eval()`, and then the next epoch's `model.train()`. What goes wrong, and where does `freeze` have to be called?
#
# <details><summary>Answer</summary>
#
# `model.train()` sets all modules to training mode, frozen ones and batch norms too; only `requires_grad` stays. So `freeze` stands in the loop, at the beginning of each epoch, in the place of `model.train()`. That accuracy hardly moved above is no comfort: every picture's features did, and answers were exchanged.
#
# </details>

# %% [markdown]
# ## 8 · Rates that fall with depth (14 min)
#
# Early stages are general, late ones special to ImageNet. So let late ones move more: the head with rate $\eta$, the last of $K$ stages with $\eta d$, the one before with $\eta d^2$, down to stage 0 with $\eta d^K$ (Howard and Ruder, 2018, called such rates *discriminative*). An optimizer takes them as *parameter groups*. By hand: $\eta = 0.1$, $d = 0.5$, three stages of which the first is frozen: head 0.1, stage 2 0.05, stage 1 0.025, stage 0 in no group.


# %%
def parameter_groups(model, lr, decay):
    """Parameter groups for a torch optimizer, with rates that fall towards the input.

    model: has `features`, an nn.Sequential of K stages, and `head`; no other part has parameters.
    Returns a list of dicts {"params": [...], "lr": rate}: one for the head, with rate lr, and one
    for each stage k, with rate lr * decay ** (K - k), in any order. Only parameters that need a
    gradient are in them, each once; a part that has none of these has no group.
    """
    # TODO: the stages from the last to the first; what is frozen stays out.
    ### BEGIN SOLUTION
    parts = [model.head, *reversed(model.features)]
    groups = []
    for depth, part in enumerate(parts):
        learning = [p for p in part.parameters() if p.requires_grad]
        if learning:
            groups.append({"params": learning, "lr": lr * decay**depth})
    return groups
    ### END SOLUTION


lab.check(parameter_groups)

# %% [markdown]
# We fine-tune stages 13 to 17 and a head for our seven classes. Since stages 0 to 12 are frozen, what comes out of them never changes, and is computed *once*: maps of $192 \times 3 \times 3$ for each picture. An epoch then costs about half of what it would with stages 0 to 12 run each time, at the price that pictures cannot be augmented.
#
# The head begins either at random or where the probe ended (*probe first*; Kumar, Raghunathan, Jones, Ma and Liang, 2022). Four recipes, three splits. About 30 s.

# %%
UPTO = 13
with torch.no_grad():
    maps = torch.cat([network.features[:UPTO](batch) for batch in x.split(64)])  # (219, 192, 3, 3)
labels = torch.tensor(y, device=device)


def classifier(head):
    """Stages 13 to 17, fresh from ImageNet, and a head; maps (B, 192, 3, 3) to (B, 7)."""
    model = load_network()
    model.features, model.head = model.features[UPTO:], head.to(device)
    return model


def head_of(probe):
    """The probe as a linear layer."""
    head = nn.Linear(1280, 7)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(probe.coef_))
        head.bias.copy_(torch.tensor(probe.intercept_))
    return head


@torch.no_grad()
def measure(model, rows):
    """Loss and accuracy."""
    z = model.eval()(maps[rows])
    right = z.argmax(1).eq(labels[rows]).float().mean()
    return F.cross_entropy(z, labels[rows]).item(), right.item()


def fine_tune(model, train, test, lr, decay, epochs=3, seed=0):
    """Train on. Returns a row (train loss, test loss, test accuracy) before, and one for each
    epoch.

    A row's train loss is the mean while that epoch learns, the rest is measured after it.
    """
    torch.manual_seed(seed)
    freeze(model, 0)
    optimizer = torch.optim.AdamW(parameter_groups(model, lr, decay), weight_decay=0.01)
    rates = [group["lr"] for group in optimizer.param_groups]
    steps = epochs * -(-len(train) // 21)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, pct_start=0.2)
    history = [(measure(model, train)[0], *measure(model, test))]
    for _ in range(epochs):
        freeze(model, 0)
        total = 0
        for batch in torch.tensor(train)[torch.randperm(len(train))].split(21):
            loss = F.cross_entropy(model(maps[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        history.append((total / len(train), *measure(model, test)))
    return np.array(history)


RECIPES = {
    "random head, 1e-3": (False, 1e-3, 1),
    "probe first, 1e-3": (True, 1e-3, 1),
    "probe first, 1e-3 falling": (True, 1e-3, 0.3),
    "probe first, 1e-4": (True, 1e-4, 1),
}
runs, tuned = {}, {}
print("                            after fine-tuning      minus the probe")
for name, (from_probe, rate, decay) in RECIPES.items():
    runs[name] = []
    for n in range(3):
        torch.manual_seed(n)
        model = classifier(head_of(probes[n]) if from_probe else nn.Linear(1280, 7))
        runs[name].append(fine_tune(model, *SPLITS[n], rate, decay))
        tuned[name, n] = model
    ends = np.array([run[-1, 2] for run in runs[name]])
    gain = 100 * (ends - reached[:3])
    shown = "".join(f"{e:7.1%}" for e in ends)
    print(f"{name:26}{shown}   {gain.mean():+.1f} ± {gain.std():.1f}")
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharex=True)
for name, colour in zip(RECIPES, plot.COLOURS, strict=False):
    run = np.mean(runs[name], 0)
    axes[0].plot(run[:, 0], color=colour, label=f"{name}: train")
    axes[0].plot(run[:, 1], "--", color=colour)
    axes[1].plot(100 * run[:, 2], "--o", color=colour, label=name, markersize=4)
axes[0].set(xlabel="epoch", ylabel="cross-entropy (train: line, test: dashes)", ylim=(0, 2.2))
axes[1].set(xlabel="epoch", ylabel="test accuracy (%)", xticks=range(4))
axes[1].legend(frameon=False, fontsize=9)
title = "Where the probe leaves little to learn, a high rate can do harm; falling rates do not"
_ = fig.suptitle(title, size=11, weight="bold")

# %% tags=["instructor"]
ends = {name: np.mean([run[-1, 2] for run in runs[name]]) for name in RECIPES}
assert ends["probe first, 1e-4"] > np.mean(reached[:3]) - 0.005
assert ends["probe first, 1e-3"] < ends["probe first, 1e-3 falling"] - 0.01
assert ends["random head, 1e-3"] < ends["probe first, 1e-4"]
assert max(run[-1, 0] for name in RECIPES for run in runs[name]) < 0.4

# %% [markdown]
# **Question.** The careful recipes gain one or two points over the probe here, with other splits nothing, and one split differs from the next by more. Is it worth it?
#
# <details><summary>Answer</summary>
#
# With 84 pictures: hardly, and it costs points if the rate is wrong. The difference is *paired* (same split, with and without), which is why it may be read at all; three splits do not settle it, and the random head's row depends on its draw: try `torch.manual_seed(n + 10)`. Fine-tuning pays with more pictures, or where pictures differ more from ImageNet's. Begin with the probe: it takes a second, and tells you what there is to beat.
#
# </details>

# %% [markdown]
# ## 9 · How many pictures? (4 min)
#
# The features are there, so a learning curve is cheap: 1 to 12 pictures a class, each with ten splits.

# %%
COUNTS = (1, 2, 4, 8, 12)
few = {"probe on features": [], "SVM on pixels": []}
for n in COUNTS:
    scores = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        tr, te = few_shot_split(y, stamps.groups, 12, rng)
        tr = np.concatenate([rng.permutation(tr[y[tr] == c])[:n] for c in range(7)])
        probe = LogisticRegression(C=1, max_iter=5000).fit(features[tr], y[tr])
        machine = SVC(C=3).fit(pixels[tr], y[tr])
        scores.append((probe.score(features[te], y[te]), machine.score(pixels[te], y[te])))
    for values, column in zip(few.values(), zip(*scores, strict=True), strict=True):
        values.append(column)
few = {name: 100 * np.array(values) for name, values in few.items()}  # (5, 10)
print("a class    " + "".join(f"{n:13}" for n in COUNTS))
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for (name, values), colour in zip(few.items(), plot.COLOURS, strict=False):
    mean, spread = values.mean(1), values.std(1)
    cells = (f"{m:7.1f} ± {s:3.1f}" for m, s in zip(mean, spread, strict=True))
    print(f"{name:18}" + "".join(cells))
    ax.plot(COUNTS, mean, "o-", color=colour, label=name)
    ax.fill_between(COUNTS, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
ax.set(xlabel="training pictures a class", ylabel="test accuracy (%)", xscale="log", ylim=(0, 100))
ax.set_xticks(COUNTS, COUNTS, minor=False)
ax.minorticks_off()
ax.legend(frameon=False, loc="lower right")
title = "One picture a class is luck; the first doublings buy the most"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
means, spreads = few["probe on features"].mean(1), few["probe on features"].std(1)
assert means[0] < 70 < means[2] < means[4] and spreads[0] > 2 * spreads[3]
assert np.all(np.diff(means) > 0) and np.all(np.diff(means[:4], 2) < 0)
assert means[0] > few["SVM on pixels"].mean(1)[4]

# %% [markdown]
# **Question.** One picture a class on features beats twelve on pixels. Where does that knowledge come from, and who paid for it?
#
# <details><summary>Answer</summary>
#
# From 1.3 million photographs that other people took and labelled, with the skew of what they photographed, and from many hours of computing. It arrives in 1,280 numbers of which some already mean "feathered" or "round and orange". A probe only has to find which.
#
# </details>

# %% [markdown]
# **Break.**

# %% [markdown]
# ## 10 · Where does it look? (13 min)
#
# Occlusion needed a pass for each place. *Grad-CAM* (Selvaraju et al., 2016) needs one pass forward and one backward. Let $A$, of shape $(C, H', W')$, be the maps of a layer, and $z_y$ the logit of class $y$. A channel counts as much as the logit rises with it, on average over all places, and only what speaks *for* the class is kept:
#
# $$\alpha_c = \frac{1}{H'W'} \sum_{i,j} \frac{\partial z_y}{\partial A_{c,i,j}}, \qquad M_{i,j} = \max\Bigl(0,\; \sum_c \alpha_c A_{c,i,j}\Bigr)$$
#
# By hand: two channels, $A_1 = \begin{pmatrix} 2 & 0 \end{pmatrix}$, $A_2 = \begin{pmatrix} 1 & 3 \end{pmatrix}$, and $z_y = A_{1,1} + A_{1,2} - A_{2,2}$. Then $\alpha_1 = 1$, $\alpha_2 = -1/2$, and $M = (1.5,\; 0)$, for $0 - 1.5 < 0$.
#
# A *forward hook* gets at $A$: `handle = layer.register_forward_hook(function)` calls `function(module, inputs, output)` after each forward of that layer, until `handle.remove()`.


# %%
def grad_cam(model, layer, image, label):
    """Where the evidence for a class lies.

    model: in evaluation mode, maps (B, 3, H, W) to logits (B, K); its parameters may all be frozen.
    layer: a module of it with output (B, C, H', W'). image: (3, H, W). label: a class.
    Returns M of the formula, (H', W'), without gradient, of the image's dtype. The hook is gone
    afterwards, also where the model raises an error; image, .grad and others' hooks stay as they
    are.
    """
    # TODO: hook, forward of image[None], torch.autograd.grad of the logit to what was kept.
    # Where all weights are frozen there is no graph, unless a copy of the image needs a gradient.
    ### BEGIN SOLUTION
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        with torch.enable_grad():
            z = model(image[None].detach().clone().requires_grad_())
    finally:
        handle.remove()
    (slope,) = torch.autograd.grad(z[0, label], kept[0])  # (1, C, H', W')
    alpha = slope.mean((2, 3), keepdim=True)
    return (alpha * kept[0]).sum(1)[0].relu().detach()
    ### END SOLUTION


lab.check(grad_cam)

# %% [markdown]
# The last maps have $3 \times 3$ places at 96 pixels and $5 \times 5$ at 160, so we take larger pictures. Can the probe simply be kept? Test pictures only; right ones first, then the surest errors.

# %%
larger = torch.stack([preprocess(s, 160) for s in squares])
larger = larger.to(device, memory_format=torch.channels_last)
finer = extract_features(body, larger).cpu().numpy()
kept = probes[0].score(finer[test], y[test])
anew = linear_probe(finer[train], y[train], folds_of(train), CS)[0]
print(f"probe of 96 pixels on features of 160: {kept:.1%}; fitted anew: ", end="")
print(f"{anew.score(finer[test], y[test]):.1%}")
whole = load_network()
whole.head = head_of(anew).to(device)
whole.requires_grad_(False)
large = larger[torch.tensor(test)]
p = torch.tensor(anew.predict_proba(finer[test]))
sure, said = p.max(1)
hits = [n for n in range(len(test)) if said[n] == y[test[n]]]
misses = [n for n in range(len(test)) if said[n] != y[test[n]]]
misses.sort(key=lambda n: -sure[n])
step = len(hits) // 6
chosen = [*hits[step // 2 :: step][:6], *misses[:6]]
fig, axes = plt.subplots(2, 6, figsize=(9, 3.6), layout="constrained")
for ax, n in zip(axes.flat, chosen, strict=True):
    evidence = grad_cam(whole, whole.features[-1], large[n], int(said[n])).cpu()
    spread = F.interpolate(evidence[None, None], (160, 160), mode="bilinear")[0, 0]
    ax.imshow(Image.fromarray(squares[test[n]]).resize((160, 160)))
    red = (0.7 * spread / spread.max()).numpy()  # how much of it
    ax.imshow(0 * red, cmap="autumn", alpha=red)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{names[test[n]][:14]}:\n{classes[said[n]]} {100 * sure[n]:.0f} %", size=8)
title = "Evidence for the answer (red): right ones above, the surest errors below"
_ = fig.suptitle(title, size=11, weight="bold")

# %% tags=["instructor"]
assert len(hits) / len(test) > 0.8 > kept + 0.1
assert torch.equal(extract_features(whole, large[:9]).argmax(1).cpu(), said[:9])

# %% [markdown]
# **Question.** Features of the same network, and yet the probe of 96 pixels is lost at 160. Why?
#
# <details><summary>Answer</summary>
#
# A convolution knows windows of so many pixels. At 160 pixels a feather is larger, and other channels answer to it; the mean over all places forgets where, not how large. Size is part of the preprocessing: fit the head at the size at which it will be used. Fitted anew at 160 pixels it gains more on this split than fine-tuning did in section 8: try the size before you train. We stay at 96 for its price, $(96/160)^2 = 36$ % of the pixels.
#
# </details>
#
# **Question.** A map is red on the thing itself, and the answer is wrong. What does Grad-CAM tell you, and what does it not?
#
# <details><summary>Answer</summary>
#
# It says where the evidence for *one* class lies, not whether it is good evidence, nor why. It finds one kind of failure, that a network looks at something beside the thing: background, a watermark, the hand that holds it. Here the things are cut out, so errors are of the other kind: an animal of the sea whose fins look like wings, or a label that is a matter of opinion.
#
# </details>

# %% [markdown]
# ## 11 · When not to transfer (6 min)
#
# Two tasks far from ImageNet: clothes in grey (Fashion-MNIST, MIT) and handwritten digits (MNIST, CC BY-SA 3.0), 300 pictures each to train on. And a third, to be solved on Fashion-MNIST's shoes, all of which point to the left: *has this picture been mirrored?* About 25 s.


# %%
def grey(images):
    """uint8 (N, 28, 28) as the network wants it, 64 × 64."""
    v = torch.tensor(images, device=device)[:, None].float()
    v = F.interpolate(v, size=(64, 64), mode="bilinear").expand(-1, 3, -1, -1)
    return ((v - 127) / 128).contiguous(memory_format=torch.channels_last)


fashion, digits = atlas.data.load("fashion-mnist"), atlas.data.load("mnist")
shoes = fashion.x_train[np.isin(fashion.y_train, (5, 7, 9))][:700].copy()
mirrored = np.random.default_rng(0).random(700) < 0.5
shoes[mirrored] = shoes[mirrored, :, ::-1]
TASKS = {
    "clothes": (fashion.x_train[:700], fashion.y_train[:700]),
    "digits": (digits.x_train[:700], digits.y_train[:700]),
    "mirrored?": (shoes, mirrored.astype(int)),
}
far = {}
print("                 last stage   best stage     pixels, SVM")
for name, (images, target) in TASKS.items():
    fit, look = slice(300), slice(300, None)
    stages = all_stages(grey(images))
    far[name] = [plain_probe(X, target, fit, look) for X in stages]
    flat = images.reshape(700, -1) / 255
    svm = SVC(C=10).fit(flat[fit], target[fit]).score(flat[look], target[look])
    best = int(np.argmax(far[name]))
    print(f"{name:14} {far[name][-1]:11.1%} {far[name][best]:11.1%} ({best:2}) {svm:11.1%}")
curves = {f"{name}, 300 pictures": (range(18), 100 * np.array(s)) for name, s in far.items()}
curves["stamps, 84 pictures"] = list(curve), 100 * np.array([np.mean(curve[k]) for k in curve])
ax = plot.curves(
    {name: (list(k), s) for name, (k, s) in curves.items()},
    xlabel="stage whose features are probed",
    ylabel="accuracy on unseen pictures (%)",
    title="Farther tasks, earlier stages; and what training ignored is lost",
)

# %% tags=["instructor"]
assert np.argmax(far["digits"]) < 15 and max(far["digits"]) > far["digits"][-1] + 0.04
assert far["mirrored?"][-1] < 0.8 < 0.92 < max(far["mirrored?"])
assert np.argmax(far["mirrored?"]) < 12
assert svm > far["mirrored?"][-1] + 0.15

# %% [markdown]
# **Question.** Why can the last stage hardly tell whether a shoe was mirrored, a task that pixels solve?
#
# <details><summary>Answer</summary>
#
# In training for ImageNet, pictures were mirrored at random and kept their label, so the network was taught that left and right are the same, and learned it stage by stage. Features keep what the source task needed, and lose what it was told to ignore. Ask of your own task: would ImageNet's labels survive a change that alters mine (colour, orientation, count, size, a hairline crack)?
#
# </details>
#
# So do not transfer, or not the last stage, where the source was taught to ignore what you need; where a small network does as well (in *cnn-basics* you trained one on a thousand pictures in seconds); where 18 MB or 10 ms are too much; where the licence of the weights forbids it; or where the skew of the source would hurt people.

# %% [markdown]
# ## 12 · From notebook to program (10 min)
#
# [finetune.py](finetune.py) does all this for a folder of your own pictures, one folder for each class: probe, fine-tuning from the probe, a figure, and a *model card* that says what the model is for, how it was measured and where it fails. Features are kept between runs (`--cache runs/features.npz`). Yours to write is `cached_features`: what is known is not computed again, and what has changed is. A file's name does not say what is in it; its bytes do.
#
# In a terminal beside the notebook, in its folder (from the course's: `cd workshops/computer-vision/transfer-learning`):
#
#     atlas check cached_features
#     python finetune.py --cache runs/features.npz
#     python finetune.py --cache runs/features.npz --resume --epochs 6
