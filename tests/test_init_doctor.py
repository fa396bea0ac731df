"""The script of initialization-and-activations: its verdicts are right, the repair heals, a checkpoint is examined."""

import pytest

from atlas import course

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SOURCE = course.find("initialization-and-activations").solution_folder / "init_doctor.py"


@pytest.fixture(scope="module")
def digits(script):
    return tuple(part[:500] for part in script.load_data(500, "cpu")["train"])


def findings(script, digits, init, activation="relu", factor=1.0, weights=None):
    widths = [784, *[100] * 30, 10]
    drawn = script.draw_weights(widths, init, torch.Generator().manual_seed(0))
    network = script.Network([factor * W for W in weights or drawn], activation)
    return script.examine(network, *digits), drawn


@pytest.mark.parametrize(
    ("init", "activation", "factor", "said"),
    [
        ("he", "relu", 1, "Healthy"),
        ("orthogonal", "relu", 1, "Healthy"),
        ("torch", "relu", 1, "vanishes on its way forward"),
        ("he", "relu", 3, "explodes on its way forward"),
        ("he", "tanh", 3, "gradient explodes"),
        ("lecun", "sigmoid", 1, "gradient vanishes"),
        ("he", "relu", float("inf"), "infinite or NaN"),
    ],
)
def test_the_verdict_names_the_illness(script, digits, init, activation, factor, said):
    assert said in script.verdict(findings(script, digits, init, activation, factor)[0])


def test_dead_units_are_seen(script, digits):
    layers = findings(script, digits, "he")[0]
    network = script.Network(script.draw_weights([784, 100, 10], "he", torch.Generator().manual_seed(0)), "relu")
    with torch.no_grad():
        network.b[0][:60] = -1e3
    assert script.examine(network, *digits)[0]["dead"] == pytest.approx(0.6)
    assert layers[0]["dead"] < 0.1


def test_the_repair_heals_what_was_ill(script, digits):
    ill, weights = findings(script, digits, "torch")
    repaired = script.unit_variance(weights, digits[0], torch.relu)
    assert script.verdict(ill).startswith("Ill")
    well, _ = findings(script, digits, "torch", weights=repaired)
    assert script.verdict(well).startswith("Healthy")
    assert all(layer["size"] == pytest.approx(1, rel=1e-3) for layer in well)


def test_the_gradient_is_that_of_single_examples_whatever_the_batch(script, digits):
    x, y = digits
    weights = script.draw_weights([784, 50, 10], "he", torch.Generator().manual_seed(0))
    whole = script.examine(script.Network(weights, "relu"), x, y)
    part = script.examine(script.Network(weights, "relu"), x[:100], y[:100])
    assert whole[0]["gradient"] == pytest.approx(part[0]["gradient"], rel=0.1)


def test_a_trained_network_is_kept_and_examined(script, capsys):
    script.main(["--depth", "2", "--width", "32", "--limit", "2000", "--epochs", "1", "--device", "cpu"])
    trained = capsys.readouterr().out
    script.main(["--examine", "runs/doctor.pt", "--device", "cpu", "--figure", "again.png"])
    again = capsys.readouterr().out
    assert "test accuracy" in trained
    assert "runs/doctor.pt: relu, 2 hidden layers, trained" in again
    assert "Healthy" in again
    with pytest.raises(SystemExit, match=r"no checkpoint nowhere\.pt yet"):
        script.main(["--examine", "nowhere.pt", "--device", "cpu"])
