"""Tokens in, tokens out, by a vLLM server that holds the policy: it samples, and takes new weights from a folder that it sees.

Of vLLM's own routes ``/v1/completions`` (with ``return_token_ids``) is the usual one; ``/collective_rpc`` and
``/reset_prefix_cache`` are there where the server was started with VLLM_SERVER_DEV_MODE=1.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.errors import EndpointError
from charter.models.calls import Malformed
from charter.models.decode import Sampled
from charter.models.endpoint import EndpointModel

WEIGHTS_SECONDS = 600.0
PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0}
"""Nothing but the model's own distribution: vLLM would take other defaults from generation_config.json."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key is meant for the server that was named, not for whomever it points to."""

    def redirect_request(self, *_: Any) -> None:
        return None


class TokenServer(EndpointModel):
    """A vLLM server; see EndpointModel for retries, limits and deadlines."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        stop_ids: Sequence[int],
    ) -> Sampled:
        """One response per prompt, as ``decode.sample_tokens``; a row's draws are the server's, by the row's seed.

        Raises:
            EndpointError: a row got no answer, or the server refuses everybody.
        """

        async def one(client: Any, row: int) -> tuple[list[int], list[float], bool] | None:
            body = {
                "model": self._model, "prompt": list(prompts[row]), "max_tokens": max_new_tokens,
                "temperature": temperature, "seed": seeds[row] % (1 << 31), "stop_token_ids": list(stop_ids),
                "ignore_eos": True, "logprobs": 0, "return_token_ids": True, **PLAIN,
            }  # fmt: skip
            return _response(await client.post("/completions", cast_to=object, body=body), set(stop_ids))

        rows = self._all(len(prompts), one, lambda: None)
        lost = rows.count(None)
        if lost:
            raise EndpointError(
                f"{self.name}: {lost} of {len(rows)} rollouts got no answer: look at the server's log, then run the same command "
                "again"
            )
        return Sampled(*(list(part) for part in zip(*rows, strict=True)))

    def take_weights(self, folder: Path) -> None:
        """Have the server read its weights from a folder, and forget what it computed with others.

        Raises:
            EndpointError: it can't.
        """
        self._tell("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        self._tell("/reset_prefix_cache", {})

    def _tell(self, route: str, body: dict[str, Any]) -> None:
        url = self._base_url.rstrip("/").removesuffix("/v1") + route
        headers = {"content-type": "application/json", "authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=WEIGHTS_SECONDS):
                return
        except urllib.error.HTTPError as error:
            if error.code == 404:
                reason = "it has no such route: start vLLM with VLLM_SERVER_DEV_MODE=1"
            else:
                reason = f"it answers {error.code}: does it see the folder? Its log says more"
        except OSError as error:
            reason = f"no answer ({getattr(error, 'reason', error)}): is it running?"
        raise EndpointError(f"{self.name}: the server can't be given the policy's weights ({route}): {reason}")


def _response(answer: Any, stop_ids: set[int]) -> tuple[list[int], list[float], bool]:
    """Token ids with the stop token, their log-probabilities, and whether it stopped by itself."""
    try:
        choice = answer["choices"][0]
        ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        well = len(ids) == len(logprobs) > 0 and all(type(i) is int for i in ids)
        logprobs = [float(value) for value in logprobs]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Malformed("a completion without token ids and log-probabilities") from error
    if not well or choice.get("finish_reason") not in ("stop", "length"):
        raise Malformed("a completion that is none")
    return list(ids), logprobs, ids[-1] in stop_ids
