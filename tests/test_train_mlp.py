"""The script of perceptron-and-mlp: it resumes exactly, keeps what it has, reads image files, and explains slips."""

import importlib.util
import resource

import numpy as np
import pytest
from PIL import Image

from atlas import course, data

torch = pytest.importorskip("torch")

SOURCE = course.find("perceptron-and-mlp").solution_folder / "train_mlp.py"
SMALL = ["--limit", "1000", "--width", "32", "--device", "cpu"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_mlp", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = torch.get_rng_state()
    yield
    torch.set_rng_state(random)


@pytest.fixture(scope="module")
def trained(script, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "mlp.pt"
    script.main(["--limit", "6000", "--epochs", "2", "--device", "cpu", "--checkpoint", str(path)])
    return path


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def ends(script, capsys, arguments, code, *words):
    """The program ends with this exit code and one message with these words, without a traceback."""
    with pytest.raises(SystemExit) as caught:
        script.main([str(argument) for argument in arguments])
    said = capsys.readouterr().err + (caught.value.code if isinstance(caught.value.code, str) else "")
    assert (caught.value.code if isinstance(caught.value.code, int) else 1) == code
    assert all(word in said for word in words), said
    assert "Traceback" not in said


def test_two_epochs_and_two_resumed_equal_four_straight(script, tmp_path):
    script.main([*SMALL, "--epochs", "4", "--checkpoint", "straight.pt"])
    script.main([*SMALL, "--epochs", "2", "--checkpoint", "halved.pt"])
    torch.manual_seed(99)  # another process has another state
    script.main(["--resume", "--epochs", "4", "--device", "cpu", "--checkpoint", "halved.pt"])
    straight, halved = weights("straight.pt"), weights("halved.pt")
    for name in straight:
        torch.testing.assert_close(halved[name], straight[name], rtol=1e-5, atol=1e-7)
    histories = [torch.load(path, weights_only=True)["history"] for path in ("straight.pt", "halved.pt")]
    assert [len(values) for values in histories[0].values()] == [4, 4, 4]
    assert histories[1] == {name: pytest.approx(values, rel=1e-5) for name, values in histories[0].items()}


def test_it_prints_one_line_an_epoch_and_leaves_checkpoint_and_figure(script, capsys, tmp_path):
    script.main([*SMALL, "--epochs", "2"])
    printed = capsys.readouterr()
    assert [line.split()[1] for line in printed.out.splitlines() if line.startswith("epoch")] == ["1", "2"]
    assert printed.err == "", "the progress bar keeps quiet where no terminal is"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mlp.png", "mlp.pt"]


def test_ctrl_c_keeps_the_last_whole_epoch(script, capsys, monkeypatch):
    train_epoch, epochs = script.train_epoch, []

    def interrupted(*arguments):
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(script, "train_epoch", interrupted)
    with pytest.raises(SystemExit) as caught:
        script.main([*SMALL, "--epochs", "5", "--checkpoint", "mlp.pt"])
    assert caught.value.code == 130
    assert "mlp.pt holds 2 whole epochs" in capsys.readouterr().out
    assert len(torch.load("mlp.pt", weights_only=True)["history"]["val loss"]) == 2


def test_a_full_disk_leaves_the_last_checkpoint_whole(script, capsys, tmp_path):
    script.main([*SMALL, "--epochs", "1", "--checkpoint", "kept/mlp.pt"])
    before = weights("kept/mlp.pt")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(SystemExit, match="Cannot write kept"):
            script.main(["--resume", "--epochs", "2", "--device", "cpu", "--checkpoint", "kept/mlp.pt"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["mlp.png", "mlp.pt"]
    assert all(torch.equal(before[name], value) for name, value in weights("kept/mlp.pt").items())


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


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--epochs", "-3"], 2, ["--epochs", "-3 is not from 1"]),
        (["--epochs", "many"], 2, ["invalid whole number value: 'many'"]),
        (["--lr", "nan"], 2, ["--lr", "nan"]),
        (["--limit", "0"], 2, ["--limit"]),
        (["--device", "abacus"], 2, ["abacus", "choose"]),
        (["--resume"], 1, ["no checkpoint runs/mlp.pt yet", "python train_mlp.py"]),
        (["--predict", "digit.png"], 1, ["no checkpoint runs/mlp.pt yet"]),
        (["--sample", "nowhere/digit.png"], 1, ["Cannot write nowhere/digit.png"]),
        ([*SMALL, "--epochs", "1", "--checkpoint", SOURCE / "mlp.pt"], 1, ["Cannot write", "--checkpoint"]),
        ([*SMALL, "--epochs", "1", "--figure", "figure.abc"], 1, ["Cannot draw figure.abc", "--figure"]),
    ],
)
def test_a_slip_gets_one_message(script, capsys, arguments, code, words):
    ends(script, capsys, arguments, code, *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_gets_one_message(script, capsys):
    ends(script, capsys, ["--device", "cuda"], 2, "cuda", "choose cpu")


def test_pictures_that_cannot_be_read_get_one_message(script, trained, capsys, tmp_path):
    predict = ["--checkpoint", trained, "--predict"]
    ends(script, capsys, [*predict, "missing.png"], 1, "There is no file missing.png")
    (tmp_path / "letter.png").write_text("Dear reader,")
    ends(script, capsys, [*predict, "letter.png"], 1, "letter.png is not an image")
    ends(script, capsys, [*predict, tmp_path], 1, "is not an image")
    Image.new("L", (40, 30), 200).save("empty.png")
    ends(script, capsys, [*predict, "empty.png"], 1, "empty.png: the page is empty")


def test_a_checkpoint_that_does_not_fit_gets_one_message(script, trained, capsys, tmp_path):
    ends(script, capsys, ["--resume", "--width", "7", "--checkpoint", trained], 2, "has width 256", "--resume")
    ends(script, capsys, ["--resume", "--epochs", "2", "--checkpoint", trained], 2, "ask for more with --epochs")
    for name, content in {"cut.pt": trained.read_bytes()[:5000], "text.pt": b"weights", "empty.pt": b""}.items():
        (tmp_path / name).write_bytes(content)
        ends(script, capsys, ["--resume", "--checkpoint", name], 1, f"{name} is damaged, or no checkpoint")
    torch.save({"weights": torch.ones(2)}, "other.pt")
    ends(script, capsys, ["--resume", "--checkpoint", "other.pt"], 1, "other.pt is damaged, or no checkpoint")


def _saved(image, path):
    image.save(path)
    return path
