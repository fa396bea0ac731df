"""The checks of transfer-learning: one for each exercise, with its hints. `lab.check` runs them.

Preprocessing is held to PIL and the formula, the probe to scikit-learn, Grad-CAM to autograd on the network cut in two
at the layer; splits, frozen models and caches to what they promise, picture by picture, module by module.
"""

import functools
import itertools
import math
import os
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import chisquare

from atlas.checking import Complaint, Tape, exercise, expect, governed, parts, tensor


def _draw(rng, *shape):
    import torch

    return torch.tensor(rng.normal(size=shape))


# ------------------------------------------------------------------------------------------------ preprocess


def _scaled(image, size, side=min, method="BICUBIC", whole=round):
    from PIL import Image

    H, W, _ = image.shape
    sides = whole(W * size / side(H, W)), whole(H * size / side(H, W))
    return Image.fromarray(image).resize(sides, getattr(Image.Resampling, method))


def _cut_first(image, size):
    from PIL import Image

    return Image.fromarray(_cut(Image.fromarray(image), min(image.shape[:2]))).resize((size, size), Image.BICUBIC)


def _fitted_in(image, size):
    from PIL import Image, ImageOps

    return ImageOps.fit(Image.fromarray(image), (size, size), Image.Resampling.BICUBIC)


def _squeezed(image, size):
    from PIL import Image

    return Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)


def _turned_sides(image, size):
    from PIL import Image

    H, W, _ = image.shape
    scale = size / min(H, W)
    return Image.fromarray(image).resize((round(H * scale), round(W * scale)), Image.Resampling.BICUBIC)


def _not_scaled(image, size):
    from PIL import Image

    return Image.fromarray(image)


def _cut(picture, size, place=lambda room: room // 2):
    left, top = place(picture.width - size), place(picture.height - size)
    return np.asarray(picture)[top : top + size, left : left + size]


def _float32(values):
    import torch

    return torch.tensor(np.asarray(values), dtype=torch.float32)


@parts
def _preprocess(
    image,
    size,
    *,
    scaled=_scaled,
    cut=_cut,
    numbers=lambda pixels: (_float32(pixels) - 127) / 128,
    order=lambda x: x.permute(2, 0, 1),
):
    return order(numbers(cut(scaled(image, size), size)))


def _standardised(pixels):
    return (_float32(pixels) / 255 - _float32([0.485, 0.456, 0.406])) / _float32([0.229, 0.224, 0.225])


_FORMULA = "It takes (x - 127) / 128 here: the numbers of the network that the weights come from."


@exercise(
    hints=[
        "H, W, _ = image.shape; scale = size / min(H, W). PIL wants resize((width, height), Image.BICUBIC), rounded.",
        "The middle: left = (width - size) // 2, and top likewise. np.asarray(picture)[top:top + size, left:left + size].",
        "torch.tensor(square, dtype=torch.float32).permute(2, 0, 1), then subtract 127 and divide by 128.",
    ],
    mistakes=_preprocess.mistakes(
        numbers={
            "It subtracts in uint8, where 100 - 127 is 229: make float32 of it before you subtract.": (
                lambda pixels: _float32(pixels - np.uint8(127)) / 128
            ),
            f"The numbers are scaled to 0...1. {_FORMULA}": lambda pixels: _float32(pixels) / 255,
            f"These are the mean and spread of other networks. {_FORMULA}": _standardised,
            f"The numbers stay 0...255. {_FORMULA}": _float32,
            f"(x - 127.5) / 127.5 is nearly it. {_FORMULA}": lambda pixels: (_float32(pixels) - 127.5) / 127.5,
            f"(x - 128) / 128 is nearly it. {_FORMULA}": lambda pixels: (_float32(pixels) - 128) / 128,
            f"(x - 127) / 127 is nearly it. {_FORMULA}": lambda pixels: (_float32(pixels) - 127) / 127,
            f"(x - 128) / 127 is nearly it. {_FORMULA}": lambda pixels: (_float32(pixels) - 128) / 127,
            "It divides before it subtracts: (x - 127) / 128 needs the brackets.": lambda p: _float32(p) - 127 / 128,
            "It scales to 0...1 and then takes (x - 127) / 128 of that: x is 0 to 255.": (
                lambda pixels: (_float32(pixels) / 255 - 127) / 128
            ),
            "The result is to have 32-bit floats, as the network's weights have: dtype=torch.float32.": (
                lambda pixels: (_float32(pixels).double() - 127) / 128
            ),
        },
        order={
            "The channels are last; a network of torch wants them first: permute(2, 0, 1).": lambda x: x,
            "Rows and columns are swapped: permute(2, 0, 1) keeps rows before columns.": lambda x: x.permute(2, 1, 0),
            "reshape mixes rows, columns and colours; permute(2, 0, 1) moves an axis.": (
                lambda x: x.reshape(x.shape[2], *x.shape[:2])
            ),
            "The colours are in the order blue, green, red; the network wants red first.": (
                lambda x: x.permute(2, 0, 1).flip(0)
            ),
            "A batch axis too many: it is one picture, (3, size, size).": lambda x: x.permute(2, 0, 1)[None],
        },
        scaled={
            "The proportions are lost: both sides are made `size`. Scale by one factor, then cut.": _squeezed,
            "PIL's resize takes (width, height), and image.shape begins with the height.": _turned_sides,
            "It is cut without being scaled: first the shorter side becomes `size`.": _not_scaled,
            "It is scaled by nearest; bicubic is asked for.": functools.partial(_scaled, method="NEAREST"),
            "It is scaled bilinearly; bicubic is asked for.": functools.partial(_scaled, method="BILINEAR"),
            "It is scaled by Lanczos; bicubic is asked for.": functools.partial(_scaled, method="LANCZOS"),
            "The longer side is rounded down; int() cuts, round() goes to the nearest.": (
                functools.partial(_scaled, whole=int)
            ),
            "The longer side is rounded up; round() goes to the nearest.": functools.partial(_scaled, whole=math.ceil),
            "It is cut first and scaled then; the order is the other: bicubic looks beyond the edge of the cut.": (
                _cut_first
            ),
            "ImageOps.fit cuts first, and between pixels; scale, then cut.": _fitted_in,
            "The longer side becomes `size`; it is the shorter one.": functools.partial(_scaled, side=max),
        },
        cut={
            "The square is cut at the upper left; the middle is wanted: (width - size) // 2.": (
                functools.partial(_cut, place=lambda room: 0)
            ),
            "The square is cut at the lower right; the middle is wanted: (width - size) // 2.": (
                functools.partial(_cut, place=lambda room: room)
            ),
        },
    ),
)
def preprocess(learner, rng):
    import torch

    noise = rng.integers(0, 256, (24, 24, 3), np.uint8)
    noise[0, 0] = 0, 127, 255
    given = learner(noise, 24)
    tensor(given, "the picture")
    why, source = "a square picture of the right size: the formula alone", "(x - 127) / 128 by NumPy"
    exact = (noise.transpose(2, 0, 1).astype(float) - 127) / 128
    expect.close(given, exact, why=why, source=source, dtype=torch.float32)
    for H, W, size in ((60, 90, 40), (90, 60, 40), (100, 100, 29), (100, 163, 29), (31, 20, 33)):
        rows, columns = np.mgrid[0:H, 0:W]
        waves = 120 + 100 * np.sin(rows / H * 3)[..., None] * np.cos(columns[..., None] / W * np.array([1.0, 2.5, 4.0]))
        image = waves.round().astype(np.uint8)  # smooth, so that it does not matter whether one cuts first
        wanted, why = _preprocess(image, size), f"{W} × {H} pixels (width × height) to size {size}"
        given = learner(image, size)
        expect.close(given, wanted, why=why, source="PIL, then the middle square", atol=0.05, rtol=0)
        expect.dtype(given, torch.float32, why)
    # longer sides of 27.66, 62.4, 41.6, 62.3 and 47.1, cut by an even number of pixels, so that there is one middle
    sizes = (35, 44, 22), (40, 96, 26), (65, 50, 32), (86, 69, 50), (21, 30, 33)
    for H, W, size in ((50, 50, 21), (50, 50, 67), *sizes):
        image = rng.integers(0, 256, (H, W, 3), np.uint8)
        why = f"noise of {W} × {H} pixels (width × height) to size {size}, bicubic"
        source = "PIL, then the middle square"
        expect.close(learner(image, size), _preprocess(image, size), why=why, source=source, atol=0.02, rtol=0)


# ------------------------------------------------------------------------------------------------ few_shot_split


_THINGS = "z", "zz", "y", "yx", "w", "v", "vv"


def _pictures(rng, classes=(5, 2, 9), things=(6, 5, 7)):
    """Labels and groups in mixed order; a third of the groups has two or three pictures. Some names begin alike."""
    labels, groups = [], []
    for c, n in zip(classes, things, strict=True):
        for thing in range(n):
            several = int(1 + (thing % 3 == 0) * rng.integers(1, 3))
            labels += [c] * several
            groups += [f"{c}/{_THINGS[thing]}"] * several
    order = rng.permutation(len(labels))
    return np.array(labels)[order], [groups[n] for n in order]


def _why_split(train, test, labels, groups, per_class):
    """What a split does wrong, the most telling first; "" where nothing."""
    names, mine = np.array(groups), np.array(groups)[train]
    if len(set(train.tolist())) < len(train):
        return (
            "A picture's number is in train twice: a draw with replacement (replace=False), or numbers within a class?"
        )
    if set(train.tolist()) & set(test.tolist()):
        return "A picture is in train and in test."
    if set(names[test]) & set(mine):
        return "It leaks: a picture in test belongs to a group of train. Leave out all pictures of the drawn groups."
    if len(train) > len(test) and _why_split(test, train, labels, groups, per_class) == "":
        return "Train and test are swapped: return train, test."
    if len(set(mine)) < len(mine):
        return "Two pictures of one group are in train: draw groups, each once, not pictures."
    counts = {int(c): int((labels[train] == c).sum()) for c in np.unique(labels)}
    if set(counts.values()) != {per_class}:
        return f"Training pictures of each class should be {per_class}; there are {counts}. Draw class by class."
    if any(np.flatnonzero(names == names[n])[0] != n for n in train):
        return "Of each drawn group it is the picture with the lowest number."
    left_out = set(names) - set(mine) - set(names[test])
    if left_out and all(any(drawn in name for drawn in mine) for name in left_out):
        return f"Missing in test: {', '.join(sorted(left_out))}. A drawn name is part of that text, and another name."
    if left_out or len(test) < (~np.isin(names, mine)).sum():
        return "Pictures are missing in test: all pictures of the groups that were not drawn, several of one group too."
    return ""


@exercise(
    hints=[
        "np.unique(groups[labels == c]) are the different groups of a class; rng.choice draws among them.",
        "np.flatnonzero(groups == g)[0] is a group's first picture; test is what ~np.isin(groups, drawn) leaves.",
        "for c in np.unique(labels): own = np.unique(groups[labels == c]); if len(own) <= per_class: raise ValueError; "
        "drawn += list(rng.choice(own, per_class, replace=False))",
    ],
    seconds=30,
)
def few_shot_split(learner, rng):
    def draw(labels, groups, per_class, seed):
        try:
            given = learner(labels, groups, per_class, np.random.default_rng(seed))
        except ValueError as error:
            likely = (
                "Classes need not be 0, 1, 2, ...: np.unique(labels). Or is the comparison with per_class too strict?"
            )
            details = [f"yours    ValueError: {error}", f"classes {np.unique(labels)}, groups enough in each"]
            raise Complaint(f"a split with {per_class} of each class", details, likely, "refused") from None
        train, test = expect.parts(given, ("train", "test"), "two results")
        for name, numbers in (("train", train), ("test", test)):
            expect.dtype(
                numbers, int, f"{name} holds numbers of pictures", likely="Positions, not names or True/False."
            )
            expect.equal(np.ndim(numbers), 1, why=f"{name} has one axis", source="(n,)")
            expect.kind(
                numbers, np.ndarray, f"{name} is an array", likely="np.array(...) of it: labels[train] is asked."
            )
        return train, test

    for per_class in (3, 1, 4):
        labels, groups = _pictures(rng)
        train, test = draw(labels, groups, per_class, per_class)
        why = _why_split(train, test, labels, groups, per_class)
        shown = f"train    {[(groups[n]) for n in train][:9]}", f"test     {[(groups[n]) for n in test][:9]}"
        rule = f"{per_class} of each class to train on, all other groups to test on"
        expect.true(not why, rule, *shown, likely=why)
    labels, groups = np.array([0, 0, 0, 1, 1]), ["a", "b", "b", "c", "d"]
    for seed in range(8):
        train, test = draw(labels, groups, 1, seed)
        why = _why_split(train, test, labels, groups, 1)
        expect.true(not why, "the example above, another draw", f"train {train}, test {test}", likely=why)
    labels, groups = _pictures(rng)
    for per_class in (5, 6):
        why = f"ValueError where a class has 5 groups and {per_class} are drawn"
        equal = "Where nothing would be left to test, it raises too: where per_class is the number of groups, not of pictures."

        def likely(given, kind, equal=equal if per_class == 5 else ""):
            return f"Raise {kind.__name__}: raise ValueError(...)." if isinstance(given, Exception) else equal

        generator = np.random.default_rng(0)
        expect.raises(ValueError, lambda n=per_class, g=generator: learner(labels, groups, n, g), why, likely=likely)
    governed(lambda g: learner(labels, groups, 2, g), why="the generator decides")
    times, counts, pairs = 500, dict.fromkeys(sorted(set(groups)), 0), {}
    for seed in range(times):
        drawn = sorted(groups[n] for n in learner(labels, groups, 2, np.random.default_rng(seed))[0])
        for pair in zip(drawn[::2], drawn[1::2], strict=True):
            pairs[pair] = pairs.get(pair, 0) + 1
        for name in drawn:
            counts[name] += 1
    for c in np.unique(labels):
        own = {g: n for g, n in counts.items() if g.startswith(f"{c}/")}
        good = chisquare(list(own.values())).pvalue > 1e-7
        sizes = {g: groups.count(g) for g in own}
        never = [g for g, n in own.items() if not n]
        often = not never and np.mean([own[g] for g in own if sizes[g] > 1]) > 1.1 * np.mean(
            [own[g] for g in own if sizes[g] == 1]
        )
        likely = "Groups with several pictures are drawn more often: draw among the different groups (np.unique)."
        shown = f"drawn in {times} splits: {own}", f"pictures in the group: {sizes}"
        likely = (
            f"Never drawn: {', '.join(never)}. Draw from all groups of the class." if never else likely * bool(often)
        )
        expect.true(good, "all groups of a class are equally likely", *shown, likely=likely)
        together = {pair: pairs.get(pair, 0) for pair in itertools.combinations(own, 2)}
        likely = "Some are drawn together more often than others, such as neighbours: rng.choice(..., replace=False)."
        rule = "all pairs of groups of a class are equally likely"
        expect.true(chisquare(list(together.values())).pvalue > 1e-7, rule, f"drawn: {together}", likely=likely)


# ------------------------------------------------------------------------------------------------ extract_features


def _noting_model(rng, tape, D):
    """Batch norm with telling statistics and dropout deep in it, so that modes show."""
    from torch import nn

    inner = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(0.5))
    model = nn.Sequential(nn.Sequential(tape.layer(), nn.Flatten(), inner), nn.Linear(12, D)).double()
    inner[0].running_mean.copy_(_draw(rng, 12))
    inner[0].running_var.copy_(_draw(rng, 12).abs() + 0.5)
    return model


@exercise(
    hints=[
        "Dropout and batch norm have two modes. In which does a picture's result not depend on its neighbours?",
        "model.eval(), with torch.no_grad():, and pictures.split(batch_size) gives the batches, the last one shorter.",
        "model.eval()\nwith torch.no_grad():\n    return torch.cat([model(batch) for batch in pictures.split(batch_size)])",
    ],
    seconds=20,
    changes=("mode",),
)
def extract_features(learner, rng):
    for N, batch_size, training, D in (
        (6, 3, True, 4),  # no batch of one: with it batch norm in training mode stops with an error of its own
        (7, 3, False, 5),
        (2, 5, True, 3),
        (1, 1, True, 2),
        (9, 1, True, 4),
    ):
        tape = Tape()
        model, x = _noting_model(rng, tape, D), _draw(rng, N, 3, 2, 2)
        model.train(training)
        frozen = [p.clone() for p in model.parameters()]
        given = learner(model, x, batch_size)
        said = f"{N} picture{'s' * (N > 1)}, batches of {batch_size}, the model in {'training' if training else 'evaluation'} mode"
        tensor(given, said)
        passes = [p for p in tape.passes]
        sizes = [len(p.x) for p in passes]
        expect.true(passes, f"the model is called, {said}")
        likely = "model.eval() before the first batch: dropout and batch norm are on else."
        expect.true(not any(p.training for p in passes), f"in evaluation mode, {said}", likely=likely)
        likely = f"Batches of {sizes} went through: pictures.split(batch_size)."
        expect.true(max(sizes) <= batch_size, f"never more than {batch_size} at once, {said}", likely=likely)
        likely = (
            "Pictures are lost: the last batch may be shorter."
            if sum(sizes) < N
            else "Some go through more than once: one pass to learn D, or batches that overlap?"
        )
        expect.equal(sum(sizes), N, why=f"each picture goes through once, {said}", source="N", likely=likely)
        likely = "with torch.no_grad(): around the calls; a graph keeps all maps in memory."
        expect.true(not any(p.recording for p in passes), f"no graph is recorded, {said}", likely=likely)
        model.eval()
        expected = _rows(model, x, D)
        expect.close(given, expected, why=f"features of each picture, {said}", source="picture by picture", dtype=x)
        expect.true(not given.requires_grad, f"features carry no gradient, {said}", likely="with torch.no_grad():")
        expect.true(all((a == b).all() for a, b in zip(frozen, model.parameters(), strict=True)), "no weight changes")
    tape = Tape()
    model, x = _noting_model(rng, tape, 3), _draw(rng, 71, 3, 2, 2)
    model.train()
    given = learner(model, x)
    most = max(len(p.x) for p in tape.passes)
    expect.true(most <= 32, "batch_size is 32 unless given", f"yours    {most} at once")
    likely = "model.eval() on the model itself, not on a copy; and it stays so: no model.train() at the end."
    expect.true(
        not any(m.training for m in model.modules()), "the model is in evaluation mode afterwards", likely=likely
    )
    expect.close(given, _rows(model, x, 3), why="71 pictures, in their order", source="picture by picture")
    given = learner(model.float(), x.float(), 30)
    expect.dtype(given, x.float(), "32-bit floats stay so")


def _rows(model, x, D):
    import torch

    model.eval()
    with torch.no_grad():
        return torch.cat([model[1](model[0][2](one.flatten()[None])) for one in x]).reshape(len(x), D)


# ------------------------------------------------------------------------------------------------ linear_probe


def _fitted(X, y, C):
    key = X.tobytes(), X.shape, y.tobytes(), C  # the known mistakes share most of their fits
    if key not in _FITS:
        from sklearn.linear_model import LogisticRegression

        _FITS[key] = LogisticRegression(C=C, max_iter=5000).fit(X, y)
    return _FITS[key]


_FITS: dict = {}


@parts
def _probe(
    X,
    y,
    folds,
    Cs,
    *,
    fit=lambda train, val: train,
    judge=lambda train, val: val,
    data=lambda X: X,
    mean=np.mean,
    choose=np.argmax,
    last=lambda X, folds: np.arange(len(X)),
    use=lambda C: C,
    told=lambda scores: scores,
    weigh=lambda folds: None,
):
    X = data(X)

    def score(C, train, val):
        rows, asked = fit(train, val), judge(train, val)
        return _fitted(X[rows], y[rows], C).score(X[asked], y[asked])

    each = np.array([[score(C, *fold) for fold in folds] for C in Cs])
    weights = weigh(folds)
    scores = np.array([mean(row) if weights is None else np.average(row, weights=weights) for row in each])
    rows = last(X, folds)
    return _fitted(X[rows], y[rows], use(Cs[int(choose(scores))])), told(scores)


def _of_val_parts(X, folds):
    return np.unique(np.concatenate([val for _, val in folds]))


def _tie_to_last(scores):
    return len(scores) - 1 - np.argmax(scores[::-1])


def _normalised(X):
    return (X - X.mean(0)) / X.std(0)


@exercise(
    hints=[
        "A loop over Cs, in it one over the folds: fit on X[train], y[train], .score(X[val], y[val]).",
        "np.mean over the folds for each C makes scores; scores.argmax() is the first of the best, Cs is rising.",
        "scores = np.array([np.mean([LogisticRegression(C=C, max_iter=5000).fit(X[t], y[t]).score(X[v], y[v]) "
        "for t, v in folds]) for C in Cs]); then fit on all of X with C=Cs[scores.argmax()].",
    ],
    mistakes=_probe.mistakes(
        judge={
            "It scores the rows it was fitted to: the score of a fold is that of its val rows.": lambda train, val: (
                train
            ),
            "It scores all rows, those of the fit among them: only the fold's val rows.": (
                lambda train, val: np.r_[train, val]
            ),
        },
        fit={
            "The fit has seen the fold's val rows: fit on its train rows only.": lambda train, val: np.r_[train, val],
            "It fits the val rows and scores them: fit on train, score on val.": lambda train, val: val,
        },
        together={
            "train and val are swapped: a fold is (train, val).": {
                "fit": lambda train, val: val,
                "judge": lambda train, val: train,
            },
        },
        weigh={
            "Right answers of all folds are pooled, so that larger folds count more; each fold counts the same.": (
                lambda folds: [len(val) for _, val in folds]
            ),
        },
        mean={
            "The best fold decides; it is the mean over the folds.": np.max,
            "The worst fold decides; it is the mean over the folds.": np.min,
            "The scores of the folds are added up; it is their mean.": np.sum,
            "It takes the median of the folds; it is their mean.": np.median,
            "Only the last fold counts: the mean over all folds.": lambda row: row[-1],
            "Only the first fold counts: the mean over all folds.": lambda row: row[0],
        },
        choose={
            "At a tie it takes the largest C; the smallest is asked for (argmax gives the first).": _tie_to_last,
            "It takes the largest C, whatever the scores.": lambda scores: len(scores) - 1,
            "It takes the first C, whatever the scores.": lambda scores: 0,
            "The scores are rounded before the best is taken: a tie where there is none.": (
                lambda scores: np.argmax(scores.round(2))
            ),
            "Where all scores are 0 it keeps what it began with; begin below 0, or take argmax.": (
                lambda scores: np.argmax(scores) if scores.any() else len(scores) - 1
            ),
        },
        last={
            "The probe is fitted to the rows of the folds' val parts; it gets all rows of X.": _of_val_parts,
            "The probe is fitted to the last fold's train rows; it gets all rows.": lambda X, folds: folds[-1][0],
            "The probe is fitted to the first fold's train rows; it gets all rows.": lambda X, folds: folds[0][0],
        },
        use={
            "The probe is fitted with scikit-learn's own C = 1, not with the chosen one.": lambda C: 1.0,
            "The probe is fitted with 1/C; C itself is the weight of the data.": lambda C: 1 / C,
        },
        data={"X is standardised; every fit is on X as it is.": _normalised},
        told={
            "scores is the best score only; one for each C is asked for.": np.max,
            "These are errors; scores are accuracies.": lambda scores: 1 - scores,
            "scores is sorted; it has the order of Cs.": np.sort,
        },
    ),
    seconds=60,
)
def linear_probe(learner, rng):
    for case in ((31, 4, 3, (1e-3, 0.03, 0.9, 9.0)), (27, 5, 2, (0.02, 0.5))):
        N, D, K, Cs = case
        *rows, right = _rows_of_classes(int(rng.choice(_SEEDS)), *case)
        _compare(learner, *rows, Cs, f"{N} rows, {D} features, {K} classes, Cs {Cs}", right)
    y = np.arange(24) % 2
    X = np.c_[np.where(y, 2.0, -2.0), rng.normal(size=24) / 9]
    folds = [(np.arange(12, 24), np.arange(12)), (np.arange(12), np.arange(12, 24))]
    _compare(learner, X, y, folds, (0.1, 1.0, 10.0), "all scores are 1: the smallest C")
    late, fold = np.where(np.arange(24) < 20, y, 5), (np.arange(20), np.arange(20, 24))
    why = "all scores are 0, for no fit has seen the class in val: the smallest C"
    _compare(learner, X, late, [fold], (0.1, 1.0, 10.0), why)
    X, y, folds = _near_tie()
    why = "two scores that differ by one row of 400"
    _compare(learner, X, y, folds, (0.03, 0.3), why)
    y = np.arange(24) % 2
    X = np.c_[np.where(y, 2.0, -2.0), np.zeros(24)]
    folds = [(np.arange(12, 24), np.arange(12))]
    names = np.array(["tea", "rice"])[y]
    why = "labels may be names"
    expect.equal(list(learner(X, names, folds, [1.0])[0].predict(X[:2])), list(names[:2]), why=why, source="y")


def _near_tie():
    rng = np.random.default_rng(8)
    y = np.arange(440) % 2
    X = rng.normal(size=(440, 3)) + y[:, None] * [1.5, 0.5, 0]
    return X, y, [(np.arange(40), np.arange(40, 440))]


_SEEDS = (8, 22, 29, 43, 45, 59)
"""With these the best of four Cs is neither the first nor the last, and the one before it is within its spread over the
folds."""


@functools.lru_cache(maxsize=32)  # the known mistakes are tried on the same rows
def _rows_of_classes(seed, N, D, K, Cs):
    """Features, labels, folds of unequal sizes, and what scikit-learn makes of them."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(N) % K)
    X = rng.normal(size=(N, D)) * rng.uniform(0.3, 3, size=D) + 1.5 + 0.9 * np.eye(K, D)[y]
    order = rng.permutation(N)[2 * (N < 30) :]  # in the second case two rows are in no fold
    folds = [(np.setdiff1d(order, val), val) for val in np.split(order, [N // 5, N // 2])]
    return X, y, folds, _theirs(X, y, folds, Cs)


def _theirs(X, y, folds, Cs):
    """What scikit-learn makes of it: scores, weights of the probe, its C."""
    probe, scores = _probe(X, y, folds, Cs)
    return scores, probe.coef_, probe.C


def _compare(learner, X, y, folds, Cs, said, right=None):
    from sklearn.linear_model import LogisticRegression

    wanted, coef, best = right or _theirs(X, y, folds, Cs)
    given = learner(X.copy(), y.copy(), [(a.copy(), b.copy()) for a, b in folds], Cs)
    probe, scores = expect.parts(given, ("probe", "scores"), "two results")
    likely = "Every fit is a LogisticRegression on X as it is, with no other class around it or in its place."
    if np.ndim(probe) or np.isscalar(probe):
        likely = "Return probe, scores, in this order."
    expect.kind(probe, LogisticRegression, "the first result is the fitted probe", likely=likely)
    likely = "Every fit is LogisticRegression(C=C, max_iter=5000): with fewer steps it may end too early."
    expect.equal(probe.max_iter, 5000, why="max_iter of the probe", source="the exercise", likely=likely)
    if not hasattr(probe, "coef_"):
        raise Complaint(
            "the probe is fitted", ["yours    a LogisticRegression that was not fitted"], "Call .fit(X, y)."
        )
    expect.true(
        np.ndim(scores) == 0 or isinstance(scores, np.ndarray), "scores is an array", likely="np.array(...) of it."
    )
    likely = ""
    if np.shape(scores) == (len(folds),) != (len(Cs),):
        likely = "There is an entry for each fold; wanted is one for each C: the mean is over the folds."
    elif np.shape(scores) != (len(Cs),):
        likely = f"One entry for each of the {len(Cs)} values of Cs, the argument, is asked for."
    expect.close(
        scores, wanted, why=f"the mean accuracy for each C, {said}", source="scikit-learn, fold by fold", likely=likely
    )
    expect.close(probe.C, best, why=f"the C of the best score, {said}", source="scikit-learn")
    why = f"the probe, fitted to all rows: {said}"
    expect.close(probe.coef_, coef, why=why, source="scikit-learn", rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------------------------------ freeze


def _norms():
    from torch import nn

    return nn.modules.batchnorm._BatchNorm


def _wake(model):
    model.train().requires_grad_(True)


def _sleep(model, upto):
    for stage in model.features[:upto]:
        stage.eval().requires_grad_(False)


def _still(model, upto):
    for module in model.modules():
        if isinstance(module, _norms()):
            module.eval()


def _only(kinds):
    def still(model, upto):
        from torch import nn

        for module in model.modules():
            if isinstance(module, tuple(getattr(nn, kind) for kind in kinds)):
                module.eval()

    return still


def _norms_of(part):
    def still(model, upto):
        for stage in part(model, upto):
            for module in stage.modules():
                if isinstance(module, _norms()):
                    module.eval()

    return still


def _norms_frozen(model, upto):
    for module in model.modules():
        if isinstance(module, _norms()):
            module.eval().requires_grad_(False)


def _direct_norms(model, upto):
    for stage in model.features:
        for module in stage.children():
            if isinstance(module, _norms()):
                module.eval()


@parts
def _freeze(model, upto, *, wake=_wake, sleep=_sleep, still=_still):
    wake(model)
    sleep(model, upto)
    still(model, upto)


def _mode_only(model, upto):
    for stage in model.features[:upto]:
        stage.eval()


def _gradient_only(model, upto):
    for stage in model.features[:upto]:
        stage.requires_grad_(False)


def _sleep_one_more(model, upto):
    _sleep(model, upto + 1)


def _sleep_one_less(model, upto):
    _sleep(model, max(0, upto - 1))


def _sleep_the_last(model, upto):
    for stage in model.features[len(model.features) - upto :]:
        stage.eval().requires_grad_(False)


def _sleep_the_others(model, upto):
    for stage in model.features[upto:]:
        stage.eval().requires_grad_(False)


def _all_asleep(model, upto):
    model.eval()


def _sleep_weights(model, upto):
    for stage in model.features[:upto]:
        stage.eval()
        for name, p in stage.named_parameters():
            if name.endswith("weight"):
                p.requires_grad = False


def _sleep_by_prefix(model, upto):
    frozen = tuple(f"features.{k}" for k in range(upto))
    for name, module in model.named_modules():
        if frozen and name.startswith(frozen):
            module.eval().requires_grad_(False)


def _sleep_parameters_by_prefix(model, upto):
    _mode_only(model, upto)
    for name, p in model.named_parameters():
        if any(name.startswith(f"features.{k}") for k in range(upto)):
            p.requires_grad = False


def _norms_by_name(model, upto):
    for module in model.modules():
        if "Norm" in type(module).__name__:
            module.eval()


def _norms_of_one_family(model, upto):
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


_PREFIX = "Names that begin with features.1 are those of stages 10, 11, ... too: features.1. with the dot, or features[:upto]."
_EVERYWHERE = "A batch norm of a stage that learns is in training mode; it should sleep too, as all of the model's."
_KINDS = "Batch norms of other kinds stay in training mode: 1d and 3d are batch norms too (_BatchNorm is all three)."
_MOVES = "The frozen stages' batch norms are in training mode: their statistics move, gradient or not."


@exercise(
    hints=[
        "Three steps: all awake (mode and gradient), then the frozen stages, then every batch norm.",
        "module.train() and .eval() set a module and all within it; .requires_grad_(False) does so for parameters.",
        "model.train().requires_grad_(True); model.features[:upto].eval().requires_grad_(False); "
        "for m in model.modules(): if isinstance(m, nn.modules.batchnorm._BatchNorm): m.eval()",
    ],
    mistakes=_freeze.mistakes(
        together={
            "Frozen stages and batch norms are in training mode, where batch norm's statistics move with every forward: "
            ".eval() for the frozen stages and for every batch norm, after model.train().": {
                "sleep": _gradient_only,
                "still": lambda model, upto: None,
            },
        },
        still={
            _MOVES + " Put every batch norm to sleep last.": lambda model, upto: [
                m.train() for m in model.modules() if isinstance(m, _norms())
            ],
            _EVERYWHERE: lambda model, upto: None,
            _EVERYWHERE + " model.modules(), not only features.": _norms_of(lambda model, upto: [model.features]),
            _KINDS: _only(["BatchNorm2d"]),
            _KINDS + " 3d is missing.": _only(["BatchNorm1d", "BatchNorm2d"]),
            "Batch norm's scale and shift do not learn; only its statistics stay: .eval(), not requires_grad.": (
                _norms_frozen
            ),
            "Batch norms deep within a stage are missed: model.modules() finds them all, .children() does not.": (
                _direct_norms
            ),
            "Everything is in evaluation mode; what learns should be in training mode, dropout for example.": _all_asleep,
            "Layer norm and instance norm are asleep too; only batch norm should be.": _norms_by_name,
            "Instance norm is asleep too; only batch norm should be: _BatchNorm, not _NormBase.": _norms_of_one_family,
        },
        sleep={
            "Frozen stages are in evaluation mode, and their parameters still need gradients: "
            ".requires_grad_(False).": _mode_only,
            "The frozen stages' parameters need no gradient, and their modules (dropout) are in training mode.": (
                _gradient_only
            ),
            "One stage too many is frozen: features[upto] learns.": _sleep_one_more,
            "One stage too few is frozen: features[upto - 1] is frozen too.": _sleep_one_less,
            "The last stages are frozen; it is the first upto.": _sleep_the_last,
            "What is to learn is frozen, and the reverse: features[:upto] are frozen.": _sleep_the_others,
            "Biases are still learning: all parameters of a frozen stage need no gradient.": _sleep_weights,
            _PREFIX: _sleep_by_prefix,
            _PREFIX + " Here for parameters.": _sleep_parameters_by_prefix,
            "Nothing is frozen: features[:upto] need no gradient and are in evaluation mode.": lambda model, upto: None,
        },
        wake={
            "What an earlier call froze stays frozen: first wake everything, mode and gradient.": lambda model: None,
            "Parameters that an earlier call froze stay frozen: .requires_grad_(True) for the others.": (
                lambda model: model.train()
            ),
            "What learns is left in the mode in which it was: model.train() for the others.": (
                lambda model: model.requires_grad_(True)
            ),
            "The model's other modules are not awake: not only features, the head and what is between too.": (
                lambda model: model.features.train().requires_grad_(True)
            ),
        },
    ),
    seconds=20,
    changes=("mode", "frozen"),
)
def freeze(learner, rng):
    cases = (2, "frozen"), (2, "asleep"), (0, "asleep"), (3, "awake"), (4, "mixed"), (2, "mixed"), (1, "asleep")
    for upto, before in (*cases, (11, "asleep"), (13, "mixed")):
        model = _staged()
        if before == "asleep":
            model.eval()
        elif before == "frozen":
            _freeze(model, 4)
        elif before == "mixed":
            for module in model.modules():
                module.training = bool(rng.random() < 0.5)
            for p in model.parameters():
                p.requires_grad = bool(rng.random() < 0.5)
        said = f"upto {upto}, a model that was {before} before"
        parameters = dict(model.named_parameters())
        learner(model, upto)
        _demand_frozen(model, upto, said)
        good = all(p is parameters.get(name) for name, p in model.named_parameters())
        expect.true(
            good and len([*model.parameters()]) == len(parameters), f"the parameters stay the model's own, {said}"
        )
    model = _staged()
    for upto in (3, 1):
        learner(model, upto)
        model.eval()
    learner(model, 2)
    _demand_frozen(model, 2, "after upto 3, then 1, with evaluations between")


def _staged():
    """Thirteen stages, norms of five kinds at several depths, a neck and a head."""
    from torch import nn

    def block(n):
        return nn.Sequential(nn.Conv2d(n, n, 1), nn.Sequential(nn.BatchNorm2d(n), nn.Dropout2d(0.2)))

    model = nn.Module()
    stages = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.1)), block(2)
    stages += (nn.Sequential(nn.BatchNorm3d(2), nn.Dropout(0.3), nn.Conv2d(2, 2, 1)), block(2))
    others = nn.InstanceNorm2d(2, affine=True, track_running_stats=True), nn.LayerNorm(2), nn.Dropout(0.1)
    stages += tuple(block(2) for _ in range(8)) + (nn.Sequential(*others),)
    model.features = nn.Sequential(*stages)
    model.neck = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    model.head = nn.Linear(3, 2)
    return model.double()


def _demand_frozen(model, upto, said):
    wrong = []
    for name, module in model.named_modules():
        frozen = f"{name}.".startswith(tuple(f"features.{k}." for k in range(upto)))
        training = not frozen and not isinstance(module, _norms())
        mode = {True: "training", False: "evaluation"}
        kind = type(module).__name__
        if module.training != training:
            wrong.append(
                f"{name or 'the model'} ({kind}) is in {mode[module.training]} mode, expected {mode[training]}"
            )
        for own, p in module.named_parameters(recurse=False):
            if p.requires_grad == frozen:
                needs = {True: "needs a gradient", False: "needs no gradient"}
                wrong.append(f"{name}.{own} ({kind}) {needs[p.requires_grad]}, expected: {needs[not frozen]}")
    why = f"frozen are the first stages, and every batch norm's statistics: {said}"
    expect.true(not wrong, why, *wrong[:4])


# ------------------------------------------------------------------------------------------------ parameter_groups


@parts
def _groups(
    model,
    lr,
    decay,
    *,
    rate=lambda lr, decay, k, K: lr * decay ** (K - k),
    top=lambda lr, decay, K: lr,
    learning=lambda part: [p for p in part.parameters() if p.requires_grad],
    keep=lambda group: bool(group["params"]),
    head=lambda model: [model.head],
    stages=lambda model: list(enumerate(model.features)),
):
    K = len(model.features)
    groups = [{"params": learning(part), "lr": top(lr, decay, K)} for part in head(model)]
    groups += [{"params": learning(stage), "lr": rate(lr, decay, k, K)} for k, stage in stages(model)]
    return [group for group in groups if keep(group)]


def _by_prefix(model):
    """Stage k with all stages whose number begins like k."""
    from torch import nn

    stages = list(enumerate(model.features))
    return [(k, nn.ModuleList([stage for j, stage in stages if str(j).startswith(str(k))])) for k, _ in stages]


def _with_others(model):
    """The model's other children counted as stages behind the last one."""
    others = len([child for child in model.children() if child is not model.head]) - 1
    return [(k - others, stage) for k, stage in enumerate(model.features)]


def _from_the_first_that_learns(model):
    """K, and k, are counted among the stages that learn, and K is their number."""
    learn = [stage for stage in model.features if any(p.requires_grad for p in stage.parameters())]
    return [(k + len(model.features) - len(learn), stage) for k, stage in enumerate(learn)]


def _if_first(part):
    """All that learns, where the first parameter does."""
    own = list(part.parameters())
    return [p for p in own if p.requires_grad] if own and own[0].requires_grad else []


def _counted(model):
    """Only stages that learn count, from the last on."""
    learn = [stage for stage in model.features if any(p.requires_grad for p in stage.parameters())]
    return [(len(model.features) - n, stage) for n, stage in enumerate(reversed(learn), 1)]


@exercise(
    hints=[
        "Go through [model.head, *reversed(model.features)]: the depth 0, 1, 2, ... is the exponent.",
        "learning = [p for p in part.parameters() if p.requires_grad]; where that is empty there is no group.",
        "for depth, part in enumerate([model.head, *reversed(model.features)]): ... "
        'groups.append({"params": learning, "lr": lr * decay**depth})',
    ],
    mistakes=_groups.mistakes(
        rate={
            "The last stage has the head's rate: stage k of K has lr · decay^(K - k), the last lr · decay.": (
                lambda lr, decay, k, K: lr * decay ** (K - 1 - k)
            ),
            "Rates fall towards the head; they fall towards the input: lr · decay^(K - k).": (
                lambda lr, decay, k, K: lr * decay ** (k + 1)
            ),
            "Rates fall towards the head; stage k of K has lr · decay^(K - k).": lambda lr, decay, k, K: lr * decay**k,
            "Rates rise towards the input: multiply by decay, do not divide.": (
                lambda lr, decay, k, K: lr / decay ** (K - k)
            ),
            "The rate is decay times the depth; it is a power: decay ** (K - k).": (
                lambda lr, decay, k, K: lr * decay * (K - k)
            ),
            "One factor for all stages: each stage multiplies by decay once more.": lambda lr, decay, k, K: lr * decay,
            "All stages have the head's rate: decay is not used.": lambda lr, decay, k, K: lr,
            "One power too many: the last stage has lr · decay, the one before lr · decay².": (
                lambda lr, decay, k, K: lr * decay ** (K + 1 - k)
            ),
        },
        top={
            "The head has rate lr itself, not lr · decay.": lambda lr, decay, K: lr * decay,
            "The head has rate lr, the highest; here it has the lowest.": lambda lr, decay, K: lr * decay**K,
        },
        learning={
            "Frozen parameters are in the groups: only those that need a gradient (p.requires_grad).": (
                lambda part: list(part.parameters())
            ),
            "Biases and scales are missing: all parameters that need a gradient.": (
                lambda part: [p for p in part.parameters() if p.requires_grad and p.ndim > 1]
            ),
            "A stage is left out where its first parameter is frozen; others in it may learn.": _if_first,
            "A stage is left out where one of its parameters is frozen; the others in it learn.": (
                lambda part: [*part.parameters()] if all(p.requires_grad for p in part.parameters()) else []
            ),
            "A stage is in its group with all parameters where one of them learns; only those that do.": (
                lambda part: [*part.parameters()] if any(p.requires_grad for p in part.parameters()) else []
            ),
            "Parameters deep within a stage are missing: part.parameters() finds all of them.": (
                lambda part: [p for p in part.parameters(recurse=False) if p.requires_grad]
            ),
        },
        keep={"A part with no parameter that learns has a group without parameters: leave it out.": lambda group: True},
        head={"The head is in no group.": lambda model: []},
        stages={
            "Stages that are frozen or have no parameters are not counted: K and k count all stages of features.": _counted,
            "The model's other children are counted as stages; K is len(model.features).": _with_others,
            "Names that begin with features.1 are those of stages 10, 11, ... too: features.1. with the dot.": _by_prefix,
            "The first stage is in no group: there are K of them, from 0.": lambda m: list(enumerate(m.features))[1:],
            "The last stage is in no group.": lambda model: list(enumerate(model.features))[:-1],
        },
    ),
)
def parameter_groups(learner, rng):
    import torch

    for frozen, partly in (((), ""), ((0, 1), ""), ((2,), "bias"), ((), "weight"), (tuple(range(13)), "")):
        model = _with_plain_stage()
        for k in frozen:
            model.features[k].requires_grad_(False)
        if partly:
            getattr(model.features[4][0], partly).requires_grad_(False)
        lr, decay = round(rng.uniform(0.05, 0.2), 4), round(rng.uniform(0.3, 0.7), 3)
        stages = f"stages {', '.join(map(str, frozen))} frozen" if frozen else "no stage frozen"
        said = f"lr {lr}, decay {decay}, {stages}{f', and one {partly}' * bool(partly)}"
        _demand_groups(learner(model, lr, decay), model, lr, decay, said)
    model = _with_plain_stage()
    _demand_groups(learner(model, 1e-3, 0.05), model, 1e-3, 0.05, "lr 1e-3, decay 0.05: tiny rates")
    _demand_groups(learner(model, 0.03, 1.0), model, 0.03, 1.0, "lr 0.03, decay 1")
    model.head.requires_grad_(False)
    _demand_groups(learner(model, 0.3, 0.9), model, 0.3, 0.9, "lr 0.3, decay 0.9, the head frozen")
    model.features = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.head = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(2, 2, bias=False))
    _demand_groups(
        learner(model, 0.03, 1.0), model, 0.03, 1.0, "lr 0.03, decay 1, a single stage, a head of two modules"
    )


def _with_plain_stage():
    """Thirteen stages, one without parameters; between them and the head what has none, as in the notebook."""
    from torch import nn

    model = nn.Module()
    deep = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.BatchNorm1d(3)))
    stages = nn.Sequential(nn.Linear(3, 4)), deep, nn.BatchNorm1d(3), nn.ReLU(), nn.Sequential(nn.Linear(3, 3))
    model.features = nn.Sequential(*stages, *(nn.Linear(3, 3) for _ in range(8)))
    model.pool, model.flatten, model.head = nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(3, 2)
    return model


def _demand_groups(given, model, lr, decay, said):
    import torch

    expect.kind(given, list, f"a list of groups, {said}")
    for group in given:
        expect.kind(group, dict, 'each group is a dict {"params": [...], "lr": rate}')
        missing = {"params", "lr"} - group.keys()
        expect.true(not missing, 'each group is a dict {"params": [...], "lr": rate}', f"missing  {sorted(missing)}")
        expect.kind(
            group["params"], list, '"params" is a list', likely="A generator is empty after its first use: list(...)."
        )
    K, names = len(model.features), {id(p): name for name, p in model.named_parameters()}
    of = {name: 0.0 for name in names.values()}
    for group in given:
        twice = [names.get(id(p)) for n, p in enumerate(group["params"]) if any(p is q for q in group["params"][:n])]
        expect.true(not twice, f"each parameter is in one group, and once: {twice[:1]} is twice in the same, {said}")
        for p in group["params"]:
            name = names.get(id(p), "")
            expect.true(name, f"groups hold the model's own parameters, {said}", likely="No copies, and no names.")
            expect.true(not of[name], f"each parameter is in one group: {name} is in two, {said}")
            of[name] = float(group["lr"])
    wanted = {}
    for name, p in model.named_parameters():
        depth = 0 if name.startswith("head") else K - int(name.split(".")[1])
        wanted[name] = lr * decay**depth if p.requires_grad else 0.0
    yours, expected = (np.array([rates[name] for name in names.values()]) for rates in (of, wanted))
    if (bad := ~np.isclose(yours, expected, atol=0)).any():
        first = [(n, a, b) for (n, a), b, wrong in zip(of.items(), expected, bad, strict=True) if wrong][:4]
        lines = [f"{n}: yours {a:.7g}, expected {b:.7g}" for n, a, b in first]
        raise Complaint(f"the rate of each parameter (0: in no group), {said}", lines, "", yours)
    expect.true(all(group["params"] for group in given), f"no group is empty, {said}")
    per_part = {name.split(".")[1] if name.startswith("features") else "head" for name, rate in wanted.items() if rate}
    why = f"one group for each part that learns, {said}"
    expect.true(len(given) == len(per_part), why, f"yours    {len(given)} groups", f"expected {len(per_part)}")
    torch.optim.SGD(given, lr=1.0)


# ------------------------------------------------------------------------------------------------ grad_cam


def _logit(z, label):
    return z[0, label]


def _mean_of(slope):
    return slope.mean((2, 3), keepdim=True)


@parts
def _cam(
    model,
    layer,
    image,
    label,
    *,
    score=_logit,
    alpha=_mean_of,
    product=lambda alpha, A: (alpha * A).sum(1),
    keep=lambda M: M.relu(),
    end=lambda M: M[0].detach(),
    clean=lambda handle: handle.remove(),
):
    import torch

    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        z = model(image[None].detach().clone().requires_grad_())
    finally:
        clean(handle)
    (slope,) = torch.autograd.grad(score(z, label), kept[0])
    return end(keep(product(alpha(slope), kept[0])))


def _shared(slope):
    return slope.mean(1, keepdim=True)


@exercise(
    hints=[
        "A list `kept`, a hook that appends the output to it, one forward. Then torch.autograd.grad(z[0, label], kept[0]).",
        "try: z = model(image[None].clone().requires_grad_()) finally: handle.remove(). The slope has A's shape.",
        "alpha = slope.mean((2, 3), keepdim=True); return (alpha * kept[0]).sum(1)[0].relu().detach()",
    ],
    mistakes=_cam.mistakes(
        score={
            "It takes the gradient of the probability; z_y is the logit, before softmax.": (
                lambda z, label: z.softmax(1)[0, label]
            ),
            "It takes the gradient of the logarithm of the probability; z_y is the logit.": (
                lambda z, label: z.log_softmax(1)[0, label]
            ),
            "It takes the largest logit; wanted is that of the class that is asked for, label.": lambda z, label: z[
                0
            ].max(),
            "It takes the sum of all logits; wanted is that of label alone.": lambda z, label: z.sum(),
            "It takes the gradient of the loss, which falls where the logit rises: z[0, label] itself.": (
                lambda z, label: -z.log_softmax(1)[0, label]
            ),
        },
        alpha={
            "α is divided by its length; the formula has no such step.": lambda slope: (
                _mean_of(slope) / _mean_of(slope).norm()
            ),
            "The slopes are averaged over one axis of places; α_c is their mean over both.": (
                lambda slope: slope.mean(2, keepdim=True)
            ),
            "The slopes are added up over the places; α is their mean.": lambda slope: slope.sum((2, 3), keepdim=True),
            "Each place has its own slope; α_c is their mean over all places of a channel.": lambda slope: slope,
            "It takes the mean over the channels; α_c is the mean over places, axes 2 and 3.": _shared,
            "The slopes' absolute values count; what speaks against the class has a negative α.": (
                lambda slope: slope.abs().mean((2, 3), keepdim=True)
            ),
            "Only positive slopes count; ReLU comes after the sum over channels, and once.": (
                lambda slope: slope.relu().mean((2, 3), keepdim=True)
            ),
            "Negative α are set to 0; ReLU comes after the sum over channels, and once.": (
                lambda slope: _mean_of(slope).relu()
            ),
            "It takes the largest slope of a channel; α is the mean.": lambda slope: slope.amax((2, 3), keepdim=True),
        },
        product={
            "It takes the mean over the channels; they are added up.": lambda alpha, A: (alpha * A).mean(1),
            "ReLU is applied to each channel; it comes after the sum over channels.": (
                lambda alpha, A: (alpha * A).relu().sum(1)
            ),
            "α is added up alone: each α_c multiplies its map A_c first.": lambda alpha, A: alpha.sum(1) + 0 * A.sum(1),
            "The maps are added up without their α.": lambda alpha, A: A.sum(1),
        },
        keep={
            "ReLU is missing: what speaks against the class becomes 0.": lambda M: M,
            "It takes absolute values; what speaks against the class becomes 0.": lambda M: M.abs(),
            "The map is divided by its maximum, or scaled to 0...1; the formula has no such step.": (
                lambda M: M.relu() / M.relu().max().clamp(min=1e-9)
            ),
            "The sign is turned: this is what speaks against the class.": lambda M: (-M).relu(),
        },
        end={
            "A batch axis too many: one picture, (H', W').": lambda M: M.detach(),
            "The map carries a gradient: .detach() it at the end.": lambda M: M[0],
            "Rows and columns of the map are swapped.": lambda M: M[0].T.detach(),
        },
        clean={
            "The hook stays on the layer, and slows and fills every later forward: handle.remove().": lambda handle: (
                None
            ),
        },
    ),
    seconds=30,
)
def grad_cam(learner, rng):
    import torch
    from torch import nn

    def authority(first, second, image, label):
        A = first(image[None]).detach().requires_grad_()
        (slope,) = torch.autograd.grad(second(A)[0, label], A)
        return torch.einsum("c,chw->hw", slope[0].mean((1, 2)), A[0].detach()).clamp(min=0)

    source = "torch.autograd, on the network cut in two at the layer"
    for C, H, W, K, cut, frozen in (
        (4, 6, 9, 3, 2, False),
        (3, 7, 5, 4, 2, True),
        (5, 6, 6, 3, 4, True),
        (2, 5, 8, 2, 1, False),
    ):
        layers = nn.Conv2d(3, C, 3, padding=1), nn.BatchNorm2d(C), nn.Tanh(), nn.Conv2d(C, C + 1, 2), nn.Tanh()
        model = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear((C + 1) * (H - 1) * (W - 1), K))
        model = model.double().eval().requires_grad_(not frozen)
        with torch.no_grad():
            model[1].running_mean.copy_(_draw(rng, C) / 3)
            model[7].weight.copy_(3 * _draw(rng, *model[7].weight.shape))
        image = _draw(rng, 3, H, W)
        layer, labels = model[cut], (0, K - 1)
        layer.register_forward_hook(lambda module, inputs, output: None)  # another's, who wants to keep it
        before = [None if frozen else _draw(rng, *p.shape) for p in model.parameters()]
        for p, gradient in zip(model.parameters(), before, strict=True):
            p.grad = None if gradient is None else gradient.clone()
        own = _hooks(model)
        for label in labels:
            said = f"image (3, {H}, {W}), label {label}{', all weights frozen' * frozen}"
            given = learner(model, layer, image, label)
            tensor(given, said)
            hooks, gradients = _hooks(model), [p.grad for p in model.parameters()]
            expected = authority(model[: cut + 1], model[cut + 1 :], image, label)
            expect.close(given, expected, why=f"the evidence for the class, {said}", source=source, dtype=image)
            expect.true(not given.requires_grad, f"the map has no gradient, {said}", likely=".detach() it at the end.")
            likely = "The image itself was made to need a gradient, and keeps that: a copy of it, image.clone(), may."
            expect.true(not image.requires_grad, f"the image stays as it is, {said}", likely=likely)
            _demand_clean(hooks, own, f"the hook is gone afterwards, {said}")
            pairs = [*zip(gradients, before, strict=True)]
            good = all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)
            likely = "backward() leaves .grad on all weights, zero_grad() clears what was there; torch.autograd.grad does neither."
            expect.true(good, f"no .grad is changed, {said}", likely=likely)
    model, image = _by_hand(), torch.tensor([[[2.0, 0]], [[1, 3]], [[0, 0]]], dtype=torch.float64)
    why = "the example above"
    expect.close(learner(model, model.maps, image, 0), [[1.5, 0.0]], why=why, source="by hand")
    given = learner(model.float(), model.maps, image.float(), 0)
    expect.close(given, [[1.5, 0.0]], why=f"{why}, 32-bit floats", source="by hand", dtype=torch.float32)
    broken = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(5, 2)).double().eval()
    with_error = False
    try:
        learner(broken, broken[0], image, 0)
    except RuntimeError:
        with_error = True
    expect.true(with_error, "an error of the model is not swallowed")
    _demand_clean(_hooks(broken), [], "the hook is gone also where the model raises an error: try ... finally")


def _demand_clean(hooks, before, why):
    likely = "The hook stays on the layer, and slows and fills every later forward: handle.remove(), in `finally`."
    more, fewer = set(hooks) - set(before), set(before) - set(hooks)
    expect.true(not more, why, f"hooks on {sorted({name for name, _ in more})[:3]}", likely=likely)
    likely = "Another's hook was on the layer, and is gone: remove your own by its handle."
    expect.true(not fewer, why.replace("the hook is gone", "others' hooks stay"), likely=likely)


def _hooks(model):
    """All hooks on a model's modules: (name of the module, number of the hook)."""
    return [(name, n) for name, m in model.named_modules() for kind in _HOOKS for n in getattr(m, kind)]


_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def _by_hand():
    import torch
    from torch import nn

    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.Conv2d(3, 2, 1, bias=False).requires_grad_(False)
            self.maps.weight.copy_(torch.eye(2, 3)[:, :, None, None])

        def forward(self, x):
            A = self.maps(x)
            z = A[:, 0, 0, 0] + A[:, 0, 0, 1] - A[:, 1, 0, 1]
            return torch.stack([z, 5 - 2 * z], 1)

    return ByHand().double().eval()


# ------------------------------------------------------------------------------------------------ cached_features


class _Disk:
    """Files with pictures, and a compute that notes what it is asked for."""

    def __init__(self, folder):
        self.folder, self.calls, self.times, self.kind = Path(folder), [], itertools.count(1), np.float32

    def write(self, name, content, like=None):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        stamp = like.stat().st_mtime_ns if like else next(self.times) * 10**9
        os.utime(path, ns=(stamp, stamp))
        return path

    def compute(self, factor):
        def compute(paths):
            self.calls.append(paths)
            return np.array([self.row(Path(path).read_bytes(), factor) for path in paths], self.kind).reshape(-1, 3)

        return compute

    @staticmethod
    def row(content, factor):
        return [factor * len(content), factor * sum(content), factor * content[0]]


@exercise(
    hints=[
        "A key that is the same exactly if bytes and settings are: hashlib.sha256(...).hexdigest() of both together.",
        "new = {key: path for key, path in zip(keys, paths) if key not in cache}: each new picture once. Then compute.",
        "said = json.dumps(settings, sort_keys=True).encode(); key = sha256(path.read_bytes() + said).hexdigest(); if new: "
        "cache.update(zip(new, compute(list(new.values())))); return np.stack([cache[key] for key in keys])",
    ],
    seconds=20,
    changes=("arguments",),
)
def cached_features(learner, rng):
    with tempfile.TemporaryDirectory() as folder:
        _cached_features(learner, rng, _Disk(folder))


def _cached_features(learner, rng, disk):
    contents = {f"{name}.png": bytes(rng.integers(1, 255, 9 + n)) for n, name in enumerate("dbca")}
    paths = [disk.write(name, content) for name, content in contents.items()]
    cache, settings = {}, {"network": "lite0", "size": 96, "stages": 13}

    def run(paths, settings, factor, expected, why, likely=""):
        """One call: `expected` are the contents that it may compute."""
        disk.calls.clear()
        before = dict(cache)
        given = learner(list(paths), dict(settings), cache, disk.compute(factor[0]))
        asked = [path for call in disk.calls for path in call]
        got = sorted(Path(path).read_bytes() for path in asked)
        names = [Path(path).name for path in asked]
        if len(disk.calls) > 1:
            raise Complaint(
                why, [f"compute was called {len(disk.calls)} times"], "Collect what is new, and compute it in one call."
            )
        if disk.calls and not asked:
            raise Complaint(why, ["compute was called with an empty list"], "Where nothing is new, do not call it.")
        lines = f"computed {names}", f"expected {len(expected)} picture{'s' * (len(expected) != 1)}"
        if disk.calls and expected and set(got) - set(expected):
            likely = "More is computed than is new: compute gets the new pictures only, each once."
        expect.true(got == sorted(expected), why, *lines, likely=likely)
        if disk.calls:
            expect.kind(disk.calls[0], list, f"{why}: compute gets a list of paths")
            good = all(path in paths for path in asked)
            expect.true(good, f"{why}: compute gets paths out of `paths`, as they are", f"yours    {asked[0]!r}")
        wanted = [
            disk.row(Path(path).read_bytes(), of)
            for path, of in zip(paths, factor[1:] or factor * len(paths), strict=True)
        ]
        order = "Row n belongs to paths[n]: the known ones and the new ones in their places."
        expect.close(given, wanted, why=f"{why}: a row for each path, in order", source="the files", likely=order)
        kept = all(key in cache and np.array_equal(cache[key], row) for key, row in before.items())
        expect.true(kept, f"{why}: what was in the cache stays there")
        likely = "cache is changed in place, for the next call: cache[key] = row."
        more = len(cache) - len(before)
        expect.equal(more, len(expected), why=f"{why}: new entries of the cache", source="a row each", likely=likely)
        good = all(isinstance(key, str) and len(key) == 64 and set(key) <= set("0123456789abcdef") for key in cache)
        expect.true(
            good, "keys are texts of 64 hexadecimal digits", f"such as {next(iter(cache), '')!r}", likely="hexdigest()"
        )
        expect.true(all(np.shape(row) == (3,) for row in cache.values()), "an entry is one row, (D,)")

    run(paths, settings, [1.0], contents.values(), "four new pictures")
    run(paths[::-1], settings, [1.0], [], "the same again, in another order", "What is known is not computed again.")
    moved = disk.write("elsewhere/z.png", contents["b.png"])
    likely = "The name or the time of a file is in its key; its bytes say what is in it."
    run([moved], settings, [1.0], [], "a known picture under another name", likely)
    changed = bytes([contents["c.png"][0] ^ 7]) + contents["c.png"][1:]
    disk.write("c.png", changed, like=paths[2])
    likely = "The file has new content under its old name, size and time: only its bytes tell. Hash path.read_bytes()."
    run(paths, settings, [1.0], [changed], "a picture with new content", likely)
    other = {"stages": 13, "size": 96, "network": "lite0"}
    likely = "The order in which settings are written is in the key: json.dumps(..., sort_keys=True)."
    run(paths, other, [1.0], [], "the same settings in another order", likely)
    now = [path.read_bytes() for path in paths]
    likely = "Settings are not in the key: features of another size would be taken for these."
    run(paths, settings | {"size": 128}, [2.0], now, "other settings", likely)
    likely = "Names and values of the settings both count: json.dumps(settings, sort_keys=True)."
    run(paths[:1], settings | {"stages": 96, "size": 13}, [3.0], now[:1], "two values exchanged", likely)
    run(paths[:1], {"network": "lite0", "width": 96, "stages": 13}, [4.0], now[:1], "another name of a setting", likely)
    likely = (
        "Names and values run together, or some are left out: json.dumps(settings, sort_keys=True) has all of them."
    )
    run(paths[:1], {"network": "lite0", "size": 9, "stages": 613}, [5.0], now[:1], "size 9 and stages 613", likely)
    run(paths[:1], {"network": "lite0", "size": 961, "stages": 3}, [6.0], now[:1], "size 961 and stages 3", likely)
    likely = "Every setting counts: json.dumps(settings, sort_keys=True) has all of them."
    run(paths[:1], {"network": "lite1", "size": 96, "stages": 13}, [8.0], now[:1], "another value of network", likely)
    likely = (
        "The value is in the key, and not what kind it is: json.dumps of the settings, or repr, tells 96 from '96'."
    )
    run(paths[:1], {"network": "lite0", "size": "96", "stages": 13}, [7.0], now[:1], "the text 96, not 96", likely)
    likely = "A number is cut or rounded on its way into the key: json.dumps and repr keep all its digits."
    for n, scale in enumerate((0.5, 0.7, 0.1, 0.1000001, 1234567, 1234568)):
        said = f"scale {scale}, which was not there before"
        run(paths[:1], {"network": "lite0", "scale": scale}, [9.0 + n], now[:1], said, likely)
    likely = "Every byte counts, whatever is made of text or lines: hash path.read_bytes(), all of it."
    line = bytes(rng.integers(65, 91, 20))
    long = bytes(rng.integers(0, 256, 70_000, np.uint8)) * 16
    for first, second, what in (
        (line + b"\r\n" + line, line + b"\n" + line, "two that differ in the end of a line"),
        (long + b"a", long + b"b", "two of a megabyte that differ in the last byte"),
    ):
        both = [disk.write(f"{what[-9:]} {n}.png", content) for n, content in enumerate((first, second))]
        run(both, settings, [1.0], [first, second], what, likely)
    fresh, last = bytes(rng.integers(1, 255, 30)), bytes(rng.integers(1, 255, 31))
    twins = [disk.write(name, fresh) for name in ("t1.png", "t2.png")]
    more = [twins[0], paths[0], disk.write("last.png", last), twins[1], twins[0]]
    likely = "Pictures with the same bytes are computed once: collect new keys, each once."
    run(more, settings, [1.0], [fresh, last], "new and known ones mixed, one three times", likely)
    given = learner(twins, settings, cache, disk.compute(1.0))
    expect.kind(given, np.ndarray, "the result is an array")
    expect.shape(given, (2, 3), "a row for each path")
    expect.dtype(given, np.float32, "the kind of numbers that compute gave")
    disk.kind = np.float64
    given = learner([disk.write("double.png", fresh + last)], settings, {}, disk.compute(1.0))
    expect.dtype(given, np.float64, "the kind of numbers that compute gave, here 64-bit floats")
    disk.kind = np.float32
    cache.update({f"{n:064x}": np.float32([n, n, n]) for n in range(20_000)})
    likely = "Entries are never taken out, however many there are."
    run([disk.write("new.png", last + fresh)], settings, [1.0], [last + fresh], "a cache of 20,000 entries", likely)
