"""A pytest plugin for nbmake's run of a notebook: it writes what the notebook is doing while it is doing it.

Each cell as it begins, and what the cell prints: a run that is ended by force has said where it was. Each cell's
metadata gets `computed`, the seconds of computing that its kernel spent on it.
"""

# ruff: noqa: E402
import sys

sys.modules["rfc3987_syntax"] = None  # 1.3 s of computing to load, and nbformat has no use for it

import psutil
from nbclient import NotebookClient

_execute, _process = NotebookClient.async_execute_cell, NotebookClient.process_message


async def _execute_and_tell(client: NotebookClient, cell, cell_index: int, *arguments, **options):
    if cell.cell_type != "code":
        return await _execute(client, cell, cell_index, *arguments, **options)
    first = cell.source.partition("\n")[0]
    print(f"\n-- cell {cell_index + 1} of {len(client.nb.cells)}: {first}", flush=True)
    before = _computed(client)
    try:
        return await _execute(client, cell, cell_index, *arguments, **options)
    finally:
        cell.metadata["computed"] = round(_computed(client) - before, 1)


def _process_and_tell(client: NotebookClient, message: dict, *arguments):
    if message["msg_type"] == "stream":
        print(message["content"]["text"], end="", flush=True)
    return _process(client, message, *arguments)


def _computed(client: NotebookClient) -> float:
    """Seconds that the kernel and its children have computed; 0.0 where there is none any more."""
    try:
        kernel = psutil.Process(client.km.provisioner.pid)
        return sum(sum(each.cpu_times()[:4]) for each in [kernel, *kernel.children(recursive=True)])
    except psutil.Error:
        return 0.0


NotebookClient.async_execute_cell, NotebookClient.process_message = _execute_and_tell, _process_and_tell
