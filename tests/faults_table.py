#!/usr/bin/env python3
"""Makes a table, in Markdown, of what tests/faults wrote: a row for each fault over all of its rounds.

    tests/faults_table.py target/faults.jsonl

It reads and prints, and changes nothing. What a round that failed had measured by then counts, too.
"""

import json
import statistics
import sys

COLUMNS = [
    "fault",
    "rounds",
    "failed",
    "gaps",
    "refused",
    "connections lost",
    "presence true after (median, most)",
    "memory grown (most)",
    "publishes a second (least)",
]


def span(values):
    """The least and the most, or the only one that there is."""
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def cells(story, rounds):
    """One row, of all rounds of one story."""
    measured = [one for one in rounds if "fault" in one]
    failed = sum(1 for one in rounds if one.get("failed"))
    name = measured[0]["fault"] if measured else f"`{story}`"
    row = [name, f"{len(rounds):,}", f"{failed:,}"]
    if not measured:
        return row + ["–"] * (len(COLUMNS) - len(row))
    of = {key: [one[key] for one in measured] for key in measured[0]}
    after = of["presence_true_after_s"]
    grown = max(behind - before for before, behind in of["rss_mib"])
    return row + [
        span(of["gaps"]),
        span(of["refused"]),
        span(of["losses"]),
        f"{statistics.median(after):.1f} s, {max(after):.1f} s",
        f"{grown:,} MiB",
        f"{min(of['per_second']):,.0f}",
    ]


def table(lines):
    """The whole of it, the stories in the order in which they come first."""
    stories = {}
    for line in lines:
        one = json.loads(line)
        stories.setdefault(one["story"], []).append(one)
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---|" * len(COLUMNS)
    for story, rounds in stories.items():
        yield "| " + " | ".join(cells(story, rounds)) + " |"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print("\n".join(table(file)))
