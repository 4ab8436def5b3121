"""How a run begins: its folder is made ready, and what will be done in it is said.

Results of a run before that aren't this one's are set aside at once, so that nobody takes them for current.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charter.config import ModelConfig, RunConfig
from charter.errors import CharterError, ConfigError
from charter.models.reach import check_key, unreachable
from charter.outlook import outlook, states_of_stages
from charter.stages.beforehand import unknown_to_models, warnings
from charter.stages.inputs import INPUTS_FILE, Inputs, refuse_other_constitution, remember
from charter.stages.keyed import KEY_FILE, State
from charter.stages.servers import servers_of
from charter.store.folder import RunFolder
from charter.store.jsonl import read_json
from charter.store.ledger import Ledger
from charter.store.stale import restore, set_aside, what_changed
from charter.store.whole import reopen
from charter.yaml_io import load_yaml


def servers_left(config: RunConfig, states: dict[str, State]) -> list[ModelConfig]:
    """The servers that stages which aren't done yet will ask, each once."""
    return servers_of(config, [name for name, state in states.items() if state != "done"])


def begin(config: RunConfig, inputs: Inputs, folder: RunFolder, ledger: Ledger) -> list[str]:
    """Open the folder for this run, and say what can't go as asked, what will be done, and which servers don't answer.

    Raises:
        StoreError: the folder was made with another constitution, or can't be written.
        ConfigError: there is no key for a server that will be asked.
    """
    refuse_other_constitution(folder.path, inputs.constitution)
    before, hashes_before = _settings_before(folder.path), _hashes_before(folder.path)
    reopen(folder.path)
    restored = restore(folder.path)
    states = states_of_stages(config, inputs, folder, ledger)
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
    unknown = unknown_to_models(config, inputs) if left else []
    warned = [f"warning: {line}" for line in [*warnings(config, inputs), *unset, *unknown]]
    silent = [f"warning: {line}" for server in servers if (line := unreachable(server))]
    return [*told, *warned, *outlook(config, inputs, folder, ledger, states), *silent]


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
