"""A real HTTP server that answers like an OpenAI-compatible one, or lets a real one answer, and fails as told."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(
    text: str = "A", finish: str = "stop", logprobs: bool = False, tokens: tuple[int, int] = (10, 1)
) -> dict:
    choice: dict = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    if logprobs:
        top = [{"token": "A", "logprob": -0.2, "bytes": None}, {"token": "B", "logprob": -1.8, "bytes": None}]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


class FaultServer:
    """``plan(request number, body)`` names what to do: "ok", a status, or one of the faults below.

    ``behind``: base URL of the server that answers where the plan says "ok". ``models``: status of GET /models.
    """

    def __init__(
        self,
        plan: Callable[[int, dict], object],
        latency: float = 0.0,
        behind: str | None = None,
        models: int = 200,
    ) -> None:
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.done: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args):
                pass

            def do_GET(self):
                assert self.path == "/v1/models"
                self.send(models, {"object": "list", "data": [{"id": "m", "object": "model"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    number = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.in_flight += 1
                    outer.most_in_flight = max(outer.most_in_flight, outer.in_flight)
                try:
                    what = plan(number, body)
                    time.sleep(latency)
                    outer.done[str(what)[:12]] += 1
                    self.act(what, body)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                finally:
                    with lock:
                        outer.in_flight -= 1

            def act(self, what, body):
                good = completion(logprobs=bool(body.get("logprobs")))
                if what == "ok" and behind:
                    return self.forward(body)
                if what == "ok":
                    return self.send(200, good)
                if isinstance(what, dict):
                    return self.send(200, what)
                if isinstance(what, tuple):  # (status, headers)
                    return self.send(
                        what[0],
                        {"error": {"message": f"status {what[0]}; key {self.headers['authorization']}"}},
                        what[1],
                    )
                if isinstance(what, int):
                    return self.send(
                        what, {"error": {"message": f"status {what}; key {self.headers['authorization']}"}}
                    )
                return getattr(self, what)(json.dumps(good).encode())

            def forward(self, body):
                kind = {"content-type": "application/json"}
                request = urllib.request.Request(f"{behind}/chat/completions", json.dumps(body).encode(), kind)
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self.raw(200, answer.read())

            def send(self, status, obj, headers=()):
                self.raw(status, json.dumps(obj).encode(), headers)

            def raw(self, status, data, headers=(), kind="application/json", length=None):
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data) if length is None else length))
                for name, value in dict(headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def hang(self, data):
                time.sleep(3)

            def drip(self, data):
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                for byte in data[:40]:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.1)

            def reset(self, data):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.connection.close()
                self.close_connection = True

            def cut(self, data):
                self.raw(200, data[:30], length=len(data))
                self.close_connection = True

            def malformed(self, data):
                self.raw(200, data[:-20])

            def empty(self, data):
                self.raw(200, b"")

            def html(self, data):
                self.raw(200, b"<html>(A) is better</html>", kind="text/html")

            def null_choices(self, data):
                self.send(200, {**json.loads(data), "choices": None})

            def no_choices(self, data):
                self.send(200, {**json.loads(data), "choices": []})

            def error_in_200(self, data):
                self.send(200, {"error": {"message": "overloaded"}})

            def null_content(self, data):
                made = json.loads(data)
                made["choices"][0]["message"]["content"] = None
                made["choices"][0]["logprobs"] = {
                    "content": [{"token": None, "logprob": "x", "top_logprobs": [{"token": "A", "logprob": "high"}]}]
                }
                self.send(200, made)

            def huge(self, data):
                self.raw(200, b" " * (12 << 20) + data)

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass  # a client that was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._server.shutdown()
        self._server.server_close()
