"""Runs scripts again and again, each time in a process of its own, and imports what they import only once.

Each line of JSON on stdin is a run:

    {"script": "...", "datasets": [...], "arguments": [...], "folder": "...", "interrupted": false}

The answer is a line of JSON with its exit code and what it wrote. A run is a fork of this process, which has imported
the script's modules and read its datasets: it costs its own computing, and not the seconds that torch needs to arrive.
"""

import faulthandler
import functools
import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from atlas import data, program

LIMIT = 100  # seconds, then a run ends with a traceback of where it hangs


def begin(script: str, arguments: list[str], folder: str, interrupted: bool, out: int, err: int) -> None:
    """Make of the forked process what `python script ...` in that folder is."""
    os.setsid()
    os.chdir(folder)
    for there, here in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(there, here)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    sys.argv, sys.path[0] = [script, *arguments], str(Path(script).parent)
    if interrupted:
        interrupt_at_the_second_checkpoint()


def interrupt_at_the_second_checkpoint() -> None:
    """Ctrl-C when the second epoch is over and not yet kept; it reaches the whole group, as it does in a terminal."""
    writing, checkpoints = program.writing, []

    def interrupted(path, option="checkpoint"):
        if option == "checkpoint":
            checkpoints.append(path)
        if len(checkpoints) == 2:
            os.killpg(0, signal.SIGINT)
        return writing(path, option)

    program.writing = interrupted


def run(script: str) -> int:
    """Run the script as Python does; its exit code."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(code: int) -> None:
    """End this process at once: taking torch down in peace needs half a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@functools.cache
def prepare(script: str, datasets: tuple[str, ...]) -> None:
    """Have what the script imports and reads, so that its runs find it there."""
    for name in datasets:
        data.load(name)
    runpy.run_path(script, run_name="imported")
    for module in ["matplotlib.backends.backend_agg"] + ["torch._dynamo"] * ("torch" in sys.modules):
        importlib.import_module(module)  # what the first figure and the first optimizer import


data.load = functools.cache(data.load)
for line in sys.stdin:
    case = json.loads(line)
    prepare(case["script"], tuple(case.pop("datasets")))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if os.fork() == 0:
            begin(**case, out=out.fileno(), err=err.fileno())
            end(run(case["script"]))
        code = os.waitstatus_to_exitcode(os.wait()[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    print(json.dumps([code, *texts]), flush=True)
