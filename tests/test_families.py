"""Families of inputs: each exposes the answers that only a plain example lets through, and says what kind it was."""

import numpy as np
import pytest

from atlas.checking import PASSED, agree, among, cases, exercise, floats, labels, numbers, run_check


def softmax(Z):
    Z = np.asarray(Z, float)
    E = np.exp(Z - Z.max(-1, keepdims=True))
    return E / E.sum(-1, keepdims=True)


@exercise(hints=["."])
def rows(learner, rng):
    agree(learner, softmax, rng, why="softmax", source="by definition", Z=floats("B", "K"))


def relu(Z):
    return np.maximum(0, Z) * 0.5


@exercise(hints=["."])
def entries(learner, rng):
    agree(learner, relu, rng, why="half a ReLU", source="by definition", Z=floats("B", "D", any_rank=True))


@exercise(hints=["."])
def product(learner, rng):
    kinds = {"X": floats("B", "D"), "W": floats("K", "D"), "b": floats("K")}
    agree(learner, lambda X, W, b: X @ W.T + b, rng, why="XWᵀ + b", source="NumPy", **kinds)


@exercise(hints=["."])
def picked(learner, rng):
    def authority(Z, y, scale):
        return scale * Z[np.arange(len(y)), y]

    kinds = {"Z": floats("B", "K"), "y": labels("B", below="K"), "scale": numbers(0.1, 2)}
    agree(learner, authority, rng, why="picked", source="by definition", **kinds)


def filled(Z):
    A = np.zeros_like(Z)
    A[Z > 0] = 0.5 * Z[Z > 0]
    return A


def in_order_of_memory(X, W, b):
    return np.ravel(X, "K").reshape(X.shape) @ W.T + b


WRONG = {
    "whole numbers": (entries, filled, "goes wrong for whole numbers"),
    "a threshold on the largest": (
        rows,
        lambda Z: softmax(Z) if Z.max() > -700 else np.exp(Z) / np.exp(Z).sum(1, keepdims=True),
        "near -1000",
    ),
    "a shift by the first": (
        rows,
        lambda Z: np.exp(Z - Z[:, :1]) / np.exp(Z - Z[:, :1]).sum(1, keepdims=True),
        "the entries of a row lie far apart",
    ),
    "one maximum for all rows": (
        rows,
        lambda Z: np.exp(Z - Z.max()) / np.exp(Z - Z.max()).sum(1, keepdims=True),
        "the rows lie far apart",
    ),
    "a squeeze": (rows, lambda Z: softmax(Z).squeeze(), "B = 1"),
    "two axes": (entries, lambda Z: relu(Z) if Z.ndim == 2 else relu(Z)[..., :1], "with 3 axes"),
    "views": (product, in_order_of_memory, "are views"),
    "an axis found by its length": (
        product,
        lambda X, W, b: X @ (W if W.shape[0] == X.shape[1] else W.T) + b,
        "B = D = K",
    ),
    "ties": (rows, lambda Z: softmax(Z) * (Z == Z).all() * len(np.unique(Z)) / Z.size, "equal entries"),
    "zeros": (entries, lambda Z: relu(Z) / (Z / Z), "with zeros for Z"),
    "what is small set to 0": (entries, lambda Z: np.where(np.abs(Z) < 1e-4, 0, relu(Z)), "near 1e-5"),
    "a limit": (entries, lambda Z: relu(np.clip(Z, -3500, 3500)), "in the thousands"),
    "labels in order": (picked, lambda Z, y, scale: scale * Z[np.arange(len(y)), np.sort(y)], "picked"),
    "a round number": (picked, lambda Z, y, scale: round(scale, 1) * Z[np.arange(len(y)), y], "picked"),
}


@pytest.mark.parametrize(("check", "answer", "words"), WRONG.values(), ids=WRONG)
def test_a_family_exposes_what_a_plain_example_lets_through(check, answer, words):
    for seed in range(3):
        said = run_check(check, answer, seed).text()
        assert words in said and said.startswith("✘"), said


RIGHT = {
    "rows": (rows, softmax),
    "rows by a loop": (rows, lambda Z: np.array([softmax(z) for z in Z])),
    "entries": (entries, relu),
    "product": (product, lambda X, W, b: np.einsum("bd,kd->bk", X, W) + b),
    "picked": (picked, lambda Z, y, scale: scale * np.array([z[i] for z, i in zip(Z, y, strict=True)])),
}


@pytest.mark.parametrize(("check", "answer"), RIGHT.values(), ids=RIGHT)
def test_a_right_answer_passes_in_all_families(check, answer):
    for seed in range(20):
        outcome = run_check(check, answer, seed)
        assert outcome.status == PASSED, outcome.text()


def test_axes_of_one_name_have_one_length_and_others_differ():
    rng = np.random.default_rng(0)
    plain = next(cases(rng, X=floats("B", "D"), W=floats("K", "D"), y=labels("B", below="K")))
    X, W, y = plain.inputs
    assert X.shape[1] == W.shape[1] and len(y) == len(X)
    assert len({*X.shape, *W.shape}) == 3
    assert (y < len(W)).all()


def test_each_family_is_tried_unless_a_reason_is_given():
    def tried(**settings):
        return {case.family for case in cases(np.random.default_rng(0), X=floats("B", "D"), **settings)}

    everything = {
        "plain",
        "integers",
        "single",
        "one",
        "equal",
        "views",
        "ties",
        "zeros",
        "tiny",
        "large",
        "apart",
        "far",
    }
    assert tried() == everything
    assert tried(without={"far": "nothing is exponentiated here"}) == everything - {"far"}
    for without in ({"far": ""}, {"far": "no"}, {"ranks": "it takes two axes"}, {"fra": "a slip of the pen"}):
        with pytest.raises(ValueError):
            tried(without=without)


def test_values_of_the_authors_own_stay_as_they_are():
    chances = floats("B", draw=lambda rng, shape: rng.uniform(0.1, 0.9, shape))
    for case in cases(np.random.default_rng(0), p=chances, k=among(2, 3)):
        p, k = case.inputs
        assert ((p > 0) & (p < 1)).all() and k in (2, 3)


def test_the_shortest_axis_may_be_longer_than_one():
    shapes = {case.inputs[0].shape for case in cases(np.random.default_rng(0), X=floats("N", "D"), least={"N": 2})}
    assert min(n for n, _ in shapes) == 2 and min(d for _, d in shapes) == 1


def test_tensors_have_the_same_families_but_for_whole_numbers():
    torch = pytest.importorskip("torch")
    found = list(cases(np.random.default_rng(0), w=floats("D", "K", tensor=True, any_rank=True)))
    assert all(isinstance(case.inputs[0], torch.Tensor) for case in found)
    assert {case.inputs[0].dtype for case in found} == {torch.float64, torch.float32}
    assert all(case.exact[0].dtype == torch.float64 for case in found)
    assert any(not case.inputs[0].is_contiguous() for case in found)
    assert "integers" not in {case.family for case in found}


def test_results_are_like_an_argument_in_dtype_where_that_is_asked_for():
    pytest.importorskip("torch")

    @exercise(hints=["."])
    def twice(learner, rng):
        x = floats("B", tensor=True)
        agree(learner, lambda x: 2 * x, rng, why="twice x", source="the definition", like="x", x=x)

    assert run_check(twice, lambda x: x + x).status == PASSED
    assert "in single precision: the kind of numbers" in run_check(twice, lambda x: 2 * x.double()).text()
    assert "tensor float64" in run_check(twice, lambda x: 2 * x.numpy()).text()


def test_a_function_of_entries_is_asked_about_overflow_and_one_of_rows_about_their_largest():
    def of_entries(Z):
        return relu(Z) * (np.exp(Z) / np.exp(Z))

    def of_rows(Z):
        E = np.exp(Z - Z.max())
        return E / E.sum(-1, keepdims=True)

    asked = ("is there a form that does not overflow?", "is each row's own largest subtracted")
    for check, answer, says, says_not in ((entries, of_entries, *asked), (rows, of_rows, *asked[::-1])):
        with np.errstate(all="ignore"):
            said = run_check(check, answer).text()
        assert says in said and says_not not in said, said


def test_that_whole_numbers_cut_fractions_off_is_asked_even_where_the_result_has_fractions():
    def halfway(Z):
        cut = np.empty_like(Z)
        cut[...] = 1.5 * np.maximum(0, Z)
        return cut / 3

    assert "Is an array made like the input" in run_check(entries, halfway).text()
