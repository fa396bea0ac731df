"""Pretrained weights: one reader for each of their formats in the catalog, as in atlas.formats. They need torch."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas.formats import Loaded, common

if TYPE_CHECKING:
    import torch

    from atlas.data import Entry


@dataclass(frozen=True, eq=False, repr=False)
class Weights(Loaded):
    """A trained model's numbers, for a model of one's own.

    tensors: name to tensor; float32 wherever they are numbers with a point, on the CPU
    settings: what the file says of the model (layers, heads, chat template, ...); empty if it says nothing
    vocabulary: the tokens, the index is the token's number; empty if the model reads no text
    merges: the pairs of byte pair encoding, the first to be merged first; empty for other tokenizers
    """

    tensors: dict[str, "torch.Tensor"]
    settings: dict
    vocabulary: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    def says(self) -> str:
        numbers = sum(tensor.numel() for tensor in self.tensors.values())
        words = f", {len(self.vocabulary):,} tokens" if self.vocabulary else ""
        return f"{len(self.tensors)} tensors with {numbers:,} numbers{words}"


def read_gguf(entry: "Entry") -> Weights:
    """A model of llama.cpp, format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, quantised or not.

    The rows of the queries' and keys' matrices are in llama.cpp's order: rotary positions turn (even, odd) pairs.
    """
    import numpy as np
    import torch
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(entry.folder / entry.files[0].name)
    tensors = {}
    for each in reader.tensors:
        array = dequantize(each.data, each.tensor_type)
        tensors[each.name] = torch.from_numpy(np.require(array, np.float32, "W"))  # a copy where it is the file itself
    settings = {name: each.contents() for name, each in reader.fields.items() if not name.startswith("GGUF.")}
    vocabulary = settings.pop("tokenizer.ggml.tokens", [])
    merges = settings.pop("tokenizer.ggml.merges", [])
    pairs = tuple(tuple(merge.split(" ")) for merge in merges)
    return Weights(*common(entry), tensors, settings, tuple(vocabulary), pairs)


def read_safetensors(entry: "Entry") -> Weights:
    """Tensors in the first file; beside it, where the catalog lists them, config.json and vocab.txt, a token a line."""
    from safetensors.torch import load_file

    first, *others = [entry.folder / file.name for file in entry.files]
    named = {path.name: path.read_text(encoding="utf-8") for path in others}
    settings = json.loads(named.get("config.json", "{}"))
    vocabulary = tuple(named.get("vocab.txt", "").splitlines())
    return Weights(*common(entry), _float32(load_file(first)), settings, vocabulary, ())


def read_state_dict(entry: "Entry") -> Weights:
    """What torch.save made of a model's state_dict."""
    import torch

    tensors = torch.load(entry.folder / entry.files[0].name, map_location="cpu", weights_only=True)
    return Weights(*common(entry), _float32(tensors), {}, (), ())


def _float32(tensors: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


READERS = {"gguf": read_gguf, "safetensors": read_safetensors, "state-dict": read_state_dict}
