"""The few plots that every workshop needs, in one house style.

Every function takes NumPy arrays, lists, torch or TensorFlow tensors, raises ValueError where shapes don't fit, and
returns the matplotlib Axes it drew on, so that one can go on: `ax.axhline(...)`, `ax.figure.savefig(...)`. A notebook
shows the figure at the end of its cell. To draw side by side, pass `ax` from
`plt.subplots(1, 3, figsize=(9, 3), layout="constrained")`. matplotlib is imported on first use and its settings
stay as they are.
"""

import contextlib
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours for all kinds of colour vision (2008), the darker first; their yellow is too pale for lines
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, SOFT, GRID = "#222222", "#666666", "#E4E4E4"
WIDTH = 8.8  # inches; with 100 dots an inch it fits a notebook's column
STYLE = {
    "figure.dpi": 100,
    "figure.facecolor": "white",  # a card of its own: legible in dark themes too
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
ROLES = {"train": "-", "val": "--", "valid": "--", "validation": "--", "test": ":"}


def curves(
    history: Any = None,
    /,
    *,
    xlabel: str = "epoch",
    ylabel: str = "loss",
    title: str = "",
    best: str | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    ax: "Axes | None" = None,
    **series: Any,
) -> "Axes":
    """Draw curves over epochs, such as train and validation loss.

    history: a dict of name to values, or what keras.fit returns; or give the series by name:
    curves(train=..., val=...). Each is n numbers, at 1, 2, ..., n, or a pair (x, y) of n numbers each. Names that end
    or begin in train, val or test ("wide_val", "val_loss") share a colour: training is solid, validation dashed, test
    dotted. best: "min" or "max" rings the best point of each validation curve (of every curve where there is none).
    NaN leaves a gap, and the label says so.
    """
    if best not in (None, "min", "max"):
        raise ValueError(f'best is {best!r}; it takes "min", "max" or None')
    given = {**dict(getattr(history, "history", history) or {}), **series}
    if not given:
        raise ValueError("no curves given; use curves(history) or curves(train=losses, val=val_losses)")
    points = {name: _points(name, values) for name, values in given.items()}
    stems, roles = zip(*(_pair(name, given) for name in points), strict=True)
    order = list(dict.fromkeys(stems))
    colour = dict(zip(order, _colours(len(order)), strict=True))
    ringed = [role != "train" for role in roles] if any(roles) else [True] * len(roles)

    with _axes(ax, 7.2, 3.8) as ax:
        lines, labels = [], []
        for (name, (x, y)), stem, role, ring in zip(points.items(), stems, roles, ringed, strict=True):
            fine = np.isfinite(y)
            alone = fine & ~np.r_[False, fine[:-1]] & ~np.r_[fine[1:], False]  # a line through one point can't be seen
            marks = np.arange(len(y)) if len(y) <= 12 else np.flatnonzero(alone)
            style = ROLES.get(role, "-")
            line = {"color": colour[stem], "linestyle": style, "linewidth": 1.8, "markersize": 3.5}
            if len(marks):
                line |= {"marker": "o", "markevery": list(marks)}
            lines += ax.plot(x, np.where(fine, y, np.nan), **line)
            labels.append(name.replace("_", " ") + _broken(x, fine))
            if best and ring and fine.any():
                at = (np.nanargmin if best == "min" else np.nanargmax)(np.where(fine, y, np.nan))
                ax.plot(x[at], y[at], "o", markersize=9, markerfacecolor="none", color=colour[stem])
                labels[-1] += f" (best {y[at]:.3g} at {x[at]:g})"
        ax.set(xscale=xscale, yscale=yscale)
        if xscale == "linear" and all((x == x.astype(int)).all() for x, _ in points.values()):
            ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        _dress(ax, xlabel, ylabel, grid=True)
        _name_lines(ax, lines, labels)
        _title(ax, title)
    return ax


def images(
    x: Any,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    *,
    title: str = "",
    cmap: str = "gray",
) -> "Axes":
    """Draw a grid of images, all on one scale.

    x: (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels, or (N, D) with D = H·H. Whole numbers are
    taken as 0 to 255, fractions between 0 and 1 as they are, others from the smallest to the largest of all.
    titles: one for each image. columns: chosen by N unless given.
    """
    tiles = _as_images(x)
    low, high = _scale(tiles)
    if tiles.ndim == 4:
        tiles = np.nan_to_num(np.clip((tiles.astype(float) - low) / (high - low), 0, 1))
    return _mosaic(tiles, titles, columns, title, vmin=low, vmax=high, cmap=cmap)


def weights(
    W: Any,
    shape: tuple[int, int] = (28, 28),
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    *,
    title: str = "",
    label: str = "weight",
) -> "Axes":
    """Draw each row of a weight matrix as an image: red pulls up, blue pulls down, white does nothing.

    W: (K, H·W), as in torch's Linear, with shape = (H, W). One scale for all, symmetric about 0, that ends at the
    99.5th percentile of |W| (the colour bar's arrows stand for the few beyond).
    """
    W, size = _array(W, "W"), shape[0] * shape[1]
    if W.ndim != 2 or W.shape[1] != size or not W.size:
        turned = " Did you mean W.T?" if W.ndim == 2 and W.shape[0] == size else ""
        raise ValueError(f"W has shape {W.shape}; images of {shape} want (K, {size}).{turned}")
    top = np.nanquantile(np.abs(W), 0.995) if np.isfinite(W).any() else 0
    top = top if np.isfinite(top) and top > 0 else 1.0
    beyond = "both" if (np.abs(W) > top).any() else "neither"
    scale = {"vmin": -top, "vmax": top, "cmap": "RdBu_r"}
    ax = _mosaic(W.reshape(-1, *shape), titles, columns, title, bar=(label, beyond), **scale)
    return ax


def confusion(
    y_true: Any,
    y_pred: Any,
    classes: Sequence[str] | None = None,
    *,
    title: str = "",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the confusion matrix: counts, coloured by their share of the row; right answers are grey, errors show.

    y_true, y_pred: (N,), class numbers from 0 to K-1. classes: the K names, in order.
    """
    y_true, y_pred = _labels(y_true, "y_true"), _labels(y_pred, "y_pred")
    if len(y_true) != len(y_pred):
        raise ValueError(f"y_true has {len(y_true)} labels, y_pred has {len(y_pred)}; they go in pairs")
    found = int(max(y_true.max(), y_pred.max())) + 1
    classes = [str(name) for name in (range(found) if classes is None else classes)]
    K = len(classes)
    if found > K:
        raise ValueError(f"class number {found - 1} has no name: classes has {K}")
    counts = np.zeros((K, K), int)
    np.add.at(counts, (y_true, y_pred), 1)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)  # per cent of the row
    errors = np.where(np.eye(K, dtype=bool), np.nan, share)
    errors[counts == 0] = np.nan
    top = np.nanmax(errors) if np.isfinite(errors).any() else 1.0

    side = float(np.clip(0.48 * K, 2.6, 6.4))
    with _axes(ax, side + 0.075 * max(map(len, classes)) + 1.3, side + 0.9) as ax:
        from matplotlib import colormaps
        from matplotlib.patches import Rectangle

        colours = colormaps["Oranges"]
        drawn = ax.imshow(errors, cmap=colours, vmin=0, vmax=top)
        for i in range(K):
            ax.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, color=GRID, linewidth=0))
        if K <= 25:
            digits = len(str(counts.max()))
            size = min(9.5, 72 * ax.get_window_extent().width / ax.figure.dpi / K / (0.7 * digits + 0.6))
            for i, j in zip(*np.nonzero(counts), strict=True):
                dark = i != j and np.mean(colours(errors[i, j] / top)[:3]) < 0.5
                ax.text(j, i, counts[i, j], ha="center", va="center", size=size, color="white" if dark else INK)
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, classes)) > 3 else {}
        small = {"fontsize": min(9.5, 300 / K)}
        ax.set_xticks(range(K), classes, **turned, **small)
        ax.set_yticks(range(K), classes, **small)
        ax.tick_params(length=0)
        _dress(ax, "predicted class", "true class")
        ax.spines[:].set_visible(False)
        bar = ax.figure.colorbar(drawn, cax=ax.inset_axes([1.04, 0, 0.035, 1]), label="errors, % of the true class")
        bar.outline.set_visible(False)
        _title(ax, title)
    return ax


def decision_regions(
    predict: Callable[[Any], Any],
    x: Any,
    y: Any,
    classes: Sequence[str] | None = None,
    *,
    boundary: float = 0.0,
    xlabel: str = "x₁",
    ylabel: str = "x₂",
    title: str = "",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw what a classifier says everywhere in the plane, with the data on top.

    predict: takes (M, 2), as a torch tensor like x if x is one, else as NumPy; returns (M,) labels as in y, or
    (M,) or (M, 1) scores of two classes, cut at `boundary` (0 for a sum, 0.5 for a probability), or (M, K) scores, of
    which the largest wins. x: (N, 2). y: (N,), the labels. classes: their names, in sorted order, for a legend.
    """
    points, y = _array(x, "x"), _labels(y, "y", whole=False)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(y):
        raise ValueError(f"x has shape {points.shape}, y {y.shape}; wanted (N, 2) and (N,)")
    kinds = np.unique(y)
    low, high = points.min(0), points.max(0)
    margin = np.where(high > low, 0.12 * (high - low), 1.0)
    low, high = low - margin, high + margin
    across, up = (np.linspace(low[i], high[i], 240) for i in (0, 1))
    grid = np.stack(np.meshgrid(across, up), -1)  # (240, 240, 2)
    heights, kinds = _regions(_answers(predict, grid.reshape(-1, 2), x), kinds, boundary)
    K = len(kinds)
    if classes is not None and len(classes) < K:
        raise ValueError(f"classes has {len(classes)} names; there are {K} classes")

    with _axes(ax, 5.4 if classes is None else 6.4, 4.4) as ax:
        from matplotlib.colors import ListedColormap, to_rgb

        colours = _colours(K)
        tints = ListedColormap([0.75 + 0.25 * np.array(to_rgb(c)) for c in colours])
        heights = heights.reshape(*grid.shape[:2], -1)  # (240, 240, K), the largest wins
        wins = np.where(np.isfinite(heights).all(-1), heights.argmax(-1), np.nan)
        extent = (low[0], high[0], low[1], high[1])
        ax.imshow(wins, extent=extent, origin="lower", cmap=tints, vmin=-0.5, vmax=K - 0.5, aspect="auto")
        for k in range(heights.shape[-1] if heights.shape[-1] > 2 else 1):
            lead = heights[..., k] - np.delete(heights, k, -1).max(-1) if heights.shape[-1] > 1 else heights[..., 0]
            ax.contour(across, up, lead, [0], colors=INK, linewidths=1)
        size = float(np.clip(6000 / len(y), 14, 90))
        for k, kind in enumerate(kinds):
            dots = {"color": colours[k], "marker": MARKERS[k % len(MARKERS)], "edgecolor": "white", "linewidth": 0.4}
            ax.scatter(*points[y == kind].T, s=size, label=classes and classes[k], **dots)
        ax.set(xlim=extent[:2], ylim=extent[2:])
        _dress(ax, xlabel, ylabel)
        if classes is not None:
            ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, markerscale=math.sqrt(45 / size))
        if missing := np.isnan(wins).mean():
            ax.text(0.02, 0.02, f"not a number on {missing:.0%} of the plane", transform=ax.transAxes)
        _title(ax, title)
    return ax


def histograms(
    arrays: Mapping[str, Any],
    *,
    xlabel: str = "value",
    title: str = "",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw one histogram for each layer, on one axis: activations, gradients or weights.

    arrays: name to array of any shape, drawn from the top down, each as high as its fullest bin. Exact zeros are
    counted in the table at the right and left out of the shape, where they would dwarf the rest; mean and standard
    deviation are of all finite values. The axis holds 99.8 % of every layer. What is empty, constant or not finite
    gets a note.
    """
    arrays = {name: _array(values, name).astype(float).ravel() for name, values in dict(arrays).items()}
    if not arrays:
        raise ValueError("no arrays given; use histograms({'layer 1': a1, 'layer 2': a2})")
    finite = {name: values[np.isfinite(values)] for name, values in arrays.items()}
    spread = [np.quantile(v[v != 0], [0.001, 0.999]) for v in finite.values() if v.any()] or [np.array([-1.0, 1.0])]
    low, high = min(s[0] for s in spread), max(s[1] for s in spread)
    if low == high:
        low, high = low - 0.5, high + 0.5
    rows = len(arrays)

    with _axes(ax, 8.0, 1.1 + rows * float(np.clip(9 / rows, 0.24, 0.6))) as ax:
        table = {"mean": (60, "right"), "std": (112, "right"), "zero": (150, "right"), "note": (162, "left")}
        notes = [_note(arrays[name], values) for name, values in finite.items()]

        def write(row: float, texts: Sequence[str], color: str) -> None:
            for text, (at, side) in zip(texts, table.values(), strict=True):
                place = {
                    "xycoords": ax.get_yaxis_transform(),
                    "textcoords": "offset points",
                    "va": "center",
                    "ha": side,
                }
                ax.annotate(text, (1, row), (at, 0), size=9, color=color, **place)

        write(-0.75, ["mean", "std", "zero", "note" if any(notes) else ""], SOFT)
        for row, (values, note) in enumerate(zip(finite.values(), notes, strict=True)):
            shape = values[values != 0]
            height, edges = np.histogram(shape, 80, (low, high))
            height = 0.85 * height / max(height.max(), 1)
            ax.stairs(row + 0.4 - height, edges, baseline=row + 0.4, fill=True, color=COLOURS[0], alpha=0.75)
            ax.axhline(row + 0.4, color=GRID, linewidth=0.8, zorder=0)
            cells = ["", "", ""]
            if values.size:
                zero = 1 - shape.size / values.size
                cells = [_number(values.mean()), _number(values.std()), f"{100 * zero:.0f} %"]
            write(row, [*cells, note], INK)
        ax.set(xlim=(low, high), ylim=(rows - 0.5, -0.6))
        ax.set_yticks(range(rows), arrays)
        ax.tick_params(axis="y", length=0)
        _dress(ax, xlabel, "")
        ax.spines["left"].set_visible(False)
        _title(ax, title)
    return ax


# -- how the plots look ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _axes(ax: "Axes | None", width: float, height: float) -> Iterator["Axes"]:
    """The caller's axes; or new ones, width × height inches, drawn in house style whatever the caller's settings."""
    import matplotlib.pyplot as plt

    if ax is not None:
        ax._ipython_display_ = _already_shown
        yield ax
        return
    plt.draw_if_interactive()  # loads the backend: a notebook's sets interactive mode, which the context would undo
    with plt.style.context(["default", STYLE]):
        _, ax = plt.subplots(figsize=(min(width, WIDTH), height), layout="constrained")
        ax._ipython_display_ = _already_shown
        ax.figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        yield ax


def _already_shown() -> None:
    """What a notebook calls on a cell's last value: the figure is displayed anyway, `<Axes: ...>` above it is noise."""


def _dress(ax: "Axes", xlabel: str, ylabel: str, grid: bool = False) -> None:
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(True, color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)


def _title(ax: "Axes", text: str) -> None:
    """Set the title, a sentence, at the left, in as many lines as the room takes."""
    figure = ax.get_figure(root=True)
    figure.draw_without_rendering()  # says how much room there is; and insets need a second pass over the layout
    if not text:
        return
    alone = len(figure.axes) == 1
    room = ((figure.bbox.x1 if alone else ax.bbox.x1) - ax.bbox.x0) / figure.dpi - 0.05
    ax.set_title(_wrap(text, room, 11, weight="bold"), loc="left", size=11, weight="bold")


def _number(value: float, _position: int = 0) -> str:
    """Short enough for a column or a colour bar: 0.12, 250, −3.4e−06."""
    return f"{value:.{3 if abs(value) >= 100 else 2}g}".replace("-", "−")


def _width(text: str, size: float, **font: Any) -> float:
    """The printed width of a line in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size, **font), False)[0] / 72


def _wrap(text: str, room: float, size: float, **font: Any) -> str:
    """Break the text into lines of at most `room` inches."""
    most = int(1.5 * len(text) * room / max(_width(text, size, **font), room / 1.5)) + 1  # 1.5: lines of narrow letters
    for letters in range(most, 0, -1):
        lines = textwrap.wrap(text, letters)
        if all(_width(line, size, **font) <= room for line in lines):
            return "\n".join(lines)
    return text


def _colours(n: int) -> list[Any]:
    """n colours: named ones while they last, then steps from dark to light, which keep the order visible."""
    if n <= len(COLOURS):
        return list(COLOURS[:n])
    from matplotlib import colormaps

    return [colormaps["viridis"](0.92 * i / (n - 1)) for i in range(n)]


def _name_lines(ax: "Axes", lines: list, labels: list[str]) -> None:
    """Name the lines where they end if they end together and are few; else in a legend beside the axes."""
    ends = [line.get_xydata()[-1] for line in lines]
    together = len({x for x, _ in ends}) == 1 and np.isfinite(ends).all()
    if len(lines) > 6 or not together:
        small = {"fontsize": 7 if len(lines) > 16 else 9, "ncols": math.ceil(len(lines) / 24)}
        ax.legend(lines, labels, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, borderaxespad=0, **small)
        return
    ax.margins(x=0.02)
    ax.autoscale_view()  # else the limits are still 0 to 1
    heights = ax.transData.transform(ends)[:, 1] * 72 / ax.figure.dpi  # points
    free = -np.inf
    for i in np.argsort(heights):
        free = max(heights[i], free + 13)
        ax.annotate(
            labels[i],
            (1, ends[i][1]),
            (6, free - heights[i]),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=lines[i].get_color(),
            va="center",
        )


def _mosaic(
    tiles: np.ndarray,
    titles: Sequence[str] | None,
    columns: int | None,
    title: str,
    bar: tuple[str, str] | None = None,
    **scale: Any,
) -> "Axes":
    """Images side by side on one Axes whose unit is an inch: faster than an Axes for each, and nothing can overlap."""
    N, H, W = tiles.shape[:3]
    if titles is not None and len(titles) != N:
        raise ValueError(f"titles has {len(titles)} entries for {N} images; give one for each")
    if columns is None:
        columns = 8 if N <= 40 else min(20, math.ceil(math.sqrt(2 * N)))
    if columns < 1:
        raise ValueError(f"columns is {columns}; at least 1")
    columns, rows = min(columns, N), math.ceil(N / columns)
    beside = 1.25 if bar else 0.0  # for the colour bar and its numbers
    room = WIDTH - 0.12 - beside
    wide = min(room / columns, 2.0, 1.1 if N > 8 else 2.0)
    gap = 0.08 * wide
    inner = wide - gap
    high = inner * H / W

    texts, size = [], 9.0
    if titles is not None:
        words = max((word for text in titles for word in str(text).split()), key=len, default="")
        while size > 6 and _width(words, size) > inner:
            size -= 0.5
    line = 1.3 * size / 72
    with _axes(None, WIDTH, 1.0) as ax:
        if titles is not None:
            texts = [_wrap(str(text), inner, size) for text in titles]
        above = max((text.count("\n") + 1 for text in texts), default=0) * line
        step = high + above + gap
        for n, tile in enumerate(tiles):
            left, top = n % columns * wide, -(n // columns) * step - above
            drawn = ax.imshow(tile, extent=(left, left + inner, top - high, top), interpolation="nearest", **scale)
            if texts:
                ax.text(left + inner / 2, top + 0.03, texts[n], ha="center", va="bottom", size=size)
        full, tall = columns * wide - gap, rows * step - gap
        ax.set(xlim=(0, full), ylim=(-tall, 0))
        ax.axis("off")
        ax.set_anchor("NW")
        if bar:
            long = min(tall - above, 2.6)
            box = [full + 0.12, -above - long, 0.13, long]
            cax = ax.inset_axes(box, transform=ax.transData)
            ax.figure.colorbar(drawn, cax=cax, label=bar[0], extend=bar[1], format=_number).outline.set_visible(False)
        width = max(full + beside + 0.12, 4.0)
        ax.figure.set_size_inches(width, tall + 0.1)
        if title:
            text = _wrap(title, width - 0.15, 11, weight="bold")
            ax.figure.set_size_inches(width, tall + 0.2 + 0.18 * (text.count("\n") + 1))
            ax.set_title(text, loc="left", size=11, weight="bold")
        ax.figure.draw_without_rendering()  # the colour bar, an inset, needs a second pass over the layout
    return ax


# -- what is given -----------------------------------------------------------------------------------------------------


def _array(values: Any, name: str) -> np.ndarray:
    """A NumPy array of numbers from an array, a (nested) list of numbers or tensors, or a tensor on any device."""
    if isinstance(values, (list, tuple)) and any(hasattr(v, "detach") for v in values):
        values = [_array(v, name) for v in values]
    if hasattr(values, "detach"):  # torch
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) in ("torch.bfloat16", "torch.float16") else values
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":  # TensorFlow's bfloat16, numbers as objects
            array = array.astype(float)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} can't be read as numbers in an array: {error}") from None
    return array


def _labels(values: Any, name: str, whole: bool = True) -> np.ndarray:
    labels = _array(values, name)
    if labels.ndim != 1 or not len(labels):
        more = "; for scores (N, K) take .argmax(1) first" if labels.ndim == 2 else ""
        raise ValueError(f"{name} has shape {labels.shape}; wanted (N,), one label for each example{more}")
    if not np.isfinite(labels).all():
        raise ValueError(f"{name} has NaN or infinite labels")
    if whole and ((labels != labels.astype(int)).any() or labels.min() < 0):
        raise ValueError(
            f"{name} has {labels[(labels != labels.astype(int)) | (labels < 0)][0]}; wanted 0, 1, ..., K-1"
        )
    return labels.astype(int) if whole else labels


def _points(name: str, values: Any) -> tuple[np.ndarray, np.ndarray]:
    array = _array(values, name).astype(float)
    if array.ndim == 1 and len(array):
        return np.arange(1.0, len(array) + 1), array
    if array.ndim == 2 and len(array) == 2 and array.size:
        return array[0], array[1]
    raise ValueError(f"{name} has shape {array.shape}; wanted (n,) numbers, or a pair (x, y) of n numbers each")


def _pair(name: str, names: Mapping[str, Any]) -> tuple[str, str]:
    """Split a name: "wide_val" into "wide", "val"; "train" into "", "train"; "val_loss" into "loss", "val"."""
    before, _, after = name.replace(" ", "_").rpartition("_")
    if after in ROLES:
        return before, after
    before, _, after = name.partition("_")
    if before in ROLES:
        return after, before
    return name, "train" if f"val_{name}" in names else ""  # Keras calls them loss and val_loss


def _broken(x: np.ndarray, fine: np.ndarray) -> str:
    if fine.all():
        return ""
    if not fine.any():
        return " (never finite)"
    return f" (not finite {'at' if fine[-1] else 'from'} {x[~fine][0]:g})"


def _as_images(x: Any) -> np.ndarray:
    """(N, H, W) or (N, H, W, 3 or 4) from any of the layouts that images() takes."""
    x = _array(x, "x")
    if x.ndim == 4 and x.shape[-1] not in (1, 3, 4) and x.shape[1] in (1, 3, 4):
        x = np.moveaxis(x, 1, -1)
    if x.ndim == 4 and x.shape[-1] == 1:
        x = x[..., 0]
    if x.ndim == 2 and x.size and math.isqrt(x.shape[1]) ** 2 == x.shape[1]:
        x = x.reshape(len(x), math.isqrt(x.shape[1]), -1)
    if not x.size or x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (3, 4)):
        one = " For one image of shape (H, W) pass x[None]." if x.ndim == 2 else ""
        raise ValueError(f"x has shape {x.shape}; wanted (N, H, W), (N, H, W, C), (N, C, H, W) or (N, H·H).{one}")
    return x


def _scale(tiles: np.ndarray) -> tuple[float, float]:
    if tiles.dtype == bool:
        return 0, 1
    finite = tiles[np.isfinite(tiles)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if tiles.dtype.kind in "iu" and low >= 0 and high <= 255:
        return 0, 255
    if low >= 0 and high <= 1:
        return 0, 1
    return low, high if high > low else low + 1


def _answers(predict: Callable, grid: np.ndarray, x: Any) -> np.ndarray:
    """What predict says on the grid, which it gets as it gets x: (M,) or (M, K)."""
    if hasattr(x, "detach"):
        import torch

        with torch.no_grad():
            dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
            given = _array(predict(torch.as_tensor(grid, dtype=dtype, device=x.device)), "predict(x)")
    else:
        given = _array(predict(grid), "predict(x)")
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim not in (1, 2) or len(given) != len(grid):
        M = len(grid)
        raise ValueError(f"predict gave shape {given.shape} for {grid.shape}; wanted ({M},), ({M}, 1) or ({M}, K)")
    return given


def _regions(given: np.ndarray, kinds: np.ndarray, boundary: float) -> tuple[np.ndarray, np.ndarray]:
    """Heights (M, K), of which the largest wins, and the labels (K,) that the columns stand for."""
    if given.ndim == 2:
        K = given.shape[1]
        if len(kinds) != K and not np.isin(kinds, range(K)).all():
            raise ValueError(f"predict gave {K} columns, for the classes 0 to {K - 1}; y has {kinds}")
        return given.astype(float), kinds if len(kinds) == K else np.arange(K)
    if np.isin(given, kinds).all():
        return (given[:, None] == kinds).astype(float), kinds
    if given.dtype.kind in "biu":
        raise ValueError(f"predict gave the label {given[~np.isin(given, kinds)][0]}, which y has not: y has {kinds}")
    if len(kinds) != 2:
        raise ValueError(f"predict gave one score a point, which tells 2 classes apart; y has {kinds}")
    return np.stack([boundary - given, given - boundary], 1), kinds


def _note(given: np.ndarray, finite: np.ndarray) -> str:
    if not finite.size:
        return "none is finite" if given.size else "empty"
    if finite.size < given.size:
        return f"{100 - 100 * finite.size / given.size:.2g} % not finite"
    return f"all {finite[0]:.3g}" if finite.size > 1 and (finite == finite[0]).all() else ""
