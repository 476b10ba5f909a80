"""Client processes as the command sees them: started, let go together, read, ended."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import IO, Any

from bench.compare import groups

GRACE_S = 150.0


class ChildError(Exception):
    """A client process failed; the message is its own."""


class Child:
    """One process running `bench.compare.worker`. Lines of JSON go both ways."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.started = time.perf_counter()
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
        self.process = groups.start(
            [sys.executable, "-m", "bench.compare.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self._buffer = b""
        self.send(job)

    def send(self, message: Any) -> None:
        """One line to the process."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(self._last_words()) from None

    def receive(self, timeout_s: float = GRACE_S) -> dict[str, Any]:
        """The next message. Raises `ChildError` if the process failed, ended or says nothing for too long."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise ChildError(f"no answer within {timeout_s:g} s")
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                raise ChildError(self._last_words())
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise ChildError(message["error"])
        return message

    def ready(self) -> dict[str, Any]:
        """Wait until the process has set up and warmed up."""
        message = self.receive()
        if message.get("event") != "ready":
            raise ChildError(f"out of turn: {message}")
        return message

    def go(self) -> None:
        """Let it begin what is measured."""
        self.send("go")

    def close(self) -> None:
        """Wait for the end; kill the process group if that does not come."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):  # it ended before it read everything
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # it is killed below
            self.process.wait(timeout=20)
        self.kill()

    def kill(self) -> None:
        """End the process and what it started, at once."""
        groups.end(self.process)
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                with suppress(BrokenPipeError):  # what was not read is of no use
                    stream.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()

    def _last_words(self) -> str:
        self.errors.seek(0)
        return f"client process ended: {self.errors.read()[-400:].decode(errors='replace').strip()}"
