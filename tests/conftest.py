from __future__ import annotations

import functools
import gc
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

# Before anything imports torch, faiss or transformers: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Threads that wait for each other sleep: what has the other core is another process of tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from hypothesis import HealthCheck, settings

# Property tests draw the same examples for everybody, however fast the machine; `make test-properties` draws afresh,
# and more: what was drawn a hundred times yesterday says little today.
EVERYWHERE = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, max_examples=40, **EVERYWHERE)
settings.register_profile("fresh", print_blob=True, **EVERYWHERE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def examples(count: int) -> int:
    """As many examples for `make test-properties`, and a third of them every day, where they are always the same."""
    return count if os.environ.get("HYPOTHESIS_PROFILE") == "fresh" else count // 3


QUIET_TRAINING = {
    "report_to": [],
    "save_strategy": "no",
    "logging_steps": 1,
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}
"""What every trainer here is told."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = ["the sum of two and three is five", "write a function that sorts a list", "Zoë asked: why? 你好"]


def byte_tokenizer(specials, **named):
    """A byte-level tokenizer: any text, any language, a few hundred tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def save_tiny_llama(folder: Path, *, seed: int = 0) -> Path:
    """A random Llama of two layers, with a tokenizer and a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(
        ["<pad>", "</s>", "<|user|>", "<|assistant|>"], pad_token="<pad>", eos_token="</s>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rotated_head(linear, *, seed: int = 0, bend: float = 0.0):
    """The same output layer as a pruning tool may leave it: a matrix between a rotation and an order, no ``weight``.

    With ``bend`` it is no linear map.
    """
    import torch

    class Rotated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            made = torch.Generator().manual_seed(seed)
            tokens, width = linear.weight.shape
            turn = torch.linalg.qr(torch.randn(width, width, generator=made, dtype=torch.float64))[0]
            order = torch.randperm(tokens, generator=made)
            bias = linear.bias is not None
            self.inner = torch.nn.Linear(width, tokens, bias=bias, dtype=linear.weight.dtype)
            with torch.no_grad():
                self.inner.weight.copy_((linear.weight.double() @ turn)[order])
                if bias:
                    self.inner.bias.copy_(linear.bias[order])
            self.register_buffer("turn", turn.to(linear.weight.dtype))
            self.register_buffer("back", torch.argsort(order))

        def forward(self, states):
            return self.inner((states + bend * states.square()) @ self.turn)[..., self.back]

    return Rotated()


def go_on_beside_the_output(model) -> None:
    """Let the first layer leave its input where the last one adds it: no output of a layer tells of it."""

    class Leaving(type(model.model.layers[0])):
        def forward(self, hidden_states, *given, **named):
            self.left.value = hidden_states
            return super().forward(hidden_states, *given, **named)

    class Adding(type(model.model.layers[0])):
        def forward(self, hidden_states, *given, **named):
            if hidden_states.shape == self.left.value.shape:
                hidden_states = hidden_states + self.left.value.detach().clone()
            return super().forward(hidden_states, *given, **named)

    left = SimpleNamespace(value=None)
    model.model.layers[0].__class__, model.model.layers[-1].__class__ = Leaving, Adding
    for layer in model.model.layers:
        object.__setattr__(layer, "left", left)


def save_tiny_sentence_transformer(folder: Path, *, positions: int = 96, seed: int = 0) -> Path:
    """A random BERT of two layers with mean pooling and normalisation, as sentence-transformers saves it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel

    try:
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    except ImportError:
        from sentence_transformers.models import Normalize, Pooling, Transformer

    tokenizer = byte_tokenizer(
        ["[PAD]", "[CLS]", "[SEP]"], pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=positions,
        initializer_range=0.3,
        pad_token_id=0,
    )
    bert = folder / "bert"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    body = Transformer(str(bert))
    SentenceTransformer(modules=[body, Pooling(32), Normalize()], device="cpu").save(str(folder / "st"))
    return folder / "st"


def save_tiny_vit(folder: Path, *, seed: int = 0) -> Path:
    """A random ViT over 16 x 16 pixels."""
    import json

    import torch
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=16,
        patch_size=4,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    described = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 16, "width": 16},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """Of the processes that pytest-xdist runs beside each other, each has its share of the cores.

    What starts them is told nothing: they would inherit it. Two threads that wait for each other while another
    process has their core take fifty times as long.
    """
    if not getattr(config.option, "numprocesses", None):
        share = (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, min(2, share))))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the collector need not go through it again with every test, nor as often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 20)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks():
    """Nothing here cuts the power: what was written is read again without it. Programs of their own do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no open file, too
        yield


@pytest.fixture(scope="session", autouse=True)
def opened_once():
    """The bundled tokenizer, which a fresh cache opens and hashes for most of a second, and what is installed.

    Programs of their own open it anew, and other tokenizers are opened anew here too.
    """
    from datapruner import parts
    from datapruner.models.names import DEFAULT_TOKENIZER
    from datapruner.signals import tokens

    @functools.cache
    def installed(group: str, path: tuple[str, ...]) -> importlib.metadata.EntryPoints:
        return importlib.metadata.entry_points(group=group)

    load, tell, opened = tokens.load_tokenizer, tokens.tokenizer_hash, {}

    def load_once(name: str = DEFAULT_TOKENIZER, adapter: str | None = None) -> object:
        if name != DEFAULT_TOKENIZER or adapter is not None:
            return load(name, adapter)
        if not opened:
            tokenizer = load(name)
            opened.update(tokenizer=tokenizer, hash=tell(tokenizer))
        return opened["tokenizer"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "load_tokenizer", load_once)
        patch.setattr(
            tokens,
            "tokenizer_hash",
            lambda found: opened["hash"] if found is opened.get("tokenizer") else tell(found),
        )
        patch.setattr(importlib.metadata, "version", functools.cache(importlib.metadata.version))
        patch.setattr(parts, "entry_points", lambda group: installed(group, tuple(sys.path)))
        yield


@pytest.fixture(scope="session", autouse=True)
def tried_once():
    """A tokenizer that reads short texts in a child reads them in the next child too, if its files are the same."""
    from datapruner.models import sentence_models, tokenizers

    attempt, known = tokenizers.try_tokenizer, set()

    def attempt_once(what: str, load: Callable[[], object]) -> None:
        folder = Path(what.split("'")[1])
        held = {path.name: path.read_bytes() for path in folder.glob("*.j*") if path.is_file()}
        files = hash(tuple(sorted(held.items())))
        if "tokenizer.json" not in held or files not in known:
            attempt(what, load)
            known.add(files)

    with pytest.MonkeyPatch.context() as patch:
        for module in (sentence_models, tokenizers):
            patch.setattr(module, "try_tokenizer", attempt_once)
        yield


def without_progress(said: str) -> str:
    """What a run says on standard error beside the lines before it is silent."""
    lines = said.splitlines(keepends=True)
    return "".join(line for line in lines if not re.fullmatch(r"(reading|loading) .* \.\.\.\n", line))


def command(monkeypatch, *words: object) -> int:
    """Run a command line in this process; its exit code."""
    from datapruner import cli

    monkeypatch.setattr("sys.argv", ["datapruner", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


@dataclass(frozen=True)
class Ran:
    """What a command gave back."""

    code: int
    out: str
    err: str


def run_command(monkeypatch, capfd, *words: object) -> Ran:
    """Run a command line in this process: its exit code and what it said, but for the lines before it is silent.

    With ``capfd``, what libraries write past `sys.stderr` is seen too.
    """
    capfd.readouterr()
    code = command(monkeypatch, *words)
    captured = capfd.readouterr()
    assert isinstance(code, int)
    return Ran(code, captured.out, without_progress(captured.err))


@pytest.fixture
def one_thread():
    """Tensors this small gain nothing by a second thread, and wait for it where others use the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny_sentence_transformer(tmp_path_factory) -> Path:
    return save_tiny_sentence_transformer(tmp_path_factory.mktemp("sentence-transformer"))


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory) -> Path:
    return save_tiny_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("DATAPRUNER_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the public datasets are not on this machine ({folder.parent.name}/{folder.name})")
    return folder


@pytest.fixture(scope="session")
def minilm():
    """The bundled embedder, loaded once."""
    from datapruner.models import offline
    from datapruner.models.embedders import load_text_embedder

    if not offline.is_installed("minilm"):
        pytest.skip("the bundled model minilm is not installed: make install")
    return load_text_embedder("minilm")
