"""The command line."""

import os
import sys

import typer

import lifecycle
from lifecycle.errors import LifecycleError, StorageUnavailable
from lifecycle.faults import exit_code

UNEXPECTED = 70
CANNOT_WRITE = 74
INTERRUPTED = 130
READER_GONE = 141  # what a shell reports of `yes | head -1`


def main() -> None:
    """Run a command; every refusal is one line on stderr and the exit code that `lifecycle.faults` gives it."""
    if sys.stdout is None or sys.stderr is None:  # closed by the caller (`>&-`), so there is nobody to tell
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 -- open for as long as the process
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    code = _run()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = READER_GONE
        _forget_output()
    except OSError as error:
        code = _say(f"cannot write the output: {error.strerror}", CANNOT_WRITE)
        _forget_output()
    sys.exit(code)


def _run() -> int:
    from lifecycle.cli.output import ReaderGone

    try:
        return _command()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (ReaderGone, BrokenPipeError):
        return READER_GONE
    except LifecycleError as error:
        return _refused(error)
    except Exception as error:
        if os.environ.get("LIFECYCLE_DEBUG") == "1" and not hasattr(error, "format_message"):
            raise
        return _failed(error)


def _command() -> int:
    from lifecycle.cli.output import write

    if sys.argv[1:] == ["--version"]:  # scripts ask for it, and typer takes a third of a second to read an option
        write(lifecycle.__version__ + "\n")
        return 0
    from lifecycle.cli.app import app

    try:
        return app(standalone_mode=False, prog_name="lifecycle") or 0
    except SystemExit as ended:  # typer's own way to leave when nobody reads its help
        return READER_GONE if type(sys.stdout).__name__ == "PacifyFlushWrapper" else int(ended.code or 0)


def _refused(error: LifecycleError) -> int:
    problem = str(error)
    if isinstance(error, StorageUnavailable):
        from lifecycle.cli.quiet import with_reason

        problem = with_reason(problem)
    return _say(problem, exit_code(type(error)))


def _failed(error: Exception) -> int:
    if hasattr(error, "format_message"):  # a mistake in the command's own words, of whichever click typer carries
        return _misused(error)
    if isinstance(error, OSError) and error.filename is None and error.strerror:
        return _say(f"cannot write the output: {error.strerror}", CANNOT_WRITE)
    return _say(f"{type(error).__name__}: {error} (set LIFECYCLE_DEBUG=1 to see where)", UNEXPECTED)


def _misused(error: Exception) -> int:
    """Say what is wrong with the words of the command, and where to look; its exit code."""
    code = int(getattr(error, "exit_code", 2))
    context = getattr(error, "ctx", None)
    problem = str(error.format_message())  # type: ignore[attr-defined] # looked for by the caller
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(problem + "\n")
        return code
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    # typer says so of what pydantic refuses.
    return _say(problem.replace(": Value error, ", ": ").rstrip(".") + hint, code)


def _say(problem: str, code: int) -> int:
    from lifecycle.cli.output import say
    from lifecycle.log import mask_passwords

    line = " ".join(part.strip() for part in problem.splitlines() if part.strip())
    say(f"error: {mask_passwords(line)}")
    return code


def _forget_output() -> None:
    """Have what is still buffered go nowhere: the interpreter's last flush would complain once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
