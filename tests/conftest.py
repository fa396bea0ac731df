"""What holds for every test: a learner's own progress and settings are neither read nor written; it has one core."""

import os
import tempfile

import pytest

from atlas.authoring import runs

pytest_plugins = ["made_up", "proof_summary", "parts", "costs", "solved_script"]


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith("ATLAS_") and name != "ATLAS_VENV"]:
        del os.environ[name]
    state = tempfile.TemporaryDirectory(prefix="atlas-state-")
    config.add_cleanup(state.cleanup)
    os.environ["ATLAS_STATE"] = state.name
    os.environ.update(runs.ONE_CORE)  # two workers share two cores; threads that wait for each other waste them
