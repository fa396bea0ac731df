"""The check engine: what a learner is told about every kind of result, and that a check leaves the world as it was."""

import functools
import json
import random
import subprocess
import sys
import threading
import time
import warnings
from queue import Empty

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

    @check_of
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


# ---------------------------------------------------------------------------------------------- time


def endless(z):
    while True:
        pass


def swallows(z):
    while True:
        try:
            time.sleep(1000)
        except:  # noqa: E722
            z = z


def sleeps(z):
    time.sleep(1000)


def endless_generator(z):
    def ones():
        while True:
            yield 1

    return sum(ones())


@pytest.mark.parametrize("answer", [endless, swallows, sleeps, endless_generator])
def test_an_endless_loop_ends_after_its_time_and_shows_where(answer):
    began = time.monotonic()
    said = told(answer)
    assert time.monotonic() - began < 2
    assert ("stopped after 0.4 s" in said and f"{answer.__name__}:" in said) or "ones:" in said
    assert sys.gettrace() is None
    time.sleep(0.12)  # no late ring


def swallows_quickly(z):
    while True:
        try:
            sum(range(50))
        except BaseException:
            z = z


@pytest.mark.parametrize("answer", [endless, swallows_quickly])
def test_an_endless_loop_ends_in_another_thread_too(answer):
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(run_check(softmax, answer)))
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert "stopped after 0.4 s" in outcomes[0].text()


def test_an_import_is_not_cut_short_and_what_follows_is(tmp_path, monkeypatch):
    for name in ("takes_its_time.py", "takes_its_time_too.py"):
        (tmp_path / name).write_text("import time\ntime.sleep(0.7)\nready = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def imports(z):
        import takes_its_time

        assert takes_its_time.ready
        return right(z)

    def imports_and_hangs(z):
        import takes_its_time_too

        while takes_its_time_too.ready:
            pass

    assert run_check(softmax, imports).passed
    assert "stopped after" in told(imports_and_hangs)


def test_a_million_printed_lines_are_cut():
    def chatty(z):
        print("x" * 100_000)
        for i in range(20_000):
            print("line", i)
        print("to stderr", file=sys.stderr)
        return -right(z)

    outcome = run_check(softmax, chatty)
    assert outcome.printed.startswith("xxx")
    assert outcome.printed.endswith("lines in all") and len(outcome.printed) < 2100


def test_a_check_on_large_arrays_and_long_lists_is_fast():
    @check_of
    def large(learner, rng):
        expect.close(learner(np.ones((500, 500))), np.ones((500, 500)), why="", source="")

    began = time.monotonic()
    told(lambda x: x * 2, large)
    told(lambda x: [1.0] * 200_000, large)
    assert time.monotonic() - began < 5


def test_a_check_takes_milliseconds():
    run_check(softmax, right)
    began = time.monotonic()
    for _ in range(20):
        run_check(softmax, right)
    assert (time.monotonic() - began) / 20 < 0.05


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


# ---------------------------------------------------------------------------------------------- the world as before


def meddles(z):
    np.random.seed(7)
    random.seed(7)
    np.seterr(all="raise")
    warnings.simplefilter("error")
    print("meddling")
    return right(z)


def test_random_states_warnings_numpy_errors_and_output_are_as_before(capsys):
    torch = __import__("torch")
    states = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()
    errors, filters, streams = np.geterr(), list(warnings.filters), (sys.stdout, sys.stderr)
    for answer in (meddles, endless, todo, lambda z: torch.rand(3), lambda z: sys.exit()):
        run_check(softmax, answer)
    now = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()
    assert [a == b for a, b in zip(now, states, strict=True)] == [True, True, True]
    assert (np.geterr(), list(warnings.filters), (sys.stdout, sys.stderr)) == (errors, filters, streams)
    assert input.__module__ != "atlas.checking"
    assert capsys.readouterr() == ("", "")


TABLE = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize("raises", [False, True])
def test_an_input_that_was_changed_is_put_back(raises):
    torch = __import__("torch")
    tensor, nested = torch.ones(3), {"a": [np.ones(2)], "b": 1}

    @check_of
    def reads(learner, rng):
        learner(TABLE, tensor, nested)

    def writes(table, tensor, nested):
        table[0] = 9
        tensor.add_(1)
        nested["a"][0][0] = 5
        nested["c"] = 6
        if raises:
            raise ValueError("too late")

    said = told(writes, reads)
    assert ("too late" if raises else "changes its input table") in said
    assert TABLE.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensor.tolist() == [1, 1, 1]
    assert nested.keys() == {"a", "b"} and nested["a"][0].tolist() == [1, 1]


def test_the_users_own_interrupt_goes_through():
    def interrupted(z):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_check(softmax, interrupted)


def test_the_same_seed_gives_the_same_verdict_and_another_seed_other_inputs():
    assert told(softmax_over_columns) == told(softmax_over_columns)
    assert run_check(softmax, softmax_over_columns, seed=1).details != run_check(softmax, softmax_over_columns).details


def test_the_engine_and_a_numpy_exercise_import_no_framework(tmp_path):
    (tmp_path / "checks.py").write_text(
        "from atlas.checking import exercise, expect\n"
        "@exercise(hints=['.'])\n"
        "def double(learner, rng):\n"
        "    expect.close(learner(3.0), 6.0, why='twice', source='by hand')\n"
    )
    program = (
        "import sys, json; from pathlib import Path; from atlas import checking, lab\n"
        f"check = checking.load_checks(Path({str(tmp_path)!r}))['double']\n"
        "texts = [checking.run_check(check, f).text() for f in (lambda x: 2 * x, lambda x: x, lambda x: 1 / 0)]\n"
        "heavy = {'torch', 'tensorflow', 'pandas', 'scipy', 'matplotlib', 'IPython'} & {*sys.modules}\n"
        "print(json.dumps([sorted(heavy), texts]))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy, texts = json.loads(run.stdout)
    assert heavy == []
    assert [text[0] for text in texts] == ["✔", "✘", "✘"]


@pytest.mark.slow
def test_tensorflows_seed_is_as_before_once_it_is_loaded():
    program = (
        "import numpy as np, tensorflow as tf\n"
        "from atlas.checking import exercise, expect, run_check\n"
        "@exercise(hints=['.'])\n"
        "def task(learner, rng):\n"
        "    expect.close(learner(np.ones(2)), [1.0, 1.0], why='', source='')\n"
        "def draws(x):\n"
        "    tf.random.set_seed(3)\n"
        "    return tf.constant(x) + 0 * tf.random.normal([2], dtype=tf.float64)\n"
        "tf.random.set_seed(1); tf.random.normal([1]); alone = float(tf.random.normal([1])[0])\n"
        "tf.random.set_seed(1); tf.random.normal([1])\n"
        "assert run_check(task, draws).passed\n"
        "assert float(tf.random.normal([1])[0]) == alone\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


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


# ---------------------------------------------------------------------------------------------- in a real kernel


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager = KernelManager()
    manager._kernel_spec = KernelSpec(argv=argv, display_name="test", language="python")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)

    def run(code):
        """What a cell prints, or the name of the exception that it ends with."""
        client.execute(code, allow_stdin=True)
        printed = ""
        while True:
            message = client.get_iopub_msg(timeout=30)
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed += content["text"]
            elif kind == "error":
                printed += content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                return printed

    run.alive = manager.is_alive
    run.asked = lambda: client.get_stdin_msg(timeout=0.2)
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "checks.py").write_text(
        "from atlas.checking import exercise, expect\n"
        "@exercise(hints=['.'], seconds=0.5)\n"
        "def double(learner, rng):\n"
        "    expect.close(learner(3.0), 6.0, why='twice', source='by hand')\n"
    )
    run("import threading, time; from pathlib import Path; from atlas.checking import *")
    run(f"check = load_checks(Path({str(folder)!r}))['double']; mine = 'still here'")
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize(
    ("body", "fragment"),
    [
        ("while True: pass", "at line 2 of your cell, in double:  while True: pass"),
        ("while True:\n        try: pass\n        except: pass", "stopped after 0.5 s"),
        ("while True:\n        try: time.sleep(9)\n        except: pass", "stopped after 0.5 s"),
        ("time.sleep(1000)", "at line 2 of your cell, in double:  time.sleep(1000)"),
        ("return input('?')", "input() waits"),
        ("breakpoint()", "stops the code for the debugger"),
        ("exit()", "ends Python"),
        ("quit()", "ends Python"),
        ("import sys; sys.exit(1)", "ends Python"),
        ("return double(x)", "RecursionError"),
        ("return x +", "SyntaxError"),
    ],
)
def test_the_kernel_survives(kernel, body, fragment):
    printed = kernel(f"def double(x):\n    {body}\nprint(run_check(check, double).text())")
    assert fragment in printed
    time.sleep(0.15)  # a kernel that was told to exit goes within 0.1 s
    assert kernel.alive() and kernel("print(mine)") == "still here\n"
    with pytest.raises(Empty):
        kernel.asked()


def test_the_kernel_survives_a_check_in_another_thread(kernel):
    code = "def double(x):\n    while True: pass\n"
    code += "t = threading.Thread(target=lambda: print(run_check(check, double).text()))\n"
    code += "t.start(); t.join(5); print(t.is_alive())"
    printed = kernel(code)
    assert "stopped after 0.5 s" in printed and "False" in printed
