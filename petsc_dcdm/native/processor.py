"""What the operating system says of this machine's processor."""

from __future__ import annotations

from pathlib import Path


def processor_facts() -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor that it lists, by name ("flags", "model name"); empty where there
    is no such file.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            facts.setdefault(name.strip(), value.strip())
    return facts


def processor_features() -> frozenset[str]:
    """What that processor can do, in the kernel's words, and on x86-64 who made it; empty where it is not told."""
    facts = processor_facts()
    told = (facts.get(name, "") for name in ("vendor_id", "flags", "Features"))
    return frozenset(" ".join(told).split())
