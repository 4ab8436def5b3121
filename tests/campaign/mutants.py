"""Model folders with one thing wrong: each is loaded and used, or refused in one line; no traceback, no crash, no hang.

    python -m tests.campaign.mutants [--long] [--mutants N] [--seed N]

A tiny model's safetensors, config.json, tokenizer.json, tokenizer_config.json, chat template and generation_config.json are
cut, flipped, nested, emptied and given wrong shapes, types, sizes and values, NaN weights among them. Each mutant is looked at
as a run does it: its files are checked, its memory is planned from the headers, it is loaded, and it answers two questions.
The last line is one JSON object.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.forked import run_forked
from tests.campaign.say import arguments, result
from tests.e2e.conftest import make_tiny_model

SECONDS, MEBIBYTES, LETTERS = 20, 1024, 600  # of one mutant: time, memory beyond the libraries', length of its line
JUNK: list[Any] = [
    None, True, 0, -1, 1, 3, 10**9, 2**63, -(2**31), 0.5, 1e308, float("nan"), "", "x", "../../etc/passwd", "\x00\x1b[2J", "null",
    [], [1], [[]], {}, {"x": 1}, "bfloat16", [None] * 5,
]  # fmt: skip
TEMPLATES = [
    "{% for m in messages %}", "{{ messages[0]['nothing']['at all'] }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{% include '/etc/passwd' %}", "{{ 'x' * 10**9 }}", "{{ 9**9**9 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages }}{{ messages }}", "<end>", "{{ messages[5] }}",
    "{%" * 2000, "(" * 5000, "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "{{ messages[0]['content'] }}" * 2,
]  # fmt: skip
Mutate = Callable[[random.Random, Path], str]


def cut(rng: random.Random, path: Path) -> str:
    data = path.read_bytes()
    size = rng.choice((0, 1, 7, 8, 9, rng.randrange(len(data)), len(data) - 1))
    path.write_bytes(data[:size])
    return f"{path.name} cut to {size}"


def flip(rng: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return f"bits of {path.name} flipped"


def garble(rng: random.Random, path: Path) -> str:
    data = path.read_bytes()
    at = rng.randrange(len(data))
    what = rng.choice(
        (b"\x00" * 64, b"\xff" * 64, b"[" * 200_000, b'{"a":' * 200_000, b"9" * 5000, b'"' * 3, rng.randbytes(40))
    )
    path.write_bytes(data[:at] + what + data[at + rng.choice((0, 1, 64)) :])
    return f"{path.name} garbled with {what[:6]!r}"


def whole(rng: random.Random, path: Path) -> str:
    what = rng.choice(
        (
            b"",
            b"{}",
            b"[]",
            b"null",
            b"0",
            b"[" * 300_000,
            b'{"a":' * 300_000,
            b"\xef\xbb\xbf{}",
            b"\x1f\x8b\x08",
            b"NaN",
        )
    )
    path.write_bytes(what)
    return f"{path.name} is {what[:12]!r}"


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document, of long lists and objects only some."""
    inside = (
        list(value.items())[:40]
        if isinstance(value, dict)
        else list(enumerate(value))[:8]
        if isinstance(value, list)
        else []
    )
    return [here, *(place for key, below in inside for place in places(below, (*here, key)))]


def change(rng: random.Random, document: Any) -> tuple[Any, str]:
    """A document with one value changed, removed or added."""
    document = copy.deepcopy(document)
    place = rng.choice(places(document)[1:])
    *above, last = place
    holder = document
    for key in above:
        holder = holder[key]
    what = rng.choice(("junk", "junk", "junk", "gone", "twice"))
    if what == "gone":
        del holder[last]
    elif what == "twice" and isinstance(holder, list):
        holder.append(holder[last])
    else:
        what = rng.choice(JUNK)
        holder[last] = what
    return document, f"{'/'.join(map(str, place))} = {str(what)[:20]!r}"


def change_json(rng: random.Random, path: Path) -> str:
    document, what = change(rng, json.loads(path.read_text()))
    path.write_text(json.dumps(document))
    return f"{path.name}: {what}"


def parts_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(path: Path, header: Any, data: bytes, size: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + data)


def change_header(rng: random.Random, path: Path) -> str:
    header, data = parts_of(path)
    header, what = change(rng, header)
    join(path, header, data)
    return f"header: {what}"


def size_header(rng: random.Random, path: Path) -> str:
    header, data = parts_of(path)
    size = rng.choice((0, 1, 2**31, 2**60, 2**64 - 1, len(data) * 2, 100_000_001))
    join(path, header, data, size)
    return f"header of {size} bytes"


def nest_header(rng: random.Random, path: Path) -> str:
    join(path, rng.choice((b"[", b'{"a":', b'{"__metadata__":{"a":')) * 100_000, parts_of(path)[1])
    return "header nested deeply"


def reshape(rng: random.Random, path: Path) -> str:
    header, data = parts_of(path)
    name = rng.choice([key for key in header if key != "__metadata__"])
    shape = header[name]["shape"]
    header[name]["shape"] = rng.choice(
        (shape[::-1] + [1], [2**40, 2**40], [-1], [], [0], [math_product(shape)], shape + [1])
    )
    join(path, header, data)
    return f"shape of {name} = {header[name]['shape']}"


def math_product(values: list[int]) -> int:
    found = 1
    for value in values:
        found *= value
    return found


def not_finite(rng: random.Random, path: Path) -> str:
    header, data = parts_of(path)
    name = rng.choice([key for key in header if key != "__metadata__"])
    begin, end = header[name]["data_offsets"]
    at = begin + 4 * rng.randrange((end - begin) // 4)
    value = rng.choice((float("nan"), float("inf"), float("-inf")))
    join(path, header, data[:at] + struct.pack("<f", value) + data[at + 4 :])
    return f"{name} has {value}"


def another_name(rng: random.Random, path: Path) -> str:
    header, data = parts_of(path)
    name = rng.choice([key for key in header if key != "__metadata__"])
    header[rng.choice(("x", "", "../x", "\x1b[31m" + name, name + ".weight"))] = header.pop(name)
    join(path, header, data)
    return f"{name} renamed"


def index(rng: random.Random, path: Path) -> str:
    shard = rng.choice(("gone.safetensors", "../x.safetensors", "/etc/passwd", "config.json", 3, None, ["x"], "x\x00y"))
    document = rng.choice(({"weight_map": {"a": shard}}, {"weight_map": [shard]}, {"weight_map": None}, [shard], {}))
    (path.parent / "model.safetensors.index.json").write_text(json.dumps(document))
    if rng.random() < 0.5:
        path.rename(path.with_name("model-00001-of-00002.safetensors"))
    return f"index {json.dumps(document)}"


def template(rng: random.Random, path: Path) -> str:
    text = rng.choice(TEMPLATES)
    if rng.random() < 0.5:
        path.write_text(text)
        return f"template {text[:60]}"
    path.unlink()
    config = path.parent / "tokenizer_config.json"
    told = rng.choice((text, [{"name": "default", "template": text}], [{"name": 3}], 3, [text], {"default": text}))
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": told}))
    return f"template in tokenizer_config.json {str(told)[:60]}"


JSON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
WAYS: list[tuple[str, tuple[Mutate, ...]]] = [
    ("model.safetensors", (cut, flip, garble, whole, change_header, change_header, size_header, nest_header, reshape, not_finite,
                           another_name, index)),
    *((name, (cut, flip, garble, whole, *[change_json] * 6)) for name in JSON_FILES),
    ("chat_template.jinja", (cut, flip, garble, *[template] * 4)),
]  # fmt: skip


def look_at(folder: Path) -> None:
    """What a run does with a model folder."""
    from charter.config import ModelConfig
    from charter.memory import shape_of
    from charter.models.load import check_folder, fingerprint, load_model
    from charter.models.protocol import Question
    from charter.models.templates import chat_templates
    from charter.records import Message

    config = ModelConfig(source=str(folder), dtype="float32", device="cpu")
    check_folder(folder)
    fingerprint(folder)
    shape_of(config)
    chat_templates(folder)
    model = load_model(config)
    asked = (Message("user", "how do i open the door ?"),)
    model.generate([asked], seeds=[0], max_new_tokens=2)
    model.choose([Question(asked, ("A", "B"))])


def trials(original: Path, work: Path, seed: int, numbers: range) -> Callable[[Callable[[dict[str, Any]], None]], None]:
    """Mutants one after the other, each told before and after; one that kills or hangs ends the child."""

    def run(report: Callable[[dict[str, Any]], None]) -> None:
        from charter.errors import CharterError

        for number in numbers:
            rng, folder = random.Random(f"{seed} {number}"), work / f"mutant-{number}"
            shutil.copytree(original, folder)
            name, ways = rng.choice(WAYS)
            what = rng.choice(ways)(rng, folder / name)
            report({"number": number, "file": name, "what": what})
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
            signal.alarm(SECONDS)
            try:
                look_at(folder)
                end, line = "used", ""
            except CharterError as error:
                end, line = "refused", str(error)
            except Exception as error:
                end, line = "traceback", f"{type(error).__name__}: {error}"
            signal.alarm(0)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            report({"end": end, "line": line[:2000], "seconds": time.monotonic() - began, "mib": grown})
            shutil.rmtree(folder)

    return run


def campaign(mutants: int, seed: int) -> dict[str, Any]:
    ends: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    notes: list[str] = []
    slowest = largest = 0.0
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        original, number = make_tiny_model(work / "original", seed=0), 0
        while number < mutants:
            ended = run_forked(trials(original, work, seed, range(number, mutants)), work / "log")
            rows, number = ended.heard, mutants
            for begun, done in zip(rows[::2], [*rows[1::2], None], strict=False):
                told = f"{begun['number']}: {begun['what']}"
                if done is None:  # it took the child with it
                    number = begun["number"] + 1
                    what = "hung" if ended.status == -signal.SIGALRM else f"crashed ({ended.status})"
                    bad[what] += 1
                    notes.append(f"{told}: {what}")
                    continue
                ends[f"{begun['file']}: {done['end']}"] += 1
                slowest, largest = max(slowest, done["seconds"]), max(largest, done["mib"])
                for name, is_bad in {
                    "traceback": done["end"] == "traceback", "long_line": len(" ".join(done["line"].split())) > LETTERS,
                    "memory": done["mib"] > MEBIBYTES,
                }.items():  # fmt: skip
                    if is_bad:
                        bad[name] += 1
                        notes.append(f"{told}: {name}: {done['line'][:200]}")
    return {
        "campaign": "mutants", "seed": seed, "mutants": mutants, "ends": dict(sorted(ends.items())), "bad": dict(bad),
        "slowest_seconds": round(slowest, 2), "most_mib": round(largest), "notes": notes, "violations": bad.total(),
    }  # fmt: skip


if __name__ == "__main__":
    args = arguments(__doc__, mutants=(1000, 40))
    import transformers.models.llama.modeling_llama  # noqa: F401  the slow imports, before the forks
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import charter.memory
    import charter.models.load  # noqa: F401

    result(campaign(args.mutants, args.seed))
