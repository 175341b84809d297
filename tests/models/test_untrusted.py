"""Files of models that would make a library run code, or build without end: refused before a library sees them."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import sys
import tarfile
import time

import pytest
import torch

from datapruner.errors import DataPrunerError
from datapruner.models import offline
from datapruner.models.embedders import load_text_embedder
from datapruner.models.loading import load_causal_lm
from datapruner.models.names import resolve_model
from datapruner.models.tokenizers import load_tokenizer
from datapruner.models.untrusted import check_files, check_patterns, check_pickle, try_tokenizer
from tests.conftest import byte_tokenizer

SENTENCE = "sentence_transformers.models.Transformer"


def tree(folder, files):
    for name, said in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said if isinstance(said, str) else json.dumps(said))
    return folder


def modules(**over):
    return [{"idx": 0, "name": "0", "path": "", "type": SENTENCE, **over}]


HOSTILE = {
    "a module of its own": {"modules.json": modules(type="evil.Module")},
    "a module without a package": {"modules.json": modules(type="evil")},
    "a module that only looks right": {"modules.json": modules(type="sentence_transformers_evil.Module")},
    "a module that is no text": {"modules.json": modules(type=["evil.Module"])},
    "a listing below": {
        "modules.json": modules(type="sentence_transformers.SentenceTransformer", path="in"),
        "in/modules.json": modules(type="evil.Module"),
    },
    "a router's types": {"modules.json": modules(), "router_config.json": {"types": {"q": "evil.Module"}}},
    "a router's old types": {"modules.json": modules(), "1/config.json": {"types": {"q": "evil.Module"}}},
    "an activation": {"modules.json": modules(), "2_Dense/config.json": {"activation_function": "evil.make"}},
    "an activation that is a command": {
        "modules.json": modules(),
        "1/config.json": {"activation_function": "transformers.utils.hub.tempfile.mkdtemp"},
    },
    "a tokenizer's class": {
        "modules.json": modules(),
        "0/wordembedding_config.json": {"tokenizer_class": "evil.T"},
    },
    "a folder above": {"modules.json": modules(path="../elsewhere")},
    "a folder elsewhere": {"modules.json": modules(path="/tmp/elsewhere")},
    "trust in a listing": {
        "modules.json": modules(),
        "sentence_bert_config.json": {"model_args": {"trust_remote_code": True}},
    },
    "trust without a listing": {"sentence_bert_config.json": {"config_args": {"trust_remote_code": 1}}},
    "a library of an adapter": {"adapter_config.json": {"auto_mapping": {"parent_library": "evil.module"}}},
    "megatron": {"adapter_config.json": {"megatron_config": {"a": 1}, "megatron_core": "evil"}},
    "layers": {"config.json": {"model_type": "llama", "num_hidden_layers": 10**8}},
    "layers of a part": {"config.json": {"text_config": {"n_layer": 10**8}}},
    "labels": {"config.json": {"num_labels": 10**9}},
    "a vocabulary": {"config.json": {"vocab_size": 10**12}},
    "layers without end": {"config.json": '{"num_hidden_layers": Infinity}'},
    "layers of no number": {"config.json": '{"num_hidden_layers": NaN}'},
    "a rank": {"adapter_config.json": {"r": 10**9}},
    "nesting": {"config.json": "[" * 200_000},
    "layers for this version alone": {
        "config.json": {"model_type": "llama"},
        "config.4.0.0.json": {"num_hidden_layers": 10**9},
    },
    "an index of tensors that leads out": {
        "model.safetensors.index.json": {"weight_map": {"a": "../x.safetensors"}}
    },
    "a layer of the hub": {"config.json": {"_attn_implementation": "evil/kernel"}},
    "a layer of the hub for a part": {
        "config.json": {"attn_implementation": {"text": "paged|evil/kernel@1"}}
    },
    "a layer of the hub below": {"sentence_bert_config.json": {"model_args": {"attn_implementation": "e/k"}}},
    "experts of the hub": {"config.4.0.0.json": {"text_config": {"experts_implementation": "e/k"}}},
    "any layer": {"sentence_bert_config.json": {"model_args": {"allow_all_kernels": True}}},
    "pickles as they come": {"sentence_bert_config.json": {"model_args": {"weights_only": False}}},
    "a folder above, below": {"sentence_bert_config.json": {"model_args": {"subfolder": "../evil"}}},
    "a module's member": {"modules.json": modules(type="sentence_transformers_evil.os.system")},
    "a listing that begins with a mark": {"modules.json": "\ufeff" + json.dumps(modules(type="evil.Module"))},
    "a type that is named twice": {"modules.json": json.dumps(modules())[:-2] + ', "type": "evil.Module"}]'},
    "an index that leads out": {"pytorch_model.bin.index.json": {"weight_map": {"a": "../../x.bin"}}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_files_that_make_a_library_run_code_or_build_without_end_are_refused(tmp_path, kind):
    tree(tmp_path, HOSTILE[kind])
    with pytest.raises(DataPrunerError, match=r"is not loaded: its .*json") as caught:
        check_files("it", tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataPrunerError, match="is not loaded"):
        resolve_model(str(tmp_path))


def test_what_published_models_have_is_taken(tmp_path):
    for name in offline.MODELS:
        if (folder := offline.installed_folder(name)) is not None:
            check_files(name, folder)
    tree(
        tmp_path,
        {
            "modules.json": [
                *modules(),
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ],
            "2_Dense/config.json": {
                "activation_function": "torch.nn.modules.activation.Tanh",
                "in_features": 8,
            },
            "config.json": {
                "num_hidden_layers": 126,
                "vocab_size": 256_000,
                "activation_function": "gelu_new",
                "_attn_implementation": "flash_attention_2",
            },
            "model.safetensors.index.json": {"weight_map": {"a": "model-00001-of-00002.safetensors"}},
            "model-00001-of-00002.safetensors": "no pickle, and not looked at",
            "sentence_bert_config.json": {"model_args": {"weights_only": None, "trust_remote_code": False}},
            "tokenizer_config.json": {"model_max_length": 10**30, "tokenizer_class": "BertTokenizer"},
            "adapter_config.json": {
                "megatron_core": "megatron.core",
                "megatron_config": None,
                "auto_mapping": {"parent_library": "transformers.models.llama.modeling_llama"},
                "r": 256,
            },
            "other.json": {"type": "linear", "trust_remote_code": False},
        },
    )
    check_files("it", tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="FIFOs")
def test_what_is_no_file_is_refused_and_a_loop_of_folders_ends(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    check_files("it", tmp_path)
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(DataPrunerError, match="no plain file"):
        check_files("it", tmp_path)


# --- pickles ------------------------------------------------------------------------------------------------


class Runs:
    """What runs when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_all_kinds_pass(tmp_path, zipped):
    kinds = [
        torch.float32,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.int64,
        torch.uint8,
        torch.bool,
        torch.float64,
    ]
    if not zipped:
        kinds.remove(torch.float8_e4m3fn)  # which torch itself does not read back from the older kind of file
    state = {str(kind): torch.zeros(2, 3).to(kind) for kind in kinds}
    state["parameter"] = torch.nn.Parameter(torch.zeros(2))
    state |= torch.nn.Linear(3, 4).state_dict()
    file = tmp_path / "pytorch_model.bin"
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    check_files("it", tmp_path)
    assert torch.load(file, weights_only=True).keys() == state.keys()


@pytest.mark.parametrize("zipped", [True, False, None])
@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "adapter_model.bin", "1_Dense/pytorch_model.bin", "model.pt"]
)
def test_a_pickle_that_holds_more_is_refused_and_does_not_run(tmp_path, zipped, name):
    mark, file = tmp_path / "mark", tmp_path / name
    file.parent.mkdir(exist_ok=True)
    if zipped is None:
        file.write_bytes(pickle.dumps(Runs(mark), 4))
    else:
        torch.save({"a": torch.zeros(2), "b": Runs(mark)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataPrunerError, match="more than tensors"):
        check_files("it", tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "torch set_printoptions",
        "torch set_float32_matmul_precision",
        "torch float_power",
        "torch Tensor.share_memory_",
        "collections OrderedDict.fromkeys",
        "torch._utils _rebuild_tensor_v2.__globals__",
        "xtorch Size",
    ],
)
def test_a_name_that_holds_a_tensors_is_another(tmp_path, name):
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n.")
    with pytest.raises(DataPrunerError, match=f"would import '{name}', and holds more than tensors"):
        check_pickle("it", file)


def test_other_archives_are_refused(tmp_path):
    script = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(script))
    with pytest.raises(DataPrunerError, match="is not loaded"):
        check_pickle("it", script)
    with tarfile.open(tmp_path / "old.bin", "w") as archive:
        archive.add(script, "pickle")
    with pytest.raises(DataPrunerError, match="is not loaded"):
        check_pickle("it", tmp_path / "old.bin")
    (tmp_path / "model.bin").write_bytes(b"\x00not a pickle")
    with pytest.raises(DataPrunerError, match="is not loaded"):
        check_pickle("it", tmp_path / "model.bin")


@pytest.mark.parametrize(
    "index",
    ["pytorch_model.bin.index.json", "pytorch_model.bin.index.fp16.json", "model.safetensors.index.json"],
)
def test_a_shard_of_any_name_is_looked_at(tmp_path, index):
    torch.save(Runs(tmp_path / "mark"), tmp_path / "part.xyz")
    tree(tmp_path, {index: {"weight_map": {"a": "part.xyz"}}})
    with pytest.raises(DataPrunerError, match=r"part\.xyz"):
        check_files("it", tmp_path)


def test_every_loader_looks_first(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Module: pass\n")
    tree(tmp_path, {"modules.json": modules(type="evil.Module"), "config.json": {"model_type": "bert"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    for load in (load_text_embedder, load_causal_lm, load_tokenizer):
        with pytest.raises(DataPrunerError, match=r"evil\.Module"):
            load(str(tmp_path))
    assert not (tmp_path / "mark").exists()


# --- what is built and tried --------------------------------------------------------------------------------


def test_more_parameters_than_the_files_hold_are_not_made_up(tmp_path, tiny_llama):
    shutil.copytree(tiny_llama, tmp_path, dirs_exist_ok=True)
    load_causal_lm(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "num_hidden_layers": 500, "hidden_size": 8192})
    )
    with pytest.raises(DataPrunerError, match="do not hold as many"):
        load_causal_lm(str(tmp_path))


@pytest.mark.parametrize("which", ["target_modules", "exclude_modules"])
def test_an_adapters_expression_without_end_is_ended(monkeypatch, which):
    from types import SimpleNamespace

    from datapruner.guards.bounded import bounded

    monkeypatch.setattr(bounded.__wrapped__, "__defaults__", (0.3,))
    config = SimpleNamespace(**{which: r"(\w+\s?)+$"}, rank_pattern={"q_proj": 3})
    with pytest.raises(DataPrunerError, match="a regular expression of the adapter"):
        check_patterns("it", config, ["q_proj" * 10 + "."])
    check_patterns("it", SimpleNamespace(target_modules=r".*(q_proj|v_proj)$"), ["model.layers.0.q_proj"])


def slow_tokenizer(tokenizer):
    """One whose expression goes back and forth."""
    from tokenizers import Regex, pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"(a|a)*(b|c)(?:x+x+)+y|(?:\w*\w*)*!!"), "isolated"
    )
    return tokenizer


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_tokenizer_without_end_is_refused():
    tokenizer = byte_tokenizer(["</s>"], eos_token="</s>")
    start = time.monotonic()
    with pytest.raises(DataPrunerError, match="the tokenizer"):
        try_tokenizer("the tokenizer 'x'", lambda: slow_tokenizer(copy.deepcopy(tokenizer)))
    assert time.monotonic() - start < 30
    try_tokenizer("the tokenizer 'x'", lambda: tokenizer)
