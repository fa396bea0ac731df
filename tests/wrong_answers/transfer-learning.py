"""Answers to transfer-learning: wrong ones named for the misconception, and right ones."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from torch import nn

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ preprocess


def middle(image, size):
    return np.asarray(ImageOps.fit(Image.fromarray(image), (size, size), Image.Resampling.BICUBIC))


@wrong("preprocess", says="mean and spread of other networks")
def as_for_resnet(image, size):
    x = torch.tensor(middle(image, size)).permute(2, 0, 1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / std[:, None, None]


@wrong("preprocess", says="scaled to 0...1")
def to_tensor(image, size):
    return torch.tensor(middle(image, size)).permute(2, 0, 1).float() / 255


@wrong("preprocess", says="subtracts in uint8")
def in_bytes(image, size):
    return torch.tensor((middle(image, size) - 127) / 128, dtype=torch.float32).permute(2, 0, 1)


@wrong("preprocess", says="blue, green, red")
def bgr(image, size):
    x = middle(image, size)[..., ::-1].astype(np.float32)
    return torch.tensor((x - 127) / 128).permute(2, 0, 1)


@wrong("preprocess", says="proportions are lost")
def squeezed(image, size):
    x = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return torch.tensor((x - 127) / 128).permute(2, 0, 1)


@wrong("preprocess", says="channels are last")
def channels_last(image, size):
    return (torch.tensor(middle(image, size)).float() - 127) / 128


@wrong("preprocess", says="reshape mixes")
def reshaped(image, size):
    return (torch.tensor(middle(image, size)).float().reshape(3, size, size) - 127) / 128


@wrong("preprocess", says="(width, height)")
def sides_swapped(image, size):
    H, W, _ = image.shape
    k = size / min(H, W)
    x = np.asarray(Image.fromarray(image).resize((round(H * k), round(W * k)), Image.Resampling.BICUBIC), np.float32)
    top, left = (x.shape[0] - size) // 2, (x.shape[1] - size) // 2
    return torch.tensor((x[top : top + size, left : left + size] - 127) / 128).permute(2, 0, 1)


@wrong("preprocess", says="32-bit floats")
def doubles(image, size):
    return torch.tensor((middle(image, size).astype(float) - 127) / 128).permute(2, 0, 1)


@wrong("preprocess", says="upper left")
def cuts_the_corner(image, size):
    H, W, _ = image.shape
    k = size / min(H, W)
    x = np.asarray(Image.fromarray(image).resize((round(W * k), round(H * k)), Image.Resampling.BICUBIC), np.float32)
    return torch.tensor((x[:size, :size] - 127) / 128).permute(2, 0, 1)


@wrong("preprocess", says="shape")
def pads_instead(image, size):
    picture = ImageOps.contain(Image.fromarray(image), (size, size), Image.Resampling.BICUBIC)
    x = np.asarray(picture, np.float32)
    return torch.tensor((x - 127) / 128).permute(2, 0, 1)


@wrong("preprocess", says="nearly it")
def symmetric(image, size):
    return torch.tensor(middle(image, size)).permute(2, 0, 1).float() / 127.5 - 1


@wrong("preprocess", says="cuts first")
def by_fit(image, size):
    x = torch.from_numpy(middle(image, size).copy()).permute(2, 0, 1)
    return x.float().sub(127).div(128)


@wrong("preprocess", says="scaled then")
def cuts_first(image, size):
    h, w = image.shape[:2]
    n, top, left = min(h, w), (h - min(h, w)) // 2, (w - min(h, w)) // 2
    square = Image.fromarray(image[top : top + n, left : left + n]).resize((size, size), Image.Resampling.BICUBIC)
    return torch.tensor((np.asarray(square, np.float32) - 127) / 128).permute(2, 0, 1)


def with_longer_side(image, size, whole):
    h, w = image.shape[:2]
    picture = Image.fromarray(image)
    picture = picture.resize([size if n == min(h, w) else whole(n * size / min(h, w)) for n in (w, h)], Image.BICUBIC)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    square = np.asarray(picture, np.float32)[top : top + size, left : left + size]
    return torch.tensor((square - 127) / 128).permute(2, 0, 1)


@wrong("preprocess", says="rounded down")
def as_torchvision_does(image, size):
    return with_longer_side(image, size, int)


@wrong("preprocess", says="rounded up")
def never_too_small(image, size):
    return with_longer_side(image, size, math.ceil)


@right("preprocess")
def by_crop(image, size):
    picture = Image.fromarray(image)
    w, h = picture.size
    w, h = (round(w * size / h), size) if w > h else (size, round(h * size / w))
    picture = picture.resize((w, h), resample=Image.Resampling.BICUBIC)
    left, top = (w - size) // 2, (h - size) // 2
    picture = picture.crop((left, top, left + size, top + size))
    x = (np.asarray(picture).astype("float32") - 127) / 128
    return torch.from_numpy(np.moveaxis(x, -1, 0).copy())


# ------------------------------------------------------------------------------------------------ few_shot_split


def by_class(labels, groups, per_class, rng, pick, rest):
    labels, groups = np.asarray(labels), np.asarray(groups)
    train = []
    for c in np.unique(labels):
        if len(set(groups[labels == c])) <= per_class:
            raise ValueError("too few")
        train += list(pick(np.flatnonzero(labels == c), groups))
    train = np.array(train)
    return train, rest(train, labels, groups)


def without_groups(train, labels, groups):
    return np.flatnonzero(~np.isin(groups, groups[train]))


@wrong("few_shot_split", says="Two pictures of one group")
def draws_pictures(labels, groups, per_class, rng):
    return by_class(
        *(labels, groups, per_class, rng), lambda own, g: rng.choice(own, per_class, replace=False), without_groups
    )


@wrong("few_shot_split", says="It leaks")
def rest_is_test(labels, groups, per_class, rng):
    def pick(own, g):
        drawn = rng.choice(np.unique(g[own]), per_class, replace=False)
        return [np.flatnonzero(g == d)[0] for d in drawn]

    return by_class(*(labels, groups, per_class, rng), pick, lambda train, y, g: np.setdiff1d(np.arange(len(y)), train))


@wrong("few_shot_split", says="more often")
def weighs_by_pictures(labels, groups, per_class, rng):
    def pick(own, g):
        first = []
        for n in rng.permutation(own):
            if g[n] not in [g[m] for m in first]:
                first.append(np.flatnonzero(g == g[n])[0])
        return first[:per_class]

    return by_class(labels, groups, per_class, rng, pick, without_groups)


@wrong("few_shot_split", says="there are")
def draws_from_all(labels, groups, per_class, rng):
    labels, groups = np.asarray(labels), np.asarray(groups)
    for c in np.unique(labels):
        if len(set(groups[labels == c])) <= per_class:
            raise ValueError
    drawn = rng.choice(np.unique(groups), per_class * len(np.unique(labels)), replace=False)
    train = np.array([np.flatnonzero(groups == g)[0] for g in drawn])
    return train, without_groups(train, labels, groups)


@wrong("few_shot_split", says="Draw with the generator")
def own_generator(labels, groups, per_class, rng):
    def pick(own, g):
        drawn = np.random.choice(np.unique(g[own]), per_class, replace=False)
        return [np.flatnonzero(g == d)[0] for d in drawn]

    return by_class(labels, groups, per_class, rng, pick, without_groups)


@wrong("few_shot_split", says="it raises too")
def leaves_nothing_to_test(labels, groups, per_class, rng):
    labels, groups = np.asarray(labels), np.asarray(groups)
    train = []
    for c in np.unique(labels):
        drawn = rng.choice(np.unique(groups[labels == c]), per_class, replace=False)
        train += [np.flatnonzero(groups == g)[0] for g in drawn]
    train = np.array(train)
    return train, without_groups(train, labels, groups)


@wrong("few_shot_split", says="lowest number")
def last_of_the_group(labels, groups, per_class, rng):
    def pick(own, g):
        drawn = rng.choice(np.unique(g[own]), per_class, replace=False)
        return [np.flatnonzero(g == d)[-1] for d in drawn]

    return by_class(labels, groups, per_class, rng, pick, without_groups)


@wrong("few_shot_split", says="missing in test")
def one_of_each_group_in_test(labels, groups, per_class, rng):
    def pick(own, g):
        drawn = rng.choice(np.unique(g[own]), per_class, replace=False)
        return [np.flatnonzero(g == d)[0] for d in drawn]

    def rest(train, y, g):
        return np.array([np.flatnonzero(g == d)[0] for d in np.unique(g) if d not in g[train]])

    return by_class(labels, groups, per_class, rng, pick, rest)


@wrong("few_shot_split", says="Two pictures of one group")
def whole_groups_in_train(labels, groups, per_class, rng):
    def pick(own, g):
        drawn = rng.choice(np.unique(g[own]), per_class, replace=False)
        return np.flatnonzero(np.isin(g, drawn))

    return by_class(labels, groups, per_class, rng, pick, without_groups)


@wrong("few_shot_split", says="need not be 0, 1, 2")
def classes_counted(labels, groups, per_class, rng):
    labels, groups = np.asarray(labels), np.asarray(groups)
    drawn = []
    for c in range(len(set(labels.tolist()))):
        own = np.unique(groups[labels == c])
        if len(own) <= per_class:
            raise ValueError(f"class {c} is too small")
        drawn += list(rng.choice(own, per_class, replace=False))
    train = np.array([np.flatnonzero(groups == g)[0] for g in drawn])
    return train, without_groups(train, labels, groups)


@wrong("few_shot_split", says="Never drawn")
def only_from_the_first(labels, groups, per_class, rng):
    def pick(own, g):
        kept = np.unique(g[own])[: per_class + 1]  # one more than is drawn: the generator seems to decide
        return [np.flatnonzero(g == d)[0] for d in rng.permutation(kept)[:per_class]]

    return by_class(labels, groups, per_class, rng, pick, without_groups)


@wrong("few_shot_split", says="not names")
def masks(labels, groups, per_class, rng):
    train, test = by_permutation(labels, groups, per_class, rng)
    N = np.arange(len(labels))
    return np.isin(N, train), np.isin(N, test)


@wrong("few_shot_split", says="labels[train]")
def two_lists(labels, groups, per_class, rng):
    train, test = by_permutation(labels, groups, per_class, rng)
    return train.tolist(), test.tolist()


@wrong("few_shot_split", says="part of that text")
def names_in_names(labels, groups, per_class, rng):
    train, _ = by_permutation(labels, groups, per_class, rng)
    return train, np.array([n for n, g in enumerate(groups) if not any(groups[i] in g for i in train)])


@wrong("few_shot_split", says="swapped")
def test_first(labels, groups, per_class, rng):
    return by_permutation(labels, groups, per_class, rng)[::-1]


@wrong("few_shot_split", says="Raise ValueError")
def asserts(labels, groups, per_class, rng):
    try:
        return by_permutation(labels, groups, per_class, rng)
    except ValueError:
        raise AssertionError("too few") from None


@wrong("few_shot_split", says="neighbours")
def neighbours(labels, groups, per_class, rng):
    def pick(own, g):
        names = np.unique(g[own])
        return [np.flatnonzero(g == d)[0] for d in np.roll(names, -rng.integers(len(names)))[:per_class]]

    return by_class(labels, groups, per_class, rng, pick, without_groups)


@right("few_shot_split")
def by_permutation(labels, groups, per_class, rng):
    of = {}
    for n, (c, g) in enumerate(zip(labels, groups, strict=True)):
        of.setdefault(int(c), {}).setdefault(g, []).append(n)
    train, test = [], []
    for things in of.values():
        if len(things) <= per_class:
            raise ValueError("not enough things")
        members = list(things.values())
        order = rng.permutation(len(members))
        train += [members[i][0] for i in order[:per_class]]
        test += [n for i in order[per_class:] for n in members[i]]
    return np.array(train), np.array(test)


@right("few_shot_split")
def by_shuffling_all_groups(labels, groups, per_class, rng):
    names = sorted(set(groups))
    first = {g: list(groups).index(g) for g in names}
    left = {int(c): per_class for c in labels}
    train = []
    for i in rng.permutation(len(names)):
        c = int(labels[first[names[i]]])
        if left[c] > 0:
            left[c] -= 1
            train.append(first[names[i]])
    drawn = {groups[n] for n in train}
    test = np.array([n for n, g in enumerate(groups) if g not in drawn], dtype=int)
    if any(left.values()) or set(map(int, labels)) - {int(labels[n]) for n in test}:
        raise ValueError("a class has too few groups")
    return np.array(train), test


# ------------------------------------------------------------------------------------------------ extract_features


@wrong("extract_features", says="model.eval()")
def forgets_eval(model, pictures, batch_size=32):
    with torch.no_grad():
        return torch.cat([model(batch) for batch in pictures.split(batch_size)])


@wrong("extract_features", says="no_grad")
def detaches_at_the_end(model, pictures, batch_size=32):
    model.eval()
    return torch.cat([model(batch) for batch in pictures.split(batch_size)]).detach()


@wrong("extract_features", says="pictures.split(batch_size)")
def all_at_once(model, pictures, batch_size=32):
    model.eval()
    with torch.no_grad():
        return model(pictures)


@wrong("extract_features", says="last batch may be shorter")
def drops_the_rest(model, pictures, batch_size=32):
    model.eval()
    n = max(1, len(pictures) // batch_size)
    with torch.no_grad():
        return torch.cat([model(pictures[i * batch_size : (i + 1) * batch_size]) for i in range(n)])


@wrong("extract_features", says="model.eval()")
def only_the_outer_modules(model, pictures, batch_size=32):
    for module in (model, *model.children()):
        module.training = False
    with torch.no_grad():
        return torch.cat([model(batch) for batch in pictures.split(batch_size)])


@wrong("extract_features", says="to learn D")
@torch.no_grad()
def a_pass_for_the_shape(model, pictures, batch_size=32):
    model.eval()
    z = model(pictures[:1])
    z = z.new_empty(len(pictures), z.shape[1])
    for n in range(0, len(pictures), batch_size):
        z[n : n + batch_size] = model(pictures[n : n + batch_size])
    return z


@wrong("extract_features", says="no model.train() at the end")
def back_to_training(model, pictures, batch_size=32):
    model.eval()
    with torch.no_grad():
        z = torch.cat([model(batch) for batch in pictures.split(batch_size)])
    model.train()
    return z


@wrong("extract_features", says="expected Tensor")
def to_numpy(model, pictures, batch_size=32):
    model.eval()
    with torch.no_grad():
        return np.concatenate([model(batch).numpy() for batch in pictures.split(batch_size)])


@wrong("extract_features", says="expected Tensor")
def a_list(model, pictures, batch_size=32):
    model.eval()
    with torch.no_grad():
        return [model(batch) for batch in pictures.split(batch_size)]


@wrong("extract_features", says=None)
def last_batch_only(model, pictures, batch_size=32):
    model.eval()
    with torch.no_grad():
        for batch in pictures.split(batch_size):
            z = model(batch)
    return z


@wrong("extract_features", says="batch_size")
def chunks(model, pictures, batch_size=32):
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in pictures.chunk(batch_size)])


@right("extract_features")
def one_by_one(model, pictures, batch_size=32):
    model.train(False)
    with torch.inference_mode():
        z = [model(picture[None])[0] for picture in pictures]
    return torch.stack(z).clone()


@right("extract_features")
@torch.no_grad()
def by_a_loader(model, pictures, batch_size=32):
    model.eval()
    loader = torch.utils.data.DataLoader(pictures, batch_size=batch_size)
    return torch.cat([model(batch) for batch in loader])


# ------------------------------------------------------------------------------------------------ linear_probe


def lr(C):
    return LogisticRegression(C=C, max_iter=5000)


@wrong("linear_probe", says="score of a fold is that of its val rows")
def training_accuracy(X, y, folds, Cs):
    scores = np.array([np.mean([lr(C).fit(X[t], y[t]).score(X[t], y[t]) for t, _ in folds]) for C in Cs])
    return lr(Cs[scores.argmax()]).fit(X, y), scores


@wrong("linear_probe", says="seen the fold's val rows")
def fits_everything_first(X, y, folds, Cs):
    scores = []
    for C in Cs:
        probe = lr(C).fit(X, y)
        scores.append(np.mean([probe.score(X[v], y[v]) for _, v in folds]))
    scores = np.array(scores)
    return lr(Cs[scores.argmax()]).fit(X, y), scores


@wrong("linear_probe", says="it gets all rows")
def no_refit(X, y, folds, Cs):
    best, probe, scores = -1, None, []
    for C in Cs:
        of = []
        for t, v in folds:
            fitted = lr(C).fit(X[t], y[t])
            of.append(fitted.score(X[v], y[v]))
        scores.append(np.mean(of))
        if scores[-1] > best:
            best, probe = scores[-1], fitted
    return probe, np.array(scores)


@wrong("linear_probe", says="the smallest is asked for")
def ties_to_the_last(X, y, folds, Cs):
    scores, best = [], 0
    for n, C in enumerate(Cs):
        scores.append(np.mean([lr(C).fit(X[t], y[t]).score(X[v], y[v]) for t, v in folds]))
        if scores[-1] >= scores[best]:
            best = n
    return lr(Cs[best]).fit(X, y), np.array(scores)


@wrong("linear_probe", says="standardised")
def scales_first(X, y, folds, Cs):
    X = (X - X.mean(0)) / X.std(0)
    scores = np.array([np.mean([lr(C).fit(X[t], y[t]).score(X[v], y[v]) for t, v in folds]) for C in Cs])
    return lr(Cs[scores.argmax()]).fit(X, y), scores


@wrong("linear_probe", says="not with the chosen one")
def forgets_the_c(X, y, folds, Cs):
    scores = np.array([np.mean([lr(C).fit(X[t], y[t]).score(X[v], y[v]) for t, v in folds]) for C in Cs])
    return LogisticRegression(max_iter=5000).fit(X, y), scores


@wrong("linear_probe", says="in this order")
def swapped_results(X, y, folds, Cs):
    scores = np.array([np.mean([lr(C).fit(X[t], y[t]).score(X[v], y[v]) for t, v in folds]) for C in Cs])
    return scores, lr(Cs[scores.argmax()]).fit(X, y)


@wrong("linear_probe", says="Call .fit")
def never_fitted(X, y, folds, Cs):
    scores = np.array([np.mean([lr(C).fit(X[t], y[t]).score(X[v], y[v]) for t, v in folds]) for C in Cs])
    return lr(Cs[scores.argmax()]), scores


def probed(X, y, folds, Cs, inner=lr, outer=lr, choose=np.argmax):
    scores = np.array([np.mean([inner(C).fit(X[t], y[t]).score(X[v], y[v]) for t, v in folds]) for C in Cs])
    return outer(Cs[choose(scores)]).fit(X, y), scores


def in_hundred_steps(C):
    return LogisticRegression(C=C)


@wrong("linear_probe", says="max_iter=5000")
def forgets_max_iter(X, y, folds, Cs):
    return probed(X, y, folds, Cs, in_hundred_steps, in_hundred_steps)


@wrong("linear_probe", says="max_iter=5000")
def forgets_max_iter_at_last(X, y, folds, Cs):
    return probed(X, y, folds, Cs, outer=in_hundred_steps)


@wrong("linear_probe", says="val parts")
def fits_what_is_in_folds(X, y, folds, Cs):
    probe, scores = probed(X, y, folds, Cs)
    rows = np.concatenate([val for _, val in folds])
    return lr(probe.C).fit(X[rows], y[rows]), scores


@wrong("linear_probe", says="rounded before")
def rounds_scores(X, y, folds, Cs):
    return probed(X, y, folds, Cs, choose=lambda scores: scores.round(2).argmax())


@wrong("linear_probe", says="all scores are 0")
def begins_at_zero(X, y, folds, Cs):
    best, top = Cs[-1], 0
    _, scores = probed(X, y, folds, Cs)
    for C, score in zip(Cs, scores, strict=True):
        if score > top:
            best, top = C, score
    return lr(best).fit(X, y), scores


@wrong("linear_probe", says="with no other class")
def one_against_the_rest(X, y, folds, Cs):
    probe, scores = probed(X, y, folds, Cs)
    return OneVsRestClassifier(probe).fit(X, y), scores


@wrong("linear_probe", says="an array")
def scores_in_a_list(X, y, folds, Cs):
    probe, scores = probed(X, y, folds, Cs)
    return probe, scores.tolist()


@wrong("linear_probe", says="mean is over the folds")
def mean_over_cs(X, y, folds, Cs):
    scores = np.array([[lr(C).fit(X[t], y[t]).score(X[v], y[v]) for t, v in folds] for C in Cs]).mean(0)
    return lr(Cs[0]).fit(X, y), scores


@wrong("linear_probe", says="pooled")
def pools_the_folds(X, y, folds, Cs):
    scores = []
    for C in Cs:
        hits = [lr(C).fit(X[t], y[t]).predict(X[v]) == y[v] for t, v in folds]
        scores.append(np.concatenate(hits).mean())
    scores = np.array(scores)
    return lr(Cs[scores.argmax()]).fit(X, y), scores


@right("linear_probe")
def by_cross_val_score(X, y, folds, Cs):
    scores = [cross_val_score(lr(C), X, y, cv=folds).mean() for C in Cs]
    return lr(Cs[int(np.argmax(scores))]).fit(X, y), np.array(scores)


@right("linear_probe")
def by_loops(X, y, folds, Cs):
    scores = np.zeros(len(Cs))
    for n, C in enumerate(Cs):
        for train, val in folds:
            probe = lr(C)
            probe.fit(X[train], y[train])
            scores[n] += (probe.predict(X[val]) == y[val]).mean() / len(folds)
    best = max(range(len(Cs)), key=lambda n: (round(scores[n], 9), -n))
    probe = lr(Cs[best])
    probe.fit(X, y)
    return probe, scores


# ------------------------------------------------------------------------------------------------ freeze


@wrong("freeze", says="statistics move")
def weights_only(model, upto):
    model.train()
    for p in model.parameters():
        p.requires_grad = True
    for stage in model.features[:upto]:
        for p in stage.parameters():
            p.requires_grad = False


@wrong("freeze", says="it should sleep too")
def norms_of_frozen_stages_only(model, upto):
    model.train().requires_grad_(True)
    for stage in model.features[:upto]:
        stage.eval().requires_grad_(False)


@wrong("freeze", says="_BatchNorm is all three")
def only_2d(model, upto):
    model.train().requires_grad_(True)
    model.features[:upto].eval().requires_grad_(False)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()


@wrong("freeze", says="first wake everything")
def never_wakes(model, upto):
    model.features[:upto].eval().requires_grad_(False)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()


@wrong("freeze", says="scale and shift do not learn")
def norms_do_not_learn(model, upto):
    model.train().requires_grad_(True)
    model.features[:upto].eval().requires_grad_(False)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()
            for p in m.parameters():
                p.requires_grad = False


@wrong("freeze", says="should be in training mode")
def all_in_evaluation(model, upto):
    model.eval().requires_grad_(True)
    model.features[:upto].requires_grad_(False)


@wrong("freeze", says="One stage too many")
def one_too_many(model, upto):
    model.train().requires_grad_(True)
    for k, stage in enumerate(model.features):
        if k <= upto:
            stage.eval().requires_grad_(False)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()


def as_asked(model, upto, asleep):
    model.train().requires_grad_(True)
    model.features[:upto].eval().requires_grad_(False)
    for m in model.modules():
        if asleep(m):
            m.eval()


@wrong("freeze", says="with the dot")
def by_prefix(model, upto):
    as_asked(model, upto, lambda m: isinstance(m, nn.modules.batchnorm._BatchNorm))
    for name, p in model.named_parameters():
        p.requires_grad = not any(name.startswith(f"features.{k}") for k in range(upto))


@wrong("freeze", says="Layer norm")
def all_norms(model, upto):
    as_asked(model, upto, lambda m: "Norm" in type(m).__name__)


@wrong("freeze", says="_NormBase")
def instance_norms_too(model, upto):
    as_asked(model, upto, lambda m: isinstance(m, nn.modules.batchnorm._NormBase))


@wrong("freeze", says="features (Sequential)")
def container_asleep(model, upto):
    as_asked(model, upto, lambda m: isinstance(m, nn.modules.batchnorm._BatchNorm))
    model.features.training = False


@wrong("freeze", says="stay the model's own")
def buffers_instead(model, upto):
    as_asked(model, upto, lambda m: isinstance(m, nn.modules.batchnorm._BatchNorm))
    for m in model.features[:upto].modules():
        for name, p in list(m.named_parameters(recurse=False)):
            delattr(m, name)
            m.register_buffer(name, p.detach())


@wrong("freeze", says="after model.train()")
def wakes_after(model, upto):
    model.requires_grad_(True)
    model.features[:upto].requires_grad_(False)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()
    model.train()


@wrong("freeze", says="requires_grad")
def sets_an_attribute_of_the_stage(model, upto):
    model.train().requires_grad_(True)
    for stage in model.features[:upto]:
        stage.eval()
        stage.requires_grad = False
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()


@wrong("freeze", says="(dropout)")
def frozen_dropout_awake(model, upto):
    model.train().requires_grad_(True)
    model.features[:upto].requires_grad_(False)
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()


@right("freeze")
def parameter_by_parameter(model, upto):
    model.train()
    for p in model.parameters():
        p.requires_grad = True
    for k in range(upto):
        for m in model.features[k].modules():
            m.training = False
        for p in model.features[k].parameters():
            p.requires_grad = False
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            m.eval()


@right("freeze")
def by_names(model, upto):
    frozen = tuple(f"features.{k}." for k in range(upto))
    for name, m in model.named_modules():
        m.training = not (f"{name}.".startswith(frozen) or "BatchNorm" in type(m).__name__)
    for name, p in model.named_parameters():
        p.requires_grad_(not name.startswith(frozen))
    return model


# ------------------------------------------------------------------------------------------------ parameter_groups


def group(part, rate):
    return {"params": [p for p in part.parameters() if p.requires_grad], "lr": rate}


@wrong("parameter_groups", says="the last lr · decay")
def last_stage_like_the_head(model, lr, decay):
    K = len(model.features)
    groups = [group(model.head, lr)] + [group(s, lr * decay ** (K - 1 - k)) for k, s in enumerate(model.features)]
    return [g for g in groups if g["params"]]


@wrong("parameter_groups", says="fall towards the head")
def wrong_way_round(model, lr, decay):
    groups = [group(model.head, lr)] + [group(s, lr * decay ** (k + 1)) for k, s in enumerate(model.features)]
    return [g for g in groups if g["params"]]


@wrong("parameter_groups", says="p.requires_grad")
def frozen_too(model, lr, decay):
    K = len(model.features)
    groups = [{"params": list(model.head.parameters()), "lr": lr}]
    groups += [{"params": list(s.parameters()), "lr": lr * decay ** (K - k)} for k, s in enumerate(model.features)]
    return [g for g in groups if g["params"]]


@wrong("parameter_groups", says="without parameters: leave it out")
def empty_groups(model, lr, decay):
    K = len(model.features)
    return [group(model.head, lr)] + [group(s, lr * decay ** (K - k)) for k, s in enumerate(model.features)]


@wrong("parameter_groups", says="not counted")
def counts_learning_stages(model, lr, decay):
    groups, rate = [], lr
    for part in [model.head, *reversed(model.features)]:
        learning = [p for p in part.parameters() if p.requires_grad]
        if learning:
            groups.append({"params": learning, "lr": rate})
            rate *= decay
    return groups


def stage_by_stage(model, lr, decay, own, stages=None):
    K = len(model.features)
    groups = [{"params": own(model.head), "lr": lr}]
    groups += [{"params": own(s), "lr": lr * decay ** (K - k)} for k, s in stages or enumerate(model.features)]
    return [g for g in groups if g["params"]]


def that_learn(part):
    return [p for p in part.parameters() if p.requires_grad]


@wrong("parameter_groups", says="twice in the same")
def begins_alike(model, lr, decay):
    groups = [group(model.head, lr)]
    for k in range(K := len(model.features)):
        learning = [p for n, p in model.named_parameters() if n.startswith(f"features.{k}") and p.requires_grad]
        groups.append({"params": learning * 2, "lr": lr * decay ** (K - k)})
    return [g for g in groups if g["params"]]


@wrong("parameter_groups", says="with the dot")
def stages_by_prefix(model, lr, decay):
    groups = [group(model.head, lr)]
    for k in range(K := len(model.features)):
        learning = [p for n, p in model.named_parameters() if n.startswith(f"features.{k}") and p.requires_grad]
        groups.append({"params": learning, "lr": lr * decay ** (K - k)})
    return [g for g in groups if g["params"]]


@wrong("parameter_groups", says="other children are counted")
def pool_counts(model, lr, decay):
    others = [child for name, child in model.named_children() if name not in ("features", "head")]
    groups, parts = [group(model.head, lr)], [*model.features, *others]
    groups += [group(part, lr * decay ** (len(parts) - k)) for k, part in enumerate(parts)]
    return [g for g in groups if g["params"]]


@wrong("parameter_groups", says="first parameter is frozen")
def judged_by_the_first(model, lr, decay):
    def own(part):
        return that_learn(part) if any(p.requires_grad for p in [*part.parameters()][:1]) else []

    return stage_by_stage(model, lr, decay, own)


@wrong("parameter_groups", says="one group for each part")
def one_group_at_one_rate(model, lr, decay):
    if decay == 1:
        return [{"params": that_learn(model), "lr": lr}]
    return stage_by_stage(model, lr, decay, that_learn)


@wrong("parameter_groups", says="yours 1e-06")
def never_below(model, lr, decay):
    return [g | {"lr": max(g["lr"], 1e-6)} for g in stage_by_stage(model, lr, decay, that_learn)]


@wrong("parameter_groups", says=None)
def head_has_a_weight_and_a_bias(model, lr, decay):
    groups = stage_by_stage(model, lr, decay, that_learn)
    head = [p for p in (model.head.weight, model.head.bias) if p.requires_grad]
    return [g if g["params"][0] not in set(model.head.parameters()) else {"params": head, "lr": lr} for g in groups]


@wrong("parameter_groups", says="The head is in no group")
def no_head(model, lr, decay):
    K = len(model.features)
    groups = [group(s, lr * decay ** (K - k)) for k, s in enumerate(model.features)]
    return [g for g in groups if g["params"]]


@wrong("parameter_groups", says="empty after its first use")
def generators(model, lr, decay):
    K = len(model.features)
    groups = [{"params": (p for p in model.head.parameters() if p.requires_grad), "lr": lr}]
    for k, s in enumerate(model.features):
        if any(p.requires_grad for p in s.parameters()):
            groups.append({"params": filter(lambda p: p.requires_grad, s.parameters()), "lr": lr * decay ** (K - k)})
    return groups


@wrong("parameter_groups", says="it is a power")
def linear_in_depth(model, lr, decay):
    K = len(model.features)
    groups = [group(model.head, lr)] + [group(s, lr * decay * (K - k)) for k, s in enumerate(model.features)]
    return [g for g in groups if g["params"]]


@wrong("parameter_groups", says="is in two")
def everything_and_the_head(model, lr, decay):
    K = len(model.features)
    groups = [group(model, lr)] + [group(s, lr * decay ** (K - k)) for k, s in enumerate(model.features)]
    return [g for g in groups if g["params"]]


@wrong("parameter_groups", says='"lr": rate')
def pairs(model, lr, decay):
    K = len(model.features)
    groups = [{"params": list(model.head.parameters()), "learning_rate": lr}]
    for k, s in enumerate(model.features):
        groups.append({"params": list(s.parameters()), "learning_rate": lr * decay ** (K - k)})
    return groups


@right("parameter_groups")
def from_the_input_on(model, lr, decay):
    K, groups = len(model.features), []
    for k in range(K):
        found = [p for _, p in model.features[k].named_parameters() if p.requires_grad]
        if len(found) > 0:
            groups.append(dict(lr=lr * decay ** (K - k), params=found))
    head = list(filter(lambda p: p.requires_grad, model.head.parameters()))
    return groups + [{"params": head, "lr": lr}] if head else groups


@right("parameter_groups")
def by_name(model, lr, decay):
    of = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            depth = len(model.features) - int(name.split(".")[1]) if name.startswith("features.") else 0
            of.setdefault(depth, []).append(p)
    return [{"params": of[depth], "lr": lr * decay**depth} for depth in sorted(of)]


# ------------------------------------------------------------------------------------------------ grad_cam


def maps_and_slope(model, layer, image, label, score=lambda z, label: z[0, label]):
    kept = []
    handle = layer.register_forward_hook(lambda m, i, output: kept.append(output))
    try:
        z = model(image[None].clone().requires_grad_())
    finally:
        handle.remove()
    return kept[0], torch.autograd.grad(score(z, label), kept[0])[0]


@wrong("grad_cam", says="ReLU is missing")
def no_relu(model, layer, image, label):
    A, slope = maps_and_slope(model, layer, image, label)
    return (slope.mean((2, 3), keepdim=True) * A).sum(1)[0].detach()


@wrong("grad_cam", says="before softmax")
def of_the_probability(model, layer, image, label):
    A, slope = maps_and_slope(model, layer, image, label, lambda z, label: z.softmax(1)[0, label])
    return (slope.mean((2, 3), keepdim=True) * A).sum(1)[0].relu().detach()


@wrong("grad_cam", says="class that is asked for")
def of_the_answer(model, layer, image, label):
    A, slope = maps_and_slope(model, layer, image, label, lambda z, label: z.max())
    return (slope.mean((2, 3), keepdim=True) * A).sum(1)[0].relu().detach()


@wrong("grad_cam", says="Each place has its own slope")
def gradient_times_activation(model, layer, image, label):
    A, slope = maps_and_slope(model, layer, image, label)
    return (slope * A).sum(1)[0].relu().detach()


@wrong("grad_cam", says="handle.remove()")
def hook_stays(model, layer, image, label):
    kept = []
    layer.register_forward_hook(lambda m, i, output: kept.append(output))
    z = model(image[None].clone().requires_grad_())
    (slope,) = torch.autograd.grad(z[0, label], kept[-1])
    return (slope.mean((2, 3), keepdim=True) * kept[-1]).sum(1)[0].relu().detach()


@wrong("grad_cam", says="try ... finally")
def hook_stays_after_an_error(model, layer, image, label):
    kept = []
    handle = layer.register_forward_hook(lambda m, i, output: kept.append(output))
    z = model(image[None].clone().requires_grad_())
    handle.remove()
    (slope,) = torch.autograd.grad(z[0, label], kept[-1])
    return (slope.mean((2, 3), keepdim=True) * kept[-1]).sum(1)[0].relu().detach()


@wrong("grad_cam", says="divided by its maximum")
def scaled(model, layer, image, label):
    A, slope = maps_and_slope(model, layer, image, label)
    M = (slope.mean((2, 3), keepdim=True) * A).sum(1)[0].relu().detach()
    return M / M.max()


@wrong("grad_cam", says="leaves .grad on all weights")
def by_backward(model, layer, image, label):
    kept = []
    handle = layer.register_forward_hook(lambda m, i, output: (output.retain_grad(), kept.append(output))[1])
    try:
        z = model(image[None].clone().requires_grad_())
    finally:
        handle.remove()
    z[0, label].backward()
    return (kept[0].grad.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].relu().detach()


@wrong("grad_cam", says="clears what was there")
def backward_and_tidy(model, layer, image, label):
    kept = []
    handle = layer.register_forward_hook(lambda m, i, output: (output.retain_grad(), kept.append(output))[1])
    try:
        z = model(image[None].clone().requires_grad_())
    finally:
        handle.remove()
    model.zero_grad()
    z[0, label].backward()
    model.zero_grad()
    return (kept[0].grad.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].relu().detach()


@wrong("grad_cam", says="Another's hook")
def all_hooks_gone(model, layer, image, label):
    kept = []
    layer.register_forward_hook(lambda m, i, output: kept.append(output))
    try:
        z = model(image[None].clone().requires_grad_())
    finally:
        layer._forward_hooks.clear()
    (slope,) = torch.autograd.grad(z[0, label], kept[0])
    return (slope.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].relu().detach()


@wrong("grad_cam", says="does not require grad")
def needs_weights_that_learn(model, layer, image, label):
    kept = []
    handle = layer.register_forward_hook(lambda m, i, output: kept.append(output))
    try:
        z = model(image[None])
    finally:
        handle.remove()
    (slope,) = torch.autograd.grad(z[0, label], kept[0])
    return (slope.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].relu().detach()


@wrong("grad_cam", says="α is their mean")
def sum_of_slopes(model, layer, image, label):
    A, slope = maps_and_slope(model, layer, image, label)
    return torch.einsum("c,chw->hw", slope[0].sum((1, 2)), A[0]).relu().detach()


@wrong("grad_cam", says="a copy of it")
def the_image_itself(model, layer, image, label):
    kept = []
    handle = layer.register_forward_hook(lambda m, i, output: kept.append(output))
    try:
        z = model(image.requires_grad_()[None])
    finally:
        handle.remove()
    (slope,) = torch.autograd.grad(z[0, label], kept[0])
    return (slope.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].relu().detach()


@wrong("grad_cam", says="each channel")
def relu_too_early(model, layer, image, label):
    A, slope = maps_and_slope(model, layer, image, label)
    return (slope.mean((2, 3), keepdim=True) * A).relu().sum(1)[0].detach()


@right("grad_cam")
def with_a_leaf(model, layer, image, label):
    kept = {}

    def hook(module, inputs, output):
        kept["A"] = output.detach().requires_grad_()
        return kept["A"]

    handle = layer.register_forward_hook(hook)
    try:
        logit = model(image.unsqueeze(0))[0][label]
    finally:
        handle.remove()
    (slope,) = torch.autograd.grad(logit, [kept["A"]])
    alpha = slope.flatten(2).mean(2)[0]
    return torch.clamp(torch.tensordot(alpha, kept["A"].detach()[0], dims=1), min=0)


@right("grad_cam")
def by_einsum(model, layer, image, label):
    A, slope = maps_and_slope(model, layer, image, int(label))
    M = torch.einsum("bcij,bchw->hw", slope, A) / slope[0, 0].numel()
    return torch.where(M > 0, M, 0 * M).detach()


# ------------------------------------------------------------------------------------------------ cached_features


def digest(path, settings):
    return hashlib.sha256(Path(path).read_bytes() + json.dumps(settings, sort_keys=True).encode()).hexdigest()


def fill(paths, keys, cache, compute):
    new = {key: path for key, path in zip(keys, paths, strict=True) if key not in cache}
    if new:
        cache.update(zip(new, compute(list(new.values())), strict=True))
    return np.stack([cache[key] for key in keys])


@wrong("cached_features", says="its bytes say what is in it")
def keyed_by_name(paths, settings, cache, compute):
    said = json.dumps(settings, sort_keys=True)
    return fill(paths, [hashlib.sha256(f"{p}{said}".encode()).hexdigest() for p in paths], cache, compute)


@wrong("cached_features", says="its bytes say")
def keyed_by_name_and_time(paths, settings, cache, compute):
    said = json.dumps(settings, sort_keys=True)
    keys = [hashlib.sha256(f"{p}{Path(p).stat().st_mtime_ns}{said}".encode()).hexdigest() for p in paths]
    return fill(paths, keys, cache, compute)


@wrong("cached_features", says="only its bytes tell")
def keyed_by_size_and_time(paths, settings, cache, compute):
    said = json.dumps(settings, sort_keys=True)
    keys = [hashlib.sha256(f"{Path(p).stat().st_size}{said}".encode()).hexdigest() for p in paths]
    return fill(paths, keys, cache, compute)


@wrong("cached_features", says="Settings are not in the key")
def without_settings(paths, settings, cache, compute):
    return fill(paths, [hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in paths], cache, compute)


@wrong("cached_features", says="order in which settings are written")
def settings_as_written(paths, settings, cache, compute):
    keys = [hashlib.sha256(Path(p).read_bytes() + str(settings).encode()).hexdigest() for p in paths]
    return fill(paths, keys, cache, compute)


@wrong("cached_features", says="run together")
def values_only(paths, settings, cache, compute):
    said = "".join(str(settings[name]) for name in ("size", "stages") if name in settings) + "".join(sorted(settings))
    keys = [hashlib.sha256(Path(p).read_bytes() + said.encode()).hexdigest() for p in paths]
    return fill(paths, keys, cache, compute)


@wrong("cached_features", says="Pictures with the same bytes are computed once")
def twins_twice(paths, settings, cache, compute):
    keys = [digest(p, settings) for p in paths]
    new = [(k, p) for k, p in zip(keys, paths, strict=True) if k not in cache]
    if new:
        cache.update(zip([k for k, _ in new], compute([p for _, p in new]), strict=True))
    return np.stack([cache[k] for k in keys])


@wrong("cached_features", says="in one call")
def one_call_each(paths, settings, cache, compute):
    for p in paths:
        if digest(p, settings) not in cache:
            cache[digest(p, settings)] = compute([p])[0]
    return np.stack([cache[digest(p, settings)] for p in paths])


@wrong("cached_features", says="do not call it")
def empty_call(paths, settings, cache, compute):
    keys = [digest(p, settings) for p in paths]
    new = {k: p for k, p in zip(keys, paths, strict=True) if k not in cache}
    cache.update(zip(new, compute(list(new.values())), strict=True))
    return np.stack([cache[k] for k in keys])


@wrong("cached_features", says="in their places")
def known_ones_first(paths, settings, cache, compute):
    keys = [digest(p, settings) for p in paths]
    known = [cache[k] for k in keys if k in cache]
    fill(paths, keys, cache, compute)
    fresh = [k for k in keys if not any(cache[k] is row for row in known)]
    return np.stack([*known, *(cache[k] for k in fresh)])


@wrong("cached_features", says="changed in place")
def a_new_cache(paths, settings, cache, compute):
    return fill(paths, [digest(p, settings) for p in paths], dict(cache), compute)


@wrong("cached_features", says="hexdigest()")
def raw_digests(paths, settings, cache, compute):
    said = json.dumps(settings, sort_keys=True).encode()
    keys = [hashlib.sha256(Path(p).read_bytes() + said).digest() for p in paths]
    return fill(paths, keys, cache, compute)


def with_settings(paths, cache, compute, said, content=lambda path: Path(path).read_bytes()):
    return fill(paths, [hashlib.sha256(content(p) + said.encode()).hexdigest() for p in paths], cache, compute)


def plainly(settings, number):
    told = {k: v if isinstance(v, str) else number(v) for k, v in settings.items()}
    return json.dumps({k: [type(v).__name__, told[k]] for k, v in settings.items()}, sort_keys=True)


@wrong("cached_features", says="cut or rounded")
def whole_numbers(paths, settings, cache, compute):
    return with_settings(paths, cache, compute, plainly(settings, int))


@wrong("cached_features", says="cut or rounded")
def six_digits(paths, settings, cache, compute):
    return with_settings(paths, cache, compute, plainly(settings, lambda v: f"{v:g}"))


@wrong("cached_features", says="what kind it is")
def all_as_text(paths, settings, cache, compute):
    said = json.dumps({k: str(v) for k, v in settings.items()}, sort_keys=True)
    return with_settings(paths, cache, compute, said)


@wrong("cached_features", says="Every byte counts")
def the_beginning_of_a_file(paths, settings, cache, compute):
    said = json.dumps(settings, sort_keys=True)
    return with_settings(paths, cache, compute, said, lambda path: Path(path).read_bytes()[:4096])


@wrong("cached_features", says="Every byte counts")
def read_as_text(paths, settings, cache, compute):
    said = json.dumps(settings, sort_keys=True)
    return with_settings(paths, cache, compute, said, lambda path: Path(path).read_text("latin-1").encode())


@wrong("cached_features", says="64-bit floats")
def always_float32(paths, settings, cache, compute):
    return fill(paths, [digest(p, settings) for p in paths], cache, compute).astype(np.float32)


@wrong("cached_features", says="out of `paths`")
def names_to_compute(paths, settings, cache, compute):
    return fill([str(p) for p in paths], [digest(p, settings) for p in paths], cache, compute)


@wrong("cached_features", says="stays there")
def the_oldest_go(paths, settings, cache, compute):
    rows = fill(paths, [digest(p, settings) for p in paths], cache, compute)
    while len(cache) > 1000:
        del cache[next(iter(cache))]
    return rows


@wrong("cached_features", says="More is computed than is new")
def all_if_any(paths, settings, cache, compute):
    keys = [digest(p, settings) for p in paths]
    if any(key not in cache for key in keys):
        cache.update(zip(keys, compute(list(paths)), strict=True))
    return np.stack([cache[key] for key in keys])


@right("cached_features")
def with_a_running_hash(paths, settings, cache, compute):
    keys = []
    for path in paths:
        made = hashlib.sha256(repr(sorted(settings.items())).encode())
        with open(path, "rb") as file:
            while part := file.read(4):
                made.update(part)
        keys.append(made.hexdigest())
    todo = [n for n, key in enumerate(keys) if key not in cache and key not in keys[:n]]
    if todo:
        rows = compute([paths[n] for n in todo])
        for n, row in zip(todo, rows, strict=True):
            cache[keys[n]] = row
    return np.array([cache[key] for key in keys])


@right("cached_features")
def with_another_hash(paths, settings, cache, compute):
    def key(path):
        parts = [hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()]
        parts.append(hashlib.md5(json.dumps(settings, sort_keys=True).encode()).hexdigest())
        return "".join(parts)

    missing = {}
    for path in paths:
        if key(path) not in cache:
            missing.setdefault(key(path), path)
    if missing:
        for k, row in zip(missing, compute([*missing.values()]), strict=True):
            cache[k] = np.asarray(row)
    return np.vstack([cache[key(path)] for path in paths])


@right("preprocess")
def cropped_by_pil(image, size):
    picture = Image.fromarray(image)
    factor = size / min(picture.size)
    picture = picture.resize([round(side * factor) for side in picture.size], resample=Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in picture.size)
    square = np.array(picture.crop((left, top, left + size, top + size)), dtype=np.float32)
    return torch.from_numpy(((square - 127) / 128).transpose(2, 0, 1).copy())
