"""What a model is loaded as: its dtype, its device or devices, its quantisation."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.text import did_you_mean

if TYPE_CHECKING:
    import torch

Quantize = Literal["4bit", "8bit"]

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def default_device() -> str:
    """CUDA where there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def likely_device() -> str:
    """Guess :func:`default_device` without torch: a CUDA build of it, and a driver that counts a device."""
    try:
        if metadata.version("torch").endswith("+cpu") or sys.platform == "darwin":
            return "cpu"
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        found = (
            driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
        )
    except (OSError, AttributeError, metadata.PackageNotFoundError):
        return "cpu"
    return "cuda" if found else "cpu"


def check_options(dtype: str, device: str | None, device_map: str | None, quantize: str | None) -> None:
    """Raise where an option is unknown, or is not to be had on this machine."""
    import torch

    if dtype not in DTYPES:
        raise DataPrunerError(
            f"there is no dtype '{dtype}'; there are {', '.join(DTYPES)}.{did_you_mean(dtype, DTYPES)}"
        )
    if device is not None and device_map is not None:
        raise DataPrunerError("device and device_map exclude each other; give one of them")
    if device is not None:
        _check_device(device)
    if device_map is not None and device_map not in DEVICE_MAPS:
        raise DataPrunerError(
            f"there is no device_map '{device_map}'; there are {', '.join(DEVICE_MAPS)}, and device for one device"
        )
    if device_map is not None and importlib.util.find_spec("accelerate") is None:
        raise DataPrunerError(f"device_map needs accelerate: {how_to_install('accelerate')}, or give device")
    if quantize is None:
        return
    if quantize not in ("4bit", "8bit"):
        raise DataPrunerError(f"there is no quantize '{quantize}'; there are 4bit and 8bit")
    for library in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(library) is None:
            raise DataPrunerError(
                f"quantize='{quantize}' needs {library}: {how_to_install(library)}, or leave quantize out"
            )
    if not torch.cuda.is_available() or not (device or "cuda").startswith("cuda"):
        raise DataPrunerError(
            f"quantize='{quantize}' needs a CUDA device, and there is none"
            if device is None or device.startswith("cuda")
            else f"quantize='{quantize}' needs a CUDA device, not '{device}'"
        )


def _check_device(device: str) -> None:
    import torch

    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (found.index or 0):
            raise DataPrunerError(f"there is no device '{device}' here: there are {count} CUDA devices")
    elif found.type == "mps" and not torch.backends.mps.is_available():
        raise DataPrunerError(
            "there is no device 'mps' here: torch cannot use Apple's GPU; give device='cpu'"
        )
    elif found.type not in ("cpu", "cuda", "mps"):
        raise DataPrunerError(
            f"there is no device '{device}'; there are cpu, cuda, cuda:1 and so on, and mps"
        )


def torch_dtype(name: str, config: Any, *, on_cuda: bool) -> torch.dtype:
    """Turn a dtype's name into the dtype; ``auto`` asks the configuration."""
    import torch

    if name == "auto" and on_cuda:
        own = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
        return own if isinstance(own, torch.dtype) else torch.bfloat16
    dtype: torch.dtype = getattr(torch, "float32" if name == "auto" else name)
    return dtype


def quantization(name: str, config: Any, quantize: Quantize, dtype: str) -> Any:
    """Describe the quantisation; transformers leaves the output layer out where it is not told what to skip."""
    import torch
    from transformers import BitsAndBytesConfig

    if getattr(config, "quantization_config", None):
        raise DataPrunerError(f"the model '{name}' is quantised already; leave quantize out")
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else getattr(torch, dtype),
    )
