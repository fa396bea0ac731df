"""A pytest plugin: prints, at the end, the tables of the proofs that tests/test_proofs.py recorded and of the runs of
tests/test_workshops.py, and what tests/test_devcontainer.py saw in the container.

The records travel in the reports' user properties, so that they arrive from pytest-xdist's workers too.
"""

from dataclasses import asdict


def record(record_property, name: str, results: list) -> None:
    """Keep proofs ("proof") or runs ("run") for the tables."""
    for result in results:
        record_property(name, asdict(result))


def pytest_terminal_summary(terminalreporter) -> None:
    from atlas.authoring import proofs, runs, validate

    tables = {"proof": (proofs.Proof, validate.proof_table), "run": (runs.Run, validate.run_table)}
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    kept = [pair for report in reports if getattr(report, "when", "") == "call" for pair in report.user_properties]
    for told in (value for key, value in kept if key == "container"):
        terminalreporter.section("the container, built and started")
        terminalreporter.write(told)
    for name, (kind, table) in tables.items():
        results = [kind(**value) for key, value in kept if key == name]
        if results:
            terminalreporter.section("exercises proven" if name == "proof" else "notebooks and scripts run")
            terminalreporter.write(table(sorted(results, key=lambda result: result.workshop)))
