"""What load gives: the arrays, texts and weights are what the catalog says, splits hold, damaged files are refused."""

import dataclasses
import gzip
import hashlib
import json
import lzma
import re
from pathlib import Path

import numpy as np
import pytest

from atlas import data, formats

DATASETS = Path(__file__).resolve().parents[1] / "datasets"
CATALOG = data.catalog()
IMAGES = ["mnist", "fashion-mnist"]
LOADED = {}


def loaded(name: str):
    """Each set is loaded once for all tests here, and not before one asks."""
    if name not in LOADED:
        LOADED[name] = data.load(name)
    return LOADED[name]


EVERY = [name for name, entry in CATALOG.items() if entry.how != "download"]


@pytest.mark.parametrize("name", EVERY)
def test_a_dataset_cannot_be_changed_and_says_briefly_what_it_is(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded(name).name = "another"
    said = repr(loaded(name))
    assert len(said) < 250 and said.count("\n") == 0
    assert said.startswith(f"{name}: ") and said.endswith(f"licence: {CATALOG[name].licence}")


# Images


@pytest.mark.parametrize("name", IMAGES)
def test_arrays_are_what_the_catalog_says(name):
    entry, images = CATALOG[name], loaded(name)
    assert images.x_train.shape == (entry.splits["train"], *entry.shape)
    assert images.x_test.shape == (entry.splits["test"], *entry.shape)
    assert images.x_train.dtype == images.x_test.dtype == entry.dtype == "uint8"
    assert (images.x_train.min(), images.x_train.max()) == entry.range
    assert images.y_train.shape == (entry.splits["train"],)
    assert images.y_test.shape == (entry.splits["test"],)
    assert images.y_train.dtype == images.y_test.dtype == np.int64
    assert set(images.y_train) == set(images.y_test) == set(range(len(entry.classes)))
    assert images.classes == entry.classes


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_have_the_published_mean_and_deviation(name):
    entry, pixels = CATALOG[name], loaded(name).x_train
    mean, mean_of_squares = pixels.mean(), np.square(pixels, dtype=np.uint16).mean()
    assert mean / 255 == pytest.approx(entry.mean[0], abs=5e-5)
    assert np.sqrt(mean_of_squares - mean**2) / 255 == pytest.approx(entry.std[0], abs=5e-5)


def test_mnist_has_the_published_labels():
    mnist = loaded("mnist")
    assert mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(mnist.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_fashion_mnist_has_the_published_labels():
    fashion = loaded("fashion-mnist")
    assert fashion.y_train[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert [fashion.classes[i] for i in fashion.y_train[:2]] == ["Ankle boot", "T-shirt/top"]
    assert np.bincount(fashion.y_train).tolist() == [6000] * 10
    assert np.bincount(fashion.y_test).tolist() == [1000] * 10


@pytest.mark.parametrize("name", IMAGES)
def test_shipped_files_hold_what_the_authors_published(name):
    for file in CATALOG[name].files:
        content = gzip.decompress((DATASETS / name / file.name).read_bytes())
        assert hashlib.md5(content).hexdigest() == file.content_md5, file.name


def test_an_image_stands_upright_and_ink_is_bright():
    ones = loaded("mnist").x_train[loaded("mnist").y_train == 1].mean(axis=0)  # a 1 is tall, narrow, in the middle
    rows, columns = np.where(ones > 64)
    assert np.ptp(rows) > 2 * np.ptp(columns)
    assert ones[14, 14] > 200 > 10 > ones[0, 0]


def test_changing_the_arrays_changes_nothing_for_the_next_load():
    mine = data.load("mnist")
    mine.x_train[:] = 0
    mine.y_train[:] = 0
    again = data.load("mnist")
    assert again.x_train.any() and again.y_train.any()


def test_stamps_are_small_pictures_of_several_sizes_with_transparency_in_class_folders():
    stamps = loaded("stamps")
    counts = dict(zip(stamps.classes, np.bincount(stamps.labels).tolist(), strict=True))
    assert counts == {
        **{"birds": 35, "flowers": 25, "fruit": 26, "household": 32, "mammals": 66, "vegetables": 18, "vehicles": 17}
    }
    assert [stamps.classes[label] for label in stamps.labels] == [path.parent.name for path in stamps.paths]
    assert list(stamps.paths) == sorted(stamps.paths) and all(path.is_file() for path in stamps.paths)
    assert {(image.dtype, image.ndim, image.shape[2]) for image in stamps.images} == {(np.dtype(np.uint8), 3, 4)}
    assert max(max(image.shape) for image in stamps.images) == 160 and len({i.shape for i in stamps.images}) > 100
    assert sum((image[..., 3] == 0).any() for image in stamps.images) > 200
    assert stamps.labels.dtype == np.int64 and len(stamps.groups) == len(stamps.images) == 219


def test_one_object_photographed_twice_is_one_group():
    stamps = loaded("stamps")
    by_name = dict(zip([path.stem for path in stamps.paths], stamps.groups, strict=True))
    assert by_name["dumper"] == by_name["dumper_mirror"] == "vehicles/dumper"
    assert by_name["gnu-baby"] == by_name["gnu-sitting"]
    assert by_name["pepper"] != by_name["pepper_grinder"], "a vegetable and a mill"
    assert by_name["flower2"] != by_name["flower3"]


# Words and texts


def test_moby_dick_is_cut_by_position_into_parts_that_join_to_the_whole():
    whale = loaded("moby-dick")
    assert whale.train + whale.valid + whale.test == whale.text
    assert (len(whale.train), len(whale.valid), len(whale.test)) == (1_071_285, 59_516, 59_516)
    assert len(set(whale.text)) == 83
    assert whale.text.startswith("CHAPTER 1. Loomings.\n\nCall me Ishmael.")
    assert whale.test.endswith("rolled five thousand years ago.\n")


def test_moby_dick_has_its_135_chapters_in_order():
    chapters = loaded("moby-dick").chapters
    assert [int(re.match(r"CHAPTER (\d+)\. ", heading)[1]) for heading, _ in chapters] == list(range(1, 136))
    assert chapters[41][0] == "CHAPTER 42. The Whiteness of The Whale."
    assert chapters[41][1].startswith("What the white whale was to Ahab") and "CHAPTER" not in chapters[41][1]


def test_names_are_lower_case_letters_in_three_disjoint_splits_with_both_classes_in_each():
    names = loaded("names")
    splits = [(names.x_train, names.y_train), (names.x_valid, names.y_valid), (names.x_test, names.y_test)]
    assert [len(words) for words, _ in splits] == [len(labels) for _, labels in splits] == [6184, 800, 1000]
    everything = [word for words, _ in splits for word in words]
    assert len(set(everything)) == 7984 and all(re.fullmatch("[a-z]+", word) for word in everything)
    assert np.bincount(np.concatenate([labels for _, labels in splits])).tolist() == [4506, 3478]
    label = dict(zip(everything, np.concatenate([labels for _, labels in splits]), strict=True))
    assert [names.classes[label[name]] for name in ("ursula", "herman")] == ["female", "male"]
    first = names.y_train[:100].mean()
    assert 0.3 < first < 0.6 and len({word[0] for word in names.x_train[:100]}) > 15, "the first n are a fair sample"


def disjoint(*splits) -> bool:
    texts = [text for split in splits for text, _ in split]
    return len(set(texts)) == len(texts)


def test_cmudict_gives_words_with_all_their_pronunciations():
    sounds = loaded("cmudict")
    assert [len(s) for s in (sounds.train, sounds.valid, sounds.test)] == [113_871, 1000, 2000]
    assert disjoint(sounds.train, sounds.valid, sounds.test, sounds.more["long"])
    usual = dict(sounds.train + sounds.valid + sounds.test)
    assert all(re.fullmatch("[a-z]{2,14}", word) for word in usual)
    assert all(re.fullmatch("[a-z]{15,}", word) for word, _ in sounds.more["long"]) and len(sounds.more["long"]) == 596
    assert usual["read"] == ("R EH1 D", "R IY1 D") and usual["knight"] == ("N AY1 T",)
    symbols = {symbol for several in usual.values() for one in several for symbol in one.split()}
    assert len(symbols) == 69 and len({symbol.rstrip("012") for symbol in symbols}) == 39


def test_no_german_sentence_is_on_both_sides_of_a_split():
    pairs = loaded("german-english")
    assert [len(s) for s in (pairs.train, pairs.valid, pairs.test)] == [12_553, 500, 500]
    assert disjoint(pairs.train, pairs.valid, pairs.test) and not pairs.more
    everything = pairs.train + pairs.valid + pairs.test
    sentences = [text for german, english in everything for text in (german, *english)]
    assert all(2 <= len(text.split()) <= 12 and text[-1] in ".!?" for text in sentences)
    assert sum(len(english) for _, english in everything) == 13_651
    assert dict(everything)["Es gibt sie in den unterschiedlichsten Varianten."] == (
        "They come in all shapes and sizes.",
    )
    assert not [text for text in sentences if re.search(r"etw\.|sth\.|[{}<>\[\]/;()]", text)]


# Numbers


def test_the_sea_has_a_temperature_every_half_hour_but_for_the_gaps_that_the_catalog_names():
    sea = loaded("sea-temperature")
    assert sea.times.shape == sea.values.shape == (19_226,) and sea.values.dtype == np.float32
    steps = np.diff(sea.times).astype("timedelta64[m]").astype(int)
    odd = {str(sea.times[i]): int(steps[i]) for i in np.flatnonzero(steps != 30)}
    assert odd == {"2016-06-14T13:00:00": 60, "2016-07-08T01:30:00": 720, "2017-03-21T16:30:00": 0}
    assert (sea.times[[0, -1]] == np.array(["2016-02-15T00:00", "2017-03-22T00:00"], "datetime64[s]")).all()
    assert (sea.values.min(), sea.values.max()) == (np.float32(3.612), np.float32(22.15)) and sea.unit == "°C"
    assert sea.values[sea.train][-1] != sea.values[sea.valid][0]
    parts = [sea.values[part] for part in (sea.train, sea.valid, sea.test)]
    assert np.array_equal(np.concatenate(parts), sea.values) and [len(p) for p in parts] == [13_458, 2884, 2884]


def test_penguins_are_columns_of_numbers_and_of_words_with_what_is_missing():
    penguins = loaded("penguins")
    columns = penguins.columns
    numbers = {name for name, column in columns.items() if column.dtype == np.float64}
    assert numbers == {"bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"}
    assert dict(zip(*np.unique(columns["species"], return_counts=True), strict=True)) == {
        **{"Adelie": 152, "Chinstrap": 68, "Gentoo": 124}
    }
    assert np.isnan(columns["body_mass_g"]).sum() == 2 and (columns["sex"] == "").sum() == 11
    rows = np.concatenate([penguins.train, penguins.valid, penguins.test])
    assert sorted(rows) == list(range(344)) and [len(penguins.valid), len(penguins.test)] == [50, 50]


# Splits


def test_where_a_word_goes_depends_on_the_word_alone(tmp_path, monkeypatch):
    """Reversed lines give the same splits, and one more word moves at most one other out of a split."""
    text = lzma.decompress((DATASETS / "names/names.tsv.xz").read_bytes()).decode()
    again = made_up(tmp_path, monkeypatch, "names", "".join(text.splitlines(keepends=True)[::-1]))
    assert again.x_test == loaded("names").x_test and again.x_train == loaded("names").x_train
    more = made_up(tmp_path, monkeypatch, "names", text + "ishmaelle\tfemale\n", train=6185)
    assert len(set(more.x_test) - set(loaded("names").x_test)) <= 1


# Files that are not what they should be


def made_up(tmp_path, monkeypatch, name: str, content: str | bytes, **splits: int):
    """The set `name` with this content in its first file, read as load does after the checksums."""
    entry = dataclasses.replace(CATALOG[name], splits=CATALOG[name].splits | splits, files=CATALOG[name].files[:1])
    with monkeypatch.context() as here:
        here.setenv("ATLAS_ROOT", str(tmp_path))
        path = entry.folder / entry.files[0].name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = {"xz": lzma.compress, "gz": gzip.compress, "csv": bytes}[path.suffix[1:]](content.encode())
        path.write_bytes(content)
        return formats.READERS[entry.format](entry)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("moby-dick", b"CHAPTER 1. Loomings.", r"moby-dick.txt.xz is not a text packed with xz"),
        ("moby-dick", lzma.compress(b"\xff\xfe"), r"moby-dick.txt.xz is not a text packed with xz"),
        (
            "moby-dick",
            "CHAPTER 1. Loomings.\n\nCall me",
            r"moby-dick has 29 characters, the catalog says 1,190,317",
        ),
        ("names", "ursula female\n", r"names.tsv.xz, line 1, is not two texts with a tab between: 'ursula female'"),
        ("names", "ursula\tfemale\nursula\tmale\n", r"names.tsv.xz has 'ursula' twice"),
        ("names", "ursula\tghost\n", r"in no class of the catalog \('ghost'\)"),
        ("names", "ursula\tfemale\n", r"names has 1 words, the catalog says 7,984 \(train \+ valid \+ test\)"),
        ("cmudict", "knight\tN AY1 T\n\tN AY1 T\n", r"cmudict.tsv.xz, line 2, is not two texts"),
        ("german-english", "Guten Tag.\tHello.\n", r"german-english has 1 texts, the catalog says 13,553"),
        ("sea-temperature", "time,value,more\n1,2,3\n", r"has 3 columns, not a time and a value"),
        ("sea-temperature", "time,value\n2016-01-02,3\n2016-01-01,4\n", r"is not in the order of time"),
        ("sea-temperature", "time,value\n2016-01-02,3\n", r"sea-temperature has 1 points, the catalog says 19,226"),
        ("penguins", "species,sex\nAdelie\n", r"penguins.csv, line 2, has 1 columns, and the header has 2"),
        ("penguins", "species,sex\nAdelie,MALE\n", r"penguins has 1 rows, the catalog says 344"),
        ("stamps", b"not a picture", r"is not a picture"),
    ],
)
def test_a_file_that_is_not_what_its_format_says_is_refused_by_name(tmp_path, monkeypatch, name, content, said):
    with pytest.raises(ValueError, match=said):
        made_up(tmp_path, monkeypatch, name, content)


# Weights


def test_weights_are_float32_tensors_that_one_may_change():
    import torch

    for name in ("efficientnet-lite0", "smollm2-135m", "minilm"):
        tensors = loaded(name).tensors.values()
        assert {tensor.dtype for tensor in tensors} <= {torch.float32, torch.int64}
        for tensor in tensors:
            tensor[(0,) * tensor.ndim].mul_(1)


def test_efficientnet_sees_a_zebra_a_pineapple_and_a_strawberry():
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    model = EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(loaded("efficientnet-lite0").tensors)
    assert sum(parameter.numel() for parameter in model.parameters()) == CATALOG["efficientnet-lite0"].parameters
    stamps, pictures = loaded("stamps"), []
    for wanted in ("zebra", "pineapple", "strawberry"):
        path = next(path for path in stamps.paths if path.stem == wanted)
        stamp, white = Image.open(path), Image.new("RGB", (160, 160), "white")
        white.paste(stamp, ((160 - stamp.width) // 2, (160 - stamp.height) // 2), stamp)
        pictures.append(np.array(white.resize((224, 224)), np.float32))
    with torch.no_grad():
        logits = model((torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2) - 127) / 128)
    assert logits.argmax(1).tolist() == [340, 953, 949]  # ImageNet's numbers of them


def test_smollm2_has_its_tokenizer_and_knows_the_capital_of_france():
    """A forward pass by hand: it goes wrong if a tensor, the order of its rows or the vocabulary is."""
    import torch
    from torch.nn import functional as F

    model = loaded("smollm2-135m")
    w, vocabulary = model.tensors, model.vocabulary
    assert len(vocabulary) == 49_152 and len(model.merges) == 48_900
    assert vocabulary[:3] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>") and model.merges[0] == ("Ġ", "t")
    assert sum(tensor.numel() for tensor in w.values()) == CATALOG["smollm2-135m"].parameters
    assert "<|im_start|>" in model.settings["tokenizer.chat_template"]
    layers, heads, key_heads = (
        model.settings[f"llama.{key}"] for key in ("block_count", "attention.head_count", "attention.head_count_kv")
    )
    assert (layers, heads, key_heads, w["token_embd.weight"].shape) == (30, 9, 3, (49_152, 576))

    def norm(x, weight):
        return F.rms_norm(x, (576,), weight, 1e-5)

    def turn(x):  # (heads, T, 64): pairs of even and odd
        angles = torch.arange(x.shape[1])[:, None] / 100_000 ** (torch.arange(0, 64, 2) / 64)
        even, odd, cos, sin = x[..., ::2], x[..., 1::2], angles.cos(), angles.sin()
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)

    words = ["The", "Ġcapital", "Ġof", "ĠFrance", "Ġis"]
    x = w["token_embd.weight"][[vocabulary.index(word) for word in words]]
    with torch.no_grad():
        for block in (f"blk.{i}" for i in range(layers)):
            a = norm(x, w[f"{block}.attn_norm.weight"])
            q, k, v = ((a @ w[f"{block}.attn_{n}.weight"].T).view(len(words), -1, 64).transpose(0, 1) for n in "qkv")
            k, v = (each.repeat_interleave(heads // key_heads, 0) for each in (turn(k), v))
            mixed = F.scaled_dot_product_attention(turn(q), k, v, is_causal=True)
            x = x + mixed.transpose(0, 1).flatten(1) @ w[f"{block}.attn_output.weight"].T
            a = norm(x, w[f"{block}.ffn_norm.weight"])
            gate = F.silu(a @ w[f"{block}.ffn_gate.weight"].T) * (a @ w[f"{block}.ffn_up.weight"].T)
            x = x + gate @ w[f"{block}.ffn_down.weight"].T
        logits = norm(x[-1], w["output_norm.weight"]) @ w["token_embd.weight"].T
    assert vocabulary[logits.argmax()] == "ĠParis"
    assert logits.softmax(0).max() == pytest.approx(0.77, abs=0.02)


def test_minilm_finds_the_sentence_that_means_nearly_the_same():
    import torch

    model = loaded("minilm")
    w, words = model.tensors, {word: number for number, word in enumerate(model.vocabulary)}
    assert len(words) == 30_522 and model.vocabulary[101:103] == ("[CLS]", "[SEP]")
    assert sum(t.numel() for t in w.values() if t.is_floating_point()) == CATALOG["minilm"].parameters
    encoder = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", layer_norm_eps=1e-12, batch_first=True), 6
    ).eval()
    places = {
        **{"attention.output.dense": "self_attn.out_proj", "attention.output.LayerNorm": "norm1"},
        **{"intermediate.dense": "linear1", "output.dense": "linear2", "output.LayerNorm": "norm2"},
    }
    state = {}
    for kind in ("weight", "bias"):
        for i in range(6):
            theirs = f"encoder.layer.{i}."
            for name, ours in places.items():
                state[f"layers.{i}.{ours}.{kind}"] = w[f"{theirs}{name}.{kind}"]
            state[f"layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(
                [w[f"{theirs}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            )
    encoder.load_state_dict(state)

    def vector(sentence: str) -> torch.Tensor:
        ids = [words[word] for word in ["[CLS]", *sentence.split(), "[SEP]"]]
        places = w["embeddings.position_embeddings.weight"][: len(ids)]
        x = w["embeddings.word_embeddings.weight"][ids] + places + w["embeddings.token_type_embeddings.weight"][0]
        weight, bias = (w[f"embeddings.LayerNorm.{kind}"] for kind in ("weight", "bias"))
        with torch.no_grad():
            return encoder(torch.nn.functional.layer_norm(x, (384,), weight, bias, 1e-12)[None])[0].mean(0)

    eating, bread = vector("a man is eating food ."), vector("a man is eating a piece of bread .")
    assert torch.cosine_similarity(eating, bread, 0) == pytest.approx(0.755, abs=0.005)
    assert torch.cosine_similarity(eating, vector("a horse runs ."), 0) < 0.25


def test_settings_and_vocabulary_are_empty_where_there_are_none():
    assert loaded("efficientnet-lite0").settings == {} and loaded("efficientnet-lite0").vocabulary == ()
    assert json.dumps(loaded("minilm").settings["num_hidden_layers"]) == "6" and loaded("minilm").merges == ()
