"""The command line."""

import os
import sys

import typer

from lifecycle.errors import LifecycleError
from lifecycle.faults import exit_code

UNEXPECTED = 70
INTERRUPTED = 130


def main() -> None:
    """Run a command; every refusal is one line on stderr and the exit code that `lifecycle.faults` gives it."""
    from lifecycle.cli.app import app

    try:
        code = app(standalone_mode=False)
    except LifecycleError as error:
        code = _say(str(error), exit_code(type(error)))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        show = getattr(error, "show", None)
        if show is not None:  # a mistake in the command's own words, of whichever click typer carries
            show()
            sys.exit(getattr(error, "exit_code", 2))
        if os.environ.get("LIFECYCLE_DEBUG") == "1":
            raise
        code = _say(f"{type(error).__name__}: {error} (set LIFECYCLE_DEBUG=1 to see where)", UNEXPECTED)
    sys.exit(code or 0)


def _say(problem: str, code: int) -> int:
    from lifecycle.cli.output import printable
    from lifecycle.log import mask_passwords

    sys.stderr.write(f"error: {printable(mask_passwords(problem))}\n")
    return code
