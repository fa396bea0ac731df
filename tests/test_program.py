"""What scripts have in common, where tests/test_scripts.py, which runs them all, cannot see it."""

import argparse
import resource
import subprocess
import sys

import numpy as np
import pytest

from atlas import program


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "_begun", None)


def test_importing_it_imports_nothing_heavy():
    code = "import sys; from atlas import program; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "tensorflow", "matplotlib", "tqdm"} & set(loaded)


@pytest.mark.parametrize(("kind", "good", "bad"), [(int, "5", ["4", "11", "5.5", ""]), (float, "5.5", ["nan", "inf"])])
def test_a_number_lies_between_its_bounds(kind, good, bad):
    parse = program.number(kind, 5, 10)
    assert parse(good) == kind(good)
    for text in bad:
        with pytest.raises((argparse.ArgumentTypeError, ValueError)):
            parse(text)


def test_a_full_disk_leaves_the_last_checkpoint_whole_and_no_part_of_another(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "kept.pt"
    program.save(path, {"config": {}, "weights": torch.ones(5)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        for write in (program.save, program.save_arrays):
            with pytest.raises(SystemExit, match=r"Cannot write .*kept\.pt: File too large\. Make room, or choose"):
                write(path, {"config": {}, "weights": [torch.zeros(5000)]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_arrays_come_back_as_they_were_many_of_them_in_their_order(tmp_path):
    arrays = [np.full(n, n, dtype) for n in range(12) for dtype in (np.float32, np.int64)]
    checkpoint = {
        "weights": arrays,
        "steps": [np.array(7)],
        "history": {"loss": [0.1]},
        "config": {"lr": 1e-3, "none": None},
        "nothing": [],
    }
    program.save_arrays(tmp_path / "kept.npz", checkpoint)
    kept = program.load_arrays(tmp_path / "kept.npz", {"lr": 0, "none": 0})
    assert kept.keys() == checkpoint.keys()
    assert all(
        mine.dtype == kept.dtype and np.array_equal(mine, kept)
        for mine, kept in zip(arrays, kept["weights"], strict=True)
    )
    assert (kept["steps"], kept["history"], kept["config"]) == ([7], checkpoint["history"], checkpoint["config"])


def test_a_checkpoint_whose_network_has_changed_since_is_told_in_a_sentence(tmp_path):
    torch = pytest.importorskip("torch")
    program.save(
        tmp_path / "kept.pt", {"config": {}, "history": {"loss": [1]}, "model": torch.nn.Linear(3, 2).state_dict()}
    )
    saved = program.load(tmp_path / "kept.pt", {})
    with pytest.raises(SystemExit, match="or no checkpoint of this program"), program.reading(tmp_path / "kept.pt"):
        torch.nn.Linear(4, 2).load_state_dict(saved["model"])


@pytest.mark.parametrize("numbers", [5, 5000, 50_000], ids=["1 kB", "20 kB", "200 kB"])
def test_half_of_a_checkpoint_is_damaged_whatever_its_size(tmp_path, numbers):
    torch = pytest.importorskip("torch")
    path = tmp_path / "half.pt"
    program.save(path, {"weights": torch.zeros(numbers)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SystemExit, match=r"half\.pt is damaged"):
        program.load(path, {})


def test_what_is_written_has_a_name_that_ends_as_the_file_does(tmp_path):
    """Keras and matplotlib go by the ending."""
    for name in ("model.keras", "model.weights.h5", "figure.svg"):
        with program.writing(tmp_path / "runs" / name) as part:
            assert part.name.endswith(name) and part.parent == tmp_path / "runs"
            part.touch()
    assert len(list((tmp_path / "runs").iterdir())) == 3


@pytest.mark.parametrize(
    ("kept", "says"), [(False, "\nStopped.\n"), (True, "holds every whole epoch: --resume goes on.\n")]
)
def test_ctrl_c_promises_no_checkpoint_that_is_not_there(tmp_path, capsys, kept, says):
    def main():
        if kept:
            program.save_arrays(tmp_path / "kept.npz", {"config": {}})
        with program.writing(tmp_path / "figure.png", "figure") as part:
            part.touch()
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        program.run(main)
    said = capsys.readouterr().err
    assert ended.value.code == 130
    assert said.endswith(says) and ("kept.npz" in said) == kept


def test_an_open_todo_ends_the_program_with_a_sentence_and_what_a_framework_lacks_does_not():
    def main(text):
        raise NotImplementedError(text)

    with pytest.raises(SystemExit, match=r"NotImplementedError: near_duplicates is not written yet\. Its TODO"):
        program.run(lambda: main("near_duplicates"))
    with pytest.raises(NotImplementedError, match="not for sparse"):
        program.run(lambda: main("not for sparse tensors"))
