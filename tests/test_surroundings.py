"""What lies in the way of the course's packages is named, with its path and the cure."""

import subprocess
import sys
from pathlib import Path

import pytest

from atlas import surroundings
from made_up import write


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which Python looks through first, as in a notebook's kernel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *[each for each in sys.path if "packages" in each]])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def test_a_file_that_hides_a_package_or_a_module_of_python_is_named_with_path_and_cure(place):
    for name in ("torch.py", "random.py", "atlas.py", "six.py"):
        write(place / name, "")
    found = {each.module: str(each) for each in surroundings.shadows()}
    assert set(found) == {"torch", "random", "atlas", "six"}
    assert found["torch"].startswith("torch.py in this folder hides the package torch: rename torch.py")
    assert str(place / "torch.py") in found["torch"]
    assert "hides Python's own module random: rename random.py" in found["random"]


def test_a_folder_hides_a_package_only_where_it_is_a_package_itself(place):
    write(place / "torch" / "notes.txt", "")
    write(place / "numpy" / "__init__.py", "")
    assert [each.module for each in surroundings.shadows()] == ["numpy"]


def test_what_a_workshop_and_a_learner_put_beside_the_notebook_hides_nothing(place):
    for name in ("checks.py", "my_neuron.py", "train_few.py", "torch.txt", "numpy.ipynb"):
        write(place / name, "")
    assert surroundings.shadows() == []


def test_another_package_on_pythonpath_is_named_with_the_variable(place, monkeypatch):
    other = write(place / "other" / "numpy" / "__init__.py", "").parents[1]
    monkeypatch.setenv("PYTHONPATH", str(other))
    sys.path.insert(1, str(other))
    (shadow,) = surroundings.shadows()
    assert "numpy on PYTHONPATH hides the package numpy" in str(shadow)
    assert f"take {other} out of PYTHONPATH" in shadow.cure


def test_a_folder_that_python_does_not_look_through_is_looked_at_when_asked(place):
    folder = write(place / "workshop" / "numpy.py", "").parent
    assert surroundings.shadows() == []
    assert [each.path for each in surroundings.shadows(folder)] == [str(folder / "numpy.py")]


def test_nothing_hides_anything_in_this_repository():
    program = "from atlas import surroundings; print(*surroundings.shadows())"
    for folder in ("workshops/dl-foundations/perceptron-and-mlp", "."):
        where = Path(__file__).parents[1] / folder
        ended = subprocess.run([sys.executable, "-c", program], cwd=where, capture_output=True, text=True, check=True)
        assert ended.stdout.strip() == ""
