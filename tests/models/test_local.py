"""A model folder behind the protocol: text in, text and log-probabilities out."""

import numpy as np
import pytest
import torch
from tests.models.tiny import bpe_tokenizer, save_tiny_model, word_tokenizer

from charter.config import ModelConfig
from charter.errors import ModelError
from charter.models.few_shot import worked_examples
from charter.models.load import load_model
from charter.models.protocol import Question
from charter.records import Message


def load(folder):
    return load_model(ModelConfig(source=str(folder), device="cpu"))


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    return load(save_tiny_model(tmp_path_factory.mktemp("chat"), "qwen3", bpe_tokenizer()))


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    return load(save_tiny_model(tmp_path_factory.mktemp("base"), "gpt2", bpe_tokenizer(None)))


def ask(text: str):
    return (Message("user", text),)


@torch.no_grad()
def next_logprobs(local, ids):
    return local.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def test_generations_are_reproducible_and_keyed_by_seed(chat_model):
    asked = [ask("open the door"), ask("how ?"), ask("open the door")]
    first = chat_model.generate(asked, seeds=[1, 2, 3], max_new_tokens=8)
    again = chat_model.generate(asked[::-1], seeds=[3, 2, 1], max_new_tokens=8)
    assert first == again[::-1]
    assert first[0].text != first[2].text
    assert [g.num_prompt_tokens for g in first] == [len(chat_model.encode_prompt(a)) for a in asked]


def test_a_prompt_that_leaves_no_room_fails_alone(chat_model):
    made = chat_model.generate([ask("how ?"), ask("bread " * 300)], seeds=[1, 2], max_new_tokens=8)
    assert [g.finish_reason for g in made][1] == "failed" and made[1].text == ""
    assert made[0].finish_reason in ("stop", "length") and made[0].num_completion_tokens > 0


def test_a_response_decodes_to_itself_and_ends(chat_model):
    ids = chat_model.encode_response("open <|im_end|> the door")
    assert ids[-1] == 2 and 2 not in ids[:-1] and 2 in chat_model.stop_ids
    assert chat_model.decode(ids) == "open <|im_end|> the door"


def test_generated_text_holds_no_control_token(chat_model):
    for made in chat_model.generate([ask("a b")] * 20, seeds=list(range(20)), max_new_tokens=30):
        assert "<|im_end|>" not in made.text and "<|endoftext|>" not in made.text


def test_choose_counts_both_spellings_of_a_label(chat_model):
    prompt = chat_model.encode_prompt(ask("A or B ?"))
    expected = next_logprobs(chat_model, prompt)
    tokens = {text: chat_model.tokenizer.encode(text, add_special_tokens=False) for text in ("A", " A", "B", " B")}
    assert all(len(ids) == 1 for ids in tokens.values())
    (choice,) = chat_model.choose([Question(ask("A or B ?"), ("A", "B"))])
    for option, logprob in zip("AB", choice.logprobs, strict=True):
        assert logprob == pytest.approx(
            float(torch.logaddexp(expected[tokens[option][0]], expected[tokens[f" {option}"][0]])), abs=1e-4
        )
    assert choice.num_prompt_tokens == len(prompt)


def test_choose_goes_on_from_a_prefill(chat_model):
    prefill = "The better reply is"
    ids = chat_model.encode_prompt(ask("which ?")) + chat_model.tokenizer.encode(prefill, add_special_tokens=False)
    expected = next_logprobs(chat_model, ids)
    tokens = [chat_model.tokenizer.encode(text, add_special_tokens=False)[0] for text in (" A", "A")]
    for written in (prefill, prefill + " "):
        (choice,) = chat_model.choose([Question(ask("which ?"), (" A", " B"), written)])
        assert choice.logprobs[0] == pytest.approx(float(expected[tokens].logsumexp(0)), abs=1e-4)


def test_choose_with_options_of_several_tokens(chat_model):
    options = ("open the door", "no")
    (choice,) = chat_model.choose([Question(ask("so ?"), options)])
    prompt = chat_model.encode_prompt(ask("so ?"))
    ids = chat_model.tokenizer.encode(options[0], add_special_tokens=False)
    with torch.no_grad():
        logprobs = chat_model.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    assert len(ids) > 1
    assert choice.logprobs[0] == pytest.approx(float(logprobs[range(len(ids)), ids].sum()), abs=1e-4)


def test_a_question_that_is_too_long_gets_no_logprobs(chat_model):
    questions = [Question(ask("bread " * 300), ("A", "B")), Question(ask("so ?"), ("A", "B"))]
    long, short = chat_model.choose(questions)
    assert long.logprobs is None and long.reason == "too_long"
    assert short == chat_model.choose(questions[1:])[0]


def test_options_that_are_the_same_tokens_are_refused(tmp_path):
    model = load(save_tiny_model(tmp_path / "m", "llama", word_tokenizer()))
    with pytest.raises(ModelError, match="can't tell the options 'X', 'Y' apart"):
        model.choose([Question(ask("so ?"), ("X", "Y"))])


def test_a_base_model_answers_after_a_space(base_model):
    prompt = base_model.encode_prompt(ask("A or B ?"))
    expected = next_logprobs(base_model, prompt)
    tokens = [base_model.tokenizer.encode(text, add_special_tokens=False)[0] for text in (" A", "A")]
    (choice,) = base_model.choose([Question(ask("A or B ?"), ("A", "B"))])
    assert not base_model.has_chat_template
    assert choice.logprobs[0] == pytest.approx(float(expected[tokens].logsumexp(0)), abs=1e-4)


def test_a_base_model_stops_before_it_speaks_for_the_user(base_model):
    ids = base_model.tokenizer.encode(" yes\n\nHuman: no", add_special_tokens=False)
    assert base_model.decode(ids) == "yes"
    assert base_model._speaks_for_the_user(base_model.tokenizer.encode(" yes\n\nHuman:", add_special_tokens=False))
    assert base_model.decode(base_model.encode_response("yes .")) == "yes ."
    made = base_model.generate([ask("how ?")], seeds=[0], max_new_tokens=8)
    assert made[0].num_completion_tokens > 0


def test_worked_examples_help_a_base_model_to_a_whole_transcript(base_model):
    examples = worked_examples()
    assert len(examples) == 18
    assert all(m.role == ("user", "assistant")[i % 2] for i, m in enumerate(examples))
    text = base_model.tokenizer.decode(base_model.encode_prompt((*examples, *ask("How ?"))))
    assert text.count("\n\nHuman:") == 10 and text.count("\n\nAssistant:") == 10


def test_a_uniform_model_gives_uniform_options(tmp_path):
    model = load(save_tiny_model(tmp_path / "m", "qwen2", bpe_tokenizer()))
    with torch.no_grad():
        model.model.get_output_embeddings().weight.zero_()
    (choice,) = model.choose([Question(ask("so ?"), ("A", "B"))])
    assert choice.logprobs == pytest.approx([np.log(2 / len(model.tokenizer))] * 2, abs=1e-4)
