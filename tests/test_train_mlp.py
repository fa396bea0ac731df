"""The script of perceptron-and-mlp reads image files; what it has in common with others is in test_scripts.py."""

import numpy as np
import pytest
from PIL import Image

from atlas import course, data

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SOURCE = course.find("perceptron-and-mlp").solution_folder / "train_mlp.py"
SMALL = ["--limit", "1000", "--width", "32", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(script, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "mlp.pt"
    script.main(["--limit", "6000", "--epochs", "2", "--device", "cpu", "--checkpoint", str(path)])
    return path


def ends(script, capsys, arguments, code, *words):
    """The program ends with this exit code and one message with these words, without a traceback."""
    with pytest.raises(SystemExit) as caught:
        script.main([str(argument) for argument in arguments])
    said = capsys.readouterr().err + (caught.value.code if isinstance(caught.value.code, str) else "")
    assert (caught.value.code if isinstance(caught.value.code, int) else 1) == code
    assert all(word in said for word in words), said
    assert "Traceback" not in said


def test_it_reads_photographs_of_test_digits(script, trained, capsys, tmp_path):
    rng, mnist = np.random.default_rng(1), data.load("mnist")
    paths = [tmp_path / f"{number}.png" for number in range(30)]
    for path, digit in zip(paths, mnist.x_test, strict=False):
        Image.fromarray(script.photograph(digit, rng)).save(path)
    script.main(["--predict", *map(str, paths), "--checkpoint", str(trained)])
    lines = capsys.readouterr().out.splitlines()
    answers = [int(line.split()[1]) for line in lines]
    assert np.mean(answers == mnist.y_test[:30]) >= 0.8
    shares = [float(word) for word in lines[0].replace("%", "").split()[3::2]]
    assert len(shares) == 10
    assert sum(shares) == pytest.approx(100, abs=0.6)


def test_a_transparent_colour_and_a_turned_image_are_read_as_one_sees_them(script, tmp_path):
    page = np.full((30, 50), 255, np.uint8)
    page[4:24, 10:13] = 0
    upright = script.read_picture(_saved(Image.fromarray(page), tmp_path / "upright.png"))
    ink = Image.new("RGBA", (50, 30), (0, 0, 0, 0))
    ink.putalpha(Image.fromarray(255 - page))
    np.testing.assert_array_equal(script.read_picture(_saved(ink, tmp_path / "transparent.png")), upright)
    turned = Image.fromarray(np.rot90(page))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(script.read_picture(tmp_path / "turned.png"), upright)


def test_mnist_digits_come_back_as_they_are(script):
    """MNIST is made so: where cutting the faint rim moves nothing, place_like_mnist is the identity."""
    digits = data.load("mnist").x_test[:300] / 255
    unchanged = [np.abs(script.place_like_mnist(digit) - digit).max() < 1e-6 for digit in digits]
    assert np.mean(unchanged) > 0.99


def test_a_sample_can_be_drawn_and_read(script, trained, capsys):
    script.main(["--sample", "digit.png"])
    script.main(["--predict", "digit.png", "--checkpoint", str(trained)])
    assert "digit.png: " in capsys.readouterr().out.splitlines()[-1]


def test_pictures_that_cannot_be_read_get_one_message(script, trained, capsys, tmp_path):
    predict = ["--checkpoint", trained, "--predict"]
    ends(script, capsys, [*predict, "missing.png"], 1, "There is no file missing.png")
    (tmp_path / "letter.png").write_text("Dear reader,")
    ends(script, capsys, [*predict, "letter.png"], 1, "letter.png is not an image")
    ends(script, capsys, [*predict, tmp_path], 1, "is not an image")
    Image.new("L", (40, 30), 200).save("empty.png")
    ends(script, capsys, [*predict, "empty.png"], 1, "empty.png: the page is empty")
    ends(script, capsys, ["--predict", "empty.png"], 1, "no checkpoint runs/mlp.pt yet")
    ends(script, capsys, ["--sample", "nowhere/digit.png"], 1, "Cannot write nowhere/digit.png")


def _saved(image, path):
    image.save(path)
    return path
