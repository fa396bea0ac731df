"""The project's reference: a search that answers, MiniLM beside TF-IDF, and SmolLM2 with and without what was found.

python project_search.py              all of Moby Dick, some minutes; writes runs/search.json
python project_search.py --quick      two chapters and one question, which only shows that everything runs
"""

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
from chat import END, chat_prompt, load_model, write_on
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import nn
from torch.nn import functional as F

import atlas
from atlas import program

QUESTIONS = {  # what is asked → a pattern that a right answer holds
    "What is the name of Captain Ahab's ship?": "Pequod",
    "What is the name of the chief mate of the Pequod?": "Starbuck",
    "What is the name of the second mate of the Pequod?": "Stubb",
    "What is the name of the third mate of the Pequod?": "Flask",
    "What is the name of the inn of Peter Coffin?": "Spouter",
    "With whom does Ishmael share a bed?": "Queequeg|harpooneer|cannibal",
    "What does Ahab nail to the mast?": "doubloon|gold",
    "Who preaches about Jonah and the whale?": "Mapple",
    "What is Captain Ahab's leg made of?": "ivory|whalebone",
    "Of which island is Queequeg a native?": "Kokovoko|Rokovoko",
    "Who is the Parsee whom Ahab has brought along?": "Fedallah",
    "Who went mad after he was left alone in the sea?": "Pip",
    "Which ship searches for its missing children?": "Rachel",
    "What becomes Queequeg's coffin in the end?": "buoy",
    "Which captain lost an arm to Moby Dick?": "Boomer|Enderby",
    "What do the harpooneers drink from?": "socket|goblet|chalice",
}
PROMPT = "Answer in one short sentence, by this passage of Moby Dick:\n{}\n\nQuestion: {}"


# ------------------------------------------------------------------------------------------------ MiniLM


class MiniLM:
    """all-MiniLM-L6-v2: a sentence to a vector of length 1, by a BERT of six layers (Reimers and Gurevych, 2019)."""

    def __init__(self):
        data = atlas.data.load("minilm")
        self.w, self.ids = data.tensors, {piece: n for n, piece in enumerate(data.vocabulary)}

    def pieces(self, text, limit=256):
        """WordPiece: lower case, the longest known piece first; those inside of a word begin with ##."""
        found = ["[CLS]"]
        for word in re.findall(r"\w+|[^\w\s]", text.lower()):
            begin, parts = 0, []
            while begin < len(word):
                ends = range(len(word), begin, -1)
                known = (end for end in ends if ("##" * (begin > 0)) + word[begin:end] in self.ids)
                if (end := next(known, None)) is None:
                    parts = ["[UNK]"]
                    break
                parts.append(("##" * (begin > 0)) + word[begin:end])
                begin = end
            found += parts
        return [self.ids[piece] for piece in [*found[: limit - 1], "[SEP]"]]

    def _linear(self, x, name):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def _norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-12)

    @torch.no_grad()
    def __call__(self, texts, size=32):
        """Vectors (N, 384): the mean of the last layer over the pieces of each text."""
        rows = [torch.tensor(self.pieces(text)) for text in texts]
        vectors = torch.empty(len(rows), 384)
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        for part in program.progress([order[n : n + size] for n in range(0, len(order), size)], "MiniLM"):
            ids = nn.utils.rnn.pad_sequence([rows[n] for n in part], batch_first=True)
            real = torch.arange(ids.shape[1]) < torch.tensor([[len(rows[n])] for n in part])
            x = self._layers(ids, real)
            vectors[part] = F.normalize((x * real[:, :, None]).sum(1), dim=1)
        return vectors.numpy()

    def _layers(self, ids, real):
        w, e = self.w, "embeddings"
        x = w[f"{e}.word_embeddings.weight"][ids] + w[f"{e}.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + w[f"{e}.token_type_embeddings.weight"][0], f"{e}.LayerNorm")
        for layer in (f"encoder.layer.{n}" for n in range(6)):
            q, k, v = (
                self._linear(x, f"{layer}.attention.self.{name}").unflatten(2, (12, 32)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(q, k, v, real[:, None, None]).transpose(1, 2).flatten(2)
            x = self._norm(
                x + self._linear(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm"
            )
            inner = F.gelu(self._linear(x, f"{layer}.intermediate.dense"))
            x = self._norm(x + self._linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return x


# ------------------------------------------------------------------------------------------------ passages


def passages_of(chapters, least=700):
    """(number of the chapter, text): paragraphs joined until they have so many characters; and the titles."""
    passages, titles = [], []
    for number, (title, chapter) in enumerate(chapters):
        paragraphs = re.split(r"\n\s*\n", chapter.strip())
        titles.append(" ".join(title.split()).partition(". ")[2])
        text = ""
        for paragraph in paragraphs:
            text = f"{text} {' '.join(paragraph.split())}".strip()
            if len(text) >= least:
                passages.append((number, text))
                text = ""
        if text:
            passages.append((number, text))
    return passages, titles


def hits(order, good, ranks=(1, 5)):
    """Share of the queries with something good among the first 1 and 5. order: (Q, N), good: bool (Q, N)."""
    found = np.take_along_axis(good, order, 1)
    return [float(found[:, :rank].any(1).mean()) for rank in ranks]


def rankings(passages, queries):
    """Name → for each query all passages, the best first (Q, N): words, runs of letters, MiniLM, MiniLM with words."""
    texts, scores = [text for _, text in passages], {}
    for name, settings in {
        "TF-IDF, words": {"sublinear_tf": True, "stop_words": "english"},
        "TF-IDF, letters 3 to 5": {"sublinear_tf": True, "analyzer": "char_wb", "ngram_range": (3, 5)},
    }.items():
        table = TfidfVectorizer(**settings)
        rows = table.fit_transform(texts)
        scores[name] = (table.transform(queries) @ rows.T).toarray()
    encode = MiniLM()
    scores["MiniLM"] = encode(queries) @ encode(texts).T
    spread = [(s - s.mean(1, keepdims=True)) / (s.std(1, keepdims=True) + 1e-9) for s in scores.values()]
    scores["MiniLM + words"] = spread[0] + spread[2]
    return {name: (-each).argsort(1, kind="stable") for name, each in scores.items()}


# ------------------------------------------------------------------------------------------------ answers


def answer(model, tokenizer, text, tokens):
    """What the chat model says, always by the likeliest token."""
    ids, said = chat_prompt([{"role": "user", "content": text}], tokenizer.encode), []
    for token in write_on(model, torch.tensor([ids]), tokens, lambda logits: logits.argmax(1)):
        if token.item() in (0, END):
            break
        said.append(token.item())
    return tokenizer.decode(said).strip()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two chapters, one question")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="FOLDER", help="write here (runs)")
    options = parser.parse_args(arguments)
    chapters = atlas.data.load("moby-dick").chapters[: 2 if options.quick else None]
    asked = list(QUESTIONS)[: 1 if options.quick else None]
    passages, titles = passages_of(chapters)
    print(f"{len(passages):,} passages of {len(chapters)} chapters")

    of_chapter = np.array([number for number, _ in passages])
    right = np.arange(len(titles))[:, None] == of_chapter
    holds = np.array([[bool(re.search(QUESTIONS[q], text)) for _, text in passages] for q in asked])
    results = {}
    for name, order in rankings(passages, titles + asked).items():
        by_title, by_question = hits(order[: len(titles)], right), hits(order[len(titles) :], holds)
        results[name] = {"titles": by_title, "questions": by_question}
        print(f"{name:24} titles at 1 and 5: {by_title[0]:.2f} {by_title[1]:.2f}", end="   ")
        print(
            f"questions: {by_question[0]:.2f} {by_question[1]:.2f}   computed {time.process_time():.0f} s", flush=True
        )
    best = order[len(titles) :, 0]

    model, tokenizer = load_model()
    counts = {"alone": 0, "with the passage found": 0, "found and said": 0}
    for question, place, found in zip(asked, best, holds[range(len(asked)), best], strict=True):
        alone = answer(model, tokenizer, f"{question} It is about the novel Moby Dick.", 4 if options.quick else 30)
        text = PROMPT.format(passages[place][1][:1500], question)
        helped = answer(model, tokenizer, text, 4 if options.quick else 30)
        good = [bool(re.search(QUESTIONS[question], said)) for said in (alone, helped)]
        counts["alone"] += good[0]
        counts["with the passage found"] += good[1]
        counts["found and said"] += good[1] and bool(found)
        print(f"{question}\n  alone        {'right' if good[0] else 'wrong'}  {alone!r}")
        print(f"  {'found' if found else 'not found':12} {'right' if good[1] else 'wrong'}  {helped!r}", flush=True)
    results["answers"] = counts | {"asked": len(asked)}
    print(f"{counts}, of {len(asked)}   computed {time.process_time():.0f} s")
    with program.writing(options.out / "search.json", "out") as part:
        part.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    program.run(main)
