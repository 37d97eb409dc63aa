"""Warnings of ours on the console, whatever other libraries make of the root logger.

A module that vLLM brings sets the root logger and its handlers to ERROR. A warning that has no handler of its own is
never seen then.
"""

import logging
import sys


def warn_on_console(*names: str) -> None:
    """Give these loggers a handler that writes warnings to standard error, which Ray shows on the driver's console."""
    for name in names:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET or logger.level > logging.WARNING:
            logger.setLevel(logging.WARNING)
        if not any(isinstance(handler, _Console) for handler in logger.handlers):
            handler = _Console(sys.stderr)
            handler.setFormatter(logging.Formatter("%(name)s: %(levelname)s: %(message)s"))
            logger.addHandler(handler)


def errors_only(*names: str) -> None:
    """Let these loggers say errors and nothing less."""
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)


class _Console(logging.StreamHandler):  # type: ignore[type-arg]  # which knows its own kind again
    pass
