"""One task a turn of the event loop: what thousands do at once would keep everything else from running."""

import asyncio


class Turnstile:
    """Lets those who wait pass one by one, a turn of the event loop each.

    The caller does its blocking work right after ``wait``; until the next one is let through, every other task has had
    its turn.
    """

    def __init__(self) -> None:
        self._door = asyncio.Lock()

    async def wait(self) -> None:
        """Come, and go on in a turn of one's own."""
        async with self._door:
            await asyncio.sleep(0)
