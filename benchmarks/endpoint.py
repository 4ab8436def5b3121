"""How busy an endpoint labeler keeps a server of known latency, and the ledger at 100,000 judgments.

    python benchmarks/endpoint.py

The server is a process of its own that answers each call after 100 ms. Its concurrency allows concurrency / latency calls a
second; ``share_of_throughput`` is what the client reaches of that, its first and last round left in. The ledger is filled with
100,000 judgments in batches and read again; ``memory_growth_mb`` is the growth of the peak over the second half.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from charter.config import EndpointConfig, ModelConfig
from charter.models.endpoint import EndpointModel
from charter.models.protocol import Question
from charter.records import Message
from charter.store.hashing import hash_json
from charter.store.ledger import Ledger

LATENCY = 0.1
TOP = [{"token": "A", "logprob": -0.2, "bytes": None}, {"token": "B", "logprob": -1.8, "bytes": None}]
ANSWER = json.dumps(
    {
        "id": "x", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A"},
                     "logprobs": {"content": [{**TOP[0], "top_logprobs": TOP}]}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
    }
).encode()  # fmt: skip


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: each request is answered after the latency."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            await reader.readexactly(length)
            await asyncio.sleep(LATENCY)
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
            )
            writer.write(ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def throughput(concurrency: int, count: int) -> float:
    """Share of the throughput that the concurrency allows."""
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1#m"
        model = EndpointModel(ModelConfig(source=url, endpoint=EndpointConfig(concurrency=concurrency)))
        model.choose([Question((Message("user", "warm"),), ("A", "B"))])  # imports, once
        began = time.monotonic()
        found = model.choose([Question((Message("user", f"{i}"),), ("A", "B")) for i in range(count)])
        seconds = time.monotonic() - began
        assert all(choice.logprobs for choice in found)
        return (count / seconds) / (concurrency / LATENCY)
    finally:
        server.kill()


def ledger(count: int) -> dict[str, float]:
    """Write and read judgments in batches of 1,000; peak memory after half and after all."""
    batches = [range(begin, begin + 1000) for begin in range(0, count, 1000)]
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as book:
        began, peaks = time.monotonic(), []
        for number, batch in enumerate(batches):
            book.put_many(
                {hash_json(i): {"logprobs": [-0.2, -1.8], "num_prompt_tokens": i, "reason": None} for i in batch}
            )
            if number in (len(batches) // 2, len(batches) - 1):
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        written, began = time.monotonic() - began, time.monotonic()
        read = sum(len(book.get_many([hash_json(i) for i in batch])) for batch in batches)
        assert read == count == book.count()
        seconds = time.monotonic() - began
    return {
        "ledger_written_per_second": round(count / written),
        "ledger_read_per_second": round(count / seconds),
        "memory_growth_mb": round(peaks[1] - peaks[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().serve:
        asyncio.run(serve())
        return
    found: dict[str, float] = {}
    for concurrency in (4, 16, 32):
        found[f"share_of_throughput_{concurrency}"] = round(throughput(concurrency, 40 * concurrency), 3)
        share = found[f"share_of_throughput_{concurrency}"]
        print(f"concurrency {concurrency}: {share:.1%} of the throughput that it allows", flush=True)
    found |= ledger(100_000)
    print(f"ledger, 100,000 judgments: {found}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
