"""A stand-in for the Hugging Face Hub's API on 127.0.0.1: repositories, LFS and commits in memory. Not the Hub itself."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_standInTokenOfNobody0123456789"


class Hub:
    """What it holds: ``repos[name] = {"private", "files"}``, and each request's method and path."""

    def __init__(self):
        self.repos, self.blobs, self.requests, self.refuse = {}, {}, [], None


@contextmanager
def hub():
    held = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"held": held}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    held.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield held
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    held: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = "/".join(self.path.split("?")[0].split("/")[3:5])
        repo = self._seen() and self.held.repos.get(name)
        if not repo:
            return self._answer({"error": "Repository not found"}, 404)
        self._answer({"id": name, "private": repo["private"], "siblings": [], "tags": []})

    def do_PUT(self):
        body = self._body()
        self.held.requests.append(("PUT", self.path))
        self.held.blobs[hashlib.sha256(body).hexdigest()] = body
        self._answer({})

    def do_POST(self):
        body = self._body()
        if not self._seen():
            return None
        if self.held.refuse:
            return self._answer({"error": self.held.refuse}, 403)
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if "/preupload/" in self.path:
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                for f in json.loads(body)["files"]
            ]
            return self._answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.held.url}/blob/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            return self._commit(body)
        return self._answer({"error": f"{self.path} is not part of the stand-in"}, 501)

    def _create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.held.repos:
            return self._answer({"error": "You already created this repo", "url": f"{self.held.url}/{name}"}, 409)
        private = asked.get("private", asked.get("visibility") == "private")
        self.held.repos[name] = {"private": private, "type": asked.get("type", "model"), "files": {}}
        prefix = "datasets/" if asked.get("type") == "dataset" else ""
        return self._answer({"url": f"{self.held.url}/{prefix}{name}", "id": name})

    def _commit(self, body):
        name = "/".join(self.path.split("/")[3:5])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.held.repos[name]["files"][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.held.repos[name]["files"][value["path"]] = self.held.blobs[value["oid"]]
        url = f"{self.held.url}/{name}/commit/{'c' * 40}"
        return self._answer({"commitUrl": url, "commitOid": "c" * 40, "success": True})

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _seen(self):
        self.held.requests.append((self.command, self.path.split("?")[0]))
        if self.headers.get("Authorization") == f"Bearer {TOKEN}" or self.path == "/api/validate-yaml":
            return True
        self._answer({"error": "Invalid credentials"}, 401)
        return False

    def _answer(self, found, status=200):
        content = json.dumps(found).encode()
        self.send_response(status)
        if status >= 400:
            self.send_header("X-Error-Message", found["error"].replace("\n", " "))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
