"""The reference of the project of LLM Overview: prints the result that the README names."""

raise SystemExit("The reference of the project is not written yet.")
