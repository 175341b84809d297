"""Hostile models, adapters, tokenizers and templates: the tiny model with some of its files changed."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from pathlib import Path

from tests.faults.hostile_sources import Case, also, link, noise, put
from tests.faults.hostile_tables import Runs
from tests.models.test_untrusted import HOSTILE, tree

L = "prune good.jsonl --scorer perplexity --model ./m --keep 3 -q -o out --overwrite"
E = "prune good.jsonl --scorer k_center --embedder ./m --keep 3 -q -o out --overwrite"
T = "prune good.jsonl --scorer length --tokenizer ./m --keep 3 -q -o out --overwrite"
TWIN = "prune good.jsonl --scorer paser --model GOOD/llama --pruned-model ./m --embeddings E.npy --n-clusters 2 --keep 3 -q -o out --overwrite"


def copied(place: Path) -> Path:
    shutil.copytree(Path(os.environ["GOOD"]) / "llama", place / "m")
    return place / "m"


def model(*makers):
    """Copy the tiny model, and change it."""
    return also(copied, *makers)


def said(name: str, **changed: object):
    """Change fields of a JSON file of the model."""

    def make(place: Path) -> None:
        file = place / "m" / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))

    return make


def template(text: str) -> Case:
    return model(lambda place: (place / "m" / "chat_template.jinja").write_text(text)), L


def bare(kind: str) -> Case:
    return lambda place: tree(place / "m", HOSTILE[kind]), L if "layers" in kind or "trust" in kind else E


FILES: dict[str, Case] = {
    **{kind: bare(kind) for kind in HOSTILE},
    **{f"config: {key} is {str(value)[:20]}": (model(said("config.json", **{key: value})), L) for key, value in (
        ("num_hidden_layers", 10**8), ("num_hidden_layers", -1), ("hidden_size", 0), ("hidden_size", 10**7),
        ("vocab_size", 10**9), ("vocab_size", "x"), ("num_attention_heads", 0), ("max_position_embeddings", 10**12),
        ("rope_theta", "nan"), ("model_type", "evil"), ("auto_map", {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}),
        ("architectures", ["os.system"]), ("torch_dtype", "evil"), ("quantization_config", {"quant_method": "evil"}),
        ("rope_scaling", {"rope_type": "evil"}), ("hidden_act", "evil"),
    )},
    "a pickle": (model(put(pickle.dumps(Runs()), "m/pytorch_model.bin"), lambda place: (place / "m/model.safetensors").unlink()), L),
    "a pickle of the twin": (model(put(pickle.dumps(Runs()), "m/pytorch_model.bin"), lambda place: (place / "m/model.safetensors").unlink()), TWIN),
    "weights: a head of 2^60": (model(put(struct.pack("<Q", 2**60) + b"{}", "m/model.safetensors")), L),
    "weights: offsets far away": (model(put(struct.pack("<Q", 70) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,99999999999]}}'.ljust(70), "m/model.safetensors")), L),
    "weights: noise": (model(put(noise("weights"), "m/model.safetensors")), L),
    "weights: cut": (model(lambda place: os.truncate(place / "m/model.safetensors", 2000)), L),
    "weights: none": (model(lambda place: (place / "m/model.safetensors").unlink()), L),
    "weights: a device": (model(lambda place: (place / "m/model.safetensors").unlink(), link("m/model.safetensors", "/dev/zero")), L),
    "a pipe": (model(lambda place: (place / "m/config.json").unlink(), lambda place: os.mkfifo(place / "m/config.json")), L),
    "config: noise": (model(put(noise("config"), "m/config.json")), L),
    "config: a list": (model(put("[]", "m/config.json")), L),
    "a circle of folders": (model(lambda place: (place / "m/loop").symlink_to(place / "m")), L),
    "no model": (put("x", "m/notes.txt"), L),
}  # fmt: skip


def pattern(regex: str):
    return said(
        "tokenizer.json",
        pre_tokenizer={"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
    )


TOKENIZERS: dict[str, Case] = {
    "an expression without end": (model(pattern(r"(a|a)*(b|c)(?:x+x+)+y|(?:\w*\w*)*!!")), T),
    "an expression of nothing": (model(pattern("")), T),
    "an expression that is none": (model(pattern("(" * 5000)), T),
    "look-behind without end": (model(pattern(r"(?<=(?:a|b)*)x")), T),
    "replaces nothing by much": (model(said("tokenizer.json", normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "x" * 10**6})), T),
    "prepends much": (model(said("tokenizer.json", normalizer={"type": "Prepend", "prepend": "x" * 10**7})), T),
    "a map that is noise": (model(said("tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA////"})), T),
    "a template of tokens that are not there": (model(said("tokenizer.json", post_processor={"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": [], "special_tokens": {}})), T),
    "merges that are not there": (model(said("tokenizer.json", model={"type": "BPE", "vocab": {"a": 0}, "merges": ["a b", "c d"]})), T),
    "numbers beyond": (model(said("tokenizer.json", model={"type": "WordLevel", "vocab": {"a": 4294967295}, "unk_token": "a"})), T),
    "no vocabulary": (model(said("tokenizer.json", model={"type": "WordLevel", "vocab": {}, "unk_token": "x"})), T),
    "a truncation of nothing": (model(said("tokenizer.json", truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9})), T),
    "padding to 10^12": (model(said("tokenizer.json", padding={"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"})), T),
    "noise": (model(put(noise("tokenizer"), "m/tokenizer.json")), T),
    "nesting": (model(put("[" * 100_000, "m/tokenizer.json")), T),
    "code": (model(said("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}, tokenizer_class="EvilTokenizer")), T),
    "a length below zero": (model(said("tokenizer_config.json", model_max_length=-1)), T),
    "names that a terminal acts on": (model(said("tokenizer_config.json", eos_token="\x1b[2J\x07")), T),
}  # fmt: skip
TURNS = "{% for m in messages %}{{ m.content }}{% endfor %}"
TEMPLATES: dict[str, Case] = {
    "loops": template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
    "a format": template("{{ '%10000000000d' % 1 }}"),
    "a product": template("{{ 'x' * 10000000000 }}"),
    "a power": template("{{ 10 ** 10 ** 10 }}"),
    "a list": template("{{ range(99999) | list | string * 100000 }}"),
    "a macro of itself": template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
    "brackets": template("{{ " + "(" * 20_000 + ")" * 20_000 + " }}"),
    "conditions in conditions": template("{% if 1 %}" * 3000 + "{% endif %}" * 3000),
    "the insides of Python": template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "a call": template("{{ cycler.__init__.__globals__.os.system('touch evil') }}"),
    "not closed": template("{% for"),
    "says no": template("{{ raise_exception('\x1b[2Jno') }}"),
    "includes": template("{% include '/etc/passwd' %}"),
    "nothing": template(""),
    "control characters": template("\x1b[2J" + TURNS),
    "half a character": template("{{ '\\ud800' }}" + TURNS),
}
ADAPTER = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 2,
    "lora_alpha": 2,
    "target_modules": ["q_proj"],
    "base_model_name_or_path": "m",
}


def adapter(**changed: object) -> Case:
    files = {"adapter_config.json": {**ADAPTER, **changed}}
    return model(
        lambda place: tree(place / "a", files), put(noise("adapter"), "a/adapter_model.safetensors")
    ), L + " --adapter ./a"


ADAPTERS: dict[str, Case] = {
    "weights that are noise": adapter(),
    "an expression without end": adapter(target_modules=r"(\w+\s?)+$|(.*.*)*#"),
    "an expression that is none": adapter(target_modules="("),
    "a rank of 10^9": adapter(r=10**9),
    "a rank below zero": adapter(r=-1),
    "a kind that is none": adapter(peft_type="EVIL"),
    "a library": adapter(auto_mapping={"parent_library": "evil", "base_model_class": "x"}),
    "modules that are numbers": adapter(target_modules=[7, None]),
    "a prompt of 10^9": adapter(peft_type="PROMPT_TUNING", num_virtual_tokens=10**9),
    "layers that are not there": adapter(layers_to_transform=[10**9]),
}

CASES = {"models": FILES, "tokenizers": TOKENIZERS, "templates": TEMPLATES, "adapters": ADAPTERS}
