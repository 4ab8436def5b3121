"""Ctrl-C is answered at once, also while a long computation holds the main thread; a second one ends the process."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from charter.safe_text import safe_text

INTERRUPTED = 130  # exit code, as shells have it


def to_stderr(line: str) -> None:
    """A line for people, beside the result."""
    print(safe_text(line), file=sys.stderr, flush=True)


class Interrupts:
    """What is said at the first Ctrl-C, and through whom: ``tell`` may be exchanged while the block runs."""

    def __init__(self, says: str) -> None:
        self.tell: Callable[[str], None] = to_stderr
        self.says, self.num = says, 0

    def hear(self) -> None:
        """One Ctrl-C."""
        self.num += 1
        if self.num > 1:
            os._exit(INTERRUPTED)
        self.tell(self.says)


@contextmanager
def interrupts(says: str) -> Iterator[Interrupts]:
    """Answer Ctrl-C with ``says`` in this block; KeyboardInterrupt is raised as ever, once the main thread gets to it.

    The kernel's signal writes a byte that another thread reads, so that it needn't wait for the main one.
    """
    heard = Interrupts(says)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        while number := ours.recv(1):
            if number[0] == signal.SIGINT:
                heard.hear()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()  # ends the thread
        thread.join()
        ours.close()
