"""A Qwen3 folder in Hugging Face format written as one GGUF file, for llama.cpp's server.

    python gguf_file.py FOLDER OUT.gguf

Run by the interpreter that has llama_cpp: it needs gguf and safetensors, and nothing of ours.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def main(folder: Path, out: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(out), "qwen3")
    _write_config(writer, config)
    _write_tokenizer(writer, folder, config)
    for name, array in load_file(folder / "model.safetensors").items():
        writer.add_tensor(_name(name), array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in OUTER:
        return f"{OUTER[stem]}.weight"
    layer, rest = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{LAYER[rest]}.weight"


def _write_config(writer: gguf.GGUFWriter, config: dict) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _write_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())
    words = {token: id for token, id in raw["model"]["vocab"].items()}
    special = {entry["content"]: entry["id"] for entry in raw["added_tokens"]}
    words |= special
    tokens, types = (
        [f"<unused {i}>" for i in range(config["vocab_size"])],
        [gguf.TokenType.UNUSED] * config["vocab_size"],
    )
    by_word = raw["model"]["type"] == "WordLevel"
    for token, id in words.items():
        tokens[id] = token if token in special or not by_word else f"\u2581{token}"
        types[id] = gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL
    writer.add_tokenizer_model("bert" if by_word else "gpt2")
    if not by_word:
        writer.add_tokenizer_pre("gpt-2")
        merges = raw["model"]["merges"]
        writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    if by_word:
        unknown = raw["model"]["unk_token"]
        for add in (
            writer.add_unk_token_id,
            writer.add_sep_token_id,
            writer.add_bos_token_id,
            writer.add_mask_token_id,
        ):
            add(words[unknown])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    template = folder / "chat_template.jinja"
    writer.add_chat_template(template.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
