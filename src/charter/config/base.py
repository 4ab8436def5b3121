"""What every section of the run file is made of, and how models and prompts are named."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Source = Annotated[str, Field(min_length=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
SERVERS = ("http://", "https://")
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
KEYS_BEGIN = ("hf_", "sk-", "sk_")


class Section(BaseModel):
    """A part of the run file: frozen, typed, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    later: ClassVar[frozenset[str]] = frozenset()
    """Settings that came after the first release: at their default they are no part of what identifies a run."""
    knobs: ClassVar[frozenset[str]] = frozenset()
    """Settings that trade memory for time and change no result by more than rounding: a run may be resumed with others."""

    def settings(self) -> dict[str, Any]:
        """What identifies the section, as JSON, so that a setting that came later leaves runs that don't use it alone."""
        unused = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].get_default()}
        return self.model_dump(mode="json", exclude=unused | self.knobs)


class PromptsConfig(Section):
    source: Source
    """File, folder, or package.module:function that yields prompts."""
    format: Literal["auto", "jsonl", "csv", "hh-rlhf", "trl", "parquet", "sharegpt", "oasst", "ultrafeedback"] = "auto"
    column: str | None = None
    """CSV column that holds the prompt."""
    limit: Count | None = None
    """Use the first so many, in an order drawn by the seed."""


def _name_of_variable(value: Any) -> Any:
    """Whoever puts the key itself here must not find it in a message, a file or a run folder: the value is not echoed."""
    looks_like_a_key = isinstance(value, str) and (value.startswith(KEYS_BEGIN) or len(value) > 64)
    if not isinstance(value, str) or looks_like_a_key or not re.fullmatch(VARIABLE, value):
        raise ValueError(
            "key_env is the NAME of an environment variable, as OPENAI_API_KEY, never the key: put the key into the "
            "environment, and if it stands in this file, take it out and make a new one"
        )
    return value


class EndpointConfig(Section):
    """How an OpenAI-compatible server is asked."""

    key_env: Annotated[str, BeforeValidator(_name_of_variable), Field(pattern=VARIABLE, max_length=64)] = (
        "OPENAI_API_KEY"
    )
    """Environment variable that holds the key; the key itself stands in no file."""
    concurrency: Count = 16
    """Calls at once, at most; fewer while the server is overloaded (503), and slower once it refuses calls for their rate (429)."""
    attempt_seconds: Annotated[float, Field(gt=0)] = 60.0
    deadline_seconds: Annotated[float, Field(gt=0)] = 180.0
    """Seconds that one item may take, all its attempts together; then it is an abstention."""
    dead_seconds: Annotated[float, Field(gt=0)] = 900.0
    """Seconds to wait for a server that answers nobody, before the run stops."""
    top_logprobs: Annotated[int, Field(ge=2, le=20)] = 20
    continues_answers: bool = False
    """The server goes on with an answer that is begun (continue_final_message, as vLLM does)."""
    price: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    """Money per million prompt tokens and per million completion tokens."""
    max_spend: Annotated[float, Field(gt=0)] | None = None
    """Stop when so much money is spent, by the price; overshot by at most ``concurrency`` calls, those under way."""
    max_tokens: Count | None = None
    """Stop when so many tokens are used."""

    @model_validator(mode="after")
    def _a_cap_on_money_needs_a_price(self) -> EndpointConfig:
        if self.max_spend is not None and self.price is None:
            raise ValueError(
                "max_spend without price: say what a million prompt and completion tokens cost, as [0.5, 1.5]"
            )
        return self


class ModelConfig(Section):
    source: Source
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on a GPU that has it, float32 elsewhere."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    endpoint: EndpointConfig | None = None
    """How to ask a source that is a server."""

    @model_validator(mode="after")
    def _no_password(self) -> ModelConfig:
        """The run file is copied into the run folder: a secret must not get that far."""
        if self.source.startswith(SERVERS) and "@" in self.source.partition("#")[0]:
            raise ValueError("no user or password in the address of a server: keys come from the environment")
        return self

    @model_validator(mode="after")
    def _server_and_endpoint_go_together(self) -> ModelConfig:
        base, _, name = self.source.partition("#")
        if self.source.startswith(SERVERS) and not name:
            raise ValueError(f"{base}: no model named: write the server's model after a #, as http://host:8000/v1#name")
        if self.endpoint is not None and not self.source.startswith(SERVERS):
            raise ValueError(
                f"endpoint is set and source {self.source!r} is no server: write it as http://host:8000/v1#name, or leave "
                "endpoint out"
            )
        return self


class SamplingConfig(Section):
    max_new_tokens: Count = 256
    temperature: Annotated[float, Field(ge=0)] = 1.0
    batch_size: Count = 128
    """Rows that are generated together; also the unit of resuming."""
