"""The script of regularization-dropout-batchnorm keeps the best; what is common to all is in test_scripts.py."""

import pytest

from atlas import course

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SOURCE = course.find("regularization-dropout-batchnorm").solution_folder / "train_few.py"
SMALL = ["--images", "201", "--width", "16", "--device", "cpu"]


def states(name):
    return torch.load(name, weights_only=True)


def test_with_all_that_draws_at_random_it_resumes_exactly_too(script):
    mixture = [*SMALL, "--dropout", "0.3", "--batch-norm", "--shift", "1", "--smoothing", "0.1", "--weight-decay", "1"]
    script.main([*mixture, "--epochs", "2", "--checkpoint", "straight.pt"])
    script.main([*mixture, "--epochs", "1", "--checkpoint", "halved.pt"])
    torch.manual_seed(99)  # another process has another state
    script.main(["--resume", "--epochs", "2", "--device", "cpu", "--checkpoint", "halved.pt"])
    straight, halved = states("straight.pt"), states("halved.pt")
    for part in ("model", "best"):
        assert all(torch.equal(straight[part][name], halved[part][name]) for name in straight[part])
    assert straight["history"] == halved["history"]


def test_with_patience_it_stops_and_the_best_weights_are_the_ones_measured(script, capsys):
    script.main([*SMALL, "--patience", "2", "--lr", "0.02", "--epochs", "60", "--checkpoint", "few.pt"])
    said, kept = capsys.readouterr().out, states("few.pt")
    losses = kept["history"]["val loss"]
    best = losses.index(min(losses)) + 1
    assert len(losses) == best + 2 < 60
    assert f"epochs {len(losses)}, weights of epoch {best};" in said
    model = script.make_model(kept["config"])
    model.load_state_dict(kept["best"])
    data, _ = script.load_data(201, 0, torch.device("cpu"))
    assert script.scores(script.predict(model, data["val"][0]), data["val"][1])[0] == pytest.approx(
        min(losses), rel=1e-4
    )
    accuracy = script.scores(script.predict(model, data["test"][0]), data["test"][1])[1]
    assert f"test accuracy {accuracy:.2f} %" in said
    script.main(["--predict", "3", "--device", "cpu", "--checkpoint", "few.pt"])
    shown = capsys.readouterr().out
    assert all(f"{sure:.1%}" in shown for sure in script.predict(model, data["test"][0][:3]).max(1).values)
    with pytest.raises(SystemExit):
        script.main(["--resume", "--epochs", "80", "--checkpoint", "few.pt"])
    assert "stopped early" in capsys.readouterr().err


def test_a_rest_of_one_image_makes_no_batch_of_its_own(script):
    assert sorted(map(len, script.batches(201, 100))) == [100, 101]
    assert sorted(torch.cat(script.batches(201, 100)).tolist()) == list(range(201))
    assert list(map(len, script.batches(250, 100))) == [100, 100, 50]


def test_an_image_gets_the_same_answer_again_alone_and_in_company(script):
    model, x = (
        script.make_model({**script.CONFIG, "width": 16, "batch_norm": True, "dropout": 0.5}),
        torch.randn(9, 28, 28),
    )
    together = script.predict(model, x)
    assert torch.equal(script.predict(model, x), together)
    torch.testing.assert_close(script.predict(model, x[:1]), together[:1])


def test_shifting_moves_whole_images_and_fills_with_background(script):
    x = torch.arange(1.0, 785).view(1, 28, 28).expand(64, 28, 28)
    moved = script.shifted(x, 2, -1.0)
    assert moved.shape == x.shape
    centres = {(int(v) - 1 - (14 * 28 + 14)) for v in moved[:, 14, 14]}
    assert centres <= {28 * i + j for i in range(-2, 3) for j in range(-2, 3)}
    assert len(centres) > 5
    for image in moved:
        inside = image[image > 0]
        assert (inside.diff() > 0).all()  # the order of the pixels is kept
        assert len(inside) >= 26 * 26
        assert (image[image <= 0] == -1).all()


def test_scores_agree_with_counting(script):
    p = torch.tensor([[0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0]])  # one bin is too unsure, the other too sure
    loss, accuracy, error = script.scores(p, torch.tensor([0, 1, 1]), bins=2)
    assert loss == pytest.approx(-(torch.tensor([0.4, 0.8, 0.1]).log().mean().item()), rel=1e-5)
    assert (accuracy, error) == (pytest.approx(200 / 3), pytest.approx(100 * (0.6 + 0.7) / 3, rel=1e-4))


def test_prediction_names_classes_and_leaves_the_checkpoint(script, capsys):
    with pytest.raises(SystemExit, match=r"no checkpoint runs/few\.pt yet"):
        script.main(["--predict", "5", "--device", "cpu"])
    script.main([*SMALL, "--epochs", "1"])
    before = states("runs/few.pt")["history"]
    capsys.readouterr()
    script.main(["--predict", "5", "--device", "cpu"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 5
    assert all("%" in line for line in lines)
    assert states("runs/few.pt")["history"] == before
