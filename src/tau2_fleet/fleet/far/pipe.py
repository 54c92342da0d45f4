"""`python -I -S pipe.py SOCKET WISHES`: joins its own input and output to a Unix socket, to which it tells its wishes.

Links of `hosts=ray` are such processes: whoever is at the socket (`ray_driver.py`) has the host. Standard library only.
"""

from __future__ import annotations

import os
import select
import socket
import sys


def main() -> None:
    """Until the socket ends; the end of the input is passed on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
        there.connect(sys.argv[1])
        there.sendall(sys.argv[2].encode() + b"\n")
        inputs: list[int] = [0, there.fileno()]
        while True:
            ready, _, _ = select.select(inputs, [], [])
            if 0 in ready:
                data = os.read(0, 1 << 16)
                if data:
                    there.sendall(data)
                else:
                    inputs.remove(0)
                    there.shutdown(socket.SHUT_WR)
            if there.fileno() in ready:
                data = there.recv(1 << 16)
                if not data:
                    return
                while data:
                    data = data[os.write(1, data) :]


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"the Ray driver is gone: {error.strerror or error}")
