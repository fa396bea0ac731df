"""Fixtures for what tests one solved script: where it is, the test module says as SOURCE."""

import importlib.util
import sys
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> ModuleType:
    """The script, as a module."""
    source = request.module.SOURCE
    spec = importlib.util.spec_from_file_location(f"{source.stem}_under_test", source)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch) -> None:
    """What it leaves lies below tmp_path, and torch's generator and threads are as before afterwards."""
    import torch

    monkeypatch.chdir(tmp_path)
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    torch.set_rng_state(random)
    torch.set_num_threads(threads)
