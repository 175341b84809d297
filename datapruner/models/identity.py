"""What tells one model from another: everything that decides its numbers, in one hash.

Weights and configuration are not all of it. Code may mask weights in a hook, keep a mask in a buffer that is not
saved, swap an activation, which has no weights, or be corrected since; then two models with equal weights answer
differently. So the tree of modules counts, with what each of them holds and the code of those that no library
brought, and, unless a checkpoint was loaded by its library's own code, so does what the model answers to fixed tokens.

What none of this sees: what compiled code does, and code in a list or dictionary that a hook reads, in cases that the
fixed tokens do not meet (one token alone, texts longer than theirs, some hour of the day).
"""

from __future__ import annotations

import functools
import json
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from datapruner.guards.bounded import asked
from datapruner.models.sizes import input_device, vocabulary_size

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "sentence_transformers")
"""Their code is known by their versions."""
PROBE_LENGTHS = (5, 33, 130)
PADDED = (9, 4)
"""A batch of a row of 9 tokens and one of 4: masks of padding have code of their own."""
PROBE_TEXTS = (
    "Add 12.5% of 1,340 to it!\n\n  def f(x):\treturn x ** 2",
    "Zoë asked: 你好? नमस्ते, שָׁלוֹם, สวัสดี 🙂",
    "",
)
DEPTH = 6
"""How far what an object holds is followed."""
UNTOLD = frozenset({"config", "generation_config", "name_or_path", "warnings_issued", "_is_hf_initialized"})
"""Attributes of modules that are hashed elsewhere, or decide nothing."""


@contextmanager
def evaluation(model: Any) -> Iterator[None]:
    """Switch dropout off and put every module back into its mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def model_identity(model: Any, *, probe: bool = True) -> str:
    """Hash what decides a model's output.

    Weights, buffers and settings; the adapters that are not merged; the tree of modules with their hooks, plain
    attributes and code; the versions of the libraries whose code runs; and the answers to fixed tokens (*ours*).

    Parameters
    ----------
    model : PreTrainedModel
        In memory; it is left in its mode.
    probe : bool
        Ask for answers, whose last bits are those of this machine and its number of threads. Without it, two machines
        agree; that is for checkpoints that transformers' own code loaded.

    Returns
    -------
    str
    """
    # First: what a model keeps from its last pass (rotary frequencies of a long text) is then that of the probe's.
    answers = _answers(model) if probe else ""
    adapters = {
        key: {name: value for name, value in config.to_dict().items() if name != "base_model_name_or_path"}
        for key, config in (getattr(model, "peft_config", None) or {}).items()
    }
    described = json.dumps(adapters, sort_keys=True, default=_plain)
    parts = (
        weights_hash(model),
        config_hash(model.config),
        described,
        structure_hash(model),
        versions(*used(model)),
        answers,
    )
    return xxhash.xxh3_128_hexdigest("\n".join(parts).encode())


def used(model: torch.nn.Module) -> list[str]:
    """Name the libraries that a model's modules come from."""
    roots = {type(module).__module__.partition(".")[0] for module in model.modules()}
    return ["torch", *(name for name in LIBRARIES[1:] if name in roots)]


def versions(*libraries: str) -> str:
    """Give the versions of libraries, whose code decides bits too."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name.replace("_", "-"))
        except metadata.PackageNotFoundError:  # built where it stands, or not here
            return None

    return json.dumps({name: version(name) for name in sorted(set(libraries))})


def weights_hash(module: torch.nn.Module) -> str:
    """Hash a module's parameters and buffers by name, dtype, shape and bytes."""
    digest = xxhash.xxh3_128()
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def config_hash(config: Any) -> str:
    """Hash what else decides a model's output: heads, activations, rotary base, attention kernel.

    Two checkpoints may have the same tensors and other settings.
    """
    described = {
        key: value
        for key, value in config.to_dict().items()
        if key not in {"_name_or_path", "transformers_version", "architectures", "use_cache"}
    }
    described["attention"] = getattr(config, "_attn_implementation", None)
    return xxhash.xxh3_128_hexdigest(json.dumps(described, sort_keys=True, default=str).encode())


def structure_hash(model: torch.nn.Module) -> str:
    """Hash the tree of modules: names, classes, hooks, plain attributes, buffers that are not saved, foreign code."""
    import torch

    own = set(vars(torch.nn.Module())) | UNTOLD
    saved = model.state_dict().keys()
    told = _Telling()
    for name, module in model.named_modules(remove_duplicate=False):
        told.word(f"module {name}")
        told.value(type(module))
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            told.value(list(hooks.values()))
        told.value({key: value for key, value in vars(module).items() if key not in own})
    for name, buffer in model.named_buffers(remove_duplicate=False):
        if name not in saved:
            told.word(f"buffer {name}")
            told.value(buffer)
    return told.digest.hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash everything that decides how a tokenizer cuts a text, its chat template included.

    Truncation and padding are left out: they are arguments of a call that a fast tokenizer remembers. A template is
    not rendered: some say the date.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        parts = json.loads(backend.to_str())
        parts.pop("truncation", None)
        parts.pop("padding", None)
        described = json.dumps(parts, sort_keys=True)
    else:
        described = repr(sorted(tokenizer.get_vocab().items()))
    template = getattr(tokenizer, "chat_template", None)
    told = _Telling()
    told.value([value for value in vars(tokenizer).values() if isinstance(value, types.FunctionType)])
    if _origin(type(tokenizer).__module__) is None:
        told.value(type(tokenizer))
    told.value([getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos", "pad", "unk")])
    for special in (True, False):
        ids = asked(tokenizer, list(PROBE_TEXTS), add_special_tokens=special, verbose=False)["input_ids"]
        told.value([list(map(int, row)) for row in ids])
    text = f"{described}\n{template}\n{told.digest.hexdigest()}"
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


def _answers(model: Any) -> str:
    """Hash a model's logits for fixed tokens: rows of several lengths, and a padded batch."""
    import torch

    rng, digest = np.random.default_rng(0), xxhash.xxh3_128()
    size, device = vocabulary_size(model), input_device(model)
    batches: list[tuple[Any, Any]] = [(rng.integers(0, size, (1, n)), None) for n in PROBE_LENGTHS]
    mask = (np.arange(PADDED[0]) < np.array(PADDED)[:, None]).astype(np.int64)
    batches.append((rng.integers(0, size, mask.shape) * mask, mask))
    with evaluation(model), torch.inference_mode():
        for ids, padding in batches:
            given = {} if padding is None else {"attention_mask": torch.from_numpy(padding).to(device)}
            try:
                out = model(input_ids=torch.from_numpy(ids).to(device), use_cache=False, **given)
                digest.update(_bytes(out.logits))
            except Exception as error:  # what cannot be run so (a short context) is no matter of identity
                digest.update(f"{type(error).__name__} at {ids.shape}".encode())
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> Any:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _plain(value: Any) -> Any:
    """Give a set a fixed order, for JSON."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


@cache
def _origin(module: str | None) -> str | None:
    """Name an installed package and its version; None for code that is the user's own, which no version tells."""
    root = (module or "").partition(".")[0]
    held = sys.modules.get(module or "")
    if root == "__main__" or held is None:
        return None
    file = getattr(held, "__file__", None)
    installed = [sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")]
    if root not in sys.builtin_module_names and (
        file is None or not any(Path(file).is_relative_to(folder) for folder in installed)
    ):
        return None
    return f"{root} {getattr(sys.modules.get(root), '__version__', '')}"


class _Telling:
    """Hashes values by what they hold, never by where they lie: plain ones, arrays, code and what it refers to."""

    def __init__(self) -> None:
        self.digest = xxhash.xxh3_128()
        self.seen: set[int] = set()

    def word(self, text: str) -> None:
        self.digest.update(f"{len(text)} {text}\n".encode("utf-8", "surrogatepass"))

    def value(self, value: Any, depth: int = 0) -> None:
        """Tell any value, by its contents as far as these are plain."""
        import torch

        plain = bool | int | float | complex | str | bytes | Enum | range | torch.dtype | torch.device
        if value is None or isinstance(value, plain):
            self.word(f"{type(value).__name__} {value!r}")
        elif isinstance(value, torch.Tensor):
            self.word(f"tensor {value.dtype} {tuple(value.shape)}")
            self.digest.update(b"" if value.is_meta or value.is_sparse else _bytes(value))
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self.word(f"array {value.dtype} {value.shape}")
            self.digest.update(np.ascontiguousarray(value).tobytes())
        elif depth >= DEPTH or isinstance(value, torch.nn.Module | types.ModuleType):
            self.word(_name(type(value)) + getattr(value, "__name__", ""))
        elif isinstance(value, Mapping):
            self.word(f"mapping {len(value)}")
            for key in sorted(value, key=str):
                self.word(str(key))
                self.value(value[key], depth + 1)
        elif isinstance(value, set | frozenset):
            self.word(f"set {sorted(map(str, value))}")
        elif isinstance(value, list | tuple):
            self.word(f"list {len(value)}")
            for item in value:
                self.value(item, depth + 1)
        else:
            self.thing(value, depth + 1)

    def thing(self, value: Any, depth: int) -> None:
        """Tell code, and objects by their class and what they hold; each once."""
        for wrapped in ("__func__", "fget"):  # a method, a property
            if hasattr(value, wrapped):
                self.value(getattr(value, wrapped), depth)
                self.held(getattr(value, "__self__", None), depth)
                return
        named = value if isinstance(value, type | types.FunctionType) else type(value)
        origin = _origin(named.__module__)
        self.word(f"{_name(named)} {origin}")
        if id(value) in self.seen:
            return
        self.seen.add(id(value))
        if isinstance(value, types.CodeType):
            self.word(f"{value.co_code!r} {value.co_names} {value.co_varnames}")
            self.value(value.co_consts, depth)
        elif isinstance(value, types.FunctionType):
            self.function(value, depth, own=origin is None)
        elif isinstance(value, functools.partial):
            self.value([value.func, value.args, value.keywords], depth)
        elif isinstance(value, type):
            for base in (base for base in value.__mro__ if _origin(base.__module__) is None):
                self.value({key: held for key, held in vars(base).items() if not _is_of_python(key)}, depth)
        elif origin is None:
            self.value(type(value), depth)
            for key, held in sorted(getattr(value, "__dict__", {}).items()):
                self.word(key)
                self.held(held, depth)

    def function(self, value: types.FunctionType, depth: int, *, own: bool) -> None:
        """Tell a function by its code and what it reads from around it; of a library's, only what it closes over."""
        for cell in value.__closure__ or ():
            try:
                self.held(cell.cell_contents, depth)
            except ValueError:  # not filled yet
                self.word("empty")
        self.value([value.__defaults__, value.__kwdefaults__], depth)
        if own:
            self.value(value.__code__, depth)
            for name in sorted(set(_names(value.__code__)) & value.__globals__.keys()):
                self.word(name)
                self.held(value.__globals__[name], depth)

    def held(self, value: Any, depth: int) -> None:
        """Tell what code reads; not what is in lists and the like, which may be what a hook writes down."""
        if isinstance(value, Mapping | list | set):
            self.word(_name(type(value)))
        else:
            self.value(value, depth)


def _is_of_python(key: str) -> bool:
    """Whether a class's entry is Python's own note, such as the line it stands on."""
    noted = ("module", "doc", "dict", "weakref", "firstlineno", "static_attributes", "annotations")
    return key.startswith("_abc_") or key.strip("_") in noted or key.startswith("__annot")


def _names(code: types.CodeType) -> Iterable[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
