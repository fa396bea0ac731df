"""What an exception of NumPy, PyTorch, Keras or Python tells a beginner: one sentence, a fact and then a question.

Here is what its text tells; Python's own slips, for which one has to look into the code, are in `slips_of_python`.
"""

import ast
import re
from typing import Any

from atlas.checking import misfits, slips_of_python
from atlas.checking.place import Place
from atlas.checking.values import is_array
from atlas.checking.whose import is_learners
from atlas.checking.written import Written

_LOADING = re.compile(r"(Missing key|Unexpected key|size mismatch)")
_NOISE = re.compile(r"\x1b\[\d+m|\{\{function_node [^}]*\}\} ?| ?\[Op:\w*\]( name: ?\w*)?$|^\w*(Error|Exception): ")
_LENGTH, _KEYS_SHOWN, _LINES_SHOWN = 300, 4, 6


def said(error: BaseException) -> list[str]:
    """What the exception says: its kind and the telling line; of a state dict that does not fit, every complaint."""
    kind = type(error).__name__
    try:
        lines = [line.strip() for line in str(error).splitlines()]
    except Exception:
        return [kind]
    text = _NOISE.sub("", _telling([line for line in lines if line])).strip()
    first = f"{kind}: {text}" if text else kind
    return [first[:_LENGTH], *_of_loading(lines)]


def _telling(lines: list[str]) -> str:
    """Of a long message the one line that says what is wrong."""
    if not lines:
        return ""
    for line in lines:
        if line.startswith("\x1b[1m"):  # Keras sets it in bold
            return line
    if lines[0] == "in user code:":
        return next((line for line in reversed(lines) if re.match(r"\w+(Error|Exception): ", line)), lines[-1])
    if lines[0] == "Graph execution error:":
        return next((line for line in reversed(lines) if not line.startswith(("[[{{", "File "))), lines[-1])
    return lines[0]


def _of_loading(lines: list[str]) -> list[str]:
    complaints = [_shortened(line) for line in lines if _LOADING.match(line)]
    rest = len(complaints) - _LINES_SHOWN
    return [*complaints[:_LINES_SHOWN], *([f"… and {rest} more"] if rest > 0 else [])]


def _shortened(line: str) -> str:
    head, _, keys = line.partition(": ")
    names = keys.rstrip(". ").split(", ")
    if line.startswith("size mismatch") or len(names) <= _KEYS_SHOWN:
        return re.sub(r"torch\.Size\(\[([\d, ]*)\]\)", r"(\1)", line)
    return f"{head}: {', '.join(names[:_KEYS_SHOWN])} and {len(names) - _KEYS_SHOWN} more"


def advice(error: BaseException, place: Place | None, given: Any = None) -> str:
    """The sentence for an exception that learner code ended with, "" where there is none that is true."""
    text = " ".join(said(error))
    if words := slips_of_python.of_exception(error, text, place, given):
        return words
    for pattern, words in _SAYINGS:
        if found := re.search(pattern, text):
            return words(found, place) if callable(words) else words.format(*found.groups())
    return ""


# ------------------------------------------------------------------------------------------------ masks and indices


def _mask(found: re.Match, place: Place | None) -> str:
    """A mask of the wrong length; where another axis has that length, it belongs there."""
    axis, size, length = (int(found[name]) for name in ("axis", "size", "mask"))
    fact = f"A mask of length {length} meets axis {axis}, which has {size} entries"
    shape = next((v.shape for _, v in place.operands() if getattr(v, "ndim", 0) > 1), ()) if place else ()
    return f"{fact}{_other_axis(shape, length, axis)}"


def _mask_of_torch(found: re.Match, place: Place | None) -> str:
    mask, shape = ([int(n) for n in re.findall(r"\d+", found[name])] for name in ("mask", "shape"))
    axis = int(found["axis"])
    if len(mask) > 1 or axis >= len(shape):
        return f"A mask of shape {tuple(mask)} meets a tensor of shape {tuple(shape)}: both begin with the same axes?"
    return f"A mask of length {mask[0]} meets axis {axis}, which has {shape[axis]} entries" + _other_axis(
        shape, mask[0], axis
    )


def _other_axis(shape: tuple | list, length: int, axis: int) -> str:
    fitting = [other for other, n in enumerate(shape) if n == length and other != axis]
    if len(fitting) != 1:
        return ": was it made of another array, or over the wrong axis?"
    (other,) = fitting
    index = ", ".join([":"] * other + ["mask"])
    return f"; axis {other} has {length}. Does the mask belong there, [{index}]?"


def _axes(found: re.Match, place: Place | None) -> str:
    have, asked = int(found[1]), int(found[2])
    axes = "no axis" if have == 0 else "one axis" if have == 1 else f"{have} axes"
    return f"It has {axes}, and {asked} are indexed: has a sum, a mean or an index taken one away before?"


def _index(found: re.Match, place: Place | None) -> str:
    length = int(found[3])
    last = f"the last is {length - 1}" if length else "and it is empty"
    return f"Index {found[1]} runs past the end of axis {found[2]}, which has {length}: they begin at 0, {last}."


def _empty(text: str, place: Place | None) -> str:
    """Nothing to take the least or the last of: perhaps cut off at a place that argmax found where there was none."""
    asked = "It is empty here: can it be so, or is it never filled?"
    found = "argmax" not in text and any(code.has("argmax") for code in _codes(place))
    return f"{asked} (argmax of a mask in which nothing is True gives 0.)" if found else asked


# ------------------------------------------------------------------------------------------------ the table

_FIT = "Print both .shape and write the shape beside each line, as in # (B, K)."


def _of_shapes(words: str) -> str:
    return f"Two shapes do not fit{words}. {_FIT}"


def _product(found: re.Match, place: Place | None) -> str:
    a, b = int(found[2]), int(found[3])
    return _of_product(place) or _of_shapes(
        f": in a product the {a} columns of the first must be as many as the {b} rows of the second"
    )


def _batched(found: re.Match, place: Place | None) -> str:
    """A product of batches of matrices, of which torch tells what the second should begin with."""
    batch, columns, other, rows = map(int, found.groups())
    if batch != other:
        fact = f": as batches of matrices the first has {batch} and the second {other}"
        return _of_shapes(f"{fact} (.mT changes the last two axes only)")
    return _of_shapes(
        f": in a product the {columns} columns of the first must be as many as the {rows} rows of the second"
        " (.mT changes the last two axes)"
    )


def _of_product(place: Place | None) -> str:
    fact, question = misfits.of_product(place)
    return f"Two shapes do not fit: {fact}. {question}" if question else _of_shapes(f": {fact}") if fact else ""


_CLASSES = "Class labels are whole numbers, torch.int64, one for each row: labels.long()?"

_SAYINGS = [
    # masks and indices
    (
        r"boolean index did not match indexed array along axis (?P<axis>\d+); size of axis is (?P<size>\d+)"
        r" but size of corresponding boolean axis is (?P<mask>\d+)",
        _mask,
    ),
    (
        r"The shape of the mask \[(?P<mask>[\d, ]+)\] at index \d+ does not match the shape of the indexed tensor"
        r" \[(?P<shape>[\d, ]+)\] at index (?P<axis>\d+)",
        _mask_of_torch,
    ),
    (r"index (-?\d+) is out of bounds for (?:axis|dimension) (\d+) with size (\d+)", _index),
    (
        r"index out of range in self",
        (
            "An embedding has a row for each index below num_embeddings, and one here is "
            "larger (or negative): how many different ones are there?"
        ),
    ),
    (
        r"Target -?\d+ is out of bounds|Class values must be smaller",
        (
            "A class label is as large as the number of classes, or larger: labels "
            "count from 0. How many columns do the outputs have?"
        ),
    ),
    (
        r"indices(?:\[[\d,]*\])? = -?\d+ is not in \[0, (\d+)\)",
        "Indices count from 0 and lie below {0} here: does one count from 1, or is the table too small?",
    ),
    (r"too many indices for array: array is (\d+)-dimensional, but (\d+) were indexed", _axes),
    (
        r"too many indices for tensor of dimension (\d+)",
        ("More axes are indexed than there are, {0}: has a sum, a mean or an index taken one away before?"),
    ),
    (
        r"invalid index of a 0-dim|invalid index to scalar",
        "It is a single number and has no entries to pick: has a sum, a mean or an index taken all axes away before?",
    ),
    (
        r"list index out of range|string index out of range|tuple index out of range",
        lambda found, place: (
            misfits.past_the_shape(place)
            or "An index runs past the end: they begin at 0, and the last one is the length minus 1."
        ),
    ),
    (
        r"pop from empty|argument must be non-empty|argument is empty|(arg is|of|from) an empty sequence",
        lambda found, place: _empty(found.string, place),
    ),
    (
        r"(?:arrays|tensors) used as indices must be",
        (
            "Its entries are fractions: an index is whole numbers (.astype(int), "
            ".long()), a mask True and False (a comparison)."
        ),
    ),
    (r"only integers, slices .* are valid indices", "An index is a whole number: // for /, or int(…)?"),
    (
        r"only integer (tensors of a single element|scalar arrays) can be converted",
        "One number is wanted, as on both sides of a slice's colon, and an array has several: a loop over its entries,"
        " or an index array (start[:, None] + arange(length)) in the place of the slice?",
    ),
    # kinds of numbers
    (
        (
            r"mat1 and mat2 must have the same dtype, but got (\w+) and (\w+)"
            r"|expected m1 and m2 to have the same dtype, but got: (?:c10::)?(\w+) != (?:c10::)?(\w+)"
            r"|expected scalar type (\w+) but found (\w+)|Found dtype (\w+) but expected (\w+)"
        ),
        lambda found, place: _kinds(*filter(None, found.groups())),
    ),
    (
        r"was expected to be an? (\w+) tensor but is an? (\w+) tensor",
        "TensorFlow mixes no kinds of numbers, and here {0} meets {1}: tf.cast one of both?",
    ),
    (r"expected target dtype to be Long|expected a Long tensor|Value for attr 'Tlabels' of float", _CLASSES),
    (r"Expected tensor for argument #1 'indices'", "An embedding is asked by whole numbers: .long()?"),
    (
        (
            r"Cannot cast ufunc .* output from dtype\('(float|complex)\d+'\) to dtype\('u?int"
            r"|result type (Float|Double|Half)\w* can't be cast to the desired output type"
        ),
        (
            "An array of whole numbers takes no fractions in place: x = x - … makes a "
            "new one, .astype(float) (or .float()) one that takes them."
        ),
    ),
    (
        (
            r"could not infer output dtype\. Input dtype must be"
            r"|not implemented for '(Long|Int|Byte|Bool)'|Only Tensors of floating point"
        ),
        "The tensor holds whole numbers (or True and False), and this needs fractions: .float()?",
    ),
    (
        r"inhomogeneous shape|expected sequence of length \d+ at dim|non-rectangular Python sequence",
        "The rows have different lengths, so that they make no array: what is appended in the loop, and how often?",
    ),
    (
        (
            r"numpy\.object_|loop of ufunc does not support argument \d+ of type|Unable to convert function return"
            r"|Failed to convert a NumPy array to a Tensor \(Unsupported object type"
        ),
        (
            "The array holds Python objects, not numbers (dtype object): were rows "
            "of different lengths, None or tensors put into it?"
        ),
    ),
    (
        r"setting an array element with a sequence",
        "One entry gets several numbers: is a sum, or an index on the right, missing?",
    ),
    (
        r"math domain error",
        (
            "A function of math met a number that it is not defined for, such "
            "as a logarithm of 0 or the root of a negative one."
        ),
    ),
    (
        r"math range error|Numerical result out of range",
        "The result is too large for a number (above 10³⁰⁸): is an exponent positive that should be negative?",
    ),
    # gradients
    (r"element \d+ of tensors does not require grad", lambda found, place: _no_gradient(place)),
    (
        r"appears to not have been used in the graph",
        (
            "The result was not computed from this tensor, so that it has no gradient: is "
            "another tensor (a copy, a detached one) used in its place?"
        ),
    ),
    (
        r"leaf Variable that requires grad is being used in an in-place",
        (
            "A tensor that gradients are wanted for is changed in place: `with "
            "torch.no_grad():` around an update, or a new tensor, w = w - …?"
        ),
    ),
    (
        r"cannot assign '[\w.]+' as (parameter|buffer|child module) '(\w+)'",
        "{1} is a {0} of the module, and what takes its place must be one too: nn.Parameter(…) around a tensor?",
    ),
    (
        r"is not a Module subclass",
        "nn.Sequential takes layers one by one, nn.Sequential(*layers), each of them made: nn.ReLU(), not nn.ReLU.",
    ),
    (
        r"modified by an inplace operation",
        (
            "A tensor that backward() still needs was changed in place afterwards (+=, "
            "[...] = or a method with _ at its end): make a new one."
        ),
    ),
    (
        r"backward through the graph a second time",
        (
            "backward() ran through this computation already and has freed it: compute the loss anew "
            "before each backward(), and .detach() what is kept from one step to the next."
        ),
    ),
    (
        r"grad can be implicitly created only for scalar",
        lambda found, place: _of_several(place),
    ),
    (
        r"save_for_backward can only save variables, but argument (\d+) is of type (\w+)",
        "ctx.save_for_backward takes tensors only, and argument {0} (counted from 0) is {1}: ctx.name = … keeps that.",
    ),
    (
        r"returned an incorrect number of gradients \(expected (\d+), got (\d+)\)",
        "backward returns {0} things, one for each argument of forward after ctx, and not {1}: None for a number.",
    ),
    (
        r"returned a gradient different than None at position (\d+), but the corresponding forward input was not",
        "Argument {0} of forward (after ctx) is no tensor and has no gradient: backward returns None in its place.",
    ),
    (
        r"'\w+Backward' object has no attribute '(\w+)'",
        "Backward finds on ctx only what forward has left there: ctx.{0} = … in forward?",
    ),
    (
        r"Can't call numpy\(\) on Tensor that requires grad|Cannot use numpy on tensor that requires grad",
        (
            "NumPy cannot take a tensor that records gradients: stay in torch (torch.exp for np.exp) where "
            "the gradient should flow, .detach() before .numpy() where only the numbers count."
        ),
    ),
    (
        r"No gradients provided for any variable",
        "Every gradient is None: is the loss computed inside `with tf.GradientTape()`, and from the model's variables?",
    ),
    # shapes
    (
        (
            r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x\d+\)"
            r"|Matrix size-incompatible: In\[0\]: \[(\d+),(\d+)\], In\[1\]: \[(\d+),\d+\]"
        ),
        lambda found, place: _product([None, *[n for n in found.groups() if n]], place),
    ),
    (r"shapes \((\d+),(\d+)\) and \((\d+),\d+\) not aligned", _product),
    (
        r"Expected size for first two dimensions of batch2 tensor to be: \[(\d+), (\d+)\] but got: \[(\d+), (\d+)\]",
        _batched,
    ),
    (
        r"input has inconsistent input_size: got (\d+) expected (\d+)",
        "The cell was made for inputs of {1} numbers and gets {0}: is something joined to its input, or another given?",
    ),
    (
        r"cannot be converted to type [\w:]+ without overflow",
        "The number is too large or too low for this dtype: torch.finfo(x.dtype).min is the lowest that it holds.",
    ),
    (
        (
            r"cannot reshape array of size (\d+) into shape \(([\d,-]+)\)"
            r"|shape '\[([\d, -]+)\]' is invalid for input of size (\d+)"
            r"|Input to reshape is a tensor with (\d+) values"
        ),
        "A reshape keeps the number of entries, and here it would change: print .shape before it.",
    ),
    (
        r"view size is not compatible",
        "After a transpose the entries no longer lie in order, and view cannot arrange them: .reshape(…)?",
    ),
    (
        r"axis (\d+) is out of bounds for array of dimension (\d+)",
        "There is no axis {0}: it has {1} axes, counted from 0. Has a sum or an index taken one away before?",
    ),
    (
        r"Dimension out of range \(expected to be in range of \[-?\d+, (-?\d+)\], but got (-?\d+)\)",
        "There is no axis {1}: the last one here is {0} (or -1). Has a sum or an index taken one away before?",
    ),
    (
        r"zero-size array to reduction",
        "The array is empty, and the largest (or smallest) of nothing is asked: can it be so?",
    ),
    (
        r"Expected more than 1 value per channel",
        "Batch norm in training mode needs more than one example: model.eval() for a single one?",
    ),
    (
        r"expected (?:axis -1 of input shape to have value (\d+)), but received input with shape \(([^)]*)\)",
        "The layer was made for {0} features and gets shape ({1}): is the last axis another one?",
    ),
    (
        r"ensors must have same number of dimensions: got (\d+) and (\d+)"
        r"|arrays must have same number of dimensions, but the array at index \d+ has (\d+) .* index \d+ has (\d+) ",
        lambda found, place: _joined(*filter(None, found.groups()), place),
    ),
    (
        r"linalg\.norm: If dim is not specified but ord is|Improper number of dimensions to norm",
        (
            "norm with an order takes vectors and matrices (of a matrix, order 2 is the largest singular value). "
            "The root of the sum of all squares, for any shape: no order, or .flatten() first."
        ),
    ),
    (
        r"self must be a matrix|mat2 must be a matrix",
        "mm takes two matrices, of two axes each; @ takes any number of axes.",
    ),
    (
        r"subscripts? .*does(?: not|n't) (?:contain the correct number of indices|match the number of dimensions)",
        "einsum wants a letter for each axis, and here they are not as many: ... stands for any number of axes.",
    ),
    (
        r"mismatch in its core dimension",
        lambda found, place: _of_product(place) or _of_shapes(""),
    ),
    (
        r"could not be broadcast|could not broadcast|not aligned|shape mismatch"
        r"|must match|does not broadcast with|equal size, but got|must have (the same shape|same number of dim)"
        r"|must be the same as input size|different to the input size|to match target batch_size|same first dimension"
        r"|same number of dimensions as input|must be equal to input_size|Dimensions must be equal"
        r"|Incompatible shapes|are incompatible$|Shape mismatch|in both shapes must be equal",
        lambda found, place: misfits.of_broadcast(found.string, place) or _of_shapes(""),
    ),
    (
        r"to have (\d+) channels, but got (\d+) channels",
        "The layer was made for {0} channels and gets {1}: are the images (B, C, H, W)?",
    ),
    (
        r"Error\(s\) in loading state_dict",
        "What was saved belongs to a model with other layers: is the model built as it was when it was saved?",
    ),
    # the rest
    (
        r"Python scalars|cannot be converted to Scalar|can only convert an array of size 1",
        lambda found, place: _one_number(place),
    ),
    (
        (
            r"must be tuple of ints, ?(not|but got|but found element of type) float|cannot be interpreted as an integer"
            r"|expected a sequence of integers or a single integer"
        ),
        "A length is a whole number, and / gives a fraction: // or int(…)?",
    ),
    (
        r"randint\(\) received an invalid combination of arguments - got \(int(?:, int)+(?:, generator=[\w.]+)?\)",
        "The size is a tuple, (B,) and not B: is a number there in its place?",
    ),
    (
        r"argument '(\w+)' \(position \d+\) must be tuple of ints, not int",
        "`{0}` is several whole numbers in parentheses, one alone (n,), and gets a number.",
    ),
    (
        r"received an invalid combination of arguments - got \([^()=]*, torch\._C\.Generator\)",
        "A generator is handed on by its name: generator=…",
    ),
    (
        r"(\w+)\(\): argument '\w+' \(position \d+\) must be Tensor, not ([\w.]+)",
        lambda found, place: _tensor_wanted(*found.groups()),
    ),
    (
        r"expected Tensor as element (\d+) in argument \d+, but got tuple",
        "Entry {0} of the list is a tuple and no tensor. torch.autograd.grad gives a tuple, one for each input: [0]?",
    ),
    (
        r"assignment destination is read-only",
        (
            "This array only shows numbers that belong to another (a broadcast or "
            "a view): .copy() makes one that can be written to."
        ),
    ),
    (r"list\.remove\(x\)", "The value is not in the list: was it taken out before?"),
    (
        r"is not in list",
        "It is looked for in a list that does not have it: can it be missing, or is it written otherwise?",
    ),
    (
        r"images do not match|bad transparency mask",
        "Both pictures have to be of one mode, and not every file has an opacity: .convert('RGBA') first?",
    ),
]
"""What the text of an exception matches → the sentence, or what makes it from the match and the place."""


def _kinds(one: str, other: str) -> str:
    if {one.lower(), other.lower()} == {"float", "double"}:
        return (
            "float32 meets float64: NumPy's arrays are float64, PyTorch's layers float32."
            " Make both alike: .float() for float32, .double() for float64?"
        )
    if half := {"half", "bfloat16"} & {one.lower(), other.lower()}:
        kind = "bfloat16" if "bfloat16" in half else "float16"
        return f"{kind} meets another dtype: is something on the way of one of its own? .to(x.dtype) makes both alike."
    return f"{one} meets {other}, and here both must be of one kind: .float() for the data, .long() for labels?"


def _of_several(place: Place | None) -> str:
    """A gradient of several numbers at once was asked, of backward() or of torch.autograd.grad."""
    node = place.node if place else None
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("grad"):
        fact = "grad starts at one number, and this has several"
        return f"{fact}: is a .sum() missing, or is each of them meant, one after the other (.flatten())?"
    return "backward() starts at one number, and this has several: is a .mean() or .sum() missing?"


def _no_gradient(place: Place | None) -> str:
    """What stands in the learner's code, from the outermost call on, that cuts a result from its gradient."""
    fact = "No gradient can flow here: this was not computed from a tensor with requires_grad=True, or the way is cut"
    there = [words for words in _CUTS if any(code.has(words.rpartition(".")[2].strip("()")) for code in _codes(place))]
    return f"{fact}: by {' or '.join(there)}?" if there else f"{fact}."


_CUTS = (
    "torch.no_grad()",
    "torch.inference_mode()",
    "torch.set_grad_enabled()",
    ".detach()",
    ".data",
    ".item()",
    ".numpy()",
)


def _codes(place: Place | None) -> list[Written]:
    codes, frame = [], place.frame if place else None
    while frame is not None:
        codes += [slips_of_python.written_in(frame)] if is_learners(frame.f_code.co_filename) else []
        frame = frame.f_back
    return [code for code in codes if code.functions]


def _one_number(place: Place | None) -> str:
    for text, value in place.operands() if place else ():
        if getattr(value, "__module__", "") == "math":
            return (
                f"{text} takes one number and gets an array: np.{value.__name__} "
                f"(or torch.{value.__name__}) goes entry by entry."
            )
    for each in place.around if place and isinstance(place.node, ast.Call) else ():
        for loop in [each] if isinstance(each, ast.For) else getattr(each, "generators", []):
            value = place.value(loop.target)
            if is_array(value) and any(ast.dump(arg) == _read(loop.target) for arg in place.node.args):
                fact = f"`{ast.unparse(loop.target)}` is an array, {tuple(value.shape)}, from the loop over"
                rows = "a loop over an array gives its rows. NumPy's and PyTorch's functions take it whole"
                return f"{fact} `{ast.unparse(loop.iter)}`: {rows}."
    return "One number is wanted, and the array has several: is a sum, a mean or an index missing?"


def _read(target: ast.expr) -> str:
    """A loop's variable as it looks where its value is used."""
    return ast.dump(ast.Name(target.id, ast.Load())) if isinstance(target, ast.Name) else ""


def _joined(one: str, other: str, place: Place | None) -> str:
    fact = f"What is joined has as many axes each, and here {one} meet {other}"
    if any(code.has("squeeze") for code in _codes(place)):
        return f"{fact}: squeeze() takes away every axis of length 1, the batch's too where it is 1; [:, 0] takes one."
    return f"{fact}: .flatten() each first, or give the smaller one an axis ([None])?"


def _tensor_wanted(function: str, kind: str) -> str:
    fact = f"torch.{function} takes a tensor"
    if kind in ("float", "int"):
        return f"{fact} and gets one number: math.{function}, or torch.tensor(…) of it?"
    if kind in ("numpy.ndarray", "list", "numpy.float64", "tuple"):
        return f"{fact} and gets a {kind}: torch.as_tensor(…) of it?"
    return f"{fact} and gets {kind}: was the thing itself handed on in place of its result?"
