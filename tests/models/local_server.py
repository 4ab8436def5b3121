"""What tests of servers that we did not write share: a free port, and whether somebody answers there."""

from __future__ import annotations

import socket
import urllib.request


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(base_url: str) -> bool:
    """Does an OpenAI-compatible server list its models?"""
    try:
        with urllib.request.urlopen(f"{base_url}/models", timeout=1):
            return True
    except OSError:
        return False
