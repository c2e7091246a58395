#!/usr/bin/env python3
"""Sums what `jfr print --json --stack-depth 2048` says of busy.jfr, for a reader that has nothing to do with it:
event, stack (leaf first), number of events, sum of their weights, separated by tabs."""
import json, re, sys

WEIGHTS = {
    "jdk.ExecutionSample": None, "jdk.ObjectAllocationInNewTLAB": "tlabSize", "jdk.ObjectAllocationOutsideTLAB": "allocationSize",
    "jdk.ObjectAllocationSample": "weight", "jdk.JavaMonitorEnter": "duration", "jdk.ThreadPark": "duration",
}

def weight(value):
    if isinstance(value, str):  # PT1M2.5S
        minutes, seconds = re.fullmatch(r"PT(?:(\d+)M)?([\d.]+)S", value).groups()
        whole, _, part = seconds.partition(".")
        return (int(minutes or 0) * 60 + int(whole)) * 10**9 + int(part.ljust(9, "0"))
    return value

sums = {}
for event in json.load(sys.stdin)["recording"]["events"]:
    values, frames = event["values"], []
    for f in values["stackTrace"]["frames"]:
        name = f["method"]["type"]["name"] + "." + f["method"]["name"]
        name = re.sub(r"(\$\$Lambda)\$\d+\+0x[0-9a-f]+/\d+", r"\1_", name)  # made up anew in each process
        frames.append("%s:%d" % (name, max(0, f["lineNumber"])))
    key = WEIGHTS[event["type"]]
    count, total = sums.get((event["type"], ";".join(frames)), (0, 0))
    sums[event["type"], ";".join(frames)] = (count + 1, total + (weight(values[key]) if key else 0))
for (event, stack), (count, total) in sorted(sums.items()):
    print(event, stack, count, total, sep="\t")
