"""A cache of JSON values on disk that never holds up an event loop and never ends a run."""

import asyncio
import functools
import logging
import sqlite3
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import diskcache

_ERRORS = (sqlite3.Error, diskcache.Timeout, OSError, ValueError, TypeError, zlib.error)

logger = logging.getLogger(__name__)
T = TypeVar("T")


class CacheError(RuntimeError):
    """The folder cannot be used as a cache."""


class _JSONDisk(diskcache.JSONDisk):
    """JSON alone: diskcache would unpickle an entry that claims to be a pickle, and folders are shared."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode == diskcache.core.MODE_PICKLE:
            raise ValueError("a pickle in a cache of JSON")
        return super().fetch(mode, filename, value, read)


class JSONCache:
    """JSON values on disk by key. Never evicts; an unreadable entry counts as missing.

    One thread of its own does all reading and writing, so the event loop never waits for a disk.

    Raises:
        CacheError: the folder cannot be used.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="json-cache")
        try:
            self._store = self._thread.submit(diskcache.Cache, folder, disk=_JSONDisk, eviction_policy="none").result()
        except _ERRORS as error:
            raise CacheError(f"{folder} cannot be used ({error}): choose or empty another folder.") from error

    async def get(self, key: str) -> Any | None:
        """The value under ``key``, or None."""
        return await self._run(functools.partial(self._store.get, key), None)

    async def put(self, key: str, value: Any) -> None:
        """Keep ``value``, which JSON can hold, under ``key``."""
        await self._run(functools.partial(self._store.set, key, value), False)

    async def close(self) -> None:
        """Close files and thread."""
        await self._run(self._store.close, None)
        self._thread.shutdown()

    async def _run(self, call: Callable[[], T], otherwise: T) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except _ERRORS as error:  # a cache that fails costs requests, never the run
            logger.warning("reply cache %s: %s", self._folder, error)
            return otherwise
