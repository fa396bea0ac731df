"""The check engine: what a learner is told about every kind of result. The watch around it: test_watch.py."""

import functools
import sys

import numpy as np
import pytest

from atlas.checking import FAILED, PASSED, UNTOUCHED, Check, Complaint, exercise, expect, load_checks, run_check


def softmax_over_columns(z):
    """The sum runs over the batch, so one example changes the others."""
    return np.exp(z) / np.exp(z).sum(0)


@exercise(hints=["nudge", "nearly the code"], mistakes=[softmax_over_columns], seconds=0.4)
def softmax(learner, rng):
    z = rng.normal(size=(4, 3))
    given = learner(z)
    expected = np.exp(z - np.log(np.exp(z).sum(1, keepdims=True)))
    expect.close(given, expected, why="each row is exp over the row's sum", source="the definition")


def right(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class Table:
    """What a pandas DataFrame is to NumPy."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


def told(learner, check=softmax):
    """The report to a learner whose code fails."""
    outcome = run_check(check, learner)
    assert outcome.status == FAILED, outcome.text()
    return outcome.text()


def check_of(function, **options):
    return exercise(hints=["."], **options)(function)


# ---------------------------------------------------------------------------------------------- right answers


@pytest.mark.parametrize(
    "answer",
    {
        "itself": right,
        "single precision": lambda z: right(z.astype(np.float32)),
        "a list": lambda z: right(z).tolist(),
        "a list of arrays": lambda z: list(right(z)),
        "a view": lambda z: right(z).T.copy().T,
        "a partial": functools.partial(right),
        "keyword default": lambda z, axis=1: right(z),
        "any arguments": lambda *args: right(*args),
        "a table": lambda z: Table(right(z)),
        "a sparse matrix": lambda z: __import__("scipy.sparse").sparse.csr_array(right(z)),
        "a tensor": lambda z: __import__("torch").tensor(right(z)),
        "a tensor with gradient": lambda z: __import__("torch").tensor(right(z), requires_grad=True) * 1,
        "a sparse tensor": lambda z: __import__("torch").tensor(right(z)).to_sparse(),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_right_answer_passes_in_whatever_form_it_comes(answer):
    outcome = run_check(softmax, answer[1])
    assert outcome.status == PASSED, outcome.text()


@pytest.mark.parametrize("identity", [lambda x: x, lambda x: x[:], lambda x: x.view()])
def test_the_input_itself_or_a_view_of_it_is_right_where_its_values_are(identity):
    @check_of
    def same_again(learner, rng):
        x = rng.normal(size=3)
        expect.close(learner(x), x, why="", source="")

    assert run_check(same_again, identity).passed


def test_a_model_may_be_changed_by_training_it():
    torch = __import__("torch")

    @functools.partial(check_of, changes=["weights", "gradients"])
    def train(learner, rng):
        model = torch.nn.Linear(2, 1)
        losses = learner(model, torch.ones(3, 2))
        expect.true(losses[1] < losses[0], "the loss falls")

    def step(model, x):
        losses = []
        for _ in range(2):
            loss = (model(x) ** 2).mean()
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
            losses.append(loss.item())
        return losses

    assert run_check(train, step).passed


def test_generators_are_taken_as_arguments_and_as_results():
    @check_of
    def doubled(learner, rng):
        expect.true(list(learner(n for n in range(3))) == [0, 2, 4], "each twice")

    def twice(numbers):
        for n in numbers:
            yield 2 * n

    assert run_check(doubled, twice).passed


# ---------------------------------------------------------------------------------------------- wrong answers


def test_a_failure_shows_exercise_rule_given_yours_expected_authority_and_the_known_mistake():
    assert told(softmax_over_columns).splitlines() == [
        "✘ softmax   each row is exp over the row's sum",
        "  for z (4, 3) float64",
        "  yours    [0] 0.183 0.191 0.390",
        "  expected [0] 0.290 0.224 0.486   (the definition)",
        "  The sum runs over the batch, so one example changes the others.",
    ]


def returns_nothing(z):
    right(z)


def works_in_place(z):
    z -= z.max(1, keepdims=True)
    return right(z)


def draws(z):
    return right(z + np.random.normal(size=z.shape))


def other_arguments(z, axis):
    return right(z)


def with_zero_division(z):
    return right(z) / (z[0, 0] - z[0, 0])


CALLS = []


def right_only_at_first(z):
    CALLS.append(1)
    return right(z) * len(CALLS)


@pytest.mark.parametrize(
    ("answer", "fragments"),
    [
        (returns_nothing, ["yours    None", "There is no `return` with a value in it"]),
        (lambda z: "softmax", ["'softmax': text, not numbers"]),
        (lambda z: {"p": right(z)}, ["dict with p", "expected an array"]),
        (lambda z: [[1.0], [2.0, 3.0]], ["rows of different lengths"]),
        (lambda z: np.array([None, 1]), ["Python objects"]),
        (lambda z: right(z) + 0j, ["complex128", "expected real numbers"]),
        (lambda z: right(z).T, ["your shape     (3, 4)", "expected shape (4, 3)", "transpose"]),
        (lambda z: right(z)[:, 0], ["your shape     (4,)", "An axis is lost"]),
        (lambda z: np.zeros((0, 3)), ["It is empty"]),
        (lambda z: right(z).round().astype(int), ["It is the right result rounded"]),
        (with_zero_division, ["entries are infinite|has infinite entries", "NumPy warned: divide by zero"]),
        (
            works_in_place,
            ["changes its input z", "before   [0]  0.126 -0.132 0.640", "after    [0] -0.515 -0.773 0.000"],
        ),
        (draws, ["the same input must give the same result", "first", "second", "random numbers"]),
        (right_only_at_first, ["the same input must give the same result", "outside the function"]),
        (other_arguments, ["yours is  softmax(z, axis)", "missing a required argument: 'axis'"]),
        (lambda: 1, ["too many positional arguments"]),
    ],
)
def test_every_kind_of_wrong_result_is_told_apart(answer, fragments):
    said = told(answer)
    for fragment in fragments:
        assert any(each in said for each in fragment.split("|")), said


# ---------------------------------------------------------------------------------------------- known mistakes


def test_a_mistake_is_recognised_in_classes_in_objects_and_over_several_calls():
    class Forgets:
        """It forgets what it has counted."""

        def add(self, n):
            return n

    @check_of
    def Counter(learner, rng):
        counter = learner()
        expect.equal(counter.add(3), 3, why="counts", source="by hand")
        expect.equal(counter.add(4), 7, why="goes on counting", source="by hand")

    counter = Check("Counter", Counter.function, ("hint",), (Forgets,), 1)

    class Mine:
        def add(self, n):
            self.n = n
            return self.n

    class Off(Mine):
        def add(self, n):
            return n + 1

    assert "It forgets what it has counted." in told(Mine, counter)
    assert "forgets" not in told(Off, counter)


def test_a_mistake_that_agrees_by_chance_elsewhere_is_not_named():
    def halves(x):
        """It halves."""
        return x / 2

    @check_of
    def thing(learner, rng):
        expect.close(learner(8.0), 2.0, why="the third root", source="by hand")
        learner(0.0)

    thing = Check("thing", thing.function, ("hint",), (halves,), 1)
    assert "It halves." in told(lambda x: x * 0.5, thing)
    assert "It halves." not in told(lambda x: x / 3, thing)


def test_a_mistake_that_raises_or_changes_its_input_or_returns_a_model_is_passed_over():
    def raises(x):
        """Raises."""
        raise ValueError

    def mutates(x):
        """Mutates."""
        x[:] = 0
        return x

    def other(x):
        """Something else."""
        return object()

    def named(x):
        """The one."""
        return x + 1

    @check_of
    def same_again(learner, rng):
        expect.close(learner(np.ones(3)), np.ones(3), why="", source="")

    check = Check("same_again", same_again.function, ("hint",), (raises, mutates, other, named), 1)
    assert "The one." in told(lambda x: x + 1, check)
    assert "Something else." not in told(lambda x: object(), check)


def test_a_check_without_hints_or_a_mistake_without_a_message_is_refused():
    with pytest.raises(ValueError, match="needs hints"):
        exercise(hints=[])(lambda learner, rng: None)
    with pytest.raises(ValueError, match="needs a docstring"):
        exercise(hints=["."], mistakes=[lambda x: x])(lambda learner, rng: None)


# ---------------------------------------------------------------------------------------------- not attempted


class Unwritten:
    def forward(self, x):
        raise NotImplementedError("Unwritten.forward")


@check_of
def Unwritten_(learner, rng):
    learner().forward(1)


def todo(z):
    raise NotImplementedError("softmax")


def empty(z):
    """Returns (B, K)."""


def dots(z): ...


@pytest.mark.parametrize("answer", [todo, empty, dots])
def test_an_unwritten_exercise_is_not_attempted(answer):
    assert run_check(softmax, answer).status == UNTOUCHED


def test_an_unwritten_method_is_named():
    outcome = run_check(Check("Unwritten", Unwritten_.function, ("hint",), (), 1), Unwritten)
    assert outcome.status == UNTOUCHED and "Unwritten.forward is not written yet" in outcome.text()


def test_an_exercise_that_needs_an_unwritten_one_says_which():
    def needs(z):
        return forward(z)

    def forward(z):
        raise NotImplementedError("mlp_forward")

    assert "needs mlp_forward, which is not written yet" in told(needs)


def test_not_implemented_in_a_library_is_an_error_like_others():
    class Model(__import__("torch").nn.Module):
        pass

    assert "missing the required" in told(lambda z: Model()(z))


# ---------------------------------------------------------------------------------------------- exceptions


def breaks_inside_numpy(z):
    weights = np.ones((5, 5))
    return np.einsum(
        "ij,jk",
        z,
        weights,
    )


def needs_terabytes(z):
    return np.zeros(10**13)


@pytest.mark.parametrize(
    ("answer", "fragments"),
    [
        (breaks_inside_numpy, ["ValueError", "for z (4, 3)", "Two shapes do not fit"]),
        (lambda z: z @ z, ["ValueError", "Print both .shape"]),
        (needs_terabytes, ["MemoryError", "far larger"]),
        (lambda z: z[7], ["IndexError", "runs past the end"]),
        (lambda z: undefined, ["NameError: name 'undefined'", "spelt"]),  # noqa: F821
        (lambda z: 1 if z > 0 else 2, ["One truth value", "an `if` met it"]),
        (lambda z: z(0), ["not callable", "square brackets take entries out"]),
        (lambda z: returns_nothing(z) + 1, ["`returns_nothing(z)` is None here: does it forget its `return`?"]),
        (lambda z: sys.exit(), ["ends Python"]),
        (lambda z: input("?"), ["input() waits"]),
        (lambda z: told_itself(z), ["RecursionError", "without end"]),
    ],
)
def test_an_exception_is_explained_without_a_stack(answer, fragments):
    said = "\n".join(line for line in told(answer).splitlines() if "at line" not in line)
    for fragment in fragments:
        assert fragment in said, said
    assert "Traceback" not in said


def test_an_exception_shows_the_learners_own_line_also_where_a_library_raised_it():
    line = breaks_inside_numpy.__code__.co_firstlineno + 2
    said = told(breaks_inside_numpy)
    assert f"at line {line} of test_checking.py, in breaks_inside_numpy:  return np.einsum(" in said


def told_itself(z):
    return told_itself(z)


class _Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


def raise_unprintable(z):
    raise _Unprintable


def test_an_exception_that_cannot_even_be_printed_is_reported():
    assert "_Unprintable" in told(raise_unprintable)


BROKEN_CHECKS = """
from atlas.checking import exercise, expect

@exercise(hints=["."])
def broken(learner, rng):
    learner(1)
    1 / 0

@exercise(hints=["."])
def careless(learner, rng):
    learner(1).sum()

@exercise(hints=["."])
def Model(learner, rng):
    learner().forward(1)
"""


def test_a_check_that_breaks_says_so_and_does_not_blame_the_learner(tmp_path):
    (tmp_path / "checks.py").write_text(BROKEN_CHECKS)
    checks = load_checks(tmp_path)
    outcome = run_check(checks["broken"], lambda x: x)
    assert outcome.status == "error"
    assert "ZeroDivisionError" in outcome.text() and "at line 7 of checks.py" in outcome.text()
    assert "nothing came back" in told(lambda x: print(x), checks["careless"])


def test_a_class_that_lacks_what_its_users_call_is_told_so(tmp_path):
    (tmp_path / "checks.py").write_text(BROKEN_CHECKS)

    class Model:
        pass

    class Takes(Model):
        def forward(self):
            return 1

    Takes.__name__ = Takes.__qualname__ = "Model"
    check = load_checks(tmp_path)["Model"]
    assert "has no attribute 'forward'" in told(Model, check)


# ---------------------------------------------------------------------------------------------- random on purpose


def all_signs_alike(x):
    """One sign for all entries. Each entry needs its own."""
    return x * np.random.choice([-1, 1])


@exercise(hints=["np.random.choice"], mistakes=[all_signs_alike], random=True)
def signs(learner, rng):
    x = np.arange(1.0, 101)
    drawn = learner(x)
    expect.close(np.abs(drawn), x, why="the sizes stay", source="the definition")
    both = (drawn < 0).any() and (drawn > 0).any()
    if not both:
        expect.close(drawn, x * np.where(np.arange(100) % 2, 1, -1), why="both signs occur", source="chance")


def test_a_function_that_is_meant_to_draw_may_give_something_else_each_time():
    assert run_check(signs, lambda x: x * np.random.choice([-1, 1], x.shape)).passed


@pytest.mark.parametrize("seed", range(6))
def test_a_known_mistake_is_recognised_in_what_it_draws(seed):
    outcome = run_check(signs, lambda x: np.random.choice([-1, 1]) * x, seed)
    assert "Each entry needs its own." in outcome.text()


def test_the_same_seed_gives_the_same_verdict_and_another_seed_other_inputs():
    assert told(softmax_over_columns) == told(softmax_over_columns)
    assert run_check(softmax, softmax_over_columns, seed=1).details != run_check(softmax, softmax_over_columns).details


# ---------------------------------------------------------------------------------------------- how it looks


def test_what_a_learner_wrote_cannot_break_the_notebooks_page():
    @check_of
    def text(learner, rng):
        expect.equal(learner("<x>"), "<b>", why="a & b", source="<source>")

    page = run_check(text, lambda t: "<script>alert(1)</script>").html()
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &amp; b" in page
    assert "color:inherit" in page and "color:black" not in page


def test_a_complaint_can_be_raised_by_a_check_itself():
    @check_of
    def own(learner, rng):
        raise Complaint("its own rule", ["a detail"], "a reading")

    assert told(lambda: 1, own) == "✘ own   its own rule\n  a detail\n  a reading"
