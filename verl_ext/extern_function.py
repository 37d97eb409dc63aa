"""A function of the user's that an option names."""

from collections.abc import Callable
from typing import Any

from verl.utils.import_utils import load_extern_object


def extern_function(name: str) -> Callable[..., Any]:
    """``/path/to/file.py:function`` or ``pkg://package.module:function``.

    Raises:
        ValueError: there is no such function, or its file cannot be imported.
    """
    path, _, function = name.rpartition(":")
    try:
        found = load_extern_object(path, function)
    except Exception as error:  # whatever the user's file raises while it is imported
        raise ValueError(
            f"{name} cannot be loaded ({error!r}): name it as /path/to/file.py:function or "
            "pkg://package.module:function."
        ) from error
    if not callable(found):
        raise ValueError(f"{name} is no function.")
    return found
