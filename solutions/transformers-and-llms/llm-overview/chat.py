"""Talk with SmolLM2, a language model of 135 million numbers, by code that one can read.

python chat.py Who wrote Moby Dick?                ask once, and get an answer
python chat.py                                     a talk: a line each, an empty line ends it
python chat.py --system "Answer in French." Hello  with another first instruction
python chat.py --complete "Call me"                no chat: what follows these words
python chat.py Who is Ahab? --figure runs/who.png  and how likely it found each token of its answer
python chat.py --perplexity                        how well it foresees a page of Moby Dick; draws runs/chat.png
python chat.py --perplexity diary.txt              or a page of yours: any text file in UTF-8

The weights lie on this machine, in a package: nothing is downloaded, and what you type stays here. --temperature, --top-p
and --seed say how a token is chosen; 0 is always the likeliest. What the model says may be false, rude or unfair.
"""

import argparse
import functools
import math
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import atlas
from atlas import plot, program

WEIGHTS = "smollm2-135m"
START, END = 1, 2  # <|im_start|>, <|im_end|>: how a turn begins and ends
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


# ------------------------------------------------------------------------------------------------ the file

NUMBERS = {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}  # kind → code of struct; 8 is text, 9 a list
F32, Q4_1, Q8_0 = 0, 3, 8
BLOCKS = {F32: (1, 4), Q4_1: (32, 20), Q8_0: (32, 34)}  # numbers in a block, and its bytes


def read_gguf(path):
    """What a file of llama.cpp says of its model (a dict), and its weights: name → tensor, in 32 bits.

    Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; of its kinds of weights the three above.
    """
    data, at = np.memmap(path, np.uint8, "r"), 8  # after the four letters and the version
    raw = memoryview(data)

    def number(code):
        nonlocal at
        at += struct.calcsize("<" + code)
        return struct.unpack_from("<" + code, raw, at - struct.calcsize("<" + code))[0]

    def text():
        nonlocal at
        length = number("Q")
        at += length
        return str(raw[at - length : at], "utf-8")

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            kind, length = number("I"), number("Q")
            return [value(kind) for _ in range(length)]
        return number(NUMBERS[kind])

    if bytes(raw[:4]) != b"GGUF":
        raise ValueError(f"{path} is not in the format GGUF")
    count, facts = number("Q"), number("Q")
    settings = {text(): value(number("I")) for _ in range(facts)}
    places = []
    for _ in range(count):
        name, axes = text(), number("I")
        places.append((name, [number("Q") for _ in range(axes)][::-1], number("I"), number("Q")))
    begin, weights = -(-at // 32) * 32, {}
    for name, shape, kind, offset in places:
        numbers, size = BLOCKS[kind]
        rows = math.prod(shape) // numbers
        blocks = data[begin + offset :][: rows * size].reshape(rows, size)
        weights[name] = unpacked(torch.from_numpy(blocks.copy()), kind).view(shape)
    return settings, weights


def unpacked(blocks, kind):
    """Blocks (N, bytes) as numbers (N, 32), or (N, 1) for F32: each block of 32 has a scale of its own."""
    if kind == F32:
        return blocks.view(torch.float32)
    scale = blocks[:, :2].view(torch.float16).float()
    if kind == Q8_0:
        return blocks[:, 2:].view(torch.int8) * scale
    least, pairs = blocks[:, 2:4].view(torch.float16).float(), blocks[:, 4:]
    return torch.cat([pairs & 15, pairs >> 4], 1) * scale + least  # two numbers of 4 bits in a byte


# ------------------------------------------------------------------------------------------------ text and tokens

# Like GPT-2's, with digits one by one. \w here holds ½ and ², which there count as digits.
WORDS = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+|\s+(?=\d)|\s+(?!\S)|\s+")


@functools.cache
def letter_of_byte():
    """For each of the 256 bytes a letter that can be seen: itself where it is one, else one from Ā on; a blank is Ġ."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(rest)}


def words_of(text):
    """The text cut into words, a blank at the beginning of each, their UTF-8 bytes written as letters."""
    letters = letter_of_byte()
    return ["".join(letters[byte] for byte in word.encode()) for word in WORDS.findall(text)]


def merge_all(word, ranks):
    """The symbols of a word after byte pair encoding. ranks: pair of symbols → its rank; the lowest goes first, and
    what a merge makes has a higher one, as learned ranks do."""
    symbols = list(word)
    while len(symbols) > 1:
        found = [(ranks.get(pair, math.inf), n) for n, pair in enumerate(zip(symbols, symbols[1:], strict=False))]
        rank, n = min(found)
        if rank == math.inf:
            break
        symbols[n : n + 2] = [symbols[n] + symbols[n + 1]]
    return symbols


class Tokenizer:
    """Text to numbers and back. merges: the pairs of symbols, the first to be merged first.
    merge: what makes the symbols of a word, (word, ranks) → list of str.
    """

    def __init__(self, vocabulary, merges, merge=merge_all):
        self.vocabulary = vocabulary
        self.ids = {token: n for n, token in enumerate(vocabulary)}
        self.merges = merges
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.symbols = functools.cache(lambda word: merge(word, self.ranks))

    def encode(self, text):
        """Numbers of a text. Whatever it holds, none of them is a control token such as START."""
        return [self.ids[symbol] for word in words_of(text) for symbol in self.symbols(word)]

    def decode(self, ids):
        """The text of these numbers; bytes that make no letter become �."""
        bytes_of = {letter: byte for byte, letter in letter_of_byte().items()}
        return bytes(bytes_of[letter] for n in ids for letter in self.vocabulary[n]).decode(errors="replace")


def chat_prompt(messages, encode):
    """A talk as the numbers that the model was trained on, up to where its answer begins.

    messages: list of {"role": "system", "user" or "assistant", "content": str}, at least one; they stay
    as they are. encode: a function that makes a list of numbers of a text, never a control token.
    Each message becomes START, the numbers of role, line break and content as ONE text, then END and
    the numbers of a line break. Where the first message is not the system's, one with the content
    SYSTEM comes before it. At the end stands START and the text "assistant\\n": its turn, left open.
    Returns a list of ints.
    """
    # TODO: begin with the messages to be written, then go through them; encode(role + "\n" + content) is one text.
    ### BEGIN SOLUTION
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": SYSTEM}, *messages]
    ids = []
    for message in messages:
        ids += [START, *encode(message["role"] + "\n" + message["content"]), END, *encode("\n")]
    return [*ids, START, *encode("assistant\n")]
    ### END SOLUTION


# ------------------------------------------------------------------------------------------------ the network


def rms_norm(x, weight, eps):
    """x over its root mean square, times a weight for each entry."""
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def turn_pairs(x, positions, base):
    """RoPE of x (B, H, T, D): entries 2i and 2i + 1 are turned by the angle position / base^(2i/D).

    They lie side by side here, as the file has them; in the halves' layout i and i + D/2 make a pair.
    """
    D = x.shape[-1]
    angles = positions[:, None] / base ** (torch.arange(0, D, 2, device=x.device) / D)  # (T, D/2)
    even, odd, cos, sin = x[..., ::2], x[..., 1::2], angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def attend(q, k, v):
    """Causal attention of q (B, H, T, D), the last T of S positions, on k and v (B, H_kv, S, D), H_kv dividing H."""
    T, S = q.shape[2], k.shape[2]
    may_look = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, may_look, enable_gqa=True)


@dataclass(frozen=True)
class Parts:
    """What the network is made of, each part a function that one may replace."""

    norm: callable = rms_norm
    turn: callable = turn_pairs
    attend: callable = attend
    bend: callable = F.silu
    last: callable = rms_norm  # the norm before the logits


class Block(nn.Module):
    """Attention and a gated network, each with a norm before it and added to what came in."""

    def __init__(self, D, H, H_kv, hidden):
        super().__init__()
        self.heads, self.size = H, D // H
        self.attn_norm, self.ffn_norm = nn.RMSNorm(D), nn.RMSNorm(D)
        self.attn_q, self.attn_output = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.attn_k, self.attn_v = (nn.Linear(D, H_kv * self.size, bias=False) for _ in "kv")
        self.ffn_gate, self.ffn_up = (nn.Linear(D, hidden, bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(hidden, D, bias=False)

    def forward(self, x, positions, cache, parts, eps, base):
        """x (B, T, D) -> the same shape. cache: None, or a list that holds k and v of what came before, if any did."""
        a = parts.norm(x, self.attn_norm.weight, eps)
        q, k, v = (
            layer(a).unflatten(2, (-1, self.size)).transpose(1, 2)  # (B, heads, T, size)
            for layer in (self.attn_q, self.attn_k, self.attn_v)
        )
        q, k = parts.turn(q, positions, base), parts.turn(k, positions, base)
        if cache is not None:
            k, v = (torch.cat([*old, new], 2) for old, new in zip(cache or [[], []], (k, v), strict=True))
            cache[:] = [[k], [v]]
        x = x + self.attn_output(parts.attend(q, k, v).transpose(1, 2).flatten(2))
        a = parts.norm(x, self.ffn_norm.weight, eps)
        return x + self.ffn_down(parts.bend(self.ffn_gate(a)) * self.ffn_up(a))


class SmolLM2(nn.Module):
    """Tokens to logits of the next ones. Its parameters have the names that the file gives them."""

    def __init__(self, settings):
        super().__init__()
        self.settings = {key.removeprefix("llama."): value for key, value in settings.items() if key[:6] == "llama."}
        D, heads = self.settings["embedding_length"], self.settings["attention.head_count"]
        sizes = D, heads, self.settings["attention.head_count_kv"], self.settings["feed_forward_length"]
        self.token_embd = nn.Embedding(self.settings["vocab_size"], D)
        self.blk = nn.ModuleList(Block(*sizes) for _ in range(self.settings["block_count"]))
        self.output_norm = nn.RMSNorm(D)
        self.parts = Parts()

    def hidden(self, ids, cache=None):
        """ids (B, T) to vectors (B, T, D), from which `forward` makes logits.

        cache: a list, empty at first; the same one is handed in with the tokens that follow.
        """
        eps, base = self.settings["attention.layer_norm_rms_epsilon"], self.settings["rope.freq_base"]
        if cache == []:
            cache.extend([] for _ in self.blk)
        before = cache[0][0][0].shape[2] if cache and cache[0] else 0
        positions = torch.arange(before, before + ids.shape[1], device=ids.device)
        x = self.token_embd(ids)
        for n, block in enumerate(self.blk):
            x = block(x, positions, None if cache is None else cache[n], self.parts, eps, base)
        return self.parts.last(x, self.output_norm.weight, eps)

    def forward(self, ids, cache=None):
        """ids (B, T) to logits (B, T, V): the embedding is the output's matrix, too."""
        return self.hidden(ids, cache) @ self.token_embd.weight.T


def load_model(device="cpu", merge=merge_all):
    """The network and the tokenizer of the file that the package brings."""
    settings, weights = read_gguf(atlas.data.files(WEIGHTS)[0])
    with torch.device("meta"):  # no numbers of its own: those of the file take their place
        model = SmolLM2(settings)
    model.load_state_dict(weights, assign=True)
    model.requires_grad_(False)
    merges = [tuple(pair.split(" ")) for pair in settings["tokenizer.ggml.merges"]]
    return model.eval().to(device), Tokenizer(settings["tokenizer.ggml.tokens"], merges, merge)


# ------------------------------------------------------------------------------------------------ writing


def chooser(temperature, top_p, seed):
    """A function of logits (B, V) that draws a token for each row: (B,). Temperature 0: the likeliest."""
    generator = torch.Generator().manual_seed(seed)

    def choose(logits):
        if temperature == 0:
            return logits.argmax(1)
        p, order = (logits.cpu() / temperature).softmax(1).sort(1, descending=True)
        before = p.cumsum(1) - p
        p = p * ((before < top_p) | (before == 0) | (top_p == 1))  # one at least; rounded sums reach 1 too early
        return order.gather(1, torch.multinomial(p, 1, generator=generator))[:, 0].to(logits.device)

    return choose


@torch.no_grad()
def write_on(model, ids, tokens, choose):
    """Yield so many tokens (B,) that follow ids (B, T); each is read once, what came before stays in a cache."""
    cache = []
    for _ in range(tokens):
        ids = choose(model(ids, cache)[:, -1])[:, None]
        yield ids[:, 0]


def say(model, tokenizer, ids, tokens, choose):
    """Print what follows the numbers `ids` as it comes, until an end sign or so many tokens; return its numbers."""
    device, said, shown = model.token_embd.weight.device, [], ""
    for (token,) in write_on(model, torch.tensor([ids], device=device), tokens, choose):
        if token in (0, END):
            break
        said.append(int(token))
        whole = tokenizer.decode(said).rstrip("�")  # half of a letter waits for its other bytes
        print(whole[len(shown) :], end="", flush=True)
        shown = whole
    print()
    return said


def talk(model, tokenizer, system, options):
    """Read lines and answer each; an empty one, or the input's end, ends it."""
    choose = chooser(options.temperature, options.top_p, options.seed)
    messages = system[:]
    while line := (input("> ") if sys.stdin.isatty() else sys.stdin.readline()).strip():
        messages.append({"role": "user", "content": line})
        said = say(model, tokenizer, chat_prompt(messages, tokenizer.encode), options.tokens, choose)
        messages.append({"role": "assistant", "content": tokenizer.decode(said)})


# ------------------------------------------------------------------------------------------------ how well


@torch.no_grad()
def losses_of(model, ids):
    """Nats that each token of a list costs, the first left out: (T - 1,)."""
    ids = torch.tensor(ids, device=model.token_embd.weight.device)
    return F.cross_entropy(model(ids[None])[0, :-1], ids[1:], reduction="none").cpu()


def a_page(path):
    """The text of a file, or of Moby Dick's test part from its first chapter's beginning on."""
    if path:
        return Path(path).read_text(encoding="utf-8")
    test = atlas.data.load("moby-dick").test
    return test[test.index("CHAPTER") :]


def measure(model, tokenizer, options):
    """Print the perplexity of a text, and draw the loss over the position."""
    text = a_page(options.perplexity)
    ids = tokenizer.encode(text[: 20 * options.limit])[: options.limit]
    if len(ids) < 2:
        sys.exit("The text is empty, or has one token only: there is nothing to foresee.")
    losses, letters = losses_of(model, ids), len(tokenizer.decode(ids).encode())
    print(f"{len(ids):,} tokens of {letters / len(ids):.2f} bytes")
    print(f"perplexity {losses.mean().exp():.1f}, {losses.sum() / math.log(2) / letters:.3f} bits for each byte")
    parts = losses.split(max(1, len(losses) // 16))
    at = np.cumsum([len(part) for part in parts]) - len(parts[0]) / 2
    title = f"Perplexity {losses.mean().exp():.1f} on {options.perplexity or 'Moby Dick'}"
    means = {"mean of some tokens": (at, [part.mean() for part in parts])}
    axes = plot.curves(means, xlabel="position in the text", ylabel="loss (nat)", title=title)
    program.save_figure(axes.figure, options.figure or Path("runs/chat.png"))


@torch.no_grad()
def draw_answer(path, model, tokenizer, ids, said):
    """Write the figure: for each token of an answer the probability that it had, before any temperature."""
    from matplotlib.figure import Figure

    if not said:
        sys.exit("It said nothing, so there is nothing to draw.")
    rows = (
        model(torch.tensor([ids + said], device=model.token_embd.weight.device))[0, len(ids) - 1 : -1].softmax(1).cpu()
    )
    p = rows[range(len(said)), said].tolist()
    tokens = [repr(tokenizer.decode([n]))[1:-1] for n in said]
    figure = Figure(figsize=(7, 1 + 0.22 * len(said)), layout="constrained")
    ax = figure.add_subplot()
    ax.barh(range(len(said)), p, color=plot.COLOURS[0])
    ax.set_yticks(range(len(said)), tokens, size=8)
    ax.set(xlim=(0, 1), xlabel="probability")
    ax.invert_yaxis()
    least = min(range(len(said)), key=p.__getitem__)
    ax.set_title(f"Least likely: {tokens[least]!r}, {p[least]:.3f}", loc="left", size=11, weight="bold")
    program.save_figure(figure, path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="*", metavar="TEXT", help="what to ask; nothing: a talk, line by line")
    parser.add_argument("--system", metavar="TEXT", help="the first instruction, in place of the model's own")
    parser.add_argument("--complete", metavar="TEXT", help="no chat: write on from here")
    parser.add_argument("--perplexity", nargs="?", const="", metavar="FILE", help="foresee this text, or Moby Dick")
    parser.add_argument("--limit", type=program.number(int, 2, 2048), default=384, help="tokens of that text")
    parser.add_argument(
        "--figure", type=program.figure, metavar="IMAGE", help="draw the text's losses, or the answer's tokens"
    )
    parser.add_argument("--tokens", type=program.number(int, 1, 2048), default=120, help="at most so many are written")
    parser.add_argument("--temperature", type=program.number(float, 0, 10), default=0.7, help="0: the likeliest only")
    parser.add_argument("--top-p", type=program.number(float, 0, 1), default=0.9, help="choose among this share")
    parser.add_argument("--seed", type=program.number(int, 0, 2**31), default=0, help="of what is drawn")
    parser.add_argument("--device", default="auto", help="cpu, cuda or mps; auto for the best there is")
    options = parser.parse_args(arguments)
    if options.perplexity and not Path(options.perplexity).is_file():
        parser.error(f"--perplexity: there is no file {options.perplexity}")
    model, tokenizer = load_model(program.device(parser, options.device))
    choose = chooser(options.temperature, options.top_p, options.seed)
    system = [{"role": "system", "content": options.system}] if options.system else []
    if options.perplexity is not None:
        measure(model, tokenizer, options)
    elif options.complete:
        print(options.complete, end="")
        say(model, tokenizer, tokenizer.encode(options.complete), options.tokens, choose)
    elif options.question:
        messages = [*system, {"role": "user", "content": " ".join(options.question)}]
        ids = chat_prompt(messages, tokenizer.encode)
        said = say(model, tokenizer, ids, options.tokens, choose)
        if options.figure:
            draw_answer(options.figure, model, tokenizer, ids, said)
    else:
        talk(model, tokenizer, system, options)


if __name__ == "__main__":
    program.run(main)
