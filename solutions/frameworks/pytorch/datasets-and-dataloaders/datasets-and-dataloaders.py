# %% [markdown]
# # Datasets and DataLoaders
#
# Until now your data lay in memory as one tensor, and a batch was `x[batch]`. At work data are files of several sizes, some of them broken, rare classes, names of unequal length, and workers that repeat each other. Here you write
# what lies between a folder and a training step, and measure each part. All derivations are in the [README](README.md).

# %%
import multiprocessing
import queue
import shutil
import tempfile
import threading
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

import atlas
from atlas import plot

lab = atlas.open("datasets-and-dataloaders")
torch.set_num_threads(1)  # what follows is too small to be shared between cores
stamps = atlas.data.load("stamps")
names = atlas.data.load("names")
fashion = atlas.data.load("fashion-mnist")
stamps

# %% [markdown]
# ## 1 · From files to samples (18 min)
#
# PyTorch knows two kinds of data set. A *map-style* one answers two questions: how many are you, `len(d)`, and what is number `i`, `d[i]`. An *iterable-style* one only answers "the next, please"; it is for streams that have no number `i`. With numbers one can shuffle, split and weight, so take map-style wherever you can.
#
# The pictures are the photographs of Tux Paint (licence GPL-2.0-or-later). First they become what one is given at work: a folder of PNG files, one folder for each class.

# %%
folder = Path(tempfile.mkdtemp()) / "stamps"
for path in stamps.paths:
    (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder / path.parent.name)

chosen = [folder / "birds/crow.png", folder / "household/glass.png", folder / "mammals/horse.png"]
fig, axes = plt.subplots(1, 6, figsize=(9, 2.1), layout="constrained")
for path, (left, right) in zip(chosen, axes.reshape(3, 2), strict=True):
    with Image.open(path) as image:
        print(f"{path.name:10} mode {image.mode}, {image.width} x {image.height} pixels")
        left.imshow(image.convert("RGB"))
        white = Image.new("RGBA", image.size, "white")
        right.imshow(Image.alpha_composite(white, image.convert("RGBA")))
    left.set_title("without opacity", size=9)
    right.set_title("on white", size=9)
for ax in axes:
    ax.set_axis_off()
_ = fig.suptitle("Dropping the fourth channel shows what was meant to be hidden", weight="bold")

# %% [markdown]
# The fourth channel of `RGBA` is the opacity $a$, from 0 to 255. A pixel of colour $c$ on white looks like $\frac{a}{255}\, c + \bigl(1 - \frac{a}{255}\bigr)\, 255$. With $a = 51$ and $c = 100$: $0.2 \cdot 100 + 0.8 \cdot 255 = 224$. `convert("RGB")` does not compute this: it throws $a$ away.
#
# A picture can also be broken, and PIL notices late: `Image.open` reads only the head of the file. Pixels are decoded when somebody needs them, and only then does it turn out that half of the file is missing.


# %%
class FolderDataset(Dataset):
    """Pictures in folders, one folder for each class."""

    def __init__(self, root, transform=None):
        """root: a path, str or Path. Each folder in it is a class, an empty one too. What
        glob("*.png") finds directly in that folder are its pictures; all else is passed over.
        No picture is opened here: a broken one has its place in paths, too.

        Sets classes, the folders' names, sorted; paths, a list of Path, class by class, sorted
        by name within a class; labels, a list of int, the index in classes for each path.
        """
        # TODO: root.iterdir(), is_dir() and folder.glob("*.png") come in no particular order.
        ### BEGIN SOLUTION
        self.transform = transform
        folders = sorted(each for each in Path(root).iterdir() if each.is_dir())
        self.classes = [each.name for each in folders]
        self.paths, self.labels = [], []
        for label, each in enumerate(folders):
            found = sorted(each.glob("*.png"))
            self.paths += found
            self.labels += [label] * len(found)
        ### END SOLUTION

    def __len__(self):
        """How many pictures there are."""
        # TODO
        ### BEGIN SOLUTION
        return len(self.paths)
        ### END SOLUTION

    def __getitem__(self, i):
        """Number i as (image, label); i as for a list. The file is read anew each time.

        image: uint8 (3, H, W), transparent parts on white, whatever the PNG's mode is. If there
        is a transform, what transform(image) returns. label: int.
        A file that cannot be read as a picture: ValueError with its path in the message. What the
        transform raises is left as it is.
        """
        # TODO: any mode becomes "RGBA"; Image.alpha_composite puts that on white.
        ### BEGIN SOLUTION
        path = self.paths[i]
        try:
            with Image.open(path) as image:
                image = image.convert("RGBA")
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a picture: {error}") from error
        white = Image.new("RGBA", image.size, "white")
        pixels = np.array(Image.alpha_composite(white, image).convert("RGB"))  # (H, W, 3)
        image = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)
        return self.transform(image) if self.transform else image, self.labels[i]
        ### END SOLUTION


lab.check(FolderDataset)

# %%
dataset = FolderDataset(folder)
print(len(dataset), "pictures,", dataset.classes)
image, label = dataset[20]
print(f"number 20: {tuple(image.shape)} {image.dtype}, {dataset.classes[label]}")

cut = folder / "birds/crow.png"
cut.write_bytes(cut.read_bytes()[:2000])  # a download that stopped
(folder / "fruit/licence.png").write_text("Dear reader, this is no picture.\n")
dataset = FolderDataset(folder)  # the broken ones do not disturb it
broken = []
for i in range(len(dataset)):
    try:
        dataset[i]
    except ValueError as error:
        broken.append(dataset.paths[i].name)
        print(str(error).replace(str(folder), "..."))

for path in (cut, folder / "fruit/licence.png"):  # as it was
    path.unlink()
shutil.copy(next(path for path in stamps.paths if path.name == "crow.png"), cut)
dataset = FolderDataset(folder)

# %% tags=["instructor"]
assert len(dataset) == 219 and sorted(broken) == ["crow.png", "licence.png"]
assert [dataset.classes[label] for label in dataset.labels] == [p.parent.name for p in dataset.paths]
print("as the loaded set:", dataset.labels == stamps.labels.tolist())

# %% [markdown]
# **Question.** The data set with two broken files was built without a word. Would it be better to open each file in `__init__`?
#
# <details><summary>Answer</summary>
#
# Then every start of every program reads and decodes the whole folder before the first batch. And a file may break after that. Check once, when the data arrive, with a program that reports: the one of section 8. The clear error in `__getitem__` is for what happens later. Without the path in it one searches a million files.
#
# </details>

# %% [markdown]
# ## 2 · Rows of unequal length (9 min)
#
# A `DataLoader` asks for `d[i]` for each index of a batch and hands the list to its `collate_fn`. The default stacks, and stacking needs equal shapes. Names (licence PDDL-1.0) have none:

# %%
codes = [torch.tensor([ord(letter) - ord("a") for letter in name]) for name in names.x_train]
pairs = list(zip(codes, names.y_train.tolist(), strict=True))  # ada is [0, 3, 0]
try:
    next(iter(DataLoader(pairs, batch_size=4)))
except RuntimeError as error:
    print("RuntimeError:", str(error).splitlines()[0])

# %% [markdown]
# So fill up to the longest row *of this batch*, and keep a mask of what is real. The mask comes from the lengths: a filler of 0 cannot be told from the letter a, whose code is 0.
#
# By hand: `[0, 3, 0]` and `[7]` become $x = \begin{pmatrix} 0 & 3 & 0 \\ 7 & 0 & 0 \end{pmatrix}$ with the mask $\begin{pmatrix} 1 & 1 & 1 \\ 1 & 0 & 0 \end{pmatrix}$ and the lengths $(3, 1)$.


# %%
def collate_padded(batch, pad=0):
    """Make one batch of rows of unequal length.

    batch: a list of B pairs (row, label). row: a tensor (T_i,) of any dtype, T_i may be 0;
    label: int. Returns four new tensors, the examples in the order of the list:
    x (B, T), T the longest row, `pad` after each row's end, dtype of the rows;
    mask (B, T) bool, True where x is real; lengths (B,) int64; y (B,) int64.
    """
    # TODO: T and an x full of pad; then each row into its place. The mask from the lengths.
    ### BEGIN SOLUTION
    rows, labels = zip(*batch, strict=True)
    lengths = torch.tensor([len(row) for row in rows])
    T = int(lengths.max())
    x = torch.full((len(rows), T), pad, dtype=rows[0].dtype)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row
    mask = torch.arange(T) < lengths[:, None]  # (T,) against (B, 1)
    return x, mask, lengths, torch.tensor(labels)
    ### END SOLUTION


lab.check(collate_padded)

# %% [markdown]
# Does the mask matter? A small classifier: embed each letter, take the mean over the name, and go on from there. Once the mean is over real letters, once over all columns. Class 0 is female. A few seconds.


# %%
class NameClassifier(nn.Module):
    def __init__(self, masked):
        super().__init__()
        self.masked, self.embed = masked, nn.Embedding(26, 32)
        self.head = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x, mask):
        e = self.embed(x)  # (B, T, 32)
        if self.masked:
            return self.head((e * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return self.head(e.mean(1))


held = [torch.tensor([ord(letter) - ord("a") for letter in name]) for name in names.x_valid]
held = list(zip(held, names.y_valid.tolist(), strict=True))
ada = (torch.tensor([0, 3, 0]), 0)
company = [(torch.arange(T) % 26, 0) for T in (3, 8, 13)]
said = {}
for masked in (True, False):
    torch.manual_seed(0)
    model = NameClassifier(masked)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(3):
        for x, mask, _, y in DataLoader(pairs, 64, shuffle=True, collate_fn=collate_padded):
            loss = functional.cross_entropy(model(x, mask), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    said[masked] = []
    with torch.no_grad():
        for other in company:
            x, mask, *_ = collate_padded([ada, other])
            said[masked].append(model(x, mask).softmax(1)[0, 0].item())
        batches = DataLoader(held, 64, collate_fn=collate_padded)
        right = sum((model(x, mask).argmax(1) == y).sum().item() for x, mask, _, y in batches)
    shown = ", ".join(f"{p:.3f}" for p in said[masked])
    which = "with mask:   " if masked else "without mask:"
    print(f"{which} P(female) of ada beside 3, 8, 13 letters: {shown}")
    print(f"              accuracy on {len(held)} validation names: {right / len(held):.1%}")

# %% tags=["instructor"]
assert np.ptp(said[True]) < 1e-5 and np.ptp(said[False]) > 0.01

# %% [markdown]
# **Question.** Without the mask the accuracy is lower, and what ada is depends on who stands beside her. Why is the second worse?
#
# <details><summary>Answer</summary>
#
# The model's answer changes with the batch it happens to be in, so it cannot be reproduced: not between two batch sizes, not between training and a server that sees one name at a time. A lower accuracy is seen in the evaluation. This is not, for the evaluation has batches too.
#
# </details>

# %% [markdown]
# ## 3 · Which examples, and how often? (18 min)
#
# Which indices make a batch, and in what order, is decided by the *sampler*. `shuffle=True` is one: a random permutation. Where one class is rare, one may want another. Take T-shirts and shirts of Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017; licence MIT), 4,000 of the first and only 40 of the second: 100 to 1. Two remedies:
#
# *Weights*: a rare example's loss counts $w_c = N/(K n_c)$ times, with $N$ examples, $K$ classes, $n_c$ of class $c$. Here $w = 4040/(2 \cdot 40) = 50.5$ for shirts and $4040/8000 = 0.505$ for T-shirts. *A sampler*: rare examples come more often. Both make the classes equal on average, but with $B = 128$ the first sees 1.27 shirts in a batch, and none in $(100/101)^{128} = 28$ % of them, and the second 64, the same few.
#
# Repeat only where you must: of a class with $n_c \ge m$ examples take $m$ different ones; of a smaller one each $\lfloor m/n_c \rfloor$ times, and the remainder once more, different ones. For $n_c = 4$ and $m = 10$: each twice, and two of them a third time.


# %%
class BalancedSampler(Sampler):
    """Indices of an epoch in which every class comes equally often, in random order."""

    def __init__(self, labels, per_class, seed=0):
        """labels: N class numbers, a list, array or tensor; the numbers may have gaps.
        per_class: m, so often each class comes in an epoch. seed: two samplers with the same one
        give the same epochs, the first, the second, ...; each epoch differs from the one before,
        also from one that was left early.
        All chance comes from a torch.Generator of its own.
        """
        # TODO: the indices of each class, and self.generator = torch.Generator().manual_seed(...)
        ### BEGIN SOLUTION
        labels = torch.as_tensor(labels)
        self.indices = [(labels == c).nonzero()[:, 0] for c in labels.unique()]
        self.per_class = per_class
        self.generator = torch.Generator().manual_seed(seed)
        ### END SOLUTION

    def __len__(self):
        """How many indices an epoch has."""
        # TODO
        ### BEGIN SOLUTION
        return self.per_class * len(self.indices)
        ### END SOLUTION

    def __iter__(self):
        """The indices, int by int: m of each class, all classes mixed."""
        # TODO: for each class as many whole rounds as fit, then the rest; torch.randperm at last.
        ### BEGIN SOLUTION
        taken = []
        for indices in self.indices:
            left = self.per_class
            while left > 0:
                order = torch.randperm(len(indices), generator=self.generator)
                taken.append(indices[order[:left]])
                left -= len(indices)
        taken = torch.cat(taken)
        yield from taken[torch.randperm(len(taken), generator=self.generator)].tolist()
        ### END SOLUTION


lab.check(BalancedSampler)

# %% [markdown]
# Now three ways at three imbalances, each with the learning rate that is best for it there on validation images. Measured is *balanced accuracy*: the recall of a class is the share of its examples that are found, and this is the mean of both. Who always says T-shirt gets 50 %. A fourth line costs no training: take the plain network and move its threshold, by $\log(n_0/n_1)$ (README). First the learning rates, about 10 s. (The plain network is given its moved threshold here: unmoved, all rates look the same at 100 : 1, 50 %.)

# %%
TSHIRT, SHIRT = 0, 6


def both(x, y):
    """The T-shirts and shirts among (x, y): pixels (n, 784), 0 to 1, and 1 for a shirt."""
    keep = (y == TSHIRT) | (y == SHIRT)
    pixels = torch.tensor(x[keep], dtype=torch.float32).flatten(1) / 255
    return pixels, torch.tensor(y[keep] == SHIRT).long()


x_fit, y_fit = both(fashion.x_train[:50_000], fashion.y_train[:50_000])
x_val, y_val = both(fashion.x_train[50_000:], fashion.y_train[50_000:])
x_final, y_final = both(fashion.x_test, fashion.y_test)


def rare_set(ratio, seed):
    """4,000 T-shirts and 4,000 / ratio shirts, other ones for each seed."""
    chance = np.random.default_rng(seed)
    common = (y_fit == 0).nonzero()[:4000, 0]
    rare = chance.permutation((y_fit == 1).nonzero()[:, 0].numpy())[: 4000 // ratio]
    keep = torch.cat([common, torch.tensor(rare)])
    return x_fit[keep], y_fit[keep]


def train_rare(way, ratio, rate, seed, epochs=6):
    x, y = rare_set(ratio, seed)
    counts = torch.bincount(y)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    weight = len(y) / (2 * counts) if way == "weighted loss" else None
    sampler = BalancedSampler(y, len(y) // 2, seed)
    for _ in range(epochs):
        order = list(sampler) if way == "balanced sampler" else torch.randperm(len(y)).tolist()
        for batch in torch.tensor(order).split(128):
            loss = functional.cross_entropy(model(x[batch]), y[batch], weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


@torch.no_grad()
def balanced_accuracy(model, x, y, shift=0.0):
    """Mean of the two recalls, in per cent; shift is added to the shirt's logit."""
    z = model(x)
    shirt = z[:, 1] + shift > z[:, 0]
    return 50 * (shirt[y == 1].float().mean() + (~shirt[y == 0]).float().mean()).item()


WAYS, RATIOS = ("plain", "weighted loss", "balanced sampler"), (10, 30, 100)
RATES, best_rate = (3e-4, 1e-3, 3e-3), {}
print(f"{'validation (%) at η =':25}" + "".join(f"{rate:11}" for rate in RATES))
for way in WAYS:
    for ratio in RATIOS:
        models = [train_rare(way, ratio, rate, seed=9) for rate in RATES]
        shift = np.log(ratio) if way == "plain" else 0.0
        scores = [balanced_accuracy(model, x_val, y_val, shift) for model in models]
        best_rate[way, ratio] = RATES[int(np.argmax(scores))]
        print(f"{way:17} {ratio:3} : 1" + "".join(f"{s:11.1f}" for s in scores))

# %% [markdown]
# Then three seeds each, with a baseline beside them: logistic regression with the same weights, its strength of regularisation $C$ chosen on validation images. About 15 s.

# %%
found = {name: np.zeros((len(RATIOS), 3)) for name in (*WAYS, "plain, threshold moved")}
for way in WAYS:
    for i, ratio in enumerate(RATIOS):
        for seed in range(3):
            model = train_rare(way, ratio, best_rate[way, ratio], seed)
            found[way][i, seed] = balanced_accuracy(model, x_final, y_final)
            if way == "plain":
                moved = balanced_accuracy(model, x_final, y_final, np.log(ratio))
                found["plain, threshold moved"][i, seed] = moved
    print(f"{way} done")


def logistic(ratio, seed, C):
    """Balanced accuracy on validation and on test images, in per cent."""
    fit = LogisticRegression(C=C, class_weight="balanced", max_iter=40, tol=1e-2)
    fit.fit(*(part.numpy() for part in rare_set(ratio, seed)))
    sides = ((x_val.numpy(), y_val.numpy()), (x_final.numpy(), y_final.numpy()))
    return [sum(50 * (fit.predict(x[y == c]) == c).mean() for c in (0, 1)) for x, y in sides]


baseline = np.zeros((len(RATIOS), 3))
for i, ratio in enumerate(RATIOS):
    C = max((0.01, 0.1), key=lambda C, ratio=ratio: logistic(ratio, 9, C)[0])
    baseline[i] = [logistic(ratio, seed, C)[1] for seed in range(3)]
found["logistic regression"] = baseline

print("\nbalanced accuracy on test images, mean and range of three seeds")
print(f"{'':24}" + "".join(f"{ratio:>10} : 1    " for ratio in RATIOS))
for name, values in found.items():
    shown = [f"{v.mean():5.1f} ({v.min():.0f} to {v.max():.0f})" for v in values]
    print(f"{name:24}" + " ".join(f"{each:>16}" for each in shown))

# %%
fig, ax = plt.subplots(figsize=(7.6, 3.6), layout="constrained")
lines = {name: (RATIOS, values.mean(1)) for name, values in found.items()}
plot.curves(
    lines,
    xlabel="T-shirts for each shirt in the training set",
    ylabel="balanced accuracy (%)",
    xscale="log",
    title="Left alone, the rare class is lost at 30 : 1; a moved threshold wins most of it back",
    ax=ax,
)
ax.set_xticks(RATIOS, [f"{ratio} : 1" for ratio in RATIOS])
ax.minorticks_off()
_ = ax.set_ylim(45, 90)

# %% tags=["instructor"]
at_100 = {name: values[-1].mean() for name, values in found.items()}
cures = [at_100[name] for name in ("weighted loss", "balanced sampler", "plain, threshold moved")]
assert max(at_100["plain"], found["plain"][1].mean()) < 64 < 68 < min(cures)
assert at_100["plain, threshold moved"] < at_100["balanced sampler"]
assert max(cures) - min(cures) < 10
assert at_100["balanced sampler"] > 72

# %% [markdown]
# **Question.** The plain network with a moved threshold needed no weights and no sampler. What does that say about what it had learned?
#
# <details><summary>Answer</summary>
#
# It had learned to tell the two apart, and then said T-shirt every time, because at 100 to 1 that is nearly always right. What was wrong was the threshold. So before anything else look at the scores, not only at the decisions. Weights and samplers do change the training, and gain a few points more, most at 100 : 1. Not many: forty shirts are forty shirts, however often one shows them. And a tuned logistic regression is not behind.
#
# </details>
#
# **Break.** Five minutes. After it: pictures that move, splits that leak, and workers.

# %% [markdown]
# ## 4 · Augmentation in batches (9 min)
#
# Pictures of several sizes have to become one size for a batch. `fit` does it: a white square around, then scaled to 32 × 32. After that all 219 pictures are 2.7 MB as float32, and the fastest data set is a tensor.


# %%
def fit(image, side=32):
    """uint8 (3, H, W) to float (3, side, side), 0 to 1, in a white square."""
    _, H, W = image.shape
    big = max(H, W)
    top, left = (big - H) // 2, (big - W) // 2
    around = (left, big - W - left, top, big - H - top)
    square = functional.pad(image[None].float() / 255, around, value=1.0)
    small = functional.interpolate(square, (side, side), mode="bilinear", antialias=True)
    return small[0]


dataset = FolderDataset(folder, transform=fit)
x = torch.stack([image for image, _ in dataset])  # (219, 3, 32, 32)
y = torch.tensor(dataset.labels)

# %% [markdown]
# A shift by a few pixels gives a picture that is new to the network. Pad each image by $p$ on all sides, and cut out H × W at a random place: row offset and column offset are whole numbers from 0 to $2p$, all equally likely. Offset $p$ is the image as it was. Each image $b$ has its own offsets, $r_b$ and $s_b$, and all of it can be one indexing, `padded[b, c, rows, columns]`, that takes row $r_b + i$ and column $s_b + j$. The four index arrays have the shapes (B,1,1,1), (C,1,1), (B,1,H,1) and (B,1,1,W), which broadcast to (B, C, H, W).


# %%
def random_shift_crop(images, pad, generator, fill=0.0):
    """Move each image by its own random shift: pad it, and cut it out at its own offsets.

    images: (B, C, H, W), any dtype. generator: a torch.Generator; all chance comes from it.
    fill: the value that comes in at the edges, and nowhere else. Returns (B, C, H, W), new, dtype
    of images.
    Row and column offsets are independent and uniform over 0, ..., 2·pad, for each image; they
    count from the corner of the padded image, so none is below 0.
    """
    # TODO: functional.pad; torch.randint for tops and lefts, (B,) each; then one indexing.
    ### BEGIN SOLUTION
    B, C, H, W = images.shape
    padded = functional.pad(images, (pad, pad, pad, pad), value=fill)
    top, left = torch.randint(2 * pad + 1, (2, B), generator=generator)
    rows = top[:, None] + torch.arange(H)  # (B, H)
    columns = left[:, None] + torch.arange(W)  # (B, W)
    b, c = torch.arange(B)[:, None, None, None], torch.arange(C)[:, None, None]
    return padded[b, c, rows[:, None, :, None], columns[:, None, None, :]]
    ### END SOLUTION


lab.check(random_shift_crop)

# %%
chance = torch.Generator().manual_seed(0)
five = random_shift_crop(x[[9, 60, 110, 150, 205]].repeat(3, 1, 1, 1), 4, chance, fill=1.0)
shown = torch.cat([x[[9, 60, 110, 150, 205]], five])
_ = plot.images(shown, columns=5, title="First row as it is; below, each moved by itself")

seconds = {}
for name, size in (("one by one", 1), ("in one batch", len(x))):
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for batch in x.split(size):
            random_shift_crop(batch, 4, chance, fill=1.0)
        rounds.append(time.perf_counter() - start)
    seconds[name] = min(rounds)  # the round in which nothing else held the core
    print(f"{name:13} {len(x) / seconds[name]:10,.0f} images/s")

# %% tags=["instructor"]
assert seconds["in one batch"] < seconds["one by one"] / 3

# %% [markdown]
# ## 5 · Splits that do not leak (10 min)
#
# Some stamps show one object twice: the wrench open and closed, the pig and its mirror image. If one of the two is in the training set and the other in the validation set, remembering is enough. The same happens, on a larger scale, where somebody augments *first*, saves each version as a file, and splits then. Do exactly that: four versions of each picture, 876 in all.
#
# The cure is to split *groups*: all that shows one object goes to one side. Deal the groups in random order to the held-out side until it has at least the wanted share of items; the rest is for training. By hand: groups `a a b c c c`, share 0.3 of 6 is 1.8. If the random order is b, a, c, then b brings 1, a brings 3 in all: held out are a and b, half of the items.


# %%
def group_split(groups, share, seed=0):
    """Split items so that no group is on both sides.

    groups: a list of N names (str), one for each item. share: of the items that are to be held
    out, 0 < share < 1. Groups are dealt in random order until at least share · N items are held
    out, and no longer. The same seed gives the same groups, in any order of the items and in any
    process (a set of names has another order in each).
    Returns (rest, held): two lists of int, the items' indices, each ascending.
    """
    # TODO: the names sorted, shuffled by np.random.default_rng(seed), dealt one by one.
    ### BEGIN SOLUTION
    held, items = set(), 0
    for name in np.random.default_rng(seed).permutation(sorted(set(groups))):
        if items >= share * len(groups):
            break
        held.add(name)
        items += groups.count(name)
    split = [], []
    for i, name in enumerate(groups):
        split[name in held].append(i)
    return split
    ### END SOLUTION


lab.check(group_split)

# %% [markdown]
# A network of one hidden layer is trained on both kinds of split. Beside it, a nearest-neighbour classifier gives each held-out picture the class of the most similar training picture, by the sum of squared differences. About 10 s.

# %%
light, moved = 1 - 0.7 * (1 - x), functional.pad(x, (3, 0, 2, 0), value=1.0)[:, :, :32, :32]
versions = torch.stack([x, x.flip(-1), light, moved], 1).flatten(0, 1)  # (876, 3, 32, 32)
labels = y.repeat_interleave(4)
groups = [group for group in stamps.groups for _ in range(4)]
files = [str(i) for i in range(len(groups))]  # each file a group of its own: a split by file


def train_stamps(rest, held, seed, epochs=18):
    """Returns the accuracies of both sides after each epoch, in per cent."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(), nn.Linear(64, 7))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = {"train": [], "val": []}
    for _ in range(epochs):
        for batch in torch.randperm(len(rest)).split(64):
            i = torch.tensor(rest)[batch]
            loss = functional.cross_entropy(model(2 * versions[i] - 1), labels[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            right = (model(2 * versions - 1).argmax(1) == labels).float()
        history["train"].append(100 * right[rest].mean().item())
        history["val"].append(100 * right[held].mean().item())
    return history


nearest, curves, network, examples = {}, {}, {}, {}
for kind, by in (("by file", files), ("by object", groups)):
    nearest[kind], network[kind] = [], []
    for seed in range(3):
        rest, held = group_split(by, 0.2, seed)
        history = train_stamps(rest, held, seed)
        network[kind].append(history["val"][-1])
        distance = torch.cdist(versions[held].flatten(1), versions[rest].flatten(1))
        closest = torch.tensor(rest)[distance.argmin(1)]
        nearest[kind].append(100 * (labels[closest] == labels[held]).float().mean().item())
        if seed == 0:
            curves |= {f"{kind} {name}": values for name, values in history.items()}
            examples[kind] = held, closest
    network[kind], nearest[kind] = np.mean(network[kind]), np.mean(nearest[kind])
    print(f"{kind:9} network {network[kind]:.0f} %, nearest {nearest[kind]:.0f} %")
_ = plot.curves(
    curves,
    ylabel="accuracy (%)",
    title="Split by file, the validation curve rewards what was remembered (seed 0)",
)

# %%
held, closest = examples["by file"]
queries = [k for k in range(len(held)) if held[k] // 4 == closest[k] // 4][::14][:6]
grid = torch.cat([versions[[held[k] for k in queries]], versions[closest[queries]]])
own = np.mean([held[k] // 4 == int(closest[k]) // 4 for k in range(len(held))])
title = f"Split by file: {own:.0%} are nearest to a version of themselves"
_ = plot.images(grid, columns=6, title=title)

# %% tags=["instructor"]
assert nearest["by file"] > nearest["by object"] + 12
assert network["by file"] > network["by object"] + 8

# %% [markdown]
# **Question.** By file the validation accuracy is higher, and no line of the training was changed. Which of the two rows holds for a picture that is sent in tomorrow? And what do you do if nobody wrote down the groups?
#
# <details><summary>Answer</summary>
#
# The one by object: of tomorrow's picture no version is in the training set. Where groups are not known, look for what they would be: the patient, the day, the camera, the author, the source page. Where even that is lost, near duplicates can be found by their content: the difference hash of section 8.
#
# </details>

# %% [markdown]
# ## 6 · Chance in workers (8 min)
#
# With `num_workers=2` a loader starts two processes. On Linux they are made by *fork*: each begins as a copy of this one, with a copy of the data set, and of every generator in it. PyTorch seeds three generators in each worker: its own, Python's `random` and, since version 1.9, NumPy's global one. A generator that *your data set holds* it does not know.

# %%
WORKERS = {"num_workers": 2, "multiprocessing_context": "fork"}  # Windows has no fork: see README
if "fork" not in multiprocessing.get_all_start_methods():
    WORKERS = {"num_workers": 0}


class Draws(Dataset):
    """Draws from NumPy's global generator, from torch's, and from one that the data set holds."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        worker = get_worker_info().id if get_worker_info() else 0
        return worker, np.random.random(), torch.rand(1).item(), self.rng.random()


def draws(worker_init_fn=None, epochs=2):
    """All that two epochs draw: rows of epoch, worker, NumPy's, torch's, own."""
    chance = {"worker_init_fn": worker_init_fn, "generator": torch.Generator().manual_seed(0)}
    loader = DataLoader(Draws(), batch_size=None, **chance, **WORKERS)
    return [[epoch, *map(float, row)] for epoch in range(epochs) for row in loader]


def show(rows):
    print("epoch worker   np.random  torch.rand   self.rng")
    for epoch, worker, *values in rows:
        print(f"{epoch:4} {worker:6.0f}" + "".join(f"{value:12.3f}" for value in values))


print("torch", torch.__version__)
uncured = draws()
show(uncured)

# %% [markdown]
# Read the last column: both workers draw the same numbers, and the second epoch draws them again. (Without fork one process draws, and all differ.) Eight samples, two different numbers. Nothing fails, the augmentation is just much poorer than you think. The fixed seed is not the cause: `default_rng()`, made in `__init__`, is copied just the same.
#
# The cure is a function that each worker runs first. PyTorch has given it a seed of its own, `torch.initial_seed()`: a number that the loader draws anew in each epoch, plus the worker's id.


# %%
def seed_worker(worker_id):
    """Give this worker's copy of the data set a generator of its own (a worker_init_fn).

    worker_id: 0, 1, ... The data set, get_worker_info().dataset, draws from its attribute rng.
    Afterwards rng is a new np.random.Generator whose numbers depend on torch.initial_seed() alone,
    which has the worker's id in it: others for each worker and in each epoch, and the same again
    where the loader's generator has the same seed. Nothing is returned.
    """
    # TODO: one line, or two.
    ### BEGIN SOLUTION
    get_worker_info().dataset.rng = np.random.default_rng(torch.initial_seed())
    ### END SOLUTION


lab.check(seed_worker)

# %%
cured, again = draws(seed_worker), draws(seed_worker)
show(cured)
different = [len({row[4] for row in rows}) for rows in (uncured, cured)]
print(f"different numbers among 8 draws: {different[0]} before, {different[1]} now")
print("the same again in a second run:", cured == again)

# %% [markdown]
# An iterable-style set has the same trouble with its *items*: each worker has a copy of the whole stream.


# %%
class Stream(IterableDataset):
    def __init__(self, shared):
        self.shared = shared

    def __iter__(self):
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if self.shared and info else (0, 1)
        yield from range(first, 6, step)


streams = {}
for shared in (False, True):
    streams[shared] = [*map(int, DataLoader(Stream(shared), batch_size=None, **WORKERS))]
    print("each worker its share:" if shared else "as it stands:         ", streams[shared])

# %% tags=["instructor"]
if WORKERS["num_workers"]:
    assert different == [2, 8] and cured == again
    assert len({row[2] for row in uncured}) == len({row[3] for row in uncured}) == 8
    assert len(streams[False]) == 12
assert sorted(streams[True]) == list(range(6))

# %% [markdown]
# **Question.** Somebody writes `np.random.default_rng(worker_id)` in `seed_worker`. What is cured, and what is not?
#
# <details><summary>Answer</summary>
#
# The workers differ from each other now. But processes are started anew in each epoch, and each epoch draws the same numbers again: a picture has one shift for the whole training. And the seed of the experiment no longer changes anything.
#
# </details>

# %% [markdown]
# ## 7 · Speed (17 min)
#
# Measure first. What does one picture cost, stage by stage?

# %%
network = nn.Sequential(nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 7))
optimizer = torch.optim.AdamW(network.parameters())


def training_step(images, labels):
    optimizer.zero_grad()
    functional.cross_entropy(network(images), labels).backward()
    optimizer.step()


def one_by_one(image):
    """Draws from torch's own generator, which each worker has its own seed for."""
    return random_shift_crop(image[None], 4, torch.default_generator, fill=1.0)[0]


raw = FolderDataset(folder)
decoded = [image for image, _ in raw]
training_step(x[:32], y[:32])  # the first one is slower than the others
stages = {
    "read the file": lambda i: raw.paths[i].read_bytes(),
    "read, decode, on white": lambda i: raw[i],
    "fit to 32 x 32": lambda i: fit(decoded[i]),
    "shift, one by one": lambda i: one_by_one(x[i]),
    "train (in batches of 32)": lambda i: i % 32 or training_step(x[i : i + 32], y[i : i + 32]),
}
cost = {}
for name, stage in stages.items():
    start = time.perf_counter()
    for i in range(len(raw)):
        stage(i)
    cost[name] = 1000 * (time.perf_counter() - start) / len(raw)
    print(f"{name:25} {cost[name]:6.3f} ms a picture")
_, *loading, s = cost.values()
d = sum(loading)  # the second line has the first in it
print(f"loading d = {d:.2f}, step s = {s:.2f}: (d + s) / max(d, s) = {(d + s) / max(d, s):.2f}")

# %% [markdown]
# Decoding takes most. Three ways out: do it once and keep the tensors; let other processes do it; or let a *thread* prepare the next batches while this one is trained on. A thread is enough because PIL and PyTorch let go of Python's lock while they compute.
#
# A thread runs a function beside this program, on the same variables: `t = threading.Thread(target=fill)` (no parentheses after `fill`), `t.start()`, and `t.join()` waits for its end. A `queue.Queue(n)` has room for `n`: `q.put(item, timeout=0.1)` raises `queue.Full` if no room came in time, `q.get()` waits for an item. A `threading.Event()` is a flag that both sides see, here the stop sign: `stop.set()`, `stop.is_set()`.
#
# A prefetcher is thirty lines, and hard to get right. Its thread walks through the batches and puts them into a queue; the consumer takes them out. Four things must not go wrong:
#
# 1. `put` waits where the queue is full. If the consumer has gone (a `break`), it waits for ever: put with a short `timeout`, and put the *same* item again as long as there is no stop sign. That holds for each put, of the end and of an exception too. And a stop ends the walk through the batches.
# 2. An exception in the thread kills the thread, not the program: the consumer waits for ever. Catch it, send it through the queue, raise it there.
# 3. The end needs a sign that no batch can be. A batch may be `None`, an exception, a NumPy array (for which `==` gives an array). So put *pairs*: what kind, and what.
# 4. A generator that is left early runs its `finally`: the place to set the stop sign, and to wait for the thread with `join()`.


# %%
class Prefetcher:
    """Iterates over batches with one thread that prepares the next ones."""

    def __init__(self, batches, ahead=2):
        """batches: anything that a for loop takes. ahead: how many may wait, at least 1.
        Nothing is taken from batches yet.
        """
        # TODO
        ### BEGIN SOLUTION
        self.batches, self.ahead = batches, ahead
        ### END SOLUTION

    def __iter__(self):
        """The items of batches, each once, in order, whatever they are, and however long one side
        lets the other wait. Each iteration begins anew with a queue and a thread of its own; two
        at once do not disturb each other, also where one is closed.

        At most `ahead` items wait, and one more is in the thread's hand. What batches raises, also
        at its very beginning, is raised here, after the items before it. The thread ends with the
        items, after an exception, and when this generator is closed early, which waits for it.
        """
        # TODO: ready, a queue with room for self.ahead, and stop, an Event of this iteration
        # TODO: put(kind, what), which tries until it is in or stop is set
        # TODO: fill() for the thread: all items, then the end; or what was raised; not after a stop
        # TODO: start the thread; try: get, and yield, raise or return; finally: stop and join
        ### BEGIN SOLUTION
        ready, stop = queue.Queue(self.ahead), threading.Event()

        def put(kind, what):
            while not stop.is_set():
                try:
                    return ready.put((kind, what), timeout=0.05)
                except queue.Full:
                    continue

        def fill():
            try:
                for item in self.batches:
                    put("item", item)
                    if stop.is_set():
                        return
                put("end", None)
            except BaseException as error:
                put("error", error)

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        try:
            while True:
                kind, what = ready.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise what
                yield what
        finally:
            stop.set()
            thread.join()
        ### END SOLUTION


lab.check(Prefetcher)

# %% [markdown]
# Now all pipelines on this machine, with a training step for each batch of 32. *Persistent* workers stay between epochs (and run a `worker_init_fn` once, in the first), so the first of three is not counted. About 15 s.


# %%
def in_memory():
    for batch in torch.randperm(len(x)).split(32):
        yield random_shift_crop(x[batch], 4, chance, fill=1.0), y[batch]


class InMemory(FolderDataset):
    def __getitem__(self, i):
        return one_by_one(x[i]), self.labels[i]


files = FolderDataset(folder, transform=lambda image: one_by_one(fit(image)))
usual = {"batch_size": 32, "shuffle": True}
stay = {"persistent_workers": WORKERS["num_workers"] > 0}
pipelines = {
    "tensor, batched augmentation": in_memory,
    "tensor, sample by sample": DataLoader(InMemory(folder), **usual),
    "files": DataLoader(files, **usual),
    "files, Prefetcher": Prefetcher(DataLoader(files, **usual)),
    "files, 2 workers": DataLoader(files, **usual, **WORKERS),
    "files, 2 persistent workers": DataLoader(files, **usual, **WORKERS, **stay),
}
speed = {}
for name, pipeline in pipelines.items():
    rates = []
    for _ in range(3):
        start, count = time.perf_counter(), 0
        for images, answers in pipeline() if callable(pipeline) else pipeline:
            training_step(images, answers)
            count += len(images)
        rates.append(count / (time.perf_counter() - start))
    speed[name] = max(rates[1:])
    print(f"{name:30} {speed[name]:9,.0f} images/s")
del pipelines, pipeline  # ends the persistent workers

fig, ax = plt.subplots(figsize=(8.6, 3.2), layout="constrained")
bars = ax.barh(list(speed), list(speed.values()), color=plot.COLOURS[0])
ax.bar_label(bars, [f" {value:,.0f}" for value in speed.values()])
ax.set(xscale="log", xlabel="images/s, training step included (log scale)", xmargin=0.15)
ax.invert_yaxis()
times = speed["tensor, batched augmentation"] / speed["files"]
title = f"What fits into memory as a tensor is {times:.0f} times as fast as files"
_ = ax.set_title(title, loc="left", size=10, weight="bold")

# %% tags=["instructor"]
assert times > 4
assert speed["tensor, batched augmentation"] > speed["tensor, sample by sample"]

# %% [markdown]
# **Question.** What can the prefetcher gain here at best? And why do two workers not decode twice as fast?
#
# <details><summary>Answer</summary>
#
# A thread turns $d + s$, loading and step, into $\max(d, s)$: the factor printed above. Here a step is short beside loading, so there is little to hide; the most, 2, is gained where $d = s$. And it needs a core that is free: where other programs hold it, nothing is gained. Workers also share $d$. But starting them costs time in each epoch; each batch travels between processes; and the training wants a core too. They pay where epochs are long, pictures large and cores to spare.
#
# </details>

# %% [markdown]
# ## 8 · From notebook to program (6 min)
#
# [pack_folder.py](pack_folder.py) reports broken files and near duplicates in a folder, and packs it into one array. Duplicates are found by a *difference hash*: for 8 × 9 grey values, whether the right neighbour is brighter, 64 bits. Finding hashes that differ in few bits is yours to write: `near_duplicates`. The rest you need not read.
#
# Fill in the script's TODO, and in a terminal, in its folder (from the course's: `cd workshops/frameworks/pytorch/datasets-and-dataloaders`):
#
#     atlas check near_duplicates
#     python pack_folder.py
#
# The stamps have nothing broken; with `--folder` it takes a folder of yours.
#
# **What you built**: all between a folder and a batch. How a training on it can be trusted, stopped and resumed is next: **training-loops**.

# %% tags=["instructor"]
shutil.rmtree(folder.parent)
