"""Answers to attention-basics: wrong ones named for the misconception, and right ones."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from answers import right, wrong


def masked_softmax(scores, mask=None):
    if mask is None:
        return scores.softmax(-1)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask


def attend(q, k, v, mask=None):
    weights = masked_softmax(q @ k.mT / q.shape[-1] ** 0.5, mask)
    return weights @ v, weights


# ------------------------------------------------------------------------------------------------ attention


@wrong("attention", says="root is missing")
def unscaled(q, k, v, mask=None):
    weights = masked_softmax(q @ k.transpose(-2, -1), mask)
    return weights @ v, weights


@wrong("attention", says="root of S")
def by_the_number_of_keys(q, k, v, mask=None):
    weights = masked_softmax(q @ k.mT / math.sqrt(k.shape[-2]), mask)
    return weights @ v, weights


@wrong("attention", says="by the root of D")
def by_the_width(q, k, v, mask=None):
    weights = masked_softmax(q @ k.mT / q.size(-1), mask)
    return weights @ v, weights


@wrong("attention", says="after the softmax")
def scaled_late(q, k, v, mask=None):
    weights = masked_softmax(q @ k.mT, mask) / math.sqrt(q.shape[-1])
    return weights @ v, weights


@wrong("attention", says="True is where a query may look")
def the_other_meaning(q, k, v, mask=None):
    weights = masked_softmax(q @ k.mT / q.shape[-1] ** 0.5, None if mask is None else ~mask)
    return weights @ v, weights


@wrong("attention", says="The mask has no effect")
def mask_forgotten(q, k, v, mask=None):
    weights = masked_softmax(q @ k.mT / q.shape[-1] ** 0.5)
    return weights @ v, weights


@wrong("attention", says="comes after the softmax")
def mask_afterwards(q, k, v, mask=None):
    weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)
    if mask is not None:
        weights = weights * mask
    return weights @ v, weights


@wrong("attention", says="gets NaN")
def infinitely_low(q, k, v, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    weights = F.softmax(scores, dim=-1)
    return weights @ v, weights


@wrong("attention", says="counts on a number of axes")
def for_four_axes(q, k, v, mask=None):
    weights = masked_softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, mask)
    return weights @ v, weights


@wrong("attention", says="over the keys, the last axis")
def over_the_queries(q, k, v, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-2) if mask is None else scores.softmax(-2) * mask
    return weights @ v, weights


@wrong("attention", says="return output, weights")
def exchanged(q, k, v, mask=None):
    weights = masked_softmax(q @ k.mT / q.shape[-1] ** 0.5, mask)
    return weights, weights @ v


@wrong("attention", says="gets an axis in its middle")
def an_axis_for_heads(q, k, v, mask=None):
    if mask is not None and mask.ndim == 3:
        mask = mask[:, None]
    return attend(q, k, v, mask)


@wrong("attention", says="gets an axis in its middle")
def an_axis_for_heads_of_four(q, k, v, mask=None):
    if mask is not None and mask.ndim == 3 and q.ndim == 4:
        mask = mask[:, None]
    return attend(q, k, v, mask)


@wrong("attention", says="five axes")
def flattened(q, k, v, mask=None):
    if q.ndim > 4:
        q, k, v = (each.flatten(0, -4) for each in (q, k, v))
    return attend(q, k, v, mask)


@wrong("attention", says="it broadcasts, as (T, 1)")
def only_wide_masks(q, k, v, mask=None):
    return attend(q, k, v, None if mask is None or mask.shape[-1] != k.shape[-2] else mask)


@wrong("attention", says="half precision")
def half_in_single(q, k, v, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    weights = masked_softmax(scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores, mask)
    return weights @ v.to(weights.dtype), weights


@wrong("attention", says="cut down to a whole number")
def whole_root(q, k, v, mask=None):
    weights = masked_softmax(q @ k.mT / int(math.sqrt(q.shape[-1])), mask)
    return weights @ v, weights


@wrong("attention", says="is hidden only afterwards")
def nan_afterwards(q, k, v, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + torch.zeros(mask.shape, dtype=scores.dtype).masked_fill(~mask, -math.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)
    return weights @ v, weights


@right("attention")
def by_einsum(q, k, v, mask=None):
    weights = masked_softmax(torch.einsum("...td,...sd->...ts", q * q.shape[-1] ** -0.5, k), mask)
    return torch.einsum("...ts,...se->...te", weights, v), weights


@right("attention")
def with_nan_repaired(q, k, v, mask=None):
    scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(k.size(-1))
    if mask is None:
        weights = F.softmax(scores, dim=-1)
    else:
        weights = F.softmax(torch.where(mask, scores, torch.finfo(scores.dtype).min), dim=-1).masked_fill(~mask, 0.0)
    return torch.matmul(weights, v), weights


# ------------------------------------------------------------------------------------------------ causal_mask


@wrong("causal_mask", says="the first T places")
def at_the_top_left(T, S):
    return torch.tril(torch.ones(T, S)).bool()


@wrong("causal_mask", says="its own place, too")
def own_hidden(T, S):
    return torch.arange(S) < torch.arange(S - T, S)[:, None]


@wrong("causal_mask", says="may not")
def hidden_ones(T, S):
    return torch.ones(T, S, dtype=torch.bool).triu(S - T + 1)


@wrong("causal_mask", says="upper triangle")
def upper(T, S):
    return torch.ones(T, S, dtype=torch.bool).triu(S - T)


@wrong("causal_mask", says="wrong way")
def turned(T, S):
    return torch.ones(T, S, dtype=torch.bool).tril(T - S)


@wrong("causal_mask", says="bool")
def additive(T, S):
    return torch.full((T, S), float("-inf")).triu(S - T + 1)


@wrong("causal_mask", says="a mask is bool")
def numbers(T, S):
    return torch.ones(T, S).tril(S - T)


@wrong("causal_mask", says="S × S")
def whole(T, S):
    return torch.ones(S, S, dtype=torch.bool).tril()


@wrong("causal_mask", says="moved by T")
def moved_by_t(T, S):
    return torch.ones(T, S, dtype=torch.bool).tril(T)


@wrong("causal_mask", says="Nothing is hidden")
def moved_by_s(T, S):
    return torch.ones(T, S, dtype=torch.bool).tril(S)


@wrong("causal_mask", says="100 queries, the last of 100")
def of_a_buffer(T, S):
    return torch.ones(64, 64, dtype=torch.bool).tril()[S - T : S, :S] if S <= 64 else torch.ones(64, 64).tril() > 0


@wrong("causal_mask", says="256")
def in_uint8(T, S):
    place = (torch.arange(S) % 256).to(torch.uint8)
    return place <= place[S - T :, None]


@wrong("causal_mask", says="5 queries, the last of 3000")
def in_half_precision(T, S):
    return torch.arange(S).half() <= torch.arange(S - T, S).half()[:, None]


@right("causal_mask")
def last_rows(T, S):
    return torch.ones(S, S).tril()[-T:] > 0


@right("causal_mask")
def in_loops(T, S):
    return torch.tensor([[s <= S - T + t for s in range(S)] for t in range(T)])


@right("causal_mask")
def compared(T, S):
    return torch.arange(S)[None, :] <= (torch.arange(T)[:, None] + (S - T))


# ------------------------------------------------------------------------------------------------ previous_token_head


@wrong("previous_token_head", says="entries are 1")
def ones_below(T):
    W = torch.diag(torch.ones(T - 1), -1)
    W[0, 0] = 1
    return W


@wrong("previous_token_head", says="wraps around")
def rolled(T):
    return torch.roll(100 * T**0.5 * torch.eye(T), 1, 0)


@wrong("previous_token_head", says="the place after it")
def forwards(T):
    W = torch.zeros(T, T)
    for i in range(T):
        W[i, min(i + 1, T - 1)] = 1e4
    return W


@wrong("previous_token_head", says="W[0, 0] too")
def row_0_empty(T):
    return torch.diag(torch.full((T - 1,), 1e4), -1)


@wrong("previous_token_head", says="is not for many")
def a_hundred(T):
    W = torch.zeros(T, T)
    W[0, 0] = 100
    for i in range(1, T):
        W[i, i - 1] = 100
    return W


@wrong("previous_token_head", says="root of T is forgotten")
def without_the_root(T):
    W = torch.zeros(T, T)
    W[torch.arange(T), (torch.arange(T) - 1).clamp(0)] = math.log(100 * T)
    return W


@wrong("previous_token_head", says="the bound itself")
def just_the_bound(T):
    W = torch.zeros(T, T)
    W[torch.arange(T), (torch.arange(T) - 1).clamp(0)] = T**0.5 * math.log(99 * max(T - 1, 1))
    return W


@wrong("previous_token_head", says="too little on them")
def all_but_the_others(T):
    W = torch.zeros(T, T)
    W[torch.arange(T), (torch.arange(T) - 1).clamp(0)] = T**0.5 * math.log(99) + 1
    return W


@wrong("previous_token_head", says="inf makes NaN")
def infinite(T):
    W = torch.full((T, T), -torch.inf)
    for i in range(T):
        W[i, max(i - 1, 0)] = torch.inf
    return W


@wrong("previous_token_head", says="float32")
def in_numpy(T):
    W = np.eye(T, k=-1) * 1e4
    W[0, 0] = 1e4
    return torch.from_numpy(W)


@right("previous_token_head")
def large(T):
    W = torch.diag(torch.full((T - 1,), 1e5), -1)
    W[0, 0] = 1e5
    return W


@right("previous_token_head")
def all_others_low(T):
    W = torch.full((T, T), -30.0 * T**0.5)
    W[torch.arange(1, T), torch.arange(T - 1)] = 0.0
    W[0, 0] = 0.0
    return W


# ------------------------------------------------------------------------------------------------ split_heads


@wrong("split_heads", says="cuts the rows")
def view(x, H):
    B, T, D = x.shape
    return x.reshape(B, H, T, D // H)


@wrong("split_heads", says="behind the time")
def not_exchanged(x, H):
    B, T, D = x.shape
    return x.reshape(B, T, H, D // H)


@wrong("split_heads", says="every H-th column")
def interleaved(x, H):
    return torch.stack([x[:, :, h::H] for h in range(H)], 1)


@wrong("split_heads", says="Heads and width have changed places")
def other_axes(x, H):
    return x.unflatten(2, (H, -1)).transpose(2, 3)


@wrong("split_heads", says="Batch and heads")
def batch_exchanged(x, H):
    return x.unflatten(2, (H, -1)).transpose(0, 2)


@wrong("split_heads", says="//")
def with_a_fraction(x, H):
    B, T, D = x.shape
    return x.view(B, T, H, D / H).transpose(1, 2)


@wrong("split_heads", says="Time and width")
def width_before_time(x, H):
    B, T, D = x.shape
    return x.reshape(B, T, H, D // H).permute(0, 2, 3, 1)


@wrong("split_heads", says="joined with the batch")
def in_the_batch(x, H):
    B, T, D = x.shape
    return x.reshape(B, T, H, D // H).transpose(1, 2).reshape(B * H, T, D // H)


@wrong("split_heads", says="list")
def a_list(x, H):
    return list(x.chunk(H, 2))


@right("split_heads")
def by_view(x, H):
    B, T, D = x.shape
    return x.view(B, T, H, D // H).transpose(1, 2)


@right("split_heads")
def stacked(x, H):
    return torch.stack(x.chunk(H, dim=-1), dim=1)


@right("split_heads")
def permuted(x, H):
    B, T, D = x.shape
    return x.reshape(B, T, H, D // H).permute(0, 2, 1, 3)


# ------------------------------------------------------------------------------------------------ MultiHeadAttention


def split(x, H):
    return x.unflatten(2, (H, -1)).transpose(1, 2)


class _Given(nn.Module):
    def __init__(self, D, H):
        super().__init__()
        self.H = H
        self.query, self.key, self.value, self.out = (nn.Linear(D, D) for _ in range(4))


@wrong("MultiHeadAttention", says="layer out is missing")
class NoOut(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        q, k, v = split(self.query(x), self.H), split(self.key(memory), self.H), split(self.value(memory), self.H)
        found, weights = attend(q, k, v, mask)
        return found.transpose(1, 2).flatten(2), weights


@wrong("MultiHeadAttention", says="not told that there are heads")
class MaskOfHeads(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        q, k, v = split(self.query(x), self.H), split(self.key(memory), self.H), split(self.value(memory), self.H)
        found, weights = attend(q, k, v, mask)
        return self.out(found.transpose(1, 2).flatten(2)), weights


@wrong("MultiHeadAttention", says="mixes tokens")
class MergedByReshape(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        q, k, v = split(self.query(x), self.H), split(self.key(memory), self.H), split(self.value(memory), self.H)
        found, weights = attend(q, k, v, mask)
        return self.out(found.reshape(x.shape)), weights


@wrong("MultiHeadAttention", says="Queries come from the memory")
class QueriesFromMemory(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        parts = (split(layer(memory), self.H) for layer in (self.query, self.key, self.value))
        found, weights = attend(*parts, mask)
        return self.out(found.transpose(1, 2).flatten(2)), weights


@wrong("MultiHeadAttention", says="memory has no effect")
class SelfOnly(_Given):
    def forward(self, x, memory=None, mask=None):
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        parts = (split(layer(x), self.H) for layer in (self.query, self.key, self.value))
        found, weights = attend(*parts, mask)
        return self.out(found.transpose(1, 2).flatten(2)), weights


@wrong("MultiHeadAttention", says="root of D; of D/H")
class ScaledByTheWhole(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        q, k, v = split(self.query(x), self.H), split(self.key(memory), self.H), split(self.value(memory), self.H)
        weights = masked_softmax(q @ k.mT / x.shape[-1] ** 0.5, mask)
        return self.out((weights @ v).transpose(1, 2).flatten(2)), weights


@wrong("MultiHeadAttention", says="averaged over the heads")
class OneMap(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        q, k, v = split(self.query(x), self.H), split(self.key(memory), self.H), split(self.value(memory), self.H)
        found, weights = attend(q, k, v, mask)
        return self.out(found.transpose(1, 2).flatten(2)), weights.mean(1)


@wrong("MultiHeadAttention", says="return output, weights")
class OutputAlone(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        q, k, v = split(self.query(x), self.H), split(self.key(memory), self.H), split(self.value(memory), self.H)
        return self.out(attend(q, k, v, mask)[0].transpose(1, 2).flatten(2))


def _forward(layer, x, memory, mask):
    parts = (split(f(y), layer.H) for f, y in ((layer.query, x), (layer.key, memory), (layer.value, memory)))
    found, weights = attend(*parts, mask)
    return layer.out(found.transpose(1, 2).flatten(2)), weights


def _of_heads(mask):
    return mask[:, None] if mask is not None and mask.ndim == 3 else mask


@wrong("MultiHeadAttention", says="memory as long as x")
class MemoryByLength(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None or memory.shape == x.shape else memory
        return _forward(self, x, memory, _of_heads(mask))


@wrong("MultiHeadAttention", says="T may be B")
class MaskByLength(_Given):
    def forward(self, x, memory=None, mask=None):
        mask = mask[:, None] if mask is not None and mask.shape[0] == x.shape[0] else mask
        return _forward(self, x, x if memory is None else memory, mask)


@wrong("MultiHeadAttention", says="of the call before")
class MaskKept(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        kept = getattr(self, "kept", None)
        self.kept = mask if mask is not None else kept
        fits = self.kept is not None and self.kept.shape[-1] == memory.shape[1]
        return _forward(self, x, memory, _of_heads(self.kept if fits else None))


@wrong("MultiHeadAttention", says="not to the class")
class HeadsOfTheClass(_Given):
    def __init__(self, D, H):
        super().__init__(D, H)
        del self.H
        type(self).H = H

    def forward(self, x, memory=None, mask=None):
        return _forward(self, x, x if memory is None else memory, _of_heads(mask))


@wrong("MultiHeadAttention", says="in evaluation mode")
class CutInEvaluation(_Given):
    def forward(self, x, memory=None, mask=None):
        output, weights = _forward(self, x, x if memory is None else memory, _of_heads(mask))
        return (output, weights) if self.training else (output.detach(), weights.detach())


@wrong("MultiHeadAttention", says="then keys and values come from x")
class NoneAsMemory(_Given):
    def forward(self, x, memory=None, mask=None):
        return _forward(self, x, memory, _of_heads(mask))


@wrong("MultiHeadAttention", says="x if memory is None else memory")
class EitherOr(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = memory or x
        return _forward(self, x, memory, _of_heads(mask))


@wrong("MultiHeadAttention", says="dropout")
class WithDropout(_Given):
    def forward(self, x, memory=None, mask=None):
        output, weights = _forward(self, x, x if memory is None else memory, _of_heads(mask))
        return F.dropout(output, 0.1), weights


@right("MultiHeadAttention")
class HeadByHead(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        parts = (layer.chunk(self.H, -1) for layer in (self.query(x), self.key(memory), self.value(memory)))
        heads = [attend(q, k, v, mask) for q, k, v in zip(*parts, strict=True)]
        return self.out(torch.cat([o for o, _ in heads], -1)), torch.stack([w for _, w in heads], 1)


@right("MultiHeadAttention")
class ByEinsum(_Given):
    def forward(self, x, memory=None, mask=None):
        memory = x if memory is None else memory
        q, k, v = (
            f(y).unflatten(-1, (self.H, -1))
            for f, y in zip((self.query, self.key, self.value), (x, memory, memory), strict=True)
        )
        scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
        if mask is not None and mask.dim() > 2:
            mask = mask.unsqueeze(1)
        weights = masked_softmax(scores, mask)
        return self.out(torch.einsum("bhts,bshd->bthd", weights, v).flatten(2)), weights


# ------------------------------------------------------------------------------------------------ induction_score


@wrong("induction_score", says="the token itself")
def the_token_itself(weights, period):
    return weights.diagonal(-period, 2, 3).mean((0, 2))


@wrong("induction_score", says="The first i is period - 1")
def whole_diagonal(weights, period):
    return torch.diagonal(weights, 1 - period, dim1=-2, dim2=-1).mean(dim=(0, -1))


@wrong("induction_score", says="The heads are averaged")
def one_number(weights, period):
    return weights.diagonal(1 - period, 2, 3)[..., 1:].mean()


@wrong("induction_score", says="Query and key are exchanged")
def exchanged_axes(weights, period):
    return weights.diagonal(period - 1, 2, 3)[..., 1:].mean((0, 2))


@wrong("induction_score", says="counts from the end")
def from_the_start(weights, period):
    i = torch.arange(weights.shape[-1])
    return weights[:, :, i, i - period + 1].mean((0, 2))


@wrong("induction_score", says="The batch is not averaged")
def for_each_sequence(weights, period):
    i = torch.arange(period, weights.shape[-1])
    return weights[:, :, i, i - period + 1].mean(-1)


@wrong("induction_score", says="one too far")
def one_too_far(weights, period):
    i = torch.arange(period, weights.shape[-1])
    return weights[..., i, i - period + 2].mean((0, 2))


@wrong("induction_score", says="one of them is cut")
def a_period_cut(weights, period):
    return weights.diagonal(1 - period, 2, 3)[..., period:].mean((0, 2))


@wrong("induction_score", says="cut off before the diagonal")
def rows_cut(weights, period):
    return weights[:, :, period:].diagonal(1 - period, 2, 3).mean((0, 2))


@wrong("induction_score", says="i - period - 1")
def sign_slip(weights, period):
    return weights.diagonal(-period - 1, 2, 3)[..., 1:].mean((0, 2))


@wrong("induction_score", says="the places are left")
def of_the_heads(weights, period):
    return weights.diagonal(1 - period, 2, 3)[..., 1:].mean((0, 1))


@wrong("induction_score", says="axes 2 and 3")
def default_axes(weights, period):
    return weights.diagonal(1 - period)[..., 1:].mean((0, 2))


@wrong("induction_score", says="Weights of 0")
def without_zeros(weights, period):
    found = weights.diagonal(1 - period, 2, 3)[..., 1:]
    return found.sum((0, 2)) / (found > 0).sum((0, 2)).clamp(min=1)


@right("induction_score")
def by_diagonal(weights, period):
    return weights.diagonal(1 - period, -2, -1)[..., 1:].mean(-1).mean(0)


@right("induction_score")
def summed_up(weights, period):
    T = weights.shape[-1]
    total = sum(weights[:, :, i, i - period + 1] for i in range(period, T))
    return total.mean(0) / (T - period)


# ------------------------------------------------------------------------------------------------ attention_entropy


@wrong("attention_entropy", says="0 · ln 0")
def logarithm_of_0(weights, mask):
    n = mask.expand(weights.shape).sum(-1)
    entropy = -(weights * weights.log()).sum(-1)
    return torch.where(n > 1, entropy / n.clamp(min=2).log(), torch.zeros_like(entropy))


@wrong("attention_entropy", says="ln of S")
def over_all_keys(weights, mask):
    return torch.special.entr(weights).sum(-1) / math.log(weights.shape[-1])


@wrong("attention_entropy", says="0 / 0 is NaN")
def over_ln_1(weights, mask):
    n = mask.expand(weights.shape).sum(-1)
    return torch.special.entr(weights).sum(-1) / n.to(weights.dtype).log()


@wrong("attention_entropy", says="not divided by ln n")
def in_nats(weights, mask):
    return torch.special.entr(weights).sum(-1)


@wrong("attention_entropy", says="The sign is missing")
def negative(weights, mask):
    n = mask.expand(weights.shape).sum(-1)
    entropy = torch.xlogy(weights, weights).sum(-1)
    return torch.where(n > 1, entropy / n.clamp(min=2).to(weights.dtype).log(), 0.0)


@wrong("attention_entropy", says="One number for all rows")
def mean_of_rows(weights, mask):
    n = mask.expand(weights.shape).sum(-1)
    return torch.where(n > 1, torch.special.entr(weights).sum(-1) / n.clamp(min=2).to(weights.dtype).log(), 0.0).mean()


@wrong("attention_entropy", says="weight of one may be 0")
def of_what_is_looked_at(weights, mask):
    n = (weights > 0).sum(-1)
    return torch.where(n > 1, torch.special.entr(weights).sum(-1) / n.clamp(min=2).to(weights.dtype).log(), 0.0)


@wrong("attention_entropy", says="for float16")
def logarithm_of_a_count(weights, mask):
    n = mask.expand(weights.shape).sum(-1).clamp(min=2)
    return torch.special.entr(weights).sum(-1) / n.log()


@wrong("attention_entropy", says="0 in float16")
def a_small_number_added(weights, mask):
    n = mask.expand(weights.shape).sum(-1).clamp(min=2).to(weights.dtype)
    return -(weights * (weights + 1e-9).log()).sum(-1) / n.log()


@wrong("attention_entropy", says="torch.where keeps the shape")
def rows_left_out(weights, mask):
    n = mask.expand(weights.shape).sum(-1)
    return (torch.special.entr(weights).sum(-1) / n.to(weights.dtype).log())[n > 1]


@right("attention_entropy")
def detached(weights, mask):
    n = mask.broadcast_to(weights.shape).sum(-1).clamp(min=2).to(weights.dtype)
    return (torch.special.entr(weights).sum(-1) / n.log()).detach()


@right("attention_entropy")
def with_a_small_number(weights, mask):
    n = mask.expand_as(weights).sum(-1).to(weights.dtype)
    entropy = -(weights * weights.clamp(min=torch.finfo(weights.dtype).tiny).log()).sum(-1)
    return entropy / n.clamp(min=2).log() * (n > 1)


@right("attention_entropy")
def in_bits(weights, mask):
    n = mask.broadcast_to(weights.shape).sum(-1)
    bits = -torch.xlogy(weights, weights).sum(-1) / math.log(2)
    result = torch.zeros_like(bits)
    some = n > 1
    result[some] = bits[some] / n[some].to(bits.dtype).log2()
    return result
