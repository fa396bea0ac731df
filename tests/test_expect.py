"""What a check may demand, and how the complaint about it reads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atlas.checking import FAILED, array, exercise, expect, run_check
from atlas.checking.expectations import difference, side_by_side
from atlas.checking.values import summary


def check_of(function, **options):
    return exercise(hints=["."], **options)(function)


def told(learner, check):
    """The report to a learner whose code fails."""
    outcome = run_check(check, learner)
    assert outcome.status == FAILED, outcome.text()
    return outcome.text()


def demanding(expected, **options):
    """A check that demands this of close, for no argument."""

    @check_of
    def task(learner, rng):
        expect.close(learner(), expected, why="it must be right", source="by hand", **options)

    return task


# ---------------------------------------------------------------------------------------------- numbers and shapes


@pytest.mark.parametrize(
    "number", [2.5, np.float64(2.5), np.float32(2.5), np.array(2.5), torch.tensor(2.5), torch.tensor(2.5).double()]
)
def test_a_lone_number_may_come_in_whatever_form(number):
    assert run_check(demanding(2.5), lambda: number).passed
    assert run_check(demanding(np.array(2.5)), lambda: number).passed


@pytest.mark.parametrize("one", [np.array([2.5]), [2.5], torch.tensor([2.5]), np.array([[2.5]])])
def test_an_array_with_one_entry_is_no_number(one):
    said = told(lambda: one, demanding(2.5))
    assert "expected shape ()" in said and "It is an array with one entry where a lone number is wanted" in said


def test_a_number_is_no_array_with_one_entry():
    said = told(lambda: 2.5, demanding([2.5]))
    assert "your shape     ()" in said and "expected shape (1,)" in said
    assert "The numbers are right. An axis of length 1 is missing" in said


def test_a_check_may_take_both_if_it_says_so():
    assert run_check(demanding(2.5, lone=True), lambda: [2.5]).passed
    assert run_check(demanding([2.5], lone=True), lambda: 2.5).passed
    assert "expected 2.500" in told(lambda: [0.0], demanding(2.5, lone=True))

    @check_of
    def count(learner, rng):
        expect.equal(learner(), 3, why="as many", source="by hand", lone=True)

    assert run_check(count, lambda: np.array([3])).passed


def test_a_number_counts_as_one_for_equal_and_an_array_does_not():
    @check_of
    def count(learner, rng):
        expect.equal(learner(), 3, why="as many", source="by hand")

    assert run_check(count, lambda: torch.tensor(3)).passed
    assert "expected shape ()" in told(lambda: np.array([3]), count)
    assert "It is 1 more than the right number: is an end of a range counted" in told(lambda: 4, count)


def test_half_precision_tensors_and_empty_results_are_numbers():
    assert array(torch.ones(2, dtype=torch.bfloat16)).tolist() == [1, 1]
    assert array(torch.ones(2).half()).tolist() == [1, 1]
    assert array([]).shape == (0,) and array(3).shape == ()

    assert run_check(demanding(np.zeros((0, 3))), lambda: np.zeros((0, 3))).passed


def test_single_precision_may_err_by_its_roundings_and_no_more():
    @check_of
    def cancels(learner, rng):
        expect.close(learner(), [1000.0, 0.0], why="", source="")

    assert run_check(cancels, lambda: np.array([1000, 3e-4], np.float32)).passed
    assert told(lambda: np.array([1000, 3e-4]), cancels)
    assert told(lambda: np.array([1000, 3e-2], np.float32), cancels)


def test_a_factor_that_is_free_has_to_be_positive():
    @check_of
    def direction(learner, rng):
        expect.close(learner(), [1.0, -2.0], why="the direction", source="by hand", up_to_scale=True)

    assert run_check(direction, lambda: [3, -6]).passed
    assert "wrong sign" in told(lambda: [-3, 6], direction)
    assert "Every entry is 0" in told(lambda: [0, 0], direction)


def test_whole_numbers_pass_where_they_are_right_and_dtype_is_demanded_only_where_asked():
    @check_of
    def signs(learner, rng):
        result = learner()
        expect.close(result, [0.0, 1.0], why="the signs", source="by hand")
        expect.dtype(result, float, "probabilities are fractions")

    assert "dtype int64" in told(lambda: np.array([0, 1]), signs)
    assert "comparison" in told(lambda: np.array([False, True]), signs)
    assert run_check(signs, lambda: np.array([0, 1], np.float32)).passed


def test_lists_of_text_are_compared_item_by_item():
    @check_of
    def tokens(learner, rng):
        expect.equal(learner("a b"), ["a", "b"], why="split at blanks", source="by hand")

    assert run_check(tokens, str.split).passed
    assert "['a b']" in told(lambda text: [text], tokens)
    assert "None" in told(lambda text: print(text), tokens)


def test_the_parts_of_a_result_are_counted():
    @check_of
    def update(learner, rng):
        w, b = expect.parts(learner(np.ones(2)), ["w", "b"], "new weights and bias")
        expect.close(w, [2.0, 2.0], why="weights", source="by hand")
        expect.kind(b, float, "bias")

    assert run_check(update, lambda x: (2 * x, 0.5)).passed
    assert "End with: return w, b" in told(lambda x: 2 * x, update)
    assert "expected float" in told(lambda x: (2 * x, "0"), update)


def test_the_inputs_shown_are_those_of_the_call_that_gave_the_wrong_result():
    @check_of
    def double(learner, rng):
        first, _ = learner(np.array([1.5])), learner(np.array([2.5]))
        expect.close(first, [3.0], why="twice", source="by hand")

    assert "for x [1.500]" in told(lambda x: x * x, double)


def test_an_unmatched_failure_shows_what_the_check_itself_thinks_likely():
    @check_of
    def total(learner, rng):
        expect.true(learner() == 1, "adds up to one", "sum 2", likely="is the division missing?")

    assert told(lambda: 2, total).endswith("  sum 2\n  is the division missing?")


# ---------------------------------------------------------------------------------------------- dtype

SINGLE, DOUBLE = np.array([1, 2], np.float32), np.array([1.0, 2.0])
TENSOR = torch.tensor([1.0, 2.0])


def like(given, wanted=None):
    @check_of
    def task(learner, rng):
        result = learner(given)
        expect.close(result, given, why="as it was", source="x", rtol=0.5, dtype=given if wanted is None else wanted)

    return task


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (SINGLE, lambda x: x * 1),
        (DOUBLE, lambda x: x * 1),
        (TENSOR, lambda x: x.clone()),
        (np.array([1, 2]), lambda x: x * 1),
        (DOUBLE, lambda x: x.tolist()),
    ],
)
def test_the_kind_of_numbers_that_came_in_goes_out(given, answer):
    assert run_check(like(given), answer).passed


@pytest.mark.parametrize(
    ("given", "answer", "fragments"),
    [
        (
            SINGLE,
            lambda x: x * DOUBLE / DOUBLE,
            ["array float64", "expected float32", "float32 came in and float64 goes out: an"],
        ),
        (
            DOUBLE,
            lambda x: x.astype(np.float32),
            ["float64 came in and float32 goes out: a dtype= or .astype on the way"],
        ),
        (TENSOR, lambda x: x.numpy(), ["expected tensor float32", "A tensor is wanted, and this is none", ".numpy()"]),
        (TENSOR, lambda x: x.double(), ["tensor float64", "float32 came in and float64 goes out"]),
        (SINGLE, lambda x: x.astype(int), ["array int64", "which holds no fractions"]),
    ],
)
def test_another_kind_of_numbers_than_came_in_is_told(given, answer, fragments):
    said = told(answer, like(given))
    assert "as it was: the kind of numbers" in said
    for fragment in fragments:
        assert fragment in said, said


def test_a_dtype_may_be_named():
    for wanted in (np.float32, "float32", torch.float32):
        assert run_check(like(TENSOR, wanted), lambda x: x.clone()).passed
        assert "expected float32" in told(lambda x: x.double(), like(TENSOR, wanted))


# ---------------------------------------------------------------------------------------------- likely


def test_likely_may_be_a_table_from_the_sentence_to_what_the_mistake_gives():
    asked = []
    table = {"It is doubled.": 5.0, "It is tripled.": lambda: asked.append(1) or 7.5, "It is a row.": [2.5, 2.5]}
    check = demanding(2.5, likely=table)
    assert run_check(check, lambda: 2.5).passed and not asked
    assert told(lambda: 5.0, check).endswith("It is doubled.") and not asked
    assert told(lambda: 7.5, check).endswith("It is tripled.")
    assert told(lambda: np.array([2.5, 2.5]), check).endswith("It is a row.")
    assert "It is" not in told(lambda: 8.1234, check)


def test_likely_may_be_a_function_that_is_called_only_after_a_mismatch():
    calls = []

    def likely(yours, expected):
        calls.append((yours.item(), expected.item()))
        return "It is negative." if yours < 0 else ""

    check = demanding(2.5, likely=likely)
    assert run_check(check, lambda: 2.5).passed and not calls
    assert told(lambda: -1.0, check).endswith("It is negative.") and calls == [(-1.0, 2.5)]
    assert "It is negative." not in told(lambda: 0.0, check) and len(calls) == 2
    assert "text" in told(lambda: "2.5", check) and len(calls) == 2


# ---------------------------------------------------------------------------------------------- raises


@check_of
def refuses(learner, rng):
    error = expect.raises(ValueError, lambda: learner(-1), "a negative length is refused", match="negative|below 0")
    assert isinstance(error, ValueError)


def raises(error):
    def answer(n):
        raise error

    return answer


def test_an_exception_may_be_demanded():
    assert run_check(refuses, raises(ValueError("n is negative"))).passed


@pytest.mark.parametrize(
    ("answer", "fragments"),
    [
        (
            lambda n: n,
            [
                "for n -1",
                "yours    no exception, and -1 comes back",
                "expected ValueError that says 'negative|below 0'",
            ],
        ),
        (raises(KeyError("n")), ["yours    KeyError: 'n'", "in answer:  raise error", "expected ValueError"]),
        (raises(ValueError("no")), ["yours    ValueError: no", "that says 'negative|below 0'"]),
        (lambda n: [1, 2][7], ["yours    IndexError: list index out of range", "An index runs past the end"]),
    ],
)
def test_what_happened_instead_of_the_exception_is_told(answer, fragments):
    said = told(answer, refuses)
    assert said.startswith("✘ refuses   a negative length is refused")
    for fragment in fragments:
        assert fragment in said, said


def test_demanding_an_exception_swallows_nothing_of_the_engines_own():
    @check_of
    def any_error(learner, rng):
        expect.raises(Exception, lambda: learner(np.ones(2)), "it fails")

    def changes(n):
        n += 1
        return n

    def endless(n):
        while True:
            pass

    assert run_check(any_error, raises(NotImplementedError("any_error"))).status == "untouched"
    assert "needs other, which is not written yet" in told(raises(NotImplementedError("other")), any_error)
    assert "changes its input n" in told(changes, any_error)
    assert "stopped after" in told(endless, exercise(hints=["."], seconds=0.2)(any_error.function))
    with pytest.raises(KeyboardInterrupt):
        run_check(any_error, raises(KeyboardInterrupt))


# ---------------------------------------------------------------------------------------------- showing


def test_numbers_that_print_alike_are_shown_with_more_digits():
    said = told(lambda: [1.0, 0.33334, 5.0], demanding([1.0, 1 / 3, 5.0])).splitlines()
    assert said[1:3] == ["  yours    1  0.33334 5", "  expected 1 0.333333 5   (by hand)"]


def test_numbers_that_no_printed_digit_tells_apart_are_said_to_differ():
    said = told(lambda: [1.0, 1 / 3 + 3e-13], demanding([1.0, 1 / 3], rtol=0, atol=1e-15)).splitlines()
    assert said[1:4] == ["  yours    1.000 0.333", "  expected 1.000 0.333   (by hand)", "  they differ by 3e-13"]


class Holds(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(value))


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 3.0]), ["before   1.000 2.000", "after    1.000 3.000"]),
        (np.array([1.0, np.nan]), np.array([2.0, np.nan]), ["before   1.000 nan", "after    2.000 nan"]),
        (np.array([1.0]), np.array([1 + 1e-12]), ["before   1.000", "after    1.000", "they differ by 1e-12"]),
        ([np.ones(2), "a", 3], [np.ones(2), "a", 4], ["in entry 2 of the list:", "before   3", "after    4"]),
        (
            {"w": [np.zeros(2)]},
            {"w": [np.ones(2)]},
            ["in key 'w', entry 0 of the list:", "before   0.000 0.000", "after    1.000 1.000"],
        ),
        ({"a": 1}, {"a": 1, "b": 2}, ["before   dict with a", "after    dict with a, b"]),
        ([1.0, 2.0], [1.0, 2.5], ["before   1.000 2.000", "after    1.000 2.500"]),
        (Holds([1.0]), Holds([2.0]), ["in key 'w':", "before   1.000", "after    2.000"]),
        (np.ones(1), np.ones(1, int), ["before   [1.000] (float64)", "after    [1] (int64)"]),
        (np.ones(9), np.ones(9, np.float32), ["before   (9,) float64", "after    (9,) float32"]),
        ((1, None), (1, 2), ["in entry 1 of the tuple:", "before   None", "after    2"]),
        (True, False, ["before    True", "after    False"]),
    ],
)
def test_a_difference_is_shown_down_to_where_it_is(before, after, lines):
    assert difference(before, after) == lines


def test_an_input_that_was_changed_below_the_printed_digits_shows_by_how_much():
    @check_of
    def reads(learner, rng):
        learner([np.ones(2), np.full(2, 0.5)])

    def nudges(arrays):
        arrays[1] += 1e-13

    said = told(nudges, reads)
    assert "in entry 1 of the list:" in said and "they differ by 1e-13" in said


def test_long_arrays_are_shown_from_where_they_differ():
    a = np.arange(100.0)
    b = np.where(a == 50, -1, a)
    assert (
        side_by_side(a, b, a != b)[0].startswith("yours    from entry 50: 50.000 51.000")
        and " …" in side_by_side(a, b, a != b)[1]
    )


def test_of_two_long_lists_of_text_the_item_that_differs_is_shown():
    @check_of
    def tokens(learner, rng):
        expect.equal(learner(), list("abcdefghij"), why="letters", source="by hand")

    said = told(lambda: list("abcdefgXij"), tokens)
    assert "in entry 7 of the list:" in said and "yours    'X'" in said and "expected 'h'" in said


def test_a_path_is_shown_with_its_text_and_told_from_text():
    assert summary(Path("dogs/a.png")) == "Path('dogs/a.png')" != summary("dogs/a.png")
    assert summary({"a" * 64: 1, "b" * 64: 2}) == "dict of 2", "long keys would bury the message"


def test_braces_that_are_not_filled_in_are_told():
    @check_of
    def report(learner, rng):
        expect.equal(learner(3), "loss 3", why="the text", source="by hand")

    assert "is the f before the quotes missing?" in told(lambda n: "loss {n}", report)
    assert "the f before" not in told(lambda n: f"Loss {n}", report)


def test_several_results_where_one_is_wanted_are_called_so():
    assert "A tuple of 2 came back where one result is wanted." in told(lambda: (2.5, 3), demanding(2.5))
    rows = np.ones((4, 3))
    assert "A tuple of 2 came back where one result is wanted." in told(lambda: (rows, rows), demanding(rows))


def test_a_lone_number_that_is_near_by_chance_is_not_called_near():
    assert "No entry is off" not in told(lambda: 2.51, demanding(2.5))
    assert "No entry is off" in told(lambda: [2.51, 3.02, -4.03], demanding([2.5, 3.0, -4.0]))
