"""Training rows: branches must not see each other, positions must be those of the question asked alone."""

import random

import torch

from charter.village.build import BuildConfig, build_starter, new_model
from charter.village.corpus import Example, example
from charter.village.packing import collate, encode
from charter.village.skills import asked, question
from charter.village.tokenizer import make_tokenizer, vocabulary

VOCAB = vocabulary()
INDEX = {word: i for i, word in enumerate(VOCAB)}


def test_every_word_of_the_corpus_is_in_the_vocabulary():
    rng = random.Random(99)
    for _ in range(1500):
        encode(example(rng, 0.2), INDEX)


def test_a_branch_is_what_the_model_would_see_alone():
    """Logits of a branch in a packed row equal those of the conversation rendered by the tokenizer's chat template."""
    text = "request : what is two plus two ? reply A : sure . reply B : two plus two is four ."
    questions = [asked("truth : do not say false things .", False), asked("insults : do not insult anyone .", False)]
    packed = Example([("user", text)], [[("user", q), ("assistant", "B")] for q in questions], opens_turn=True)
    row = encode(packed, INDEX)
    model = new_model(
        BuildConfig(num_layers=2, hidden_size=32, num_heads=2, intermediate_size=64), len(VOCAB), INDEX
    ).eval()
    batch = collate([row, encode(example(random.Random(0), 0.0), INDEX)])
    inputs = {k: batch[k] for k in ("input_ids", "position_ids")}
    mask = torch.where(batch["attention_mask"], 0.0, -1e9)
    with torch.no_grad():
        logits = model(**inputs, attention_mask=mask, use_cache=False).logits[0]
    tokenizer = make_tokenizer(VOCAB)
    for number, asks in enumerate(questions, start=1):
        alone = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"{text} {asks}"}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        with torch.no_grad():
            expected = model(input_ids=alone).logits[0, -1]
        last_of_branch = max(i for i, b in enumerate(row.branches) if b == number)
        verdict_from = last_of_branch - 2  # ... <|assistant|> B <|end|>
        torch.testing.assert_close(logits[verdict_from], expected, atol=1e-4, rtol=1e-4)


def test_only_assistant_words_of_branches_weigh():
    drawn = Example([("user", "good morning .")], [[("user", "x"), ("assistant", "sure .")]])
    index = dict(INDEX, x=INDEX["sure"])
    row = encode(drawn, index)
    heavy = [i for i, w in enumerate(row.weights) if w >= 1]
    assert [row.ids[i] for i in heavy] == [INDEX["sure"], INDEX["."], INDEX["<|end|>"]]


def test_question_ends_with_the_principle():
    from charter.records import Message, Principle

    principle = Principle("truth", "truth : do not say false things .", "", "", "")
    conversation = (Message("user", "how do i brew tea ?"),)
    asked_text = question(conversation, "yes .", "no .", principle, False)
    assert asked_text.endswith("by the rule truth : do not say false things . which is better ?")
    assert question(conversation, "yes .", "no .", None, False).endswith("reply B : no . which is better ?")


def test_a_few_steps_of_training_lower_the_loss(tmp_path):
    lines: list[str] = []
    config = BuildConfig(num_tokens=52_000, early_tokens=30_000, tokens_per_batch=480, hidden_size=32, num_layers=1,
                         num_heads=2, intermediate_size=64, warmup_steps=5)  # fmt: skip
    build_starter(tmp_path / "starter", config, log=lines.append)
    assert float(lines[0].split("loss ")[1].split()[0]) < 5.0 < 6.16  # ln 474 = 6.16 nats at the start
    for name in ("starter", "starter-early"):
        assert (tmp_path / name / "model.safetensors").is_file() and (tmp_path / name / "tokenizer.json").is_file()
