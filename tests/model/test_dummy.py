"""Random weights behave like trained ones where timing could tell: sizes, routing, no overflow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from isobath.config import ModelConfig
from isobath.engine.llm import BUNDLED, LLM
from isobath.engine.sampling import SamplingParams
from isobath.engine.score import score
from isobath.errors import ConfigError
from isobath.model.dummy import Dummy, dummy_model
from isobath.model.revision import read_config
from isobath.model.weights import ModelWeights
from isobath.numerics.dialect import DIALECTS, FNUZ, OCP
from isobath.ops.table import bind

CPU = torch.device("cpu")
TOKENS = 300


def made(dialect: str = "ocp", **options: int) -> tuple[ModelConfig, ModelWeights]:
    return dummy_model(
        read_config(BUNDLED),
        dialect=DIALECTS[dialect],
        device=CPU,
        ops=bind("torch"),
        part=Dummy(**options),
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_logits_of_random_weights_are_finite_and_of_order_one(dialect: str) -> None:
    """The head's rows have variance 1 / D and its input has norm 1, so a logit has variance 1; half
    and double leave room for a few hundred tokens that resemble each other."""
    config, weights = made(dialect)
    ids = torch.randint(2, config.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(1))
    logits = score(config, weights, bind("torch"), CPU, ids.tolist(), 128)
    assert bool(logits.isfinite().all())
    assert 0.5 < float(logits.std()) < 2


def test_the_router_of_random_weights_prefers_no_expert() -> None:
    """T tokens choose k of E experts: each is chosen T * k / E times, give or take 5 standard
    deviations of a Poisson count."""
    config, weights = dummy_model(
        read_config(BUNDLED), dialect=OCP, device=CPU, ops=bind("reference")
    )
    gate = next(layer.ffn for layer in weights.layers if layer.ffn.bias is not None)
    x = torch.randn(2000, config.hidden_size, generator=torch.Generator().manual_seed(1))
    scores = x @ gate.gate.float().T + gate.bias
    chosen = scores.topk(config.num_experts_per_tok).indices
    counts = torch.bincount(chosen.flatten(), minlength=config.n_routed_experts)
    mean = chosen.numel() / config.n_routed_experts
    assert bool(((counts - mean).abs() < 5 * mean**0.5).all()), counts


def test_layers_share_expert_sets_in_turn_and_only_if_asked() -> None:
    config, weights = made(expert_sets=2)
    sets = [layer.ffn.experts for layer in weights.layers]
    assert len(sets) == config.num_hidden_layers > 2
    assert all(one is sets[i % 2] for i, one in enumerate(sets))
    assert len({id(layer.attn) for layer in weights.layers}) == len(sets)
    assert len({id(layer.ffn.experts) for layer in made()[1].layers}) == len(sets)


def test_first_layers_are_those_of_the_whole_model() -> None:
    whole = read_config(BUNDLED)
    config, weights = made(layers=2)
    assert config == replace(whole, num_hidden_layers=2, compress_ratios=whole.compress_ratios[:2])
    assert [layer.ratio for layer in weights.layers] == list(whole.compress_ratios[:2])
    with pytest.raises(ConfigError, match="99 layers"):
        made(layers=99)


def test_weights_speak_the_dialect_that_was_asked_for() -> None:
    _, weights = dummy_model(
        read_config(BUNDLED), dialect=FNUZ, device=CPU, ops=bind("reference"), part=Dummy(layers=1)
    )
    assert weights.dialect == weights.layers[0].attn.wq_b.dialect == FNUZ


def test_llm_of_random_weights_generates_without_a_checkpoint() -> None:
    llm = LLM(BUNDLED, dummy=Dummy(layers=3), device="cpu")
    [done] = llm.generate([[5, 6, 7]], SamplingParams(max_tokens=4, ignore_eos=True))
    assert llm.config.num_hidden_layers == 3 and len(done.token_ids) == 4
