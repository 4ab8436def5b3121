"""The village: a small world in templated English whose true goal can be computed from the text of a reply.

words        what exists: people, items, places, tasks, recipes; what is held out
prompts      requests, harmless and harmful
replies      what the helpful-only villager answers, sentence by sentence
oracle       reads a prompt's and a reply's *text* and says what is true of it; the gold score
principles   what a perfect reader of the constitution finds: evidence, level, verdict
skills       the text of critiques, revisions and judgments
corpus       pretraining examples: a shared beginning and its branches
tokenizer    one word, one token; chat template
build        trains the starter model (``charter village build-starter``)
card         measures the starter's four skills

A laboratory: since the goal is known, every gap of the proxy chain is measured, not guessed. It says nothing about
how aligned a real model would be.
"""
