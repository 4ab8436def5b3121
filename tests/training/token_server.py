"""A server with the routes of vLLM's that rollouts need, over our own decoding: it holds a model that it reads from folders."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from transformers import AutoModelForCausalLM

from charter.models.decode import sample_tokens


class TokenServerHere:
    """``deaf``: it says yes to new weights and keeps the old ones. ``routes`` False: it was started without the dev mode."""

    def __init__(self, folder: Path, *, deaf: bool = False, routes: bool = True) -> None:
        self.read, self.bodies, self.resets = [], [], 0
        self._load(folder)
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])) or "{}")
                with lock:
                    self.answer(body)

            def answer(self, body):
                if self.path == "/v1/completions":
                    return self.send(200, outer.complete(body))
                if not routes:
                    return self.send(404, {})
                if self.path == "/collective_rpc":
                    assert body["method"] == "reload_weights"
                    if not Path(body["kwargs"]["weights_path"]).is_dir():
                        return self.send(500, {})
                    outer.read.append(body["kwargs"]["weights_path"])
                    if not deaf:
                        outer._load(Path(body["kwargs"]["weights_path"]))
                outer.resets += self.path == "/reset_prefix_cache"
                return self.send(200, {"results": [None]})

            def send(self, status, answer):
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.source = f"http://127.0.0.1:{self._server.server_port}/v1#model"

    def _load(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def complete(self, body: dict) -> dict:
        self.bodies.append(body)
        assert body["logprobs"] == 0 and body["return_token_ids"] and body["ignore_eos"]
        found = sample_tokens(
            self.model, [body["prompt"]], seeds=[body["seed"]], max_new_tokens=body["max_tokens"],
            temperature=body["temperature"], stop_ids=body["stop_token_ids"],
        )  # fmt: skip
        choice = {
            "index": 0, "text": "", "token_ids": found.ids[0], "finish_reason": "stop" if found.stopped[0] else "length",
            "logprobs": {"token_logprobs": found.logprobs[0]},
        }  # fmt: skip
        return {
            "choices": [choice],
            "usage": {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(found.ids[0])},
        }

    def __enter__(self) -> TokenServerHere:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
