"""What the server answers, and to whom it doesn't."""

import json

import pytest

from charter.errors import StoreError
from charter.store.labels import LabelStore
from charter.store.sql import open_database

pytest.importorskip("uvicorn", reason="uvicorn is not installed (the rate extra)")
pytest.importorskip("starlette", reason="starlette is not installed (the rate extra)")
try:
    from starlette import testclient
except (ImportError, RuntimeError) as error:
    pytest.skip(f"starlette's test client can't be used: {error}", allow_module_level=True)

from charter.rating.guard import Guard, is_loopback
from charter.rating.items import shown_order
from charter.rating.server import MAX_BODY_BYTES, RatingServer, listen

TOKEN = "a-token-of-the-tests"
ORIGIN = "http://127.0.0.1:8017"


class Rater:
    """A browser of one rater."""

    def __init__(self, store: LabelStore, name: str) -> None:
        self.http = testclient.TestClient(RatingServer(store, Guard(TOKEN, "127.0.0.1")).app(), base_url=ORIGIN)
        self.http.get(f"/?token={TOKEN}")
        self.csrf = self.http.get("/session").json()["csrf"]
        self.csrf = self.post("/join", name=name).json()["csrf"]

    def post(self, path: str, **body):
        headers = {"Origin": ORIGIN, "X-CSRF-Token": self.csrf}
        return self.http.post(path, json=body, headers=headers)

    def label(self, number: int, pair_id: str, choice: str = "first", **more):
        return self.post("/label", id=f"{number:032x}", pair_id=pair_id, choice=choice, **more)


@pytest.fixture
def store(tmp_path, make_items):
    store = LabelStore(open_database(str(tmp_path / "labels.sqlite")))
    store.add_items(make_items(6), 0.5)
    return store


@pytest.fixture
def anna(store):
    return Rater(store, "Anna")


def test_a_label_means_the_response_that_was_shown(store, anna):
    expected = []
    answer = anna.post("/next").json()
    for number, choice in enumerate(["first", "second", "tie", "skip", "first", "second"]):
        item = answer["item"]
        chosen = {"first": item["responses"][0], "second": item["responses"][1]}.get(choice, choice)
        expected.append(chosen[0].lower() if chosen in item["responses"] else chosen)
        answer = anna.label(number, item["pair_id"], choice).json()
    assert answer["item"] is None
    assert [label.verdict for label in store.labels()] == expected
    assert all(label.shown == shown_order(store.salt, "Anna", label.pair_id) for label in store.labels())


def test_the_order_is_fair_fixed_and_of_each_rater(store):
    ids = [f"pair-{i}" for i in range(2000)]
    anna, ben = ([shown_order(store.salt, rater, id) for id in ids] for rater in ("anna", "ben"))
    assert anna == [shown_order(store.salt, "anna", id) for id in ids]
    assert 900 < anna.count("ab") < 1100  # 4.5 standard deviations
    assert 900 < sum(x == y for x, y in zip(anna, ben, strict=True)) < 1100


def test_the_page_is_not_told_which_is_a(anna):
    item = anna.post("/next").json()["item"]
    assert set(item) == {"pair_id", "messages", "principle", "responses"}


def test_undo_and_double_sending(store, anna):
    first = anna.post("/next").json()["item"]["pair_id"]
    answers = [anna.label(1, first, note="so") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(store.labels()) == 1 and store.labels()[0].note == "so"
    assert anna.label(2, first).status_code == 409
    tally = answers[0].json()["tally"]
    back = anna.post("/undo", id=tally["my_last_id"]).json()
    assert back["item"]["pair_id"] == first and back["tally"]["mine"] == 0


def test_strangers_get_nothing(store, anna):
    stranger = testclient.TestClient(anna.http.app, base_url=ORIGIN)
    for path in ("/", "/?token=wrong", "/?token=%00%ff", "/session", "/agreement"):
        answer = stranger.get(path)
        assert answer.status_code == 403 and "question" not in answer.text, path
    for path in ("/join", "/next", "/label", "/undo"):
        forged = stranger.post(path, json={}, headers={"Origin": ORIGIN, "X-CSRF-Token": anna.csrf})
        assert forged.status_code == 403, path
    assert not stranger.cookies


def test_the_token_becomes_a_strict_cookie(anna):
    header = testclient.TestClient(anna.http.app, base_url=ORIGIN).get(f"/?token={TOKEN}").headers["set-cookie"]
    assert "HttpOnly" in header and "samesite=strict" in header.lower()
    assert "Domain" not in header
    assert anna.http.get("/").status_code == 200  # no token in the address any more


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil@127.0.0.1", "", "[::1", "10.0.0.1:8017"]
)
def test_foreign_hosts(anna, host):
    for path in ("/", "/rate.js", "/session"):
        assert anna.http.get(path, headers={"Host": host}).status_code == 421


def test_other_addresses_where_it_listens_to_all():
    open_to_all = Guard(TOKEN, "0.0.0.0")
    assert open_to_all.refuse_host({"host": "192.168.1.7:8017"}) is None
    assert open_to_all.refuse_host({"host": "evil.example"}) is not None
    assert is_loopback("127.0.0.2") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("evil.example")


@pytest.mark.parametrize(
    "change",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": ""},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_forged_posts(store, anna, change):
    pair_id = anna.post("/next").json()["item"]["pair_id"]
    body = json.dumps({"id": "0" * 32, "pair_id": pair_id, "choice": "first"})
    headers = {"Origin": ORIGIN, "X-CSRF-Token": anna.csrf, "Content-Type": "application/json"} | change
    assert anna.http.post("/label", content=body, headers=headers).status_code == 403
    assert store.labels() == []


def test_the_csrf_token_belongs_to_one_rater(store, anna):
    ben = Rater(store, "Ben")
    anna.csrf = ben.csrf
    assert anna.post("/next").status_code == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"])
def test_other_methods(anna, method):
    for path in ("/", "/session", "/rate.css"):
        assert anna.http.request(method, path).status_code == 405
    if method != "POST":
        assert anna.http.request(method, "/label").status_code == 405
    assert anna.http.get("/label").status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/../server.py", "/..%2fserver.py", "/page/rate.js", "/rate.js/../../server.py", "//etc/passwd", "/index.html"],
)
def test_no_way_to_other_files(anna, path):
    answer = anna.http.get(path)
    assert answer.status_code == 404 and b"import" not in answer.content


def test_every_answer_is_guarded(anna):
    answers = [anna.http.get(path) for path in ("/", "/rate.js", "/session", "/nothing")]
    answers += [anna.http.put("/"), anna.http.get("/", headers={"Host": "evil.example"}), anna.post("/next")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/label", "", 400),
        ("/label", "[]", 400),
        ("/label", "[" * 50_000, 400),
        ("/label", "x" * (MAX_BODY_BYTES + 1), 413),
        ("/label", '{"id": "short", "pair_id": "pair-0", "choice": "first"}', 400),
        ("/label", '{"id": "%s", "pair_id": "pair-0", "choice": "a"}' % ("0" * 32), 400),
        ("/label", '{"id": "%s", "pair_id": "pair-0", "choice": ["first"]}' % ("0" * 32), 400),
        ("/label", '{"id": "%s", "pair_id": ["pair-0"], "choice": "first"}' % ("0" * 32), 400),
        ("/label", '{"id": "%s", "pair_id": "pair-77", "choice": "first"}' % ("0" * 32), 404),
        ("/label", '{"id": "%s", "pair_id": "\\ud800\\u0000", "choice": "first"}' % ("0" * 32), 404),
        (
            "/label",
            '{{"id": "{}", "pair_id": "pair-0", "choice": "tie", "note": "{}"}}'.format("0" * 32, "x" * 4001),
            400,
        ),
        ("/undo", '{"id": ["x"]}', 404),
        ("/undo", "{}", 404),
        ("/join", '{"name": ""}', 400),
        ("/join", '{"name": 3}', 400),
        ("/join", '{"name": "a\\u202eb"}', 400),
        ("/join", '{"name": "\\ud800"}', 400),
    ],
)
def test_nonsense(store, anna, path, content, status):
    headers = {"Origin": ORIGIN, "X-CSRF-Token": anna.csrf, "Content-Type": "application/json"}
    answer = anna.http.post(path, content=content, headers=headers)
    assert answer.status_code == status and answer.json()["error"]
    assert store.labels() == []


def test_odd_names_and_notes_come_through(store):
    zoe = Rater(store, "  Zoë; Ω=1, 李 ")
    assert zoe.http.get("/session").json()["rater"] == "Zoë; Ω=1, 李"
    pair_id = zoe.post("/next").json()["item"]["pair_id"]
    body = {"id": "0" * 32, "pair_id": pair_id, "choice": "tie", "note": "half \ud800 and nul \0 <b>"}
    headers = {"Origin": ORIGIN, "X-CSRF-Token": zoe.csrf, "Content-Type": "application/json"}
    assert zoe.http.post("/label", content=json.dumps(body), headers=headers).status_code == 200
    assert store.labels()[0].note == "half ? and nul  <b>"
    assert store.labels()[0].rater == "Zoë; Ω=1, 李"


def test_a_lost_database_is_said_and_a_later_try_works(store, anna, tmp_path):
    file = tmp_path / "labels.sqlite"
    pair_id = anna.post("/next").json()["item"]["pair_id"]
    moved = tmp_path / "moved.sqlite"
    file.rename(moved)
    file.mkdir()
    assert anna.label(1, pair_id).status_code == 503
    file.rmdir()
    moved.rename(file)
    assert anna.label(1, pair_id).status_code == 200


def test_a_port_in_use_is_one_line():
    with listen("127.0.0.1", 0) as first, pytest.raises(StoreError, match="choose another --port"):
        listen("127.0.0.1", first.getsockname()[1])


def test_a_websocket_is_closed(anna):
    with pytest.raises(testclient.WebSocketDisconnect), anna.http.websocket_connect("/"):
        pass
