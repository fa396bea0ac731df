"""The script of backpropagation: its engine is right, and it reads image files. The rest is in test_scripts.py."""

import numpy as np
import pytest

from atlas import course

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SOURCE = course.find("backpropagation").solution_folder / "numpy_mlp.py"
SMALL = ["--limit", "1000", "--width", "16"]


def test_every_operation_of_its_engine_has_the_gradients_of_autograd(script):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in ((4, 3), (5, 3), (5,), (4, 1))]
    y = np.array([0, 4, 2, 2])

    def loss(x, w, b, s, cross_entropy):
        z = (x @ w.T + b) * s
        return cross_entropy(z.relu() + z * z + b, y)  # z twice, b twice, b and s broadcast

    nodes = [script.Node(each) for each in arrays]
    tensors = [torch.tensor(each, requires_grad=True) for each in arrays]
    mine = loss(*nodes, script.cross_entropy)
    theirs = loss(*tensors, lambda z, y: torch.nn.functional.cross_entropy(z, torch.tensor(y)))
    theirs.backward()
    for _ in range(2):  # a second time it gives the same
        mine.backward()
        assert mine.data == pytest.approx(theirs.item(), rel=1e-12)
        for node, tensor in zip(nodes, tensors, strict=True):
            np.testing.assert_allclose(node.grad, tensor.grad, rtol=1e-9, atol=1e-12)


def test_check_finds_a_wrong_gradient(script, monkeypatch, capsys):
    script.main(["--check"])
    assert "The gradients are right." in capsys.readouterr().out
    monkeypatch.setattr(script.Node, "relu", lambda self: self * self)  # another function, with its own gradient
    script.main(["--check"])

    def without_mask(self):
        out = script.Node(np.maximum(0, self.data), (self,))
        out.push = lambda: self.receive(out.grad)
        return out

    monkeypatch.setattr(script.Node, "relu", without_mask)
    with pytest.raises(SystemExit, match=r"The gradients are wrong\."):
        script.main(["--check"])


def test_it_reads_an_image_file_once_it_is_trained(script, capsys):
    script.main(["--sample", "digit.png"])
    with pytest.raises(SystemExit, match=r"no checkpoint runs/numpy_mlp\.npz yet"):
        script.main(["--predict", "digit.png"])
    script.main([*SMALL, "--epochs", "1"])
    script.main(["--predict", "digit.png"])
    assert "digit.png: " in capsys.readouterr().out.splitlines()[-1]
