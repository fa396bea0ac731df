"""The plots: they take what a learner has, refuse what makes no sense, and nothing on them is cut off."""

import os
import random
import subprocess
import sys
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text

from atlas import plot

pytestmark = pytest.mark.filterwarnings("error")
CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
SENTENCE = "Validation loss turns up after epoch 9 while the training loss goes on falling towards zero, as it must"


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def numbers(*shape):
    return np.random.default_rng(0).normal(size=shape)


def labels(n, K):
    return np.random.default_rng(1).integers(0, K, n)


def with_nan():
    values = numbers(20)
    values[7:] = np.nan
    return values


DRAWINGS = {
    "train and validation": lambda: plot.curves(train=numbers(20), val=numbers(20), title=SENTENCE, best="min"),
    "one point": lambda: plot.curves(train=[0.3], val=[0.4], title=SENTENCE),
    "NaN in a curve": lambda: plot.curves(diverged=with_nan(), never=[np.nan] * 20, best="max", title=SENTENCE),
    "40 curves": lambda: plot.curves({f"width {i}, seed {i}": numbers(9) + i for i in range(40)}, title=SENTENCE),
    "six ends in one place": lambda: plot.curves({f"a curve called {i}": [2, 1] for i in range(6)}),
    "curves of different x": lambda: plot.curves(
        a=([1e3, 1e6], [0.9, 0.98]), b=([2e3, 3e6], [0.8, 0.99]), xscale="log"
    ),
    "1 image": lambda: plot.images(numbers(1, 28, 28), ["Ankle boot → T-shirt/top (100 %)"], title=SENTENCE),
    "100 images": lambda: plot.images(numbers(100, 784), labels(100, 10), title=SENTENCE),
    "long titles": lambda: plot.images(numbers(24, 8, 8), [f"{name} → Pullover" for name in CLOTHES * 2 + CLOTHES[:4]]),
    "a long word": lambda: plot.images(numbers(30, 8, 8), ["Donaudampfschifffahrtsgesellschaft"] * 30, 15),
    "wide images in colour": lambda: plot.images(labels(6 * 3 * 20 * 50, 256).reshape(6, 3, 20, 50), columns=1),
    "weights": lambda: plot.weights(numbers(32, 784), title=SENTENCE),
    "small weights": lambda: plot.weights(numbers(32, 784) * 1e-3),
    "1 unit's weights": lambda: plot.weights(np.zeros((1, 64)), (8, 8), ["unit 0"], title=SENTENCE),
    "256 units' weights": lambda: plot.weights(numbers(256, 784)),
    "confusion": lambda: plot.confusion(labels(9999, 10), labels(9999, 10)[::-1], CLOTHES, title=SENTENCE),
    "confusion without a title": lambda: plot.confusion(labels(9999, 10), labels(9999, 10)[::-1]),
    "confusion of 2": lambda: plot.confusion([0, 1, 1], [0, 1, 0], title=SENTENCE),
    "no confusion": lambda: plot.confusion(labels(99, 10), labels(99, 10)),
    "confusion of 40": lambda: plot.confusion(labels(99999, 40), labels(99999, 40)[::-1], title=SENTENCE),
    "regions of scores": lambda: plot.decision_regions(
        lambda x: x.sum(1), numbers(50, 2), labels(50, 2), title=SENTENCE
    ),
    "regions of K": lambda: plot.decision_regions(
        lambda x: np.stack([x[:, 0], x[:, 1], -x.sum(1)], 1), numbers(50, 2), labels(50, 3), CLOTHES, title=SENTENCE
    ),
    "a single region": lambda: plot.decision_regions(lambda x: x[:, 0] ** 2 + 1, numbers(50, 2), labels(50, 2)),
    "NaN in the plane": lambda: plot.decision_regions(
        lambda x: np.log(np.clip(x[:, 0], 0, None) - 1), *points_for_nan()
    ),
    "histograms": lambda: plot.histograms({f"layer {i}": numbers(999) * 0.5**i for i in range(6)}, title=SENTENCE),
    "tiny gradients": lambda: plot.histograms({"W": numbers(999) * 1.234e-6 - 2.345e-6, "b": numbers(999) * 1e-3}),
    "histograms of 40": lambda: plot.histograms({f"block {i}.attention.out": numbers(99) for i in range(40)}),
    "odd histograms": lambda: plot.histograms(
        {
            "dead": np.zeros(9),
            "constant": np.full(9, 0.5),
            "NaN": [np.nan],
            "part": [1, np.inf],
            "empty": [],
            "one": [3],
        },
        title=SENTENCE,
    ),
    "nothing but zeros": lambda: plot.histograms({"bias": np.zeros(3)}),
}


def points_for_nan():
    return np.array([[3.0, 0.0], [9.0, 1.0]]), [0, 1]


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value) encountered in log:RuntimeWarning")  # the learner's
def test_a_plot_fits_a_notebook_and_no_text_is_cut_off(name):
    figure = DRAWINGS[name]().figure
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    assert width <= 9 and height <= 12
    drawn = figure.get_tightbbox()  # of everything that is drawn, in inches
    assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height
    assert all(text.get_fontsize() >= 6 for text in figure.findobj(Text) if text.get_text())


@pytest.mark.parametrize(
    "name", ["six ends in one place", "long titles", "a long word", "confusion", "odd histograms", "tiny gradients"]
)
def test_texts_do_not_overlap(name):
    ax = DRAWINGS[name]()
    ax.figure.canvas.draw()
    boxes = [t.get_window_extent() for t in [*ax.texts, ax.title, ax.xaxis.label] if t.get_text()]
    boxes += [t.get_window_extent() for t in ax.get_yticklabels() if ax.axison]
    for i, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[:i])


def test_titles_of_narrow_images_get_smaller_before_a_word_is_broken():
    texts = plot.images(numbers(20, 8, 8), CLOTHES * 2, 15).texts
    assert texts[0].get_text() == "T-shirt/top" and texts[0].get_fontsize() < 9


def draw_everything(convert):
    """Each function once, with data that went through `convert`."""
    x, y = numbers(12, 2).astype("float32"), labels(12, 2)
    plot.curves(train=convert(numbers(5)), val=[convert(v) for v in numbers(5)])
    plot.images(convert(numbers(4, 1, 8, 8)))
    plot.weights(convert(numbers(4, 16)), (4, 4))
    plot.confusion(convert(y), convert(y[::-1].copy()))
    plot.decision_regions(lambda given: given @ given.T[:, :1], convert(x), convert(y), boundary=0.5)
    plot.histograms({"layer": convert(numbers(3, 4))})


def test_torch_tensors_are_taken_also_those_that_require_gradients_or_are_half_precision():
    import torch

    draw_everything(torch.as_tensor)
    W = torch.ones(2, 4, requires_grad=True)
    plot.weights(W, (2, 2))
    plot.histograms({"layer": W.bfloat16()})
    plot.curves(loss=[W.sum(), W.sum()])
    assert W.grad is None


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own, while it is imported
def test_tensorflow_tensors_are_taken():
    import tensorflow

    plot.images(tensorflow.zeros((4, 8, 8, 1)))
    plot.confusion(tensorflow.constant([0, 1]), tensorflow.constant([0, 0]))
    plot.histograms({"layer": tensorflow.cast([1.0, 2.0], "bfloat16")})


def test_a_torch_classifier_gets_tensors_as_its_data_are_and_builds_no_graph():
    import torch

    seen = []

    def predict(x):
        seen.extend([x.dtype, layer(x).requires_grad])
        return layer(x)

    layer = torch.nn.Linear(2, 3)
    plot.decision_regions(predict, torch.ones(9, 2), torch.arange(9) % 3)
    assert seen == [torch.float32, False]


def test_what_keras_returns_is_taken():
    returned = SimpleNamespace(history={"loss": [2.0, 1.0], "val_loss": [3.0, 2.0], "accuracy": [0.1, 0.9]})
    train, val, accuracy = plot.curves(returned).lines
    assert train.get_color() == val.get_color() != accuracy.get_color()
    assert (train.get_linestyle(), val.get_linestyle()) == ("-", "--")


@pytest.mark.parametrize(
    "pair", [("train", "val"), ("wide_train", "wide_val"), ("train_loss", "val_loss"), ("a train", "a val")]
)
def test_training_and_validation_share_a_colour(pair):
    train, val, other = plot.curves({pair[0]: [2, 1], pair[1]: [3, 2], "other": [1, 1]}).lines
    assert train.get_color() == val.get_color() != other.get_color()
    assert (train.get_linestyle(), val.get_linestyle()) == ("-", "--")


def test_the_best_epoch_of_the_validation_curve_is_ringed():
    for names in ("train", "val"), ("loss", "val_loss"):
        ax = plot.curves(dict(zip(names, ([3, 2, 1, 0.5], [3, 2, np.nan, 2.5]), strict=True)), best="min")
        rings = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
        assert [tuple(ring.get_xydata()[0]) for ring in rings] == [(2, 2)]
    assert any("best 2 at 2" in text.get_text() for text in [*ax.texts, *legend(ax)])


def legend(ax):
    return ax.get_legend().get_texts() if ax.get_legend() else []


def test_a_curve_that_diverged_says_when():
    assert "diverged (not finite from 8)" in [text.get_text() for text in legend(plot.curves(diverged=with_nan()))]


def test_weights_share_one_scale_with_white_at_zero():
    W = numbers(4, 16) + 3
    shown = plot.weights(W, (4, 4)).images
    low, high = shown[0].get_clim()
    assert low == -high and {image.get_clim() for image in shown} == {(low, high)}
    assert min(shown[0].cmap(0.5)[:3]) > 0.95


@pytest.mark.parametrize(
    ("given", "scale"),
    [
        (np.array([[[3, 200]]], "uint8"), (0, 255)),
        (np.array([[[0.2, 0.9]]]), (0, 1)),
        (np.array([[[-2.0, 3.0]]]), (-2, 3)),
        (np.array([[[True, False]]]), (0, 1)),
    ],
)
def test_images_are_shown_on_the_scale_of_their_kind(given, scale):
    assert plot.images(given).images[0].get_clim() == scale


def test_the_confusion_matrix_counts_true_classes_in_rows():
    ax = plot.confusion([0, 0, 0, 1, 2, 2], [0, 2, 2, 1, 2, 2], ["a", "b", "c"])
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "1", (2, 0): "2", (1, 1): "1", (2, 2): "2"}
    assert ax.images[0].get_array()[0, 2] == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize(
    "predict",
    [lambda x: x[:, 0] - 1, lambda x: np.where(x[:, 0] > 1, 1, -1), lambda x: np.stack([1 - x[:, 0], x[:, 0] - 1], 1)],
    ids=["scores", "labels", "one score a class"],
)
def test_a_region_has_the_colour_of_its_points(predict):
    ax = plot.decision_regions(predict, [[0, 0], [2, 1]], [-1, 1])
    wins = ax.images[0].get_array()
    assert (wins[:, 0] == 0).all() and (wins[:, -1] == 1).all()
    drawn = [to_hex(dots.get_facecolor()).upper() for dots in ax.collections if isinstance(dots, PathCollection)]
    assert drawn == list(plot.COLOURS[:2])


def test_histograms_count_exact_zeros_and_name_what_is_odd():
    ax = plot.histograms({"relu": [0, 0, 0, 2.0], "dead": np.zeros(5), "broken": [1.0, np.nan]})
    said = [text.get_text() for text in ax.texts]
    for text in ("75 %", "all 0", "50 % not finite"):
        assert text in said


WRONG = {
    "no curves": (lambda: plot.curves(), "no curves given"),
    "a curve of matrices": (lambda: plot.curves(loss=numbers(3, 4)), r"loss has shape \(3, 4\); wanted \(n,\)"),
    "an empty curve": (lambda: plot.curves(loss=[]), r"loss has shape \(0,\)"),
    "words": (lambda: plot.curves(loss=["high", "low"]), "loss can't be read as numbers"),
    "ragged": (lambda: plot.images([[1, 2], [3]]), "x can't be read as numbers"),
    "best of what": (lambda: plot.curves(loss=[1], best="lowest"), "best is 'lowest'"),
    "one image": (lambda: plot.images(numbers(28, 30)), r"\(28, 30\).*x\[None\]"),
    "no images": (lambda: plot.images(numbers(0, 28, 28)), r"\(0, 28, 28\)"),
    "five channels": (lambda: plot.images(numbers(2, 5, 8, 8)), r"\(2, 5, 8, 8\)"),
    "too few titles": (lambda: plot.images(numbers(3, 8, 8), ["a"]), "titles has 1 entries for 3 images"),
    "no columns": (lambda: plot.images(numbers(3, 8, 8), columns=0), "columns is 0"),
    "turned weights": (lambda: plot.weights(numbers(784, 10)), r"\(784, 10\).*Did you mean W\.T\?"),
    "weights of another size": (lambda: plot.weights(numbers(10, 100)), r"\(10, 100\).*want \(K, 784\)\.$"),
    "scores for labels": (lambda: plot.confusion([0, 1], numbers(2, 2)), r"y_pred.*argmax\(1\)"),
    "labels of two lengths": (lambda: plot.confusion([0, 1], [0]), "2 labels, y_pred has 1"),
    "half a class": (lambda: plot.confusion([0, 1], [0, 0.5]), "y_pred has 0.5"),
    "a negative class": (lambda: plot.confusion([0, -1], [0, 1]), "y_true has -1"),
    "NaN for a class": (lambda: plot.confusion([0, np.nan], [0, 1]), "y_true has NaN"),
    "a class without a name": (lambda: plot.confusion([0, 2], [0, 1], ["a", "b"]), "class number 2 has no name"),
    "points in space": (lambda: plot.decision_regions(len, numbers(5, 3), labels(5, 2)), r"\(5, 3\).*wanted \(N, 2\)"),
    "a predict of one": (
        lambda: plot.decision_regions(lambda x: x[:1], numbers(5, 2), labels(5, 2)),
        r"predict gave shape \(1, 2\)",
    ),
    "0 and 1 for -1 and 1": (
        lambda: plot.decision_regions(lambda x: (x[:, 0] > 0).astype(int), numbers(5, 2), [-1, 1, 1, -1, 1]),
        "predict gave the label 0, which y has not",
    ),
    "one score for three": (
        lambda: plot.decision_regions(lambda x: x[:, 0], numbers(5, 2), [0, 1, 2, 1, 0]),
        "tells 2 classes apart",
    ),
    "columns for other labels": (
        lambda: plot.decision_regions(lambda x: x[:, [0, 1, 0]], numbers(5, 2), [3, 7, 3, 7, 3]),
        "classes 0 to 2; y has",
    ),
    "too few class names": (
        lambda: plot.decision_regions(lambda x: x[:, 0], numbers(5, 2), [0, 1, 1, 1, 0], ["a"]),
        "classes has 1 names",
    ),
    "no histograms": (lambda: plot.histograms({}), "no arrays given"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_with_what_is_wanted(case):
    call, says = WRONG[case]
    with pytest.raises(ValueError, match=says):
        call()
    assert not plt.get_fignums(), "a refused call leaves no empty figure behind"


def test_the_learners_matplotlib_settings_random_state_and_data_stay_as_they_are():
    matplotlib.rcParams["lines.linewidth"] = 7.5
    try:
        settings, state, numpy_state = dict(matplotlib.rcParams), random.getstate(), np.random.get_state()[1].copy()
        tensors = []
        draw_everything(lambda values: tensors.append((values, values.copy())) or values)
        assert dict(matplotlib.rcParams) == settings
        assert random.getstate() == state and (np.random.get_state()[1] == numpy_state).all()
        assert all((now == before).all() for now, before in tensors)
    finally:
        matplotlib.rcdefaults()
        matplotlib.use("Agg")


def test_plots_are_legible_whatever_style_the_learner_chose():
    with plt.style.context("dark_background"):
        ax = plot.curves(train=[2, 1], title="falls")
    assert to_hex(ax.figure.get_facecolor()) == to_hex(ax.get_facecolor()) == "#ffffff"
    assert ax.title.get_color() == plot.INK
    assert ax.xaxis.label.get_color() == plot.INK


def test_plots_go_side_by_side_into_axes_that_are_given():
    figure, (a, b, c, d) = plt.subplots(1, 4, figsize=(9, 3), layout="constrained")
    assert plot.curves(train=[2, 1], ax=a, title=SENTENCE) is a
    assert plot.confusion([0, 1], [0, 1], ax=b, title="Two") is b
    assert plot.decision_regions(lambda x: x[:, 0], numbers(5, 2), [0, 1, 1, 1, 0], ax=c, title=SENTENCE) is c
    assert plot.histograms({"layer": numbers(5)}, ax=d) is d
    assert plt.get_fignums() == [figure.number]
    figure.canvas.draw()
    assert a.title.get_window_extent().x1 <= b.get_window_extent().x0


def test_a_notebook_shows_the_figure_and_not_the_name_of_the_axes_above_it():
    from IPython.core.interactiveshell import InteractiveShell

    data, _ = InteractiveShell.instance().display_formatter.format(plot.curves(train=[2, 1]))
    InteractiveShell.clear_instance()
    assert data == {}


def test_matplotlib_is_not_imported_before_the_first_plot():
    code = "import sys, atlas.plot; sys.exit(any(m in sys.modules for m in ('matplotlib', 'torch', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_first_plot_does_not_silence_a_notebooks_later_figures(tmp_path):
    code = (
        "import matplotlib.pyplot as plt; from atlas import plot; plot.curves(train=[2, 1]); print(plt.isinteractive())"
    )
    env = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline", "IPYTHONDIR": str(tmp_path)}
    command = [sys.executable, "-m", "IPython", "--no-banner", "-c", code]
    assert "True" in subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
