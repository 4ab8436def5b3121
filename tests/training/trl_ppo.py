"""One whole PPO step by TRL 1.12 and by us, on the same random rollouts; run in a process of its own by test_trl_ppo.py.

Prints JSON: for each of two updates how far the gradients are apart, of their length, and the shares that were clipped. Between the
updates the weights of all models are moved alike, far enough that ratios and values are clipped. All responses are of full
length: where one ends sooner, TRL pays its reward one token later, at the padding.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":  # a script has no tests package around it
    sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from datasets import Dataset
from tests.training.test_grpo import OneStep
from tests.training.test_ppo import make_value_model
from tests.training.tiny import END, VOCAB, make_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from charter.config import PolicyConfig
from charter.training.ppo import ActorCriticUpdate
from charter.training.reward import score
from charter.training.rollout import Rollout

SIZE, LENGTH, UPDATES = 8, 7, 2
OURS = PolicyConfig(
    algorithm="ppo", group_size=2, updates_per_rollout=UPDATES, kl_coef=0.3, gamma=0.97, gae_lambda=0.9, value_coef=0.4,
    value_clip=0.2, clip=0.2,
)  # fmt: skip


def rollouts_of(old):
    """Random responses of full length to random prompts, two to each, with the log-probabilities of another policy."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for place in range(SIZE):
        if place % 2 == 0:
            prompt = torch.randint(2, VOCAB, (3 + place % 5,), generator=generator).tolist()
        response = torch.randint(2, VOCAB, (LENGTH,), generator=generator).tolist()
        with torch.no_grad():
            logits = old(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0].tolist()
        found.append((Rollout(f"p{place // 2}", prompt, response, False, logprobs), logits))
    return [rollout for rollout, _ in found], torch.stack([logits for _, logits in found])


def models_of():
    """Policy, reference, value model, judge."""
    return make_model(), make_model(seed=8).requires_grad_(False), make_value_model(), make_value_model(seed=3)


def move(model):
    """What an update does in both: a step towards noise that depends on the weight's name alone."""
    for name, parameter in sorted(model.named_parameters()):
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def ours(rollouts):
    policy, reference, value, judge = models_of()
    groups = [rollouts[i : i + 2] for i in range(0, SIZE, 2)]
    scored = score(judge, [g[0].prompt_ids for g in groups], [[r.response_ids for r in g] for g in groups])
    both = torch.nn.ModuleDict({"policy": policy, "value": value})
    recorder = OneStep(both, lambda model: [move(part) for part in model.values()])
    measured = ActorCriticUpdate(policy, reference, value, OURS)(recorder, rollouts, [r for g in scored for r in g])
    return recorder.seen, measured


class Recorder(torch.optim.SGD):
    """Keeps gradients and moves the models as ours are moved."""

    def __init__(self, policy, value):
        super().__init__([*policy.parameters(), *value.parameters()], lr=0.0)
        self.parts, self.seen = {"policy": policy, "value": value}, []

    @torch.no_grad()
    def step(self, closure=None):
        self.seen.append({
            f"{part}.{name}": p.grad.clone() for part, model in self.parts.items() for name, p in model.named_parameters()
            if p.grad is not None
        })  # fmt: skip
        for model in self.parts.values():
            move(model)


def theirs(rollouts, logits, folder):
    policy, reference, value, judge = models_of()
    optimizer = Recorder(policy, value)
    words = Tokenizer(models.WordLevel({str(i): i for i in range(VOCAB)}, unk_token="0"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="0", eos_token=str(END), unk_token="0", padding_side="left"
    )
    prompts, losses = [rollout.prompt_ids for rollout in rollouts], []

    def our_rollouts(model, queries, *_):
        order = [prompts.index([int(i) for i in row if i]) for row in queries]
        twice = [place + order[:at].count(place) for at, place in enumerate(order)]  # two responses to each prompt
        told = torch.tensor([rollouts[i].response_ids for i in twice])
        return torch.cat([queries, told], 1), logits[twice].clone()

    ppo_trainer.batch_generation = our_rollouts
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=str(folder), report_to="none", use_cpu=True, bf16=False, save_strategy="no", logging_steps=1,
            per_device_train_batch_size=SIZE, num_mini_batches=1, num_ppo_epochs=UPDATES, total_episodes=SIZE,
            response_length=LENGTH, temperature=1.0, kl_coef=OURS.kl_coef, gamma=OURS.gamma, lam=OURS.gae_lambda,
            cliprange=OURS.clip, cliprange_value=OURS.value_clip, vf_coef=OURS.value_coef, whiten_rewards=False,
            local_rollout_forward_batch_size=SIZE, num_sample_generations=0, gradient_accumulation_steps=1,
        ),
        processing_class=tokenizer, model=policy, ref_model=reference, reward_model=judge, value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
    )  # fmt: skip
    trainer.log = lambda metrics, *_: losses.append(metrics)
    trainer.train()
    return optimizer.seen, losses[0]


def distance(found, expected):
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    apart = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (apart / sum(float(value.square().sum()) for value in expected.values())) ** 0.5


def main(folder):
    rollouts, logits = rollouts_of(make_model(seed=5))
    seen, measured = ours(rollouts)
    told, logged = theirs(rollouts, logits, folder)
    parts = ("policy.", "value.")
    apart = [
        {
            part: distance(*({n: g for n, g in side.items() if n.startswith(part)} for side in pair))
            for part in parts
        }
        for pair in zip(seen, told, strict=True)
    ]  # fmt: skip
    clip = {"ours": measured["clip_fraction"], "theirs": logged["policy/clipfrac_avg"]}
    print(json.dumps({"apart": apart, "clipped": clip, "values_clipped": logged["val/clipfrac_avg"]}))


if __name__ == "__main__":
    main(sys.argv[1])
