"""What holds for every test: a learner's own progress and settings are neither read nor written."""

import os
import tempfile

import pytest

pytest_plugins = ["made_up", "proof_summary"]


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith("ATLAS_") and name != "ATLAS_VENV"]:
        del os.environ[name]
    state = tempfile.TemporaryDirectory(prefix="atlas-state-")
    config.add_cleanup(state.cleanup)
    os.environ["ATLAS_STATE"] = state.name
