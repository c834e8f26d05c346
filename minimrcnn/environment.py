"""What a figure was measured on: versions, machine, what kernels are compiled for. For results and benchmarks."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "pillow")
CPUINFO = Path("/proc/cpuinfo")  # Linux's


def describe_environment() -> dict:
    """Versions, machine, threads and BLAS libraries, in a form that JSON can hold.

    Returns
    -------
    dict
        ``versions`` by name; ``machine`` with ``system``, ``processor`` and ``cores``; ``threads`` of the kernels and
        ``target``, the processor they are compiled for, with the bytes of a row of a tile (`kernels.product`);
        ``blas``, a record for each library, whose ``kernels`` is the processor family it chose its code for.
    """
    import llvmlite.binding
    import numba
    from threadpoolctl import threadpool_info

    import minimrcnn
    from minimrcnn.kernels.product import VECTOR, WIDE

    versions = {"minimrcnn": minimrcnn.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # installed by other means
            versions[package] = "unknown"
    blas = [
        {
            "library": Path(library["filepath"]).name,
            "version": library.get("version"),
            "kernels": library.get("architecture"),
            "threads": library["num_threads"],
        }
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]
    machine = {"system": platform.platform(), "processor": processor_name(), "cores": os.cpu_count()}
    target = f"{numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()}, {WIDE * VECTOR} bytes"
    return {
        "versions": versions,
        "machine": machine,
        "threads": numba.get_num_threads(),
        "target": target,
        "blas": blas,
    }


def processor_name() -> str:
    """The processor's name in the words of its maker; where the system tells none, as on ARM, in the compiler's words
    (``apple-m1``, ``cortex-a76``); its family if that is all there is."""
    import llvmlite.binding

    try:
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    name = llvmlite.binding.get_host_cpu_name()
    return platform.machine() if name == "generic" else name


def peak_memory_mib() -> float | None:
    """The most memory this process has held so far, in MiB; None on Windows, which does not tell this way."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
