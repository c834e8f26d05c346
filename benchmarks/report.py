"""What came out of a contest, as a table: in the terminal, and in Markdown for the page."""

from __future__ import annotations

OURS, AVX2, ONE, TEXTBOOK = "minimrcnn", "minimrcnn, AVX2", "minimrcnn, 1 thread", "textbook"
EVEN = 0.15  # a difference that these measurements cannot tell from none


def median(record: dict, name: str) -> float | None:
    """A contestant's median seconds; None if it did not run."""
    return record["times"].get(name, {}).get("median")


def best_peer(record: dict) -> tuple[str, float] | None:
    """torch at its fastest: the name of the setting and its median seconds."""
    times = [(name, median(record, name)) for name in record["times"] if name.startswith("torch")]
    times = [(name, seconds) for name, seconds in times if seconds is not None]
    return min(times, key=lambda pair: pair[1]) if times else None


def ratio(record: dict, name: str = OURS) -> float | None:
    """How many times faster than torch at its fastest; below 1 is slower."""
    peer, ours = best_peer(record), median(record, name)
    return None if peer is None or ours is None else peer[1] / ours


def share_of_ceiling(record: dict, ceilings: dict, name: str = OURS) -> float | None:
    """The time that the machine's own limits allow, over the time taken.

    The limit is that of products or that of memory, whichever takes longer. Winograd's algorithm needs fewer
    multiplications than the definition, by which they are counted, and may pass 1.
    """
    limits, ours = ceilings.get(name), median(record, name)
    if not limits or ours is None or not (record.get("operations") or record.get("bytes")):
        return None
    least = max(record["operations"] / limits["gflops"], record["bytes"] / limits["gigabytes"]) / 1e9
    return least / ours


def format_seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    milliseconds = 1000 * seconds
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 2 if milliseconds >= 0.1 else 3
    return f"{milliseconds:.{digits}f}" if milliseconds < 1e6 else f"{seconds:.0f} s"


def format_spread(record: dict, name: str) -> str:
    """A median with its quartiles: ``12.3 (11.9 to 13.0)``."""
    found = record["times"].get(name, {})
    if "median" not in found:
        return "-"
    return f"{format_seconds(found['median'])} ({format_seconds(found['low'])} to {format_seconds(found['high'])})"


def make_rows(results: dict) -> list[list[str]]:
    """The table, heading first."""
    heading = ["work", "ours, ms", "AVX2", "1 thread", "torch, ms", "its setting", "faster", "AVX2", "ceiling",
               "error", "torch's", "textbook"]  # fmt: skip
    rows = [heading]
    for record in results["work"]:
        peer = best_peer(record)
        times, share = record["times"], share_of_ceiling(record, results["ceilings"])
        row = [
            record["name"],
            format_spread(record, OURS),
            format_seconds(median(record, AVX2)),
            format_seconds(median(record, ONE)),
            format_spread(record, peer[0]) if peer else "-",
            peer[0].removeprefix("torch, ") if peer else "-",
            format_ratio(ratio(record)),
            format_ratio(ratio(record, AVX2)),
            "-" if share is None else f"{share:.0%}",
            format_error(times.get(OURS, {}).get("error")),
            format_error(times.get(peer[0], {}).get("error")) if peer else "-",
            format_seconds(median(record, TEXTBOOK)),
        ]
        rows.append(row)
    return rows


def format_ratio(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + " even" * (abs(value - 1) < EVEN)


def format_error(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.0e}"


def plain_table(rows: list[list[str]]) -> str:
    """Columns under each other, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(w) if c == 0 else cell.rjust(w) for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def markdown_table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|" + "---:|" * (len(rows[0]) - 1))
    return "\n".join(lines)


def stage_rows(stages: dict[str, dict[str, float]]) -> list[list[str]]:
    """Milliseconds of every stage, one column a contestant."""
    names = list(stages)
    rows = [["stage, ms", *names]]
    for stage in stages[names[0]]:
        rows.append([stage, *(f"{stages[name][stage]:.0f}" for name in names)])
    return rows


def memory_rows(memory: dict[str, dict[str, float]]) -> list[list[str]]:
    """Peak memory, one column a contestant."""
    names = list(dict.fromkeys(name for peaks in memory.values() for name in peaks))
    return [
        ["peak memory, MiB", *names],
        *([work, *(format_mib(peaks.get(n)) for n in names)] for work, peaks in memory.items()),
    ]


def format_mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def compare_results(new: dict, old: dict) -> list[list[str]]:
    """What moved since an older run: ours and torch's, new over old; the machine may have moved as well."""
    before = {record["name"]: record for record in old["work"]}
    rows = [["work", "ours was, ms", "is, ms", "times faster", "torch, times faster", "ratio to torch was", "is"]]
    for record in new["work"]:
        earlier = before.get(record["name"])
        if earlier is None or median(record, OURS) is None or median(earlier, OURS) is None:
            continue
        peers = best_peer(earlier), best_peer(record)
        rows.append(
            [
                record["name"],
                format_seconds(median(earlier, OURS)),
                format_seconds(median(record, OURS)),
                format_ratio(median(earlier, OURS) / median(record, OURS)),
                format_ratio(peers[0][1] / peers[1][1]) if all(peers) else "-",
                format_ratio(ratio(earlier)),
                format_ratio(ratio(record)),
            ]
        )
    return rows
