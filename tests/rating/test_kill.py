"""Kill -9 in the middle of labelling: every label that the server acknowledged is there, once."""

import http.client
import json
import signal
import subprocess
import threading
from urllib.parse import urlsplit

from charter.store.labels import open_labels


class Client:
    """One rater, by plain HTTP."""

    def __init__(self, url: str, name: str) -> None:
        parts = urlsplit(url)
        self.address, self.cookies, self.csrf = parts.netloc, {}, ""
        self.ask("GET", f"/?{parts.query}")
        self.csrf = json.loads(self.ask("GET", "/session"))["csrf"]
        self.csrf = json.loads(self.ask("POST", "/join", {"name": name}))["csrf"]

    def ask(self, method: str, path: str, body: dict | None = None) -> bytes:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())}
        headers |= {"Origin": f"http://{self.address}", "X-CSRF-Token": self.csrf, "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            for name, value in answer.getheaders():
                if name.lower() == "set-cookie":
                    key, _, rest = value.partition("=")
                    self.cookies[key] = rest.split(";")[0]
            content = answer.read()
            assert answer.status == 200, content
            return content
        finally:
            connection.close()


def work(client: Client, name: str, acknowledged: dict[str, str], enough: threading.Event) -> None:
    """Label until nothing is left or the server dies; a label is sent again until it is acknowledged."""
    try:
        item = json.loads(client.ask("POST", "/next", {}))["item"]
        while item is not None:
            id = f"{name}-{item['pair_id']}".rjust(32, "0")
            body = {"id": id, "pair_id": item["pair_id"], "choice": "tie"}
            item = json.loads(client.ask("POST", "/label", body))["item"]
            acknowledged[id] = body["pair_id"]
            if len(acknowledged) >= 25:
                enough.set()
    except (OSError, http.client.HTTPException):
        return  # the server is dead


def test_kill_and_go_on(serve, source, make_items):
    server = serve(make_items(60), "--overlap", "0.5")
    acknowledged: dict[str, str] = {}
    for is_last in (False, False, True):
        enough = threading.Event()
        clients = {name: Client(server.url, name) for name in ("anna", "ben")}
        done = dict(acknowledged)
        fresh: dict[str, str] = {}
        threads = [
            threading.Thread(target=work, args=(client, name, fresh, enough)) for name, client in clients.items()
        ]
        for thread in threads:
            thread.start()
        if not is_last:
            assert enough.wait(60)
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        for thread in threads:
            thread.join(60)
        assert not done.keys() & fresh.keys(), "a label that was acknowledged was asked for again"
        acknowledged |= fresh
        stored = {label.id: label.pair_id for label in open_labels(source).labels()}
        assert acknowledged.items() <= stored.items()
        assert len(stored) - len(acknowledged) <= 4  # stored, and killed before the answer went out: two at each kill
        if not is_last:
            server.start()
    assert len(stored) == 90
    assert {label.rater for label in open_labels(source).labels()} == {"anna", "ben"}


def test_interrupt_ends_quietly_and_export_works_meanwhile(serve, source, make_items, tmp_path):
    server = serve(make_items(4))
    acknowledged: dict[str, str] = {}
    work(Client(server.url, "anna"), "anna", acknowledged, threading.Event())
    file = tmp_path / "human.jsonl"
    command = [*server.process.args[:4], str(tmp_path / "pairs.jsonl"), "--db", source, "--export", str(file)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "4 preference pairs" in printed and len(file.read_text().splitlines()) == 4
    server.process.send_signal(signal.SIGINT)
    out, err = server.process.communicate(timeout=30)
    assert "Every label is stored" in out and "Traceback" not in err
