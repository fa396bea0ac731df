"""Runs a command with the network off, so that a notebook that needs it is found out.

    command, env, how = without_network(["python", "train.py"])

In a network namespace of its own where one can be had (nothing but loopback exists there), else with Python's sockets
blocked (`blocked/sitecustomize.py`: compiled programs could still reach out); `how` says which.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

NAMESPACE, BLOCKED = "network namespace", "blocked sockets"


def without_network(command: list[str]) -> tuple[list[str], dict[str, str], str]:
    """The command and the environment variables to run it with, and which way the network is off."""
    namespace = _namespace()
    if namespace is None:
        return blocked(command)
    return [*namespace, *command], {}, NAMESPACE


def blocked(command: list[str]) -> tuple[list[str], dict[str, str], str]:
    """The way that works everywhere: Python processes refuse addresses other than loopback."""
    paths = [str(Path(__file__).parent / "blocked"), os.environ.get("PYTHONPATH", "")]
    return command, {"PYTHONPATH": os.pathsep.join(filter(None, paths))}, BLOCKED


@functools.cache
def _namespace() -> list[str] | None:
    """What to put before a command to run it in a namespace of its own: as root, else as root of a user namespace."""
    for how in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        prefix = [*how, sys.executable, "-m", "atlas.authoring.offline"]
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, timeout=30).returncode == 0:
                return prefix
        except OSError:
            return None
    return None


def _loopback_up() -> None:
    """Switch on the one interface that a new namespace has; Jupyter talks to its kernels through it."""
    import fcntl
    import socket
    import struct

    SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


if __name__ == "__main__":
    _loopback_up()
    os.execvp(sys.argv[1], sys.argv[1:])
