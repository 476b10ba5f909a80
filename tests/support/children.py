"""Processes for tests, forked from one that has imported Penstock already: a start takes 10 ms instead of 300.

To what is tested they are what `python -c SCRIPT` is: a pid and a main thread of their own, and no broker, lock or
connection before the script opens one. They are killed, stopped and waited for like any other process.

Run as a program this is the nursery: it forks a keeper for each request, which forks the child and waits for it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

FORKSERVER = multiprocessing.get_context("forkserver")  # for functions of a test module
FORKSERVER.set_forkserver_preload(["penstock", "pytest"])
_nursery: list[socket.socket] = []
_one_at_a_time = threading.Lock()


class Child:
    """A running script, with the methods of `subprocess.Popen`.

    `script`: code, or the path of a file; `arguments`: its `sys.argv[1:]`. `stdin`, `stdout`, `stderr`, `cwd`, `env`:
    as for `Popen`, by default this process's. `text`: pipes are of text.
    """

    def __init__(
        self, script: str | Path, *arguments: object, stdin: Any = None, stdout: Any = None, stderr: Any = None,
        cwd: Path | None = None, env: dict[str, str] | None = None, text: bool = False,
    ) -> None:  # fmt: skip
        self.returncode: int | None = None
        self.name = str(script) if isinstance(script, Path) else "-c"
        self.stdin, read_end = _pipe(stdin, 0, "w" if text else "wb")
        self.stdout, out = _pipe(stdout, 1, "r" if text else "rb")
        self.stderr, errors = _pipe(stderr, 2, "r" if text else "rb")
        self._told, tell = os.pipe()
        weakref.finalize(self, os.close, self._told)  # not before: another thread may wait for it
        self._ending = threading.Lock()
        given = [read_end, out, errors, tell]
        code = script.read_text() if isinstance(script, Path) else script
        environment = dict(os.environ if env is None else env)
        asked = [code, [self.name, *map(str, arguments)], str(cwd or Path.cwd()), environment]
        request = json.dumps(asked).encode() + b"\n"
        with _one_at_a_time:
            connection = _connection()
            sent = socket.send_fds(connection, [request], given)
            connection.sendall(request[sent:])
            for fd in given:
                os.close(fd)
            self.pid = self._hear()

    def _hear(self) -> int:
        number = b""
        while not number.endswith(b"\n"):
            byte = os.read(self._told, 1)
            assert byte, "the keeper of a child is gone"
            number += byte
        return int(number)

    def poll(self) -> int | None:
        """The exit code, minus the signal's number for one that was killed; None while it runs."""
        return self._heard(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises `subprocess.TimeoutExpired`."""
        code = self._heard(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.name, timeout or 0)
        return code

    def _heard(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            with self._ending:
                if self.returncode is None:
                    self.returncode = self._hear()
        return self.returncode

    def communicate(self, given: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Write `given`, and read stdout and stderr (None for what is no pipe) until it ended."""
        with ThreadPoolExecutor(2) as readers:
            found = [None if file is None else readers.submit(file.read) for file in (self.stdout, self.stderr)]
            if self.stdin is not None:
                with contextlib.suppress(BrokenPipeError), self.stdin:
                    if given:
                        self.stdin.write(given)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            out, errors = [None if file is None else file.result() for file in found]
        return out, errors

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it is known to have ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # its keeper has yet to tell
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                file.close()
        self.wait()


def run(script: str | Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a script to its end, with what it writes kept, as `subprocess.run` does.

    Options: `input`, `timeout` (default 60 s), and those of `Child`.
    """
    given, timeout = options.pop("input", None), options.pop("timeout", 60)
    options = {"stdin": subprocess.DEVNULL if given is None else subprocess.PIPE, **options}
    with Child(script, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as child:
        out, errors = child.communicate(given, timeout)
        return subprocess.CompletedProcess([child.name, *arguments], child.wait(), out, errors)


def _pipe(asked: Any, standard: int, mode: str) -> tuple[Any, int]:
    """This process's end of a pipe, if one is asked for, and the descriptor for the child."""
    if asked == subprocess.PIPE:
        read_end, write_end = os.pipe()
        ours, theirs = (write_end, read_end) if mode[0] == "w" else (read_end, write_end)
        return open(ours, mode), theirs
    if asked == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    return None, os.dup(standard if asked is None else asked.fileno())


def _connection() -> socket.socket:
    if not _nursery:
        ours, theirs = socket.socketpair()
        command = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        _nursery.append(ours)
        atexit.register(process.wait)
        atexit.register(ours.close)  # is done first
    return _nursery[0]


def _next_child(asked: socket.socket) -> tuple[str, list[str]]:
    """In the nursery: fork for each request. Returns in the child, with the code and `sys.argv`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        message, fds = b"", []
        while not message.endswith(b"\n"):
            part, passed, _, _ = socket.recv_fds(asked, 65536, 4)
            if not part:
                _reap()
                sys.exit()
            message += part
            fds += passed
        if os.fork() == 0:
            break
        for fd in fds:
            os.close(fd)
        _reap()
    asked.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    *standard, tell = fds
    child = os.fork()
    if child:
        for fd in standard:
            os.close(fd)
        os.write(tell, b"%d\n" % child)
        os.write(tell, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    os.close(tell)
    for place, fd in enumerate(standard):
        os.dup2(fd, place)
        os.close(fd)
    code, arguments, directory, environment = json.loads(message)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    return code, arguments


def _reap() -> None:
    """Wait for the keepers that are done."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    import penstock.events  # noqa: F401  what a child need not import again

    gc.freeze()
    code, sys.argv = _next_child(socket.socket(fileno=int(sys.argv[1])))
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = sys.argv[0]
    sys.path.insert(0, "" if sys.argv[0] == "-c" else str(Path(sys.argv[0]).parent))
    exec(compile(code, sys.argv[0], "exec"), main.__dict__)
