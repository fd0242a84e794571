#!/usr/bin/env python3
"""The instruction forms of forms.txt against the software GPU and against ptxas.

  forms.py --tool TOOL --table             prints the table of docs/softgpu.md
  forms.py --tool TOOL --doc FILE          fails when the table in FILE is stale; --write brings it up to date
  forms.py --tool TOOL --ptxas PTXAS       what ptxas accepts must lower (a sample; --all: everything, minutes)
  forms.py --tool TOOL --ptxas PTXAS --mutate N
                                           N damaged programs: what ptxas takes loads, what it cannot parse does not

TOOL is softgpu-ptx-check. --seed N gives other samples and damages.
"""

import argparse
import pathlib
import random
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BEGIN, END = "<!-- forms: begin -->", "<!-- forms: end -->"

TYPES = {
    "p": "pred", "b": "b8 u8 s8", "h": "b16 u16 s16 f16 bf16", "r": "b32 u32 s32 f32 f16x2 bf16x2 u16x2 s16x2",
    "d": "b64 u64 s64 f64 f32x2", "q": "b128",
}
WIDTH = {name: letter for letter, names in TYPES.items() for name in names.split()}
WIDER = {"h": "r", "r": "d"}
REGISTER = {"p": "%p", "b": "%b", "h": "%h", "r": "%r", "d": "%rd", "q": "%q"}
OPERAND = re.compile(r"(?<![\w%.:])(Dx|Sx|V[248]?|[TWDMphrdqb])(?![\w:])")
TARGETS = (("sm_100a", "9.0"), ("sm_90a", "9.0"), ("sm_75", "9.0"), ("sm_120a", "9.0"))

# What ptxas accepts and is known to be missing; docs/softgpu.md says why.
MISSING = re.compile(r"fma\.rn\.oob\b|wgmma\b|tcgen05\b|(ldmatrix|stmatrix)\S*\.b8\b|cvt\.rs\S*x4\.f32")

# Where results are compared with expectations written apart from the code: every instruction is in one of them.
TESTS = ("exec_float_test.cc", "exec_forms_test.cc", "exec_integer_test.cc", "exec_rest_test.cc", "exec_test.cc",
         "tensor_test.cc", "async_test.cc", "bulk_test.cc", "cluster_test.cc")

# Tested by CUDA programs instead, of tests/softgpu/driver/programs.
PROGRAMS = {"wmma": "wmma.cu", "tex": "textures.cu", "tld4": "textures.cu", "txq": "textures.cu", "suq": "surfaces.cu",
            "suld": "surfaces.cu", "sust": "surfaces.cu", "sured": "surfaces.cu", "istypep": "textures.cu"}

HEAD = """.version {version}
.target {target}
.address_size 64
.global .align 16 .b32 glv[64];
.shared .align 16 .b32 shv[64];
.func fn() {{ ret; }}
"""
REGISTERS = (".reg .pred %p<16>; .reg .b8 %b<16>; .reg .b16 %h<20>; .reg .b32 %r<40>; .reg .b64 %rd<16>; "
             ".reg .b128 %q<9>;")


def expand(template):
    for group in re.finditer(r"\{([^{}]*)\}", template):
        if "|" in group[1] or (group[1].startswith(".") and "," not in group[1]):
            for choice in group[1].split("|"):
                yield from expand(template[:group.start()] + choice + template[group.end():])
            return
    yield template


def statement(form):
    """One statement with registers for the letters of its operands."""
    words, _, operands = form.partition(" ")
    types = [w for w in words.split(".")[1:] if w in WIDTH]
    vector = [w for w in words.split(".")[1:] if re.fullmatch("v[248]", w)]
    last = WIDTH[types[-1]] if types else "r"
    first = WIDTH[types[0]] if types else "r"
    held = {"b": "h"}
    used = {}

    def fresh(letter):
        used[letter] = used.get(letter, 0) + 1
        return f"{REGISTER[letter]}{used[letter]}"

    def operand(match):
        letter = match[0]
        if letter[0] == "V":
            count = int(letter[1:] or vector[0][1:])
            return "{" + ",".join(fresh(held.get(last, last)) for _ in range(count)) + "}"
        one = {"T": last, "W": WIDER.get(last), "D": first, "Dx": held.get(first, first), "Sx": held.get(last, last),
               "M": held.get(last, last)}
        return fresh(one.get(letter, letter))

    return f"{words} {OPERAND.sub(operand, operands)}".strip()


def statements():
    lines = [line for line in (HERE / "forms.txt").read_text().splitlines() if line and not line.startswith("#")]
    return list(dict.fromkeys(statement(form) for line in lines for form in expand(line)))


def program(lines, target="sm_100a", version="9.0"):
    """A kernel for each statement, and the number of the line of the first."""
    registers = REGISTERS if target != "sm_60" else REGISTERS.replace(".reg .b128 %q<9>;", "")
    ended = [line if line.startswith("{") else line + ";" for line in lines]
    kernels = [f".visible .entry k{i}(.param .u64 pp) {{ {registers} {line} ret; }}" for i, line in enumerate(ended)]
    return HEAD.format(version=version, target=target) + "\n".join(kernels) + "\n", HEAD.count("\n") + 1


def failures(tool, text):
    """What the tool says of a program: {kernel: reason}; the key "" when it does not load at all."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx", encoding="latin-1") as file:
        file.write(text)
        file.flush()
        run = subprocess.run([tool, "--list", file.name], capture_output=True, text=True, timeout=120, check=False)
    if run.returncode not in (0, 1):
        sys.exit(f"forms: {tool} ended with {run.returncode}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return dict(line.split("\t", 1) for line in run.stdout.splitlines() if "\t" in line)


def lowered(tool, lines):
    """{statement: None or why not}; statements that do not even parse are found one after the other."""
    result = {}
    lines = list(lines)
    while True:
        bad = failures(tool, program(lines)[0])
        if "" not in bad:
            break
        match = re.search(r"kernel k(\d+),", bad[""])
        if match is None:
            sys.exit("forms: " + bad[""])
        result[lines.pop(int(match[1]))] = bad[""]
    for i, line in enumerate(lines):
        result[line] = bad.get(f"k{i}")
    return result


def ptxas_errors(ptxas, text, target):
    with tempfile.NamedTemporaryFile("w", suffix=".ptx", encoding="latin-1") as file:
        file.write(text)
        file.flush()
        run = subprocess.run([ptxas, "-O0", f"-arch={target}", file.name, "-o", "/dev/null"], capture_output=True,
                             text=True, errors="replace", timeout=300, check=False)
    return run.returncode, run.stdout + run.stderr


def accepted(ptxas, lines, target, version):
    """The statements that ptxas takes: those it names are left out until it takes the rest."""
    lines = list(lines)
    while lines:
        text, first = program(lines, target, version)
        code, output = ptxas_errors(ptxas, text, target)
        if code == 0:
            return set(lines)
        wrong = {int(n) - first for n in re.findall(r"line (\d+)[;,]? *(?:error|fatal)", output)}
        kept = [line for i, line in enumerate(lines) if i not in wrong]
        if len(kept) == len(lines):
            sys.exit(f"forms: ptxas names no line: {output[-500:]}")
        lines = kept
    return set()


def check_ptxas(options):
    lines = statements()
    if not options.all:
        lines = random.Random(options.seed).sample(lines, 320)
    taken = set()
    for target, version in TARGETS if options.all else TARGETS[:1]:
        for at in range(0, len(lines), 160):
            taken |= accepted(options.ptxas, lines[at:at + 160], target, version)
    ours = lowered(options.tool, taken)
    wrong = [f"{line}: {why}" for line, why in ours.items() if why is not None and not MISSING.match(line)]
    print(f"forms: {len(lines)} forms, ptxas takes {len(taken)}, {len(taken) - len(wrong)} of these run or are known")
    print("\n".join(wrong))
    return 1 if wrong or len(taken) < len(lines) // 3 else 0


DAMAGES = [
    lambda tokens, at, rng: tokens.pop(at),
    lambda tokens, at, rng: tokens.insert(at, tokens[at]),
    lambda tokens, at, rng: tokens.insert(at, rng.choice(list(";,{}[]()<>:!@|+-.$%\"'#") + ["add", ".u32", "0x", "7"])),
    lambda tokens, at, rng: tokens.__setitem__(at, tokens[rng.randrange(len(tokens))]),
    lambda tokens, at, rng: tokens.__setitem__(at, tokens[at][:len(tokens[at]) // 2]),
    lambda tokens, at, rng: tokens.__delitem__(slice(at, None)),
]


def check_mutants(options):
    rng = random.Random(options.seed)
    sound = [line for line, why in lowered(options.tool, rng.sample(statements(), 300)).items() if why is None]
    sound = sorted(accepted(options.ptxas, sorted(sound), *TARGETS[0]))
    counts, wrong = {"accepted": 0, "syntax": 0, "other": 0}, []
    for number in range(options.mutate):
        text, _ = program(rng.sample(sound, 8))
        tokens = re.split(r"(\s+|[;,{}\[\]()<>:!@|+-])", text)
        start = sum(1 for t in re.split(r"(\s+|[;,{}\[\]()<>:!@|+-])", text[:text.index(".global")]))
        solid = [i for i, token in enumerate(tokens) if i > start and token.strip()]
        rng.choice(DAMAGES)(tokens, rng.choice(solid), rng)
        damaged = "".join(tokens)
        changed = [line for line in damaged.splitlines() if line not in text.splitlines()]
        code, output = ptxas_errors(options.ptxas, damaged, TARGETS[0][0])
        syntax = "syntax error" in output or "Parsing error" in output
        ours = failures(options.tool, damaged)
        counts["accepted" if code == 0 else "syntax" if syntax else "other"] += 1
        if code == 0 and any(not MISSING.search(why) for why in ours.values()):
            wrong.append(f"mutant {number}: ptxas takes it, we say {ours}: {changed}")
        if syntax and "" not in ours:
            wrong.append(f"mutant {number}: ptxas says {output.strip()[:300]}, and we load it: {changed}")
    print("forms: mutants: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    print("\n".join(wrong))
    return 1 if wrong or counts["syntax"] == 0 else 0


def tests_of(opcode, sources):
    # Names put together from parts of words count where their stem is one: "vadd" + std::to_string(2).
    stem = re.sub(r"[24]$", "", opcode) if re.match(r"v\w+[24]$", opcode) else opcode
    word = re.compile(rf"(?<![\w.%]){re.escape(opcode)}[. ;\"]|\"{re.escape(stem)}\"")
    program = PROGRAMS.get(opcode)
    extra = [f"programs/{program}"] if program and (HERE / "driver" / "programs" / program).exists() else []
    return [name for name, text in sources.items() if word.search(text)] + extra


def table(tool):
    # "\\n" ends a line of PTX within a string.
    sources = {path.name: path.read_text().replace("\\n", " ") for path in sorted(HERE.glob("*_test.cc"))
               if path.name in TESTS}
    opcodes = {}
    for line, why in lowered(tool, statements()).items():
        opcodes.setdefault(re.split(r"[. ]", line)[0], []).append((line, why))
    rows = ["| instruction | forms tried | of these run | not supported | results checked in |",
            "| --- | --- | --- | --- | --- |"]
    untested = [opcode for opcode, forms in opcodes.items()
                if any(why is None for _, why in forms) and not tests_of(opcode, sources)]
    if untested:
        sys.exit(f"forms: no test compares results of {', '.join(sorted(untested))}: write one")
    for opcode in sorted(opcodes):
        forms = opcodes[opcode]
        # What is not legal PTX in the first place fails too: only what is known to be missing is named.
        lacking = sorted({re.split(" ", line)[0] for line, why in forms if why is not None and MISSING.match(line)})
        named = ", ".join(f"`{word}`" for word in lacking[:4]) + (" ..." if len(lacking) > 4 else "")
        runs = sum(why is None for _, why in forms)
        rows.append(f"| `{opcode}` | {len(forms)} | {runs} | {named} | {', '.join(tests_of(opcode, sources))} |")
    return "\n".join(rows)


def check_doc(options):
    path = pathlib.Path(options.doc)
    text = path.read_text()
    if BEGIN not in text or END not in text:
        sys.exit(f"forms: {path} has no place for the table")
    before, rest = text.split(BEGIN, 1)
    old, after = rest.split(END, 1)
    new = f"\n{table(options.tool)}\n"
    if options.write:
        path.write_text(before + BEGIN + new + END + after)
        return 0
    if old != new:
        print(f"forms: the table in {path} is stale: run {sys.argv[0]} --tool TOOL --doc FILE --write")
        return 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--doc")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--ptxas")
    parser.add_argument("--mutate", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table(options.tool))
        return 0
    if options.doc:
        return check_doc(options)
    return check_mutants(options) if options.mutate else check_ptxas(options)


if __name__ == "__main__":
    sys.exit(main())
