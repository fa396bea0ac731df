"""What a person has set for other work is named, with its harm and its cure; what does no harm is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atlas import settings


@pytest.fixture
def nothing_set(monkeypatch, tmp_path):
    """A terminal in which nothing is set, and a home folder without files."""
    for name in (*settings.VARIABLES, *settings.CERTIFICATES, "OMP_NUM_THREADS", "VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(settings, "foreign_encoding", lambda: "")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def found(home: Path) -> list[settings.Setting]:
    return settings.found([home / "workshop"], cores=2)


def test_where_nothing_is_set_nothing_is_said(nothing_set):
    assert found(nothing_set) == []


@pytest.mark.parametrize(
    ("name", "harmful", "harmless"),
    [
        ("PYTHONOPTIMIZE", "2", "0"),
        ("PYTHONWARNINGS", "error::DeprecationWarning", "ignore"),
        ("PYTHONSAFEPATH", "1", ""),
        ("OMP_WAIT_POLICY", "active", "PASSIVE"),
        ("OMP_NUM_THREADS", "1", "2"),
        ("TF_ENABLE_ONEDNN_OPTS", "0", "1"),
        ("ATEN_CPU_CAPABILITY", "default", "avx2"),
        ("CUDA_LAUNCH_BLOCKING", "1", "0"),
        ("MATPLOTLIBRC", "/mine", os.devnull),
        ("SSL_CERT_FILE", "/nowhere", os.devnull),
        ("REQUESTS_CA_BUNDLE", "/nowhere", os.devnull),
    ],
)
def test_a_variable_that_does_harm_is_named_and_the_same_one_otherwise_not(
    nothing_set, monkeypatch, name, harmful, harmless
):
    monkeypatch.setenv(name, harmful)
    (setting,) = found(nothing_set)
    assert setting.says.startswith(f"{name} is set to {harmful!r}: ") and setting.cure == f"unset {name}"
    monkeypatch.setenv(name, harmless)
    assert found(nothing_set) == []


def test_it_says_in_which_file_and_line_a_variable_is_set(nothing_set, monkeypatch):
    (nothing_set / ".bashrc").write_text("alias ll='ls -l'\n# export PYTHONOPTIMIZE=1\nexport PYTHONOPTIMIZE=2\n")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    (setting,) = found(nothing_set)
    assert "(it stands in ~/.bashrc, line 3)" in setting.says
    assert settings.where("PYTHON") == "", "another name that begins in the same way is another name"


@pytest.mark.parametrize("name", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_another_active_environment_is_named_if_its_python_answers(nothing_set, monkeypatch, name):
    monkeypatch.setenv(name, "/other")
    monkeypatch.setenv("PATH", "/other/bin")
    (setting,) = found(nothing_set)
    assert "`python` in this terminal is that of /other" in setting.says
    assert setting.cure == f"source {sys.prefix}/bin/activate"
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin")
    assert found(nothing_set) == []


def test_a_matplotlibrc_beside_a_notebook_is_named(nothing_set):
    (nothing_set / "workshop").mkdir()
    (nothing_set / "workshop" / "matplotlibrc").touch()
    (setting,) = found(nothing_set)
    assert setting.cure == f"rename {nothing_set}/workshop/matplotlibrc"


def test_a_locale_that_is_not_utf8_is_named(nothing_set, monkeypatch):
    monkeypatch.setattr(settings, "foreign_encoding", lambda: "ISO-8859-1")
    (setting,) = found(nothing_set)
    assert "read as ISO-8859-1" in setting.says and setting.cure == "export LC_ALL=C.UTF-8"


@pytest.mark.parametrize(("utf8", "answer"), [("0", "False"), ("1", "True")])
def test_pythons_own_utf8_mode_makes_up_for_the_locale(utf8, answer):
    variables = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": utf8}
    variables["PYTHONPATH"] = str(Path(settings.__file__).parents[1])
    question = "from atlas import settings; print(settings.foreign_encoding() == '')"
    done = subprocess.run([sys.executable, "-c", question], env=variables, capture_output=True, text=True)
    assert done.stdout.strip() == answer, done.stderr
