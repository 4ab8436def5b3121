"""What a run will do and cost, said before it begins: stages that are left, questions, tokens, money, caps, memory.

Counted by the plan without loading a model, so that all of it is an upper bound (money and tokens only where the run's
tokenizer is at hand) and time isn't known. Of a stage that was
begun, the rows that stand in its file are taken off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from charter.config import ModelConfig, RunConfig, labeler_models
from charter.errors import CharterError, ConfigError
from charter.models.endpoint import endpoint_fingerprint
from charter.models.reach import check_key, unreachable
from charter.models.vocabulary import named, unknown_in, unknown_words
from charter.pipeline import Pipeline
from charter.plan.make import TOTALS, counted_plan
from charter.progress import QuietProgress
from charter.stages.beforehand import servers_of, warnings
from charter.stages.inputs import INPUTS_FILE, Inputs, refuse_other_constitution, remember
from charter.stages.keyed import KEY_FILE, State, stage_key, state_of
from charter.store.disk import store_errors
from charter.store.folder import RunFolder
from charter.store.jsonl import read_json
from charter.store.ledger import Ledger
from charter.store.stale import restore, set_aside, what_changed
from charter.store.whole import reopen
from charter.watch import steps_done
from charter.yaml_io import load_yaml

ROWS = {
    "1-revise": "revisions.jsonl",
    "3-sample": "pairs.jsonl",
    "4-label": "judgments.jsonl",
    "7-evaluate": "responses/*.jsonl",
}
KNOWN_AFTER = "time isn't known before it is measured: charter plan does"


class Outlook(Pipeline):
    """Goes through the stages and does none."""

    def __init__(self, config: RunConfig, inputs: Inputs, folder: RunFolder, ledger: Ledger) -> None:
        super().__init__(config, inputs, folder, ledger, QuietProgress())
        self._states: dict[str, State] = {}

    def _stage(
        self, name: str, reads: dict[str, Any], work: Callable[[Path], dict[str, Any]], *, trains: bool = False
    ) -> None:
        self._keys[name] = stage_key(name, {"seed": self._config.seed, **reads})
        self._states[name] = state_of(self._folder.path / name, self._keys[name])

    def states(self) -> dict[str, State]:
        """How far each stage is, in order."""
        self._all_stages()
        return self._states


def servers_left(config: RunConfig, states: dict[str, State]) -> list[ModelConfig]:
    """The servers that stages which aren't done yet will ask, each once."""
    found = [model for name, state in states.items() if state != "done" for model in servers_of(config, name)]
    return list({model.source: model for model in found}.values())


def begin_with(config: RunConfig, inputs: Inputs, folder: RunFolder, ledger: Ledger) -> list[str]:
    """Open the folder for this run, and say what can't go as asked, what will be done, and which servers don't answer.

    Results of a run before that aren't this one's are set aside at once, so that nobody takes them for current.

    Raises:
        StoreError: the folder was made with another constitution, or can't be written.
        ConfigError: there is no key for a server that will be asked.
    """
    refuse_other_constitution(folder.path, inputs.constitution)
    before, hashes_before = _settings_before(folder.path), _hashes_before(folder.path)
    reopen(folder.path)
    restored = restore(folder.path)
    states = Outlook(config, inputs, folder, ledger).states()
    servers = servers_left(config, states)
    unset = [line for server in servers if (line := check_key(server))]
    left = [name for name, state in states.items() if state != "done"]
    stale = [name for name in left if states[name] == "to do" and (folder.path / name / KEY_FILE).is_file()]
    if left:
        set_aside(folder.path, left)
    remember(config, inputs, folder.path)
    changed = what_changed(before, config.model_dump(mode="json")) or _files_changed(hashes_before, inputs.hashes)
    anew = [name for name in stale if changed or name not in restored]
    why = changed or "what is read has changed"
    told = [f"{why}: {', '.join(anew)} {'is' if len(anew) == 1 else 'are'} done anew"] if anew else []
    unknown = _unknown(config, inputs) if left else []
    warned = [f"warning: {line}" for line in [*warnings(config, inputs), *unset, *unknown]]
    silent = [f"warning: {line}" for server in servers if (line := unreachable(server))]
    return [*told, *warned, *outlook(config, inputs, folder, ledger, states), *silent]


def _unknown(config: RunConfig, inputs: Inputs) -> list[str]:
    """Words that the models can't read: what they say about a principle with such words is nonsense."""
    source, constitution = config.model.source, inputs.constitution
    labelers = {model.source for model in labeler_models(config.label.labeler)} if "rl" in config.phases else set()
    prompts = (turn.content for prompt in (*inputs.prompts, *inputs.held_out) for turn in prompt.messages)
    found = {
        "the model doesn't know these words of the principles": unknown_in(source, constitution),
        "the labeler doesn't know these words of the principles": list(
            dict.fromkeys(
                word for labeler in sorted(labelers) for word in unknown_in(labeler, constitution, judges=True)
            )
        ),
        "the model doesn't know these words of the prompts": unknown_words(source, prompts),
    }
    return [f"{says}, and reads each as the same unknown one: {named(words)}" for says, words in found.items() if words]


def _settings_before(run: Path) -> dict[str, Any]:
    """The run file of the folder's last run; empty where there is none that can be read."""
    try:
        found = load_yaml(run / "run.yaml", ConfigError).data
    except CharterError:
        return {}
    return found if isinstance(found, dict) else {}


def _hashes_before(run: Path) -> dict[str, Any]:
    try:
        found = read_json(run / INPUTS_FILE)
    except CharterError:
        return {}
    return found if isinstance(found, dict) else {}


def _files_changed(before: dict[str, Any], now: dict[str, str | None]) -> str:
    """Which of what the run reads is another one, by its content."""
    names = [name.replace("_", " ") for name, value in now.items() if name in before and before[name] != value]
    return f"{', '.join(names)}: other content than before" if names else ""


def outlook(
    config: RunConfig, inputs: Inputs, folder: RunFolder, ledger: Ledger, states: dict[str, State] | None = None
) -> list[str]:
    """A few lines for people."""
    states = states or Outlook(config, inputs, folder, ledger).states()
    done = [name for name, state in states.items() if state == "done"]
    if len(done) == len(states):
        return [f"all {len(done)} stages are done before"]
    plan = counted_plan(config, inputs)
    left = {stage["name"]: stage for stage in plan["stages"] if stage["name"] not in done}
    begun = {name: _begun(folder.path, stage) for name, stage in left.items() if states[name] == "begun"}
    shares = {name: 1 - begun[name][0] if name in begun else 1.0 for name in left}
    to_do = [
        f"{name} ({stage['rows']:,} {stage['unit']}{f', {begun[name][1]}' if name in begun else ''})"
        for name, stage in left.items()
    ]
    answers, read, written, trained = (sum(stage[key] * shares[name] for name, stage in left.items()) for key in TOTALS)
    bound = "at most" if plan["upper_bound"] else "about"
    memory = [stage["memory_gb"] for stage in left.values()]
    return [
        *([f"done before: {', '.join(done)}"] if done else []),
        f"to do: {', '.join(to_do)}",
        f"at most {round(answers):,} answers of models; {bound} {_tokens(read)} tokens read, {_tokens(written)} written, "
        f"{_tokens(trained)} trained on; {KNOWN_AFTER}",
        *(
            f"the check of the labeler: {stage['check_calls']:,} calls (label.check)"
            for name, stage in left.items()
            if stage["check_calls"] and name not in begun
        ),
        *(_server(entry, left, shares, ledger, bound) for entry in plan["endpoints"]),
        *([] if plan["endpoints"] else ["money: none, no server is asked"]),
        "memory: not known before the models are there" if None in memory else f"memory: about {max(memory):.2g} GB",
    ]


def _begun(run: Path, stage: dict[str, Any]) -> tuple[float, str]:
    """How much of a stage is done, as a share and in words: rows that stand in its file, or steps up to its checkpoint."""
    name = stage["name"]
    if name not in ROWS:
        step, total = steps_done(run, name)
        of = f" of {total:,}" if total else ""
        return (step / total if total else 0.0), f"begun: step {step:,}{of}" if step else "begun"
    lines = 0
    for path in (run / name).glob(ROWS[name]):
        with store_errors(path), path.open("rb") as file:
            lines += sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    expected = stage["calls"] if name == "4-label" else stage["rows"]
    share = min(1.0, lines / max(1, expected))
    return share, f"begun: {share:.0%} of its rows"


def _server(entry: dict[str, Any], left: dict[str, Any], shares: dict[str, float], ledger: Ledger, bound: str) -> str:
    """What one server may cost from now on, and its caps; what it has cost so far counts towards them."""
    source = entry["source"]
    price = entry["price"]
    calls, read, written = ledger.usage(endpoint_fingerprint(source))
    asked = [(stage, shares[name]) for name, stage in left.items() if source in stage["models"]]
    if price is None:
        money = "money isn't known: the run file gives no price"
    elif None in [stage["money"] for stage, _ in asked]:
        money = "money isn't known: a server that the same stage asks has no price"
    else:
        money = f"money: {bound} {sum(stage['money'] * share for stage, share in asked):,.2f}"
    spent = f" {(read * price[0] + written * price[1]) / 1e6:,.2f}" if price else ""
    before = f"; so far{spent} for {calls:,} calls" if calls else ""
    caps = [f"{name} {entry[name]:,}" for name in ("max_spend", "max_tokens") if entry[name] is not None]
    stops = ", where it stops before the end, and goes on once they are raised" if entry["stops_before_the_end"] else ""
    return f"{source}: {money}{before}; caps: {', '.join(caps) or 'none'}{stops}"


def _tokens(count: float) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{round(count):,}"
