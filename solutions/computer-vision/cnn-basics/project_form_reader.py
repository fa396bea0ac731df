"""Read the handwritten digits of a photographed form, and say "not sure" where it is not: the project's reference.

Finds the four marks, undoes the perspective, cuts out the boxes, centres each digit as MNIST does, and classifies it
with the CNN of classify_images.py trained on MNIST (or a --checkpoint of it). The confidence from which it answers is
chosen on forms with digits of the validation set, so that at most one answer in 200 is wrong; then it is measured on
forms with test digits. Writes form_reader.{json,png} to --out.
"""

import argparse
import json
import sys
from pathlib import Path

import classify_images
import numpy as np
import torch
from PIL import Image
from scipy import ndimage

import atlas
from atlas import plot, program

FORM = classify_images.FORM
TARGET = 0.995  # of the answers right
EMPTY = -1

# ------------------------------------------------------------------------------------------------ find and cut


def ink_of(picture):
    """Ink (H, W) in 0...1 of a photograph (H, W) uint8: how much darker a pixel is than the paper around it."""
    grey = ndimage.gaussian_filter(picture / 255, 0.7)
    small = grey[::4, ::4]  # paper changes slowly
    paper = ndimage.gaussian_filter(ndimage.grey_closing(small, 21), 8)  # the light: dark things up to 80 pixels go
    paper = ndimage.zoom(paper, np.array(grey.shape) / small.shape, order=1)
    return (1 - grey / paper).clip(0, 1)


def find_marks(ink):
    """Centres (x, y) of the four marks, (4, 2): upper left, upper right, lower right, lower left.

    Marks are solid, about as wide as high, and the largest such things. Raises ValueError where there are not four.
    """
    spots, _ = ndimage.label(ink > 0.5)
    found = []
    for n, box in enumerate(ndimage.find_objects(spots), 1):
        high, wide = (part.stop - part.start for part in box)
        area = (spots[box] == n).sum()
        if min(high, wide) > 0.7 * max(high, wide) and area > 0.75 * high * wide:
            found.append((area, ndimage.center_of_mass(spots == n)))
    if len(found) < 4:
        raise ValueError(f"{len(found)} marks found, not 4")
    centres = np.array([centre[::-1] for _, centre in sorted(found, key=lambda each: -each[0])[:4]])  # (x, y)
    angle = np.arctan2(*(centres - centres.mean(0)).T[::-1])  # clockwise from the left, for y points down
    return centres[np.argsort(angle)]


def straighten(picture, ink):
    """The form's ink as printed, (height, width) of classify_images.form_size, from a photograph's."""
    height, width = classify_images.form_size()
    d = FORM["margin"] / 2
    printed = np.array([(d, d), (width - d, d), (width - d, height - d), (d, height - d)])
    a, b, c, e, f, g, h, k = classify_images.perspective(printed, find_marks(ink))
    y, x = np.mgrid[:height, :width]
    w = h * x + k * y + 1
    return ndimage.map_coordinates(ink, [(e * x + f * y + g) / w, (a * x + b * y + c) / w], order=1)


def cut_boxes(page):
    """(rows·columns, side, side): the inside of each box, without its printed frame."""
    inset, side = 4, FORM["box"] - 8
    starts = [FORM["margin"] + n * FORM["pitch"] + inset for n in range(max(FORM["rows"], FORM["columns"]))]
    places = [(top, left) for top in starts[: FORM["rows"]] for left in starts[: FORM["columns"]]]
    return np.stack([page[top : top + side, left : left + side] for top, left in places])


# ------------------------------------------------------------------------------------------------ centre


def centre(box):
    """A digit as MNIST has it: longer side 20 of 28 pixels, centre of mass in the middle; None for an empty box.

    box: ink (side, side). Returns (28, 28) float32 in 0...1, or None.
    """
    if np.quantile(box, 0.98) < 0.2:
        return None
    ink = np.where(box < 0.3 * box.max(), 0, box / box.max())
    spots, count = ndimage.label(ink > 0, np.ones((3, 3)))
    sizes = ndimage.sum_labels(np.ones_like(ink), spots, range(1, count + 1))
    ink = np.where(np.isin(spots, 1 + np.flatnonzero(sizes >= 6)), ink, 0)  # specks go
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not len(rows):
        return None
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(20 * side / max(digit.shape))) for side in digit.shape)
    small = np.asarray(Image.fromarray(digit.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    middle = ndimage.center_of_mass(small)
    top, left = (int(np.clip(round(13.5 - m), 0, 28 - n)) for m, n in zip(middle, small.shape, strict=True))
    canvas = np.zeros((28, 28), np.float32)
    canvas[top : top + height, left : left + width] = small
    return (canvas / canvas.max()).clip(0, 1)


def only_shrink(box):
    """The box as it is, made smaller: what reading without centring would see."""
    small = Image.fromarray(box.astype(np.float32)).resize((28, 28), Image.Resampling.BILINEAR)
    return np.asarray(small) / max(float(box.max()), 0.2)


# ------------------------------------------------------------------------------------------------ read


def read(model, forms, prepare=centre):
    """Digits and confidences, (N, 80) each, of N forms' boxes; EMPTY where nothing is written, with confidence 1."""
    digits, sure = [], []
    for boxes in forms:
        written = np.array([centre(box) is not None for box in boxes])
        images = np.stack([prepare(box) for box in boxes[written]]).astype(np.float32)
        p = classify_images.predict(model, torch.tensor(images)[:, None]).softmax(1).numpy()
        digit, confidence = np.full(len(boxes), EMPTY), np.ones(len(boxes))
        digit[written], confidence[written] = p.argmax(1), p.max(1)
        digits.append(digit)
        sure.append(confidence)
    return np.array(digits), np.array(sure)


def threshold(sure, right):
    """The lowest confidence from which at least TARGET of the answers are right."""
    order = np.argsort(-sure, kind="stable")
    share = right[order].cumsum() / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= TARGET)
    return float(sure[order][enough[-1]]) if len(enough) else 1.0


def measure(digits, sure, written, t):
    """Counts in per cent: boxes with a digit read rightly, answered, and wrong among the answers; empty ones found."""
    inked = written != EMPTY
    answered = (sure >= t) & inked
    return {
        "right": 100 * float((digits == written)[inked].mean()),
        "answered": 100 * float(answered.sum() / inked.sum()),
        "wrong of answers": 100 * float((digits != written)[answered].mean()) if answered.any() else 0.0,
        "empty found": 100 * float((digits == EMPTY)[~inked].mean()),
    }


def draw(path, picture, digits, sure, written, t, curve):
    """Left a form with what was read, errors and doubts marked; right errors against the share that is answered."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    left.imshow(straighten(picture, ink_of(picture)), cmap="gray_r")
    left.set(xticks=[], yticks=[])
    for n, (row, column) in enumerate(np.ndindex(FORM["rows"], FORM["columns"])):
        if digits[n] == EMPTY:
            continue
        doubt, wrong = sure[n] < t, digits[n] != written[n]
        colour = plot.COLOURS[1] if wrong else "0.45" if doubt else plot.COLOURS[0]
        x, y = (FORM["margin"] + k * FORM["pitch"] for k in (column, row))
        left.text(x + 2, y - 3, f"{digits[n]}{'?' if doubt else ''}", color=colour, size=9, weight="bold")
    left.set_title("Straightened and read; ? is not sure, orange is wrong", loc="left", size=11, weight="bold")
    for (name, (answered, errors)), marker, colour in zip(curve.items(), plot.MARKERS, plot.COLOURS, strict=False):
        right.plot(answered, errors, label=name, color=colour, marker=marker, markevery=0.1)
    right.axhline(100 * (1 - TARGET), color="0.6", linestyle=":", label=f"at most {1 - TARGET:.1%}")
    right.set(xlabel="answered (%)", ylabel="wrong among the answers (%)", ylim=(0, None))
    right.set_title("Who may say 'not sure' errs less", loc="left", size=11, weight="bold")
    right.legend(frameon=False)
    figure.savefig(path)


def errors_by_share(sure, right):
    """Share answered and errors among the answers, in per cent, the surest first."""
    order, n = np.argsort(-sure, kind="stable"), np.arange(1, len(sure) + 1)
    return (100 * n / len(n))[20:], (100 * (~right[order]).cumsum() / n)[20:]


def trained_model(options):
    """The model of the checkpoint, or a new one, trained on MNIST and kept in --out."""
    if options.checkpoint:
        saved = program.load(options.checkpoint, classify_images.CONFIG)
        if saved["config"]["dataset"] != "mnist":
            sys.exit(f"{options.checkpoint} reads {saved['config']['dataset']}, not mnist.")
        model = classify_images.make_model(saved["config"], saved["shape"], 10)
        model.load_state_dict(saved["model"])
        return model
    config = {**classify_images.CONFIG, "dataset": "mnist", "shift": 1, "seed": options.seed}
    config |= {"width": 4, "limit": 5000} if options.quick else {}
    settings = argparse.Namespace(epochs=1 if options.quick else 3, checkpoint=options.out / "mnist.pt")
    data, classes = classify_images.load_data("mnist", config["limit"], torch.device("cpu"))
    return classify_images.train(settings, config, data, classes, torch.device("cpu"))[0]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", type=int, default=25, help="so many for the threshold and so many for the test (25)")
    parser.add_argument("--checkpoint", type=Path, help="a model of classify_images.py --dataset mnist")
    parser.add_argument("--out", type=Path, default=Path("runs/form_reader"), help="folder of the results")
    parser.add_argument("--seed", type=int, default=0, help="of training and forms (0)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: a weaker network, a form each")
    options = parser.parse_args(arguments)
    forms = 1 if options.quick else options.forms
    options.out.mkdir(parents=True, exist_ok=True)
    model = trained_model(options)
    mnist, rng = atlas.data.load("mnist"), np.random.default_rng(options.seed)
    sets = {"val": (mnist.x_train[55_000:], mnist.y_train[55_000:]), "test": (mnist.x_test, mnist.y_test)}
    pictures, written = {}, {}
    for name, digits in sets.items():
        drawn = [classify_images.photograph_form(*digits, rng) for _ in range(forms)]
        pictures[name] = [picture for picture, _ in drawn]
        written[name] = np.array([truth.ravel() for _, truth in drawn])
    boxes = {name: [cut_boxes(straighten(each, ink_of(each))) for each in of] for name, of in pictures.items()}
    results, curve = {}, {}
    for name, prepare in (("centred", centre), ("only made smaller", only_shrink)):
        (val, sure_val), (test, sure) = (read(model, boxes[part], prepare) for part in sets)
        inked = written["val"] != EMPTY
        t = threshold(sure_val[inked], (val == written["val"])[inked])
        results[name] = {"threshold": t, **measure(test, sure, written["test"], t)}
        inked = written["test"] != EMPTY
        curve[name] = errors_by_share(sure[inked], (test == written["test"])[inked])
        print(f"{name:18}" + "   ".join(f"{what} {value:.3g}" for what, value in results[name].items()))
        if name == "centred":
            shown = pictures["test"][0], test[0], sure[0], written["test"][0], t
    (options.out / "form_reader.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(options.out / "form_reader.png", *shown, curve)
    print(f"written to {options.out}: form_reader.json, form_reader.png")


if __name__ == "__main__":
    main()
