"""A client process: reads one job, sets up, says that it is ready, waits for the word, measures, answers."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from typing import IO, Any

from bench.compare.clients.base import client_class


class Gate:
    """The way back to the command: messages out, and the word to go."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def say(self, **message: Any) -> None:
        """One message."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def wait(self, **message: Any) -> None:
        """Say that all is ready, and wait until told to go. What was made so far is no business of the collector."""
        gc.collect()
        gc.freeze()
        self.say(event="ready", **message)
        if not sys.stdin.readline():
            raise SystemExit("the command is gone")


def main() -> None:
    """Carry out the job that comes on standard input."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    gate = Gate(out)
    job = json.loads(sys.stdin.readline())
    try:
        work = importlib.import_module(f"bench.compare.workloads.{job['kind']}").work
        client = client_class(job["client"])(job["place"], **job["client_options"])
        gate.say(**work(client, job, gate))
        client.close()
    except Exception as error:
        traceback.print_exc()
        gate.say(error=f"{type(error).__name__}: {error}"[:400])
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
