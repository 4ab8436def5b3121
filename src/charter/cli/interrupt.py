"""Ctrl-C is answered at once, also while a long computation holds the main thread; a second one ends the process.

A terminal that closes (SIGHUP) and a scheduler that wants the machine (SIGTERM) are answered as Ctrl-C is, unless somebody
has the process ignore them, as nohup does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from charter.safe_text import safe_text

OTHERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def to_stderr(line: str) -> None:
    """A line for people, beside the result; nobody may be there any more."""
    with suppress(OSError):
        print(safe_text(line), file=sys.stderr, flush=True)


class Interrupts:
    """What is said at the first Ctrl-C, and through whom: ``tell`` may be exchanged while the block runs.

    Attributes:
        code: exit code of a process that was stopped so, as shells have it: 130 after Ctrl-C.
    """

    def __init__(self, says: str) -> None:
        self.tell: Callable[[str], None] = to_stderr
        self.says, self.num, self.code = says, 0, 128 + signal.SIGINT

    def hear(self, number: int) -> None:
        """One Ctrl-C, or another signal that says to stop."""
        self.num, self.code = self.num + 1, 128 + number
        if self.num > 1:
            os._exit(self.code)
        self.tell(self.says)


@contextmanager
def interrupts(says: str) -> Iterator[Interrupts]:
    """Answer Ctrl-C with ``says`` in this block; KeyboardInterrupt is raised as ever, once the main thread gets to it.

    The kernel's signal writes a byte that another thread reads, so that it needn't wait for the main one.
    """
    heard = Interrupts(says)
    handlers = {number: signal.getsignal(number) for number in OTHERS}
    for number in (number for number, handler in handlers.items() if handler == signal.SIG_DFL):
        signal.signal(number, signal.default_int_handler)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        while number := ours.recv(1):
            if number[0] in (signal.SIGINT, *OTHERS):
                heard.hear(number[0])

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        theirs.close()  # ends the thread
        thread.join()
        ours.close()
