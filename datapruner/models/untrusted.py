"""What a model's files may make a library do, checked before any library reads them, whatever its version.

Names in configurations that a library imports must be its own; pickles may hold tensors and nothing else; sizes that
are built before the weights are looked at have bounds.
"""

from __future__ import annotations

import json
import os
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from datapruner.errors import DataPrunerError
from datapruner.files.cache import open_plain
from datapruner.files.paths import exists
from datapruner.guards.bounded import SECONDS, bounded, tried
from datapruner.text import safe_repr, safe_text

MOST_BYTES = 64 << 20
"""Of a configuration."""
MOST_FILES = 10_000
TOKENS = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Files of tokens, which name nothing that is imported and may be large."""
IMPORTED = frozenset({"type", "types", "activation_function", "tokenizer_class", "parent_library"})
"""Keys whose values, or the values below them, sentence-transformers or peft imports."""
SENTENCE = re.compile(r"config_sentence_transformers\.json|sentence_\w+_config\.json")
ADAPTER = "adapter_config.json"
CONFIGURATION = re.compile(r"config(?:\.[\w.-]+)?\.json|adapter_config\.json")
"""With those for one version of the library, which it prefers."""
INDEX = re.compile(r".+\.index(?:\.[\w.-]+)?\.json")
KERNELS = re.compile(r"_?(?:attn|experts)_implementation\w*")
"""Keys whose values may be code of the hub: ``org/name``."""
ASKS = {
    "trust_remote_code": True,
    "allow_all_kernels": True,
    "use_kernels": True,
    "weights_only": False,
    "disable_safe_unpickler": True,
}
"""Arguments of a loader that a configuration of sentence-transformers hands on, and what they must not be."""
OWN = ("sentence_transformers.", "torch.nn.", "transformers.", "peft.")
ACTIVATIONS = ("sentence_transformers.", "torch.nn.", "transformers.activations.")
"""What is called without arguments: much else of a library does something then."""
DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
SIZES = (
    (re.compile(r"\w*layers?|layer_replication|depths?"), 2_000),
    (re.compile(r"_?(?:num|n)_\w*(?:labels|experts|blocks|stages|heads?|groups)|r"), 100_000),
    (re.compile(r"\w*(?:_size|_dim|n_embd|d_model|d_ff)"), 1 << 27),
)
"""Keys of sizes, and the most that is taken for one."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
WEIGHTS = ("pytorch_model", "adapter_model", "model")
TENSORS = re.compile(
    r"collections OrderedDict|torch (?:\w+Storage|Size|device|Tensor)"
    r"|torch (?:[bc]?float(?:\d\w*)?|q?u?int\d*|double|half|long|short|bool)"
    r"|torch\._utils _rebuild_(?:tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|sparse_tensor|qtensor)"
    r"|torch\.nn\.parameter Parameter|torch\.storage (?:UntypedStorage|TypedStorage)"
)
"""What a pickle of tensors names."""
MOST_PARAMETERS = 4
"""For a byte of weights: two bits each is the least that is quantised to."""
HARMLESS = 1 << 28
"""Parameters that may be made up: 1 GB, until the loader refuses them."""
TEXTS = (
    "a" * 2000 + "!",
    " " * 2000,
    "\n" * 2000,
    "1" * 2000,
    "ab " * 700,
    "aA1_-é字" * 300,
    "a1" * 1000 + "\0",
)
"""What expressions that go back and forth are slow on."""
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
IMPORTS = frozenset({"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})


def check_files(name: str, folder: Path) -> None:
    """Refuse a model's, an adapter's or an embedder's folder whose files name code, hold it, or are absurd.

    Parameters
    ----------
    name : str
        For the sentence.
    folder : Path
        With the folders below, since a listing may name any of them.

    Raises
    ------
    DataPrunerError
        The sentence says which file, and what is wrong with it.
    """
    embedder = exists(folder / "modules.json")
    for path in _files(name, folder):
        place = path.relative_to(folder).as_posix()
        if path.suffix in PICKLES:
            check_pickle(name, path)
            continue
        said = _json(name, place, path)
        _check_sizes(name, place, said)
        if embedder or path.name == ADAPTER or SENTENCE.fullmatch(path.name):
            _check_imports(name, place, said)
        _check_kernels(name, place, said)
        if INDEX.fullmatch(path.name):
            _check_shards(name, place, path.parent, said)


def check_pickle(name: str, path: Path) -> None:
    """Refuse a file of ``torch.save`` that holds more than tensors; nothing of it is loaded.

    Raises
    ------
    DataPrunerError
        It names anything but tensors and their kinds, or is no such file.
    """
    try:
        with open_plain(path) as handle:
            for opcode, argument in _opcodes(handle):
                if opcode in IMPORTS and not (opcode == "GLOBAL" and TENSORS.fullmatch(str(argument))):
                    what = safe_repr(argument) if argument is not None else opcode
                    raise _refused(name, path.name, f"would import {what}, and holds more than tensors")
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        reason = safe_text(str(error), 100)
        raise _refused(
            name, path.name, f"is no file of tensors as torch.save writes it ({reason})"
        ) from error


def check_patterns(name: str, config: Any, modules: Sequence[str]) -> None:
    """Refuse an adapter whose regular expressions do not come to an end on a model's modules."""
    given = [getattr(config, key, None) for key in ("target_modules", "exclude_modules", "layers_pattern")]
    patterns = {each for each in given if isinstance(each, str)}
    patterns |= {
        rf"(.*\.)?({key})$"
        for which in ("rank_pattern", "alpha_pattern")
        for key in getattr(config, which, None) or {}
    }
    with bounded(f"a regular expression of the adapter '{safe_text(name)}'"):
        for pattern in patterns:
            with suppress(re.error):  # peft says so
                for module in modules:
                    re.match(pattern, module)


def check_weights(name: str, folder: Path, build: Callable[[], Any]) -> None:
    """Refuse a configuration that asks for more parameters than the files can hold: they would be made up at random.

    Parameters
    ----------
    name : str
        For the sentence.
    folder : Path
        One that is not here, or has no weights, is left to its loader.
    build : callable
        Makes the model of the configuration; called where tensors take no memory.
    """
    import torch

    if not folder.is_dir():
        return
    files = [
        file for file in folder.glob("*") if file.suffix in (".safetensors", *PICKLES) and file.is_file()
    ]
    size = sum(file.stat().st_size for file in files)
    with bounded(f"building the model '{safe_text(name)}'", 6 * SECONDS):
        try:
            with torch.device("meta"):
                wanted = sum(each.numel() for each in build().parameters())
        except Exception:  # loading says what is wrong
            return
    if wanted > max(HARMLESS, MOST_PARAMETERS * size) and size:
        raise DataPrunerError(
            f"'{safe_text(name)}' is not loaded: its config.json asks for {wanted:,} parameters, and its files of "
            f"{size:,} bytes do not hold as many"
        )


def try_tokenizer(what: str, load: Callable[[], Any]) -> None:
    """Refuse a tokenizer, or a chat template of it, that does not end, or breaks its library, on short texts."""

    def run() -> None:
        tokenizer = load()
        for text in TEXTS:
            tokenizer(text)
        if getattr(tokenizer, "chat_template", None):
            with suppress(Exception):  # it may refuse this conversation
                tokenizer.apply_chat_template(TALK, tokenize=False)

    tried(what, run)


def _opcodes(handle: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Give the pickle's steps: of an archive's listing, or of the five pickles of the older kind."""
    if zipfile.is_zipfile(handle):
        with zipfile.ZipFile(handle) as archive:
            names = archive.namelist()
            listings = [each for each in names if each.endswith(".pkl")]
            if len(listings) != 1 or not listings[0].endswith("data.pkl"):
                raise ValueError("an archive with a program")
            if archive.getinfo(listings[0]).file_size > MOST_BYTES:
                raise ValueError("its listing is too large")
            raw = archive.read(listings[0])
        yield from ((each.name, argument) for each, argument, _ in pickletools.genops(raw))
        return
    handle.seek(0)
    if tarfile.is_tarfile(handle):
        raise ValueError("a tar archive")
    handle.seek(0)
    for _ in range(5):
        yield from ((each.name, argument) for each, argument, _ in pickletools.genops(handle))


def _files(name: str, folder: Path) -> Iterator[Path]:
    """Give the files below a folder that a library may read; folders that are links count, and a loop of them ends."""
    entries = 0
    for place, folders, files in os.walk(folder, followlinks=True):
        entries += len(folders) + len(files)
        if entries > MOST_FILES:
            raise DataPrunerError(
                f"'{safe_text(name)}' has more than {MOST_FILES:,} files; give a model's own folder"
            )
        for each in sorted(files):
            path = Path(place, each)
            named = path.suffix == ".json" and not each.startswith(TOKENS)
            if named or (path.suffix in PICKLES and each.startswith(WEIGHTS)):
                yield path


def _json(name: str, place: str, path: Path) -> Any:
    try:
        with open_plain(path) as handle:
            raw = handle.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise _refused(name, place, f"has more than {MOST_BYTES >> 20} MB")
        return json.loads(raw)
    except OSError as error:
        raise _refused(name, place, f"cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise _refused(name, place, "is nested too deeply") from error
    except ValueError:
        return None  # no JSON: who needs it, says so


def _check_imports(name: str, place: str, value: Any, key: str = "", imported: bool = False) -> None:
    """Refuse names that are imported and are not the libraries' own, at any depth."""
    if isinstance(value, dict):
        for inner, each in value.items():
            _check_imports(name, place, each, inner, imported or inner in IMPORTED)
    elif isinstance(value, list):
        for each in value:
            _check_imports(name, place, each, key, imported)
    if key in ASKS and value is not None and bool(value) is ASKS[key]:
        raise _refused(name, place, f"asks that code be run that comes with it ({key})")
    if key == "megatron_config" and value:
        raise _refused(name, place, "has a module imported that it names (megatron_config)")
    if not isinstance(value, str):
        return
    module = place.endswith("modules.json") and key == "type"
    own = OWN[:1] if module else ACTIVATIONS if key == "activation_function" else OWN
    if (module or (imported and DOTTED.fullmatch(value))) and not value.startswith(own):
        raise _refused(name, place, f"names code that is not the library's own ({safe_repr(value)})")
    leads = value.startswith(("/", "\\", "~")) or ".." in Path(value).parts
    if leads and (key == "subfolder" or (place.endswith("modules.json") and key == "path")):
        raise _refused(name, place, f"leads out of its folder ({safe_repr(value)})")


def _check_sizes(name: str, place: str, value: Any, key: str = "") -> None:
    """Refuse counts and widths of a configuration that no model has: much is built before weights are looked at."""
    if not CONFIGURATION.fullmatch(Path(place).name):
        return
    if isinstance(value, dict):
        for inner, each in value.items():
            _check_sizes(name, place, each, inner)
    elif isinstance(value, list):
        for each in value:
            _check_sizes(name, place, each, key)
    elif isinstance(value, int | float):
        most = next((most for named, most in SIZES if named.fullmatch(key)), None)
        if most is not None and not value <= most:
            raise _refused(
                name, place, f"says {safe_text(key, 40)} = {safe_repr(value, 30)}, and {most:,} is the most"
            )


def _check_kernels(name: str, place: str, value: Any, kernel: bool = False) -> None:
    """Refuse to fetch a layer's code from the hub; transformers before 5 takes anybody's."""
    if isinstance(value, dict):
        for key, each in value.items():
            _check_kernels(name, place, each, kernel or KERNELS.fullmatch(key) is not None)
    elif isinstance(value, list):
        for each in value:
            _check_kernels(name, place, each, kernel)
    elif kernel and isinstance(value, str) and "/" in value:
        raise _refused(name, place, f"would have code fetched from the hub ({safe_repr(value)})")


def _check_shards(name: str, place: str, folder: Path, said: Any) -> None:
    """Check the files that an index names: what is not called safetensors is unpickled, whatever the index is for."""
    shards = said.get("weight_map") if isinstance(said, dict) else None
    for shard in sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []:
        if Path(shard).name != shard:
            raise _refused(name, place, f"leads out of its folder ({safe_repr(shard)})")
        if not shard.endswith(".safetensors") and (folder / shard).exists():
            check_pickle(name, folder / shard)


def _refused(name: str, place: str, what: str) -> DataPrunerError:
    return DataPrunerError(f"'{safe_text(name)}' is not loaded: its {safe_text(place)} {what}")
