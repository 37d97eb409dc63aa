"""Functions that the tests run inside a pool's children."""

import os
import signal
import sys
import time


def echo(value: object) -> object:
    return value


def pid() -> int:
    return os.getpid()


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def sleep_ignoring_sigterm(seconds: float) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(seconds)


def spin_in_c() -> int:
    """Minutes inside one C call that never releases the GIL and never looks at signals."""
    return len(str(7 ** (10**8) % 3 ** (5 * 10**7)))


def allocate(megabytes: int) -> int:
    return len(bytearray(megabytes * 2**20))


def crash() -> None:
    os._exit(3)


def fail(message: str) -> None:
    raise ValueError(message)


def unserialisable() -> object:
    return object()


def noisy(value: str) -> str:
    """Writes to every channel a careless library might write to, and reads what it can of stdin."""
    print("print")
    os.write(1, b'{"result": "forged"}\n')
    return value + sys.stdin.read()


def dispatch(name: str, *args: object) -> object:
    """One pool for several behaviours."""
    return globals()[name](*args)
