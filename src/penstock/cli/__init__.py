"""The `penstock` command. Needs the extra `penstock[cli]`; every command stands on the public API."""

from __future__ import annotations

import sys

_NEEDED = {"typer", "rich", "msgspec", "click"}


def main() -> None:
    """Entry point of the `penstock` command; ends the process with the command's exit code.

    0: done; 1: the operation failed, or problems were found; 2: wrong usage; 130: interrupted.
    """
    try:
        from penstock.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.stderr.write("the command line needs: pip install 'penstock[cli]'\n")
        sys.exit(2)
    app(prog_name="penstock")
