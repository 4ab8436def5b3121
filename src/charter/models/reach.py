"""Is a server's key set, and does the server answer? Asked before the work, so that nobody finds out hours later."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from charter.config import EndpointConfig, ModelConfig
from charter.errors import ConfigError
from charter.models.calls import capped_transport
from charter.models.endpoint import LOCAL_HOSTS

PATIENCE_SECONDS = 10.0


def unset_key(model: ModelConfig) -> str | None:
    """What to say where the environment variable that should hold a server's key is empty; None where it is set."""
    variable = (model.endpoint or EndpointConfig()).key_env
    if os.environ.get(variable):
        return None
    base = model.source.partition("#")[0]
    if urlsplit(base).hostname in LOCAL_HOSTS:
        return f"{base}: the environment holds no {variable}; the server is on this machine and is asked without a key"
    return f"{base}: the environment holds no {variable}: put the key there, or name another key_env"


def check_key(model: ModelConfig) -> str | None:
    """A line about a server on this machine that is asked without a key; None where there is a key.

    Raises:
        ConfigError: the server is elsewhere, and there is no key for it.
    """
    told = unset_key(model)
    if told is not None and urlsplit(model.source.partition("#")[0]).hostname not in LOCAL_HOSTS:
        raise ConfigError(told)
    return told


def unreachable(model: ModelConfig) -> str | None:
    """What to say where a server doesn't answer or refuses the key; None where it is there. One cheap request, no tokens.

    Raises:
        ConfigError: the client isn't installed.
    """
    with ThreadPoolExecutor(1) as pool:  # a loop of its own, so that this works inside a running one
        return pool.submit(lambda: asyncio.run(_ask(model))).result()


async def _ask(model: ModelConfig) -> str | None:
    try:
        import httpx2
    except ImportError as error:
        raise ConfigError("endpoints need the openai client: pip install 'charter[endpoint]'") from error
    base = model.source.partition("#")[0]
    variable = (model.endpoint or EndpointConfig()).key_env
    headers = {"Authorization": f"Bearer {os.environ.get(variable) or 'none'}"}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            client = httpx2.AsyncClient(transport=capped_transport(1), follow_redirects=False, timeout=PATIENCE_SECONDS)
            async with client, client.stream("GET", f"{base.rstrip('/')}/models", headers=headers) as answer:
                status = answer.status_code  # the body is not read
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:  # their texts may hold the key
        return f"{base}: no answer now ({type(error).__name__}): start it, or mend the address; the run begins all the same"
    if status in (401, 403):
        return f"{base}: refuses the key now ({status}): look at what the environment holds in {variable}"
    if status in (500, 502, 503, 504) or 300 <= status < 400:
        return f"{base}: answers {status} now: look at the server and its address"
    return None
