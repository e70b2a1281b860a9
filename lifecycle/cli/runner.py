"""`lifecycle runner`: handlers from a module, run until they are stopped."""

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from lifecycle.errors import InvalidArgument

NOT_DRAINED = 75


def runner(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="Where the SessionRunner is, as in agents:runner.")
    ],
    until_idle: Annotated[bool, typer.Option("--until-idle", help="Stop when nothing waits any more.")] = False,
) -> None:
    """Run the handlers of a SessionRunner until SIGTERM or Ctrl-C; a second one stops at once."""
    from lifecycle.log import configure_logging
    from lifecycle.runner import SessionRunner

    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise InvalidArgument(f"name the runner as MODULE:NAME, as in agents:runner; not {target!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise InvalidArgument(f"there is no module {module_name!r} here or installed") from error
    found = getattr(module, name, None)
    if not isinstance(found, SessionRunner):
        kind = "nothing" if found is None else type(found).__name__
        raise InvalidArgument(f"{target} must be a SessionRunner; it is {kind}")
    logging = found.manager.settings.logging
    configure_logging(logging.level, logging.format)
    with found:
        raise typer.Exit(0 if found.run(until_idle=until_idle) else NOT_DRAINED)
