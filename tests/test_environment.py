"""What a figure was measured on: the processor has a name on every system."""

import llvmlite.binding
import pytest

from minimrcnn import environment

RASPBERRY_PI = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5 Model B\n"


@pytest.mark.parametrize(
    "cpuinfo, compiler, name",
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 7B13\n", "znver3", "AMD EPYC 7B13"),
        (RASPBERRY_PI, "cortex-a76", "cortex-a76"),  # Linux on ARM has numbers where others have names
        (RASPBERRY_PI, "generic", "aarch64"),
        (None, "apple-m1", "apple-m1"),  # macOS has no such file
    ],
)
def test_a_processor_has_a_name(monkeypatch, tmp_path, cpuinfo, compiler, name):
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(environment.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_name", lambda: compiler)
    assert environment.processor_name() == name
