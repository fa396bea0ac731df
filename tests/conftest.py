"""Fixtures for all tests."""

pytest_plugins = ["made_up"]
