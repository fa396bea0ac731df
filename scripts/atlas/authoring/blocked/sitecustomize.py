"""Python imports this at its start when the folder is on PYTHONPATH: only loopback can be reached (see offline.py)."""

import errno
import ipaddress
import socket


def _refuse(address) -> None:
    if not isinstance(address, tuple) or _is_loopback(address[0]):
        return  # a Unix socket, or this machine
    raise OSError(errno.ENETUNREACH, f"the network is off for this run; {address[0]} cannot be reached")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


def _guarded(method):
    def guarded(self, *arguments):
        _refuse(arguments[-1])
        return method(self, *arguments)

    return guarded


for _name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, _name, _guarded(getattr(socket.socket, _name)))

_getaddrinfo = socket.getaddrinfo


def _local_only(host, *arguments, **options):
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None and not _is_loopback(name):
        raise socket.gaierror(socket.EAI_NONAME, f"the network is off for this run; {name} cannot be looked up")
    return _getaddrinfo(host, *arguments, **options)


socket.getaddrinfo = _local_only
