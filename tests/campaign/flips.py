"""A flipped bit anywhere in a finished run folder: ``charter verify`` names the file.

    python -m tests.campaign.flips [--long] [--flips N] [--seed N]

One run with local models, then one bit at a time: half of them in a file drawn evenly, half at a byte drawn evenly, the
ledger included; hidden files (lock, holder, key) are left out. Each is put back. The last line is one JSON object.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.campaign.forked import charter_run, run_forked
from tests.campaign.say import arguments, result
from tests.campaign.world import make_world

from charter.store.folder import verify
from charter.store.hashing import content_files


def draw(files: dict[str, Path], rng: random.Random) -> tuple[str, Path]:
    """A file that isn't empty."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    names = [name for name, size in sizes.items() if size]
    weights = [sizes[name] for name in names] if rng.random() < 0.5 else None
    name = rng.choices(names, weights)[0]
    return name, files[name]


def flip(path: Path, rng: random.Random) -> bytes:
    """Flip one bit; returns what was there."""
    before = path.read_bytes()
    at = rng.randrange(len(before))
    path.write_bytes(before[:at] + bytes([before[at] ^ (1 << rng.randrange(8))]) + before[at + 1 :])
    return before


def campaign(flips: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    missed: Counter[str] = Counter()
    unnamed: Counter[str] = Counter()
    where: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        ended = run_forked(charter_run(make_world(Path(place)), out), Path(place) / "log")
        assert ended.status == 0, ended.text
        false_alarms = verify(out)
        files = content_files(out)
        for _ in range(flips):
            name, path = draw(files, rng)
            before = flip(path, rng)
            found = verify(out)
            path.write_bytes(before)
            where[name.split("/")[0]] += 1
            missed[name] += not found
            unnamed[name] += bool(found) and not any(name in line for line in found)
    return {
        "campaign": "flips", "seed": seed, "flips": flips, "files": len(files), "found": flips - missed.total(),
        "not_named": unnamed.total(), "false_alarms": len(false_alarms), "at": dict(where),
        "notes": [*false_alarms, *(+missed), *(+unnamed)][:9],
        "violations": missed.total() + unnamed.total() + len(false_alarms),
    }  # fmt: skip


if __name__ == "__main__":
    args = arguments(__doc__, flips=(1000, 60))
    import transformers.models.llama.modeling_llama  # noqa: F401  the slow imports, before the forks

    import charter.audit.run
    import charter.pipeline
    import charter.report.page  # noqa: F401

    result(campaign(args.flips, args.seed))
