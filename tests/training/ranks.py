"""What several processes do together in the tests: train a tiny model by every loop, and tell what they found.

    python ranks.py FOLDER PROCESSES SHARDING LOOP,LOOP... [DIE_AT]

DIE_AT: the last process kills itself, once, after so many steps of SFT.
"""

import os
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.training.tiny import END, Tokens, draw_ids, make_model

from charter.config import DpoConfig, LoraConfig, PolicyConfig, RewardConfig, SftConfig
from charter.store.jsonl import write_json
from charter.training import distributed
from charter.training.dpo import train_dpo
from charter.training.grpo import Callbacks, EncodedPrompt, train_grpo
from charter.training.launch import RESULT, watch_parent
from charter.training.lora import adapted
from charter.training.ppo import train_ppo
from charter.training.reward import EncodedPair, reward_model_from_policy, train_reward
from charter.training.sft import train_sft

STEPS = {"learning_rate": 1e-3, "checkpoint_every": 2}
POLICY = {
    "steps": 3,
    "prompts_per_step": 3,
    "group_size": 4,
    "max_new_tokens": 6,
    "updates_per_rollout": 2,
    "tokens_per_forward": 60,
    "learning_rate": 1e-3,
}


def pairs():
    rng = random.Random(1)
    return [
        EncodedPair(draw_ids(rng, 2, 9), [*draw_ids(rng, 0, 7), END], [*draw_ids(rng, 0, 7), END], rng.random())
        for _ in range(17)
    ]


def rewards(rollouts):
    """Short responses with many different tokens are good; one in ten has no reward."""
    return [
        None if sum(r.response_ids) % 10 == 0 else len(set(r.response_ids)) - 0.5 * len(r.response_ids)
        for r in rollouts
    ]


def train(loop, folder, on_step=None):
    """Returns the rows of metrics without times, and the weights as one number per parameter."""
    rows, model = [], make_model()
    tell = lambda row: rows.append({k: v for k, v in row.items() if k != "seconds"}) or (on_step and on_step(row))  # noqa: E731
    common = {"seed": 0, "folder": folder / loop}
    prompts = [EncodedPrompt(f"p{i}", pair.prompt_ids) for i, pair in enumerate(pairs())]
    of_policy = {**common, "stop_ids": [END], "callbacks": Callbacks(on_step=tell)}
    match loop:
        case "sft":
            examples = [(pair.prompt_ids, pair.a_ids) for pair in pairs()]
            train_sft(
                model,
                examples,
                SftConfig(batch_size=8, epochs=3, tokens_per_forward=40, **STEPS),
                on_step=tell,
                **common,
            )
        case "reward":
            model = reward_model_from_policy(model, Tokens)
            train_reward(
                model,
                pairs(),
                RewardConfig(batch_size=8, epochs=2, tokens_per_forward=40, **STEPS),
                on_step=tell,
                **common,
            )
        case "dpo":
            train_dpo(model, make_model(), pairs(), DpoConfig(batch_size=8, epochs=2, **STEPS), on_step=tell, **common)
        case "grpo":
            train_grpo(model, make_model(), rewards, prompts, PolicyConfig(**POLICY), **of_policy)
        case "ppo":
            value = reward_model_from_policy(make_model(seed=3), Tokens)
            config = PolicyConfig(algorithm="ppo", **POLICY)
            train_ppo(model, make_model(), value, rewards, prompts, config, **of_policy)
        case "lora-sft":
            model = adapted(model, LoraConfig(rank=3), seed=0)
            examples = [(pair.prompt_ids, pair.a_ids) for pair in pairs()]
            train_sft(model, examples, SftConfig(batch_size=8, epochs=2, **STEPS), on_step=tell, **common)
        case "lora-reward":
            model = adapted(reward_model_from_policy(model, Tokens, shared=True), LoraConfig(rank=4), seed=0)
            train_reward(model, pairs(), RewardConfig(batch_size=8, epochs=2, **STEPS), on_step=tell, **common)
        case "lora":
            base = reward_model_from_policy(reference := make_model(), Tokens, shared=True)
            lora = LoraConfig(rank=4)
            model, value = adapted(reference, lora, seed=0), adapted(base, lora, seed=0)
            config = PolicyConfig(algorithm="ppo", lora=lora, **{**POLICY, "learning_rate": 1e-2})
            train_ppo(model, reference, value, rewards, prompts, config, **of_policy)
    return {
        "rows": rows,
        "weights": {name: float(p.detach().double().square().sum()) for name, p in model.named_parameters()},
    }


def main(folder, processes, sharding, loops, die_at=None):
    watch_parent()
    distributed.join(int(processes), sharding, 60)
    folder = Path(folder)

    def die(row):
        print("step", row["step"], flush=True)

    found = {}
    for loop in loops.split(","):
        if die_at and distributed.world().rank == int(processes) - 1:
            kill_at(folder, int(die_at))
        found[loop] = train(loop, folder, die)
    if distributed.is_main():
        write_json(folder / RESULT, found)
    distributed.end()


def kill_at(folder, step):
    """End this process, as ``kill -9`` would, when it has done so many updates; but only the first time."""
    from charter.training.optimise import Trainer

    update, marker = Trainer.update, folder / "died"

    def update_or_die(self, loss):
        if self.step == step and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, loss)

    Trainer.update = update_or_die


if __name__ == "__main__":
    main(*sys.argv[1:])
