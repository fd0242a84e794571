#!/usr/bin/env python3
"""Compiles the programs of corpus/ to PTX for many architectures, and demands that the software GPU lowers every
kernel.

  corpus.py --tool TOOL --nvcc NVCC [--arch 75,90 | --all] [--jobs N] [PROGRAM...]

TOOL is softgpu-ptx-check. --all: every architecture of `nvcc --list-gpu-arch`. The slowest programs (CUB, Thrust) are
compiled for the newest architecture only, unless --all. A line in a program, "// nvcc: OPTIONS", adds options.
"""

import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent / "corpus"
SLOW = ("algorithms", "parallel")
USUAL = "75,80,90,120"


def architectures(nvcc):
    out = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True, timeout=60).stdout
    return [line.removeprefix("compute_") for line in out.split()]


def try_one(options, program, arch, folder):
    """The kernels of one program for one architecture: (name, kernels, complaint)."""
    name = f"{program.stem} for compute_{arch}"
    ptx = pathlib.Path(folder) / f"{program.stem}.{arch}.ptx"
    extra = [o for line in re.findall(r"^// nvcc: (.*)$", program.read_text(), re.M) for o in line.split()]
    compiled = subprocess.run([options.nvcc, "-ptx", f"-arch=compute_{arch}", "-std=c++17", "-w", *extra, str(program),
                               "-o",
                               str(ptx)], capture_output=True, text=True, check=False, timeout=900)
    if compiled.returncode != 0:
        return name, 0, "nvcc: " + (compiled.stdout + compiled.stderr)[:2000]
    checked = subprocess.run([options.tool, str(ptx)], capture_output=True, text=True, check=False, timeout=300)
    lowered = re.search(r"(\d+) of (\d+) kernels lower", checked.stdout)
    count = int(lowered[2]) if lowered else 0
    sound = checked.returncode == 0 and count > 0 and lowered[1] == lowered[2]
    return name, count, "" if sound else checked.stdout + checked.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--arch", default=USUAL)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("programs", nargs="*")
    options = parser.parse_args()
    archs = architectures(options.nvcc) if options.all else options.arch.split(",")
    work = []
    for program in sorted(HERE.glob("*.cu")):
        if options.programs and program.stem not in options.programs:
            continue
        slow = program.stem in SLOW and not options.all and not options.programs
        work += [(program, arch) for arch in (archs[-1:] if slow else archs)]
    kernels, wrong = 0, 0
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for name, count, complaint in pool.map(lambda w: try_one(options, *w, folder), work):
            kernels += count
            wrong += bool(complaint)
            if complaint:
                print(f"corpus: {name}: {complaint}", flush=True)
            elif options.all:
                print(f"corpus: {name}: {count} kernels", flush=True)
    print(f"corpus: {len(work)} modules for {', '.join(archs)}: {kernels} kernels, "
          f"{wrong} modules with something missing")
    return 1 if wrong or not work else 0


if __name__ == "__main__":
    sys.exit(main())
