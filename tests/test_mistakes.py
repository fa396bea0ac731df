"""Known mistakes: tables of what replaces a part of a right answer, and when a learner is told of one."""

import inspect

import numpy as np
import pytest

from atlas import checking
from atlas.checking import Check, exercise, expect, parts, run_check
from atlas.checking import run as checking_run


@parts
def _scaled(x, factor=2.0, shift=0.0, *, combine=lambda x, f: x * f, last=lambda y, s: y + s):
    return last(combine(x, factor), shift)


MISTAKES = _scaled.mistakes(
    returns={"The result is twice too long.": lambda y: np.concatenate([y, y])},
    combine={"It adds; a scale multiplies.": lambda x, f: x + f},
    together={"It divides, and subtracts.": {"combine": lambda x, f: x / f, "last": lambda y, s: y - s}},
)


@exercise(hints=["Multiply, then add."], mistakes=MISTAKES)
def scaled(learner, rng):
    x = rng.normal(size=4)
    expect.close(learner(x, 0.7), 0.7 * x, why="scaled", source="by hand")
    expect.close(learner(x, 0.7, 0.3), 0.7 * x + 0.3, why="scaled and shifted", source="by hand")


def told(check: Check, answer) -> str:
    return run_check(check, answer).text()


def test_a_right_answer_with_parts_is_called_as_the_exercise():
    assert _scaled(3.0) == 6.0
    assert list(inspect.signature(MISTAKES[0]).parameters) == ["x", "factor", "shift"]
    with pytest.raises(TypeError):
        MISTAKES[0](1.0, combine=None)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    {
        "a part": (lambda x, factor=2.0, shift=0.0: x + factor + shift, "It adds; a scale multiplies."),
        "the result": (lambda x, factor=2.0, shift=0.0: np.tile(x * factor + shift, 2), "twice too long"),
        "two parts at once": (lambda x, factor=2.0, shift=0.0: x / factor - shift, "It divides, and subtracts."),
        "a default kept": (lambda x, factor=2.0, shift=0.0: x * 2.0 + shift, "factor is an argument; this takes 2.0"),
        "another default kept": (lambda x, factor=2.0, shift=0.0: x * factor, "shift is an argument; this takes 0.0"),
    }.values(),
)
def test_a_mistake_is_named_that_replaces(answer, sentence):
    assert sentence in told(scaled, answer)


def test_a_mistake_in_the_kind_of_numbers_is_not_named_for_another_kind():
    wrong = _scaled.mistakes(returns={"It is cut to half precision.": lambda y: y.astype(np.float16)})

    @exercise(hints=["Multiply."], mistakes=wrong)
    def scaled(learner, rng):
        expect.close(learner(np.ones(4), 2.0, 1.0), 3 * np.ones(4), why="scaled", source="by hand", dtype=np.float64)

    assert "half precision" in told(scaled, lambda x, factor=2.0, shift=0.0: (x * factor + shift).astype(np.float16))
    assert "half precision" not in told(
        scaled, lambda x, factor=2.0, shift=0.0: (x * factor + shift).astype(np.float32)
    )


def test_a_mistake_is_named_only_where_all_results_before_agree_too():
    def right_at_first(x, factor=2.0, shift=0.0):
        return x * factor - (0.0 if shift == 0 else 5.0)

    @exercise(hints=["."], mistakes=_scaled.mistakes(last={"It subtracts.": lambda y, s: y - 5.0}))
    def both(learner, rng):
        x = rng.normal(size=4)
        expect.close(learner(x, 0.7), 0.7 * x, why="roughly scaled", source="by hand", atol=9)
        expect.close(learner(x, 0.7, 0.3), 0.7 * x + 0.3, why="scaled and shifted", source="by hand")

    assert "It subtracts." not in told(both, right_at_first)
    assert "It subtracts." in told(both, lambda x, factor=2.0, shift=0.0: x * factor - 5.0)


def test_a_mistake_that_agrees_by_chance_on_one_seed_is_not_named():
    @exercise(hints=["."], mistakes=_scaled.mistakes(combine={"It takes the sign.": lambda x, f: np.sign(x)}))
    def one_number(learner, rng):
        x = np.array([1.0]) if rng.random() > 0.5 else np.array([-1.0])
        expect.close(learner(x, 0.7), 0.7 * x, why="scaled", source="by hand")

    seeds = {bool(np.random.default_rng(seed).random() > 0.5): seed for seed in range(9)}
    by_chance = next(seed for seed in range(9) if {seed, seed + 1} & {seeds[True]} and _differ(seed))
    outcome = run_check(one_number, lambda x, factor=2.0, shift=0.0: np.ones(1) * (x[0] > -9), by_chance)
    assert "It takes the sign." not in outcome.text()


def _differ(seed: int) -> bool:
    one, other = (np.random.default_rng(each).random() > 0.5 for each in (seed, seed + 1))
    return one and not other


class _Counter:
    start = 0

    def __init__(self, step=1):
        self.step, self.count = step, self.start

    def up(self):
        self.count += self.step
        return self.count


@exercise(
    hints=["Count."],
    mistakes=parts(_Counter).mistakes(
        start={"It begins at 1.": 1}, up={"It goes down.": lambda self: -_Counter.up(self)}
    ),
)
def Counter(learner, rng):
    counter = learner(step=3)
    expect.equal([counter.up(), counter.up()], [3, 6], why="two steps", source="by hand")


def test_methods_attributes_and_arguments_of_a_class_are_parts():
    class BeginsAtOne:
        def __init__(self, step=1):
            self.n, self.step = 1, step

        def up(self):
            self.n += self.step
            return self.n

    class Down(_Counter):
        def up(self):
            return -_Counter.up(self)

    class ByOne(_Counter):
        def up(self):
            self.count += 1
            return self.count

    assert "It begins at 1." in told(Counter, BeginsAtOne)
    assert "It goes down." in told(Counter, Down)
    assert "step is an argument; this takes 1 whatever it is." in told(Counter, ByOne)


@pytest.mark.parametrize("name", ["speed", "Combine"])
def test_a_table_for_a_part_that_is_not_there_is_refused(name):
    with pytest.raises(TypeError, match=name):
        _scaled.mistakes(**{name: {"Something.": 1}})


def test_a_part_may_not_have_a_name_that_means_something_else():
    with pytest.raises(TypeError, match="returns"):

        @parts
        def function(x, *, returns=lambda x: x):
            return returns(x)


def changed_default(value):
    def answer(x, factor=value, shift=0.0):
        return x * factor + shift

    return answer


@pytest.mark.parametrize("value", [3.0, None, 2, np.ones(2), "2.0"], ids=str)
def test_a_default_that_is_not_the_exercises_is_refused_where_all_else_is_right(value):
    outcome = run_check(scaled, changed_default(value))
    same_number = value is not None and np.array_equal(value, 2)
    assert outcome.passed == same_number
    assert same_number or ("the default of factor has to stay" in outcome.text() and "expected 2.000" in outcome.text())


def test_a_default_that_is_left_out_is_refused():
    assert "yours    none" in told(scaled, lambda x, factor, shift=0.0: x * factor + shift)


def test_where_two_mistakes_agree_at_first_the_whole_check_decides_and_else_nobody_is_named():
    mistakes = _scaled.mistakes(
        last={"It subtracts.": lambda y, s: y - s, "It adds the shift twice, or takes it off.": lambda y, s: y + 2 * s}
    )

    @exercise(hints=["."], mistakes=_scaled.mistakes(combine={"Nothing is scaled.": lambda x, f: x}) + mistakes[:2])
    def twice(learner, rng):
        x = rng.normal(size=4)
        expect.equal(bool(learner(x, 0.7, 0.3)[0] == 0.7 * x[0] + 0.3), True, why="shifted", source="by hand")
        expect.close(learner(x, 0.7, 0.5), 0.7 * x + 0.5, why="shifted by more", source="by hand")

    def answer(sign):
        return lambda x, factor=2.0, shift=0.0: x * factor + sign * shift

    assert "It subtracts." in told(twice, answer(-1))
    assert "It adds the shift twice" in told(twice, answer(2))
    said = told(twice, answer(5))
    assert not any(" ".join(mistake.__doc__.split()) in said for mistake in twice.mistakes)


def test_what_is_kept_of_a_mistakes_attempt_is_only_what_is_compared():
    run_check(scaled, lambda x, factor=2.0, shift=0.0: x + factor + shift)
    for mistake in scaled.mistakes:
        run, error = checking_run._attempt_of_mistake(scaled, mistake, 0)
        assert not any(run.calls) and error.__traceback__ is None


def test_a_mistake_that_raises_is_named_where_the_learners_code_raises_the_same():
    @parts
    def pick(x, n, *, index=lambda n: n - 1):
        return x[index(n)]

    last = {"Counting begins with 0: the nth entry has the index n - 1.": lambda n: n}

    @exercise(hints=["."], mistakes=pick.mistakes(index=last))
    def check(learner, rng):
        expect.close(learner(np.arange(3.0), 3), 2.0, why="the last one", source="counting")

    def one_too_far(x, n):
        return x[n]

    def another_slip(x, n):
        return x[n + 1]

    assert "Counting begins with 0" in run_check(check, one_too_far).text()
    assert "Counting begins with 0" not in run_check(check, another_slip).text()
    assert run_check(check, lambda x, n: x[n - 1]).passed


def test_one_that_raises_in_a_called_back_method_is_named_and_a_break_in_the_checks_own_lines_is_not(monkeypatch):
    import torch

    class Parts(torch.nn.Module):
        width = lambda n: n  # noqa: E731

        def __init__(self, n):
            super().__init__()
            self.layer = torch.nn.Linear(type(self).width(n), 1)

        def forward(self, x):
            return self.layer(x)

    class Another(torch.nn.Module):
        def __init__(self, n):
            super().__init__()
            self.layer = torch.nn.Linear(n + 1, 1)

        def forward(self, x):
            return self.layer(x)

    one_more = {"It has one input more.": lambda n: n + 1}

    @exercise(hints=["."], mistakes=parts(Parts).mistakes(width=one_more))
    def check(learner, rng):
        learner(2)(torch.zeros(1, 2))

    @exercise(hints=["."], mistakes=parts(Parts).mistakes(width=one_more))
    def broken(learner, rng):
        learner(2)
        [][0]

    assert "one input more" in told(check, Another)
    assert all(" ".join(mistake.__doc__.split()) in told(check, mistake) for mistake in check.mistakes)
    monkeypatch.setattr(checking.place, "is_learners", lambda file: False)
    assert "one input more" not in told(broken, Another)
    assert "the check itself failed" in told(broken, Another)
