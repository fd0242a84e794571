#!/usr/bin/env python3
"""Which functions of the driver API are served, how they travel and which cases of tests/conformance call them.

  support.py --conformance PROGRAM --build DIR --doc FILE    runs the cases on the software GPU and behind Tidepool;
                                                             1 when one fails, FILE is stale, or a function that is
                                                             served has no case and is not in uncovered.txt
  support.py ... --write                                     brings FILE and uncovered.txt up to date
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
API = HERE.parent.parent / "api"
sys.path.insert(0, str(API))
import rows as api_rows  # noqa: E402

UNCOVERED = HERE / "uncovered.txt"
TRAVELS = {"async": "goes out without an answer", "sync": "a round trip", "local": "answered by the "
           "client, which may send commands of its own", "refuse": "not served: CUDA_ERROR_NOT_SUPPORTED"}


def run(options, backend, folder):
    """{symbol: cases} and what failed."""
    coverage = os.path.join(folder, backend + ".json")
    done = subprocess.run([options.conformance, "--backend", backend, "--build", options.build, "--coverage", coverage],
                          capture_output=True, text=True, errors="replace", check=False)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    print(f"{backend}: {last}", flush=True)
    if done.returncode != 0:
        print(done.stdout[-6000:] + done.stderr[-2000:])
        return {}, True
    with open(coverage) as file:
        return json.load(file), False


def cases_of(row, coverage):
    found = set()
    for ending in ("", "_ptsz", "_ptds"):
        found |= set(coverage.get(row.name + ending, ()))
    return sorted(found)


def functions(rows):
    """Names without their versions."""
    return {re.sub(r"_v\d+$", "", row.name) for row in rows}


def table(rows, covered):
    lines = ["# CUDA driver API: what is served", "",
             "Made by `tests/conformance/support.py` from `api/*.api` and from a run of `build/tests/conformance`:",
             "each function, how its calls travel, and cases that call it (at most three are named). The cases run",
             "with equal results on the software GPU and behind Tidepool, with plain names and with those for",
             "per-thread default streams.", ""]
    served = [row for row in rows if row.travel != "refuse"]
    tested = [row for row in served if covered[row.name]]
    names, working = functions(rows), functions(served)
    lines += [f"{len(names)} functions: {len(working)} served, {len(names - working)} refused, as attributes say",
              "beforehand (graphics, external memory and semaphores, checkpoints, core dumps).",
              f"With all their versions {len(rows)}: {len(served)} served, {len(tested)} of these in cases.", "",
              "| travels | meaning |", "| --- | --- |"]
    lines += [f"| {travel} | {meaning} |" for travel, meaning in TRAVELS.items()]
    lines += ["", "| function | travels | cases |", "| --- | --- | --- |"]
    for row in rows:
        names = covered[row.name]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"| `{row.name}` | {row.travel} | {shown} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conformance", required=True)
    parser.add_argument("--build", required=True)
    parser.add_argument("--doc", required=True)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = sorted((row for row in api_rows.read_all(API) if row.travel != "internal"), key=lambda row: row.name)
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(options, backend, folder) for backend in ("softgpu", "remote")]
    if any(failed for _, failed in runs):
        return 1
    # What only one of the two calls is not covered.
    covered = {row.name: sorted(set.intersection(*(set(cases_of(row, coverage)) for coverage, _ in runs)))
               for row in rows}
    lacking = sorted(row.name for row in rows if row.travel != "refuse" and not covered[row.name])
    text = table(rows, covered)
    doc = pathlib.Path(options.doc)
    if options.write:
        doc.write_text(text)
        UNCOVERED.write_text("".join(name + "\n" for name in lacking))
        return 0
    known = UNCOVERED.read_text().split()
    for name in sorted(set(lacking) - set(known)):
        print(f"no case calls {name}")
    for name in sorted(set(known) - set(lacking)):
        print(f"uncovered.txt lists {name}, which has a case")
    if doc.read_text() != text:
        print(f"{doc} is stale: run {sys.argv[0]} with --write")
        return 1
    return 1 if lacking != sorted(known) else 0


if __name__ == "__main__":
    sys.exit(main())
