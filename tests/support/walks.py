"""Random walks through a structure: any allowed token may come, which no model would dare."""

from __future__ import annotations

import random

from isobath.engine.constraint import Constraint
from isobath.engine.grammar import Backend
from isobath.engine.grammar_guidance import Guidance
from isobath.engine.grammar_vocabulary import Vocabulary, vocabulary_of
from isobath.engine.grammar_xgrammar import XGrammar
from isobath.engine.llm import BUNDLED
from isobath.engine.structure import Structure
from isobath.model.text import Detokenizer, Text

TEXT = Text(BUNDLED)
VOCABULARY: Vocabulary = vocabulary_of(TEXT, TEXT.vocab_size)
BACKENDS: dict[str, Backend] = {b.name: b for b in (XGrammar(VOCABULARY), Guidance(VOCABULARY))}
_ENDS = (VOCABULARY.eos, VOCABULARY.marker)
_CLOSING = tuple(TEXT.encode_plain(c)[0] for c in ('"', "}", "]", ">", ",", "</", "<", "0"))
MOST = 300


def constraint(
    structure: Structure, backend: str = "xgrammar", *, reasoning: bool = False
) -> Constraint:
    grammar = BACKENDS[backend].compile(structure)
    return Constraint(grammar, VOCABULARY, reasoning=reasoning, calls=structure.kind == "tools")


def walk(state: Constraint, seed: int) -> list[int] | None:
    """Tokens of one completion, without its end token; None if it did not end in MOST tokens. Half
    of the steps prefer what closes something: all tokens being equal, a string would never end."""
    draw, tokens = random.Random(seed), list[int]()
    while not state.complete:
        assert not state.stuck, (state.stuck, text_of(tokens))
        allowed = state.allowed.nonzero().flatten().tolist()
        better = [[t for t in some if state.allowed[t]] for some in (_ENDS, _CLOSING)]
        preferred = better[0] or better[1]
        token = draw.choice(preferred if preferred and draw.random() < 0.5 else allowed)
        if token == VOCABULARY.eos:
            break
        tokens.append(token)
        if len(tokens) > MOST:
            return None
        state.accept(token)
    return tokens


def text_of(tokens: list[int]) -> str:
    pieces = Detokenizer(TEXT, skip_special=False)
    return "".join(map(pieces.add, tokens)) + pieces.finish()
