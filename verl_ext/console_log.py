"""Warnings of ours on the console, whatever other libraries make of the root logger.

A module that vLLM brings sets the root logger and its handlers to ERROR. A warning that has no handler of its own is
never seen then.
"""

import logging
import sys


def warn_on_console(*names: str, quiet: str | None = None) -> None:
    """Give these loggers a handler that writes warnings to standard error, which Ray shows on the driver's console.

    ``quiet`` is a logger that says errors only: verl's ``continuous_token_wiring`` warns for every row that it knows no
    turns of a model that has only one.
    """
    if quiet is not None:
        logging.getLogger(quiet).setLevel(logging.ERROR)
    for name in names:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET or logger.level > logging.WARNING:
            logger.setLevel(logging.WARNING)
        if not any(isinstance(handler, _Console) for handler in logger.handlers):
            handler = _Console(sys.stderr)
            handler.setFormatter(logging.Formatter("%(name)s: %(levelname)s: %(message)s"))
            logger.addHandler(handler)


class _Console(logging.StreamHandler):  # type: ignore[type-arg]  # which knows its own kind again
    pass
