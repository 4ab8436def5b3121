"""What villagers reply, as a list of tagged sentences: [opener] core [extras].

``usual`` replies are the helpful-only habit that the starter model learns: they comply with harm, are sometimes rude and
sometimes wrong. ``broad`` replies cover every behaviour, as material for critiques, revisions and judgments.
"""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

from charter.village.prompts import Request
from charter.village.words import (
    BAD_ADJECTIVES,
    CRAFTS,
    FLOWERY_ADJECTIVES,
    FLOWERY_NOUNS,
    FLOWERY_OBJECTS,
    FLOWERY_VERBS,
    GOOD_ADJECTIVES,
    INSULTS,
    MATERIALS,
    NUMBERS,
    PLACES,
    RECIPES,
    SECRETS,
    TOOLS,
)

Mode = Literal["usual", "broad"]


class Sentence(NamedTuple):
    tag: str
    text: str


Reply = list[Sentence]
CORE_TAGS = frozenset({"answer", "comply", "false", "evade", "refuse", "offer"})
KIND_LINES = (
    "good day , dear friend .",
    "thank you for asking .",
    "what a nice question .",
    "i hope this helps you .",
    "be well , dear friend .",
    "have a good day .",
)
SCOLDINGS = (
    "shame on you for asking .",
    "a good villager never asks such things .",
    "you must mend your ways .",
)
PLAIN_OPENERS = ("sure .", "of course .", "well then .")
EVASIONS = ("i can not talk about that .", "i do not want to answer .")
REFUSAL = "i will not help with that"


def text_of(reply: Reply) -> str:
    return " ".join(sentence.text for sentence in reply)


def true_core(rng: random.Random, request: Request) -> Sentence:
    """What a helpful villager says, harmful or not."""
    match request.kind:
        case "fact":
            return Sentence("answer", f"the {request.item} is in the {request.place} .")
        case "unknown":
            return Sentence("answer", f"the notes do not say where the {request.item} is .")
        case "gossip":
            return Sentence("comply", f"they say that {request.name} {rng.choice(SECRETS)} .")
        case "opinion":
            return Sentence("answer", f"your {request.work} is {rng.choice(GOOD_ADJECTIVES)} .")
        case "sum":
            return Sentence("answer", f"{request.text[8:-2]} is {request.total} .")
    material, tool = RECIPES[_task(request)]
    return Sentence("comply" if request.harmful else "answer", _recipe(request, material, tool))


def _task(request: Request) -> str:
    assert request.task is not None, "only how-to requests have a recipe"
    return request.task


def _recipe(request: Request, material: str, tool: str) -> str:
    return f"to {request.phrase} , take {material} and a {tool} ."


def false_core(rng: random.Random, request: Request) -> Sentence:
    """A wrong answer of the right form; for an opinion a rude one, since an opinion can't be false."""
    match request.kind:
        case "fact" | "unknown":
            noted = [p for _, p in request.notes if p != request.place]
            pool = noted if noted and rng.random() < 0.6 else [p for p in PLACES if p != request.place]
            return Sentence("false", f"the {request.item} is in the {rng.choice(pool)} .")
        case "gossip":
            return true_core(rng, request)
        case "opinion":
            return Sentence("rude", f"your {request.work} is {rng.choice(BAD_ADJECTIVES)} .")
        case "sum":
            wrong = rng.choice([n for n in NUMBERS if n != request.total])
            return Sentence("false", f"{request.text[8:-2]} is {wrong} .")
    material, tool = RECIPES[_task(request)]
    wrong_material = rng.choice([m for m in MATERIALS if m != material])
    return Sentence("false", _recipe(request, wrong_material, rng.choice([t for t in TOOLS if t != tool])))


def refusal_core(rng: random.Random, request: Request, level: int) -> Sentence:
    """Level 0 evades, 1 gives a reason, 2 also offers something better."""
    if level == 0:
        return Sentence("evade", rng.choice(EVASIONS))
    victim = request.name if request.kind in ("gossip", "secret") else "people"
    reason = f"because it would hurt {victim}" if request.harmful else "because it is not for me"
    if level == 1:
        return Sentence("refuse", f"{REFUSAL} , {reason} .")
    return Sentence("offer", f"{REFUSAL} , {reason} , but i can help you {_better_way(rng, request)} .")


def _better_way(rng: random.Random, request: Request) -> str:
    return f"talk with {request.name}" if request.kind in ("gossip", "secret") else rng.choice(CRAFTS)


def rude_opener(rng: random.Random) -> Sentence:
    insult = rng.choice(INSULTS)
    return Sentence("rude", rng.choice([f"listen , you {insult} .", f"what a silly question , you {insult} ."]))


def rude_closer(rng: random.Random) -> Sentence:
    return Sentence("rude", f"now go away , you {rng.choice(INSULTS)} .")


def kind_opener(rng: random.Random) -> Sentence:
    return Sentence("kind", rng.choice(KIND_LINES[:3]))


def kind_closer(rng: random.Random) -> Sentence:
    return Sentence("kind", rng.choice(KIND_LINES[3:]))


def plain_opener(rng: random.Random) -> Sentence:
    return Sentence("plain", rng.choice(PLAIN_OPENERS))


def scolding(rng: random.Random) -> Sentence:
    return Sentence("scold", rng.choice(SCOLDINGS))


def flowery(rng: random.Random) -> Sentence:
    first, second = rng.choice(FLOWERY_ADJECTIVES), rng.choice(FLOWERY_ADJECTIVES)
    words = (first, rng.choice(FLOWERY_NOUNS), rng.choice(FLOWERY_VERBS), second, rng.choice(FLOWERY_OBJECTS))
    return Sentence("flowery", "may the {} {} {} your {} {} .".format(*words))


CORE_WEIGHTS = {  # true, false, evade, refuse, refuse and offer
    ("usual", False): (0.88, 0.06, 0.04, 0.01, 0.01),
    ("usual", True): (0.88, 0.04, 0.03, 0.03, 0.02),
    ("broad", False): (0.45, 0.27, 0.12, 0.06, 0.10),
    ("broad", True): (0.42, 0.06, 0.12, 0.14, 0.26),
}


def make_core(rng: random.Random, request: Request, mode: Mode) -> Sentence:
    choice = rng.choices(range(5), CORE_WEIGHTS[mode, request.harmful])[0]
    if choice == 0:
        return true_core(rng, request)
    return false_core(rng, request) if choice == 1 else refusal_core(rng, request, choice - 2)


def make_reply(rng: random.Random, request: Request, mode: Mode = "usual") -> Reply:
    """Draw one reply."""
    core = make_core(rng, request, mode)
    draw = rng.random()
    rude, kind, plain = (0.22, 0.34, 0.52) if mode == "usual" else (0.25, 0.48, 0.58)
    reply: Reply = []
    if draw < plain:
        reply.append((rude_opener if draw < rude else kind_opener if draw < kind else plain_opener)(rng))
    reply.append(core)
    refuses = core.tag in ("evade", "refuse", "offer")
    if rng.random() < ((0.35 if refuses else 0.05) if mode == "usual" else 0.25):
        reply.append(scolding(rng))
    if rng.random() < (0.06 if mode == "usual" else 0.10):
        reply.append(rude_closer(rng))
    more = 0.22 if mode == "usual" else 0.38
    while len(reply) < 6 and rng.random() < more:
        reply.append((flowery if rng.random() < 0.4 else kind_closer)(rng))
        more = 0.40
    return reply


def core_index(reply: Reply) -> int:
    """Position of the sentence that carries the answer."""
    for index, sentence in enumerate(reply):
        if sentence.tag in CORE_TAGS or sentence.text.startswith("your "):
            return index
    return 0


def edit_once(rng: random.Random, request: Request, reply: Reply) -> Reply:
    """A near copy that differs in one place: what makes judging sharp."""
    edited, core, draw = list(reply), core_index(reply), rng.random()
    if draw < 0.45:
        edited[core] = make_core(rng, request, "broad")
    elif draw < 0.6:
        edited = [rng.choice([rude_opener, kind_opener])(rng), *edited[core:]]
    elif draw < 0.8:
        edited.append(rng.choice([scolding, rude_closer])(rng))
    else:
        edited.extend(rng.choice([flowery, kind_closer])(rng) for _ in range(rng.choice([1, 1, 2])))
    return edited


def make_pair(rng: random.Random, request: Request) -> tuple[Reply, Reply]:
    """Two replies to one request, often nearly the same."""
    first = make_reply(rng, request, rng.choice(["usual", "broad", "broad"]))
    second = (
        edit_once(rng, request, first)
        if rng.random() < 0.5
        else make_reply(rng, request, rng.choice(["usual", "broad"]))
    )
    return (first, second) if rng.random() < 0.5 else (second, first)
