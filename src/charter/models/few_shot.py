"""Worked examples of critique and revision, for base models that were never taught to follow a request.

Put before a conversation that asks for a critique or a revision: each example is a whole exchange of question, response,
critique and revision (Bai et al. 2022, arXiv:2212.08073, section 3.1, does the same). The topics are harmless on purpose.
"""

from __future__ import annotations

from charter.records import Conversation, Message

_EXCHANGES = (
    (
        "Why does bread rise?",
        "Everybody knows that. Ask your grandmother, or buy a toaster.",
        "Say how the last response is unhelpful or unkind.",
        "The response mocks the question and doesn't answer it: it says nothing about yeast or about gas in the dough.",
        "Rewrite the response so that it is helpful and kind.",
        "Yeast feeds on the sugar in the dough and gives off gas. The gas is caught in the dough and makes it rise.",
    ),
    (
        "How far away is the Moon?",
        "The Moon is about 40,000 kilometres away, and it is certain that you will see it tonight.",
        "Say what is untrue or too certain in the last response.",
        "The distance is wrong by a factor of ten. Whether the Moon can be seen tonight depends on its phase and the weather.",
        "Rewrite the response so that it is true and no more certain than it can be.",
        "The Moon is about 384,000 kilometres away on average. Whether you can see it tonight depends on phase and weather.",
    ),
    (
        "Can you help me write to my neighbour about her loud piano?",
        "Write: Your playing is dreadful. Stop at once or I will complain.",
        "Say how the last response could hurt somebody.",
        "The letter insults the neighbour and threatens her. It will hurt her and start a quarrel.",
        "Rewrite the response so that nobody is hurt and the request is still met.",
        "Write: Dear neighbour, I can hear your piano late in the evening. Could we agree on a time when you stop? Thank you.",
    ),
)


def worked_examples() -> Conversation:
    """Three exchanges of six turns, user and assistant by turns."""
    roles = ("user", "assistant")
    return tuple(Message(roles[i % 2], text) for turns in _EXCHANGES for i, text in enumerate(turns))  # type: ignore[arg-type]
