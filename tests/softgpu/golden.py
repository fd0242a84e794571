#!/usr/bin/env python3
"""What each instruction form of forms.txt gives for edge operands, to the bit: recorded on one driver, compared on
another.

  golden.py --driver LIBCUDA --record FILE      runs every form that this driver's device takes, writes what came out
  golden.py --driver LIBCUDA --compare FILE     the forms of a record once more: 1 when a result differs
  golden.py --driver LIBCUDA --orders           the software GPU against itself: ISA levels, quanta, workers, seeds
  golden.py --show FILE                         what a record holds

A record of a real GPU (tools/gpu-check makes one) says what the software GPU has to give. Instructions that PTX leaves
approximate may differ from it by their documented error. --only REGEX takes a part of the forms.
"""

import argparse
import collections
import ctypes
import datetime
import json
import lzma
import math
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

import forms

THREADS, SLOT, SLOTS, RECORD = 64, 16, 16, 128  # RECORD: 64 bytes of registers, 64 of the memory that was written
ROW = SLOT * SLOTS
CHUNK = 300
SIZE = {"p": 1, "b": 1, "h": 2, "r": 4, "d": 8, "q": 16}
LETTER = {name[1:]: letter for letter, name in forms.REGISTER.items()}
NAME = re.compile(r"%(rd|r|h|b|p|q)(\d+)\b")

# Results that depend on more than operands, or on nothing that a record could hold.
LEFT_OUT = re.compile(
    r"(bar|barrier|membar|fence|trap|brkpt|exit|ret|nanosleep|pmevent|setmaxnreg|griddepcontrol|stacksave|"
    r"stackrestore|alloca|prefetch\w*|applypriority|discard|createpolicy|isspacep|cvta|multimem|mbarrier|cp|ldmatrix|"
    r"stmatrix|tensormap|clusterlaunchcontrol|wmma|mapa|getctarank|tex|tld4|txq|suq|suld|sust|sured|istypep|call|"
    r"wgmma|tcgen05)\b|"
    r"(st|red)\.async|st\.bulk|mma\.sp|mma.*block_scale|"
    r"shfl\.(?!sync)|vote\.(?!sync)|(ld|st|ldu)[.\w:]*\.(const|param|mmio)|.*(cache_hint|glv|shv|\bfn\b)|"
    r"mov.*%(?!rd|r|h|b|p|q)[a-z]")
WARP = re.compile(r"(shfl|vote|match|redux|elect)\.")

# Which profile of the software GPU a record of a real one is compared with, unless SOFTGPU_PROFILE says.
PROFILES = {(8, 0): "a100-80", (8, 9): "l4", (9, 0): "h200", (10, 0): "b200", (12, 0): "rtx-5090"}

ORDERS = ({"SOFTGPU_ISA": "v3"}, {"SOFTGPU_ISA": "v2", "SOFTGPU_QUANTUM": "1"},
          {"SOFTGPU_QUANTUM": "1000", "SOFTGPU_THREADS": "4"}, {"SOFTGPU_SEED": "77"})


# ---- operands -------------------------------------------------------------------------------------------------------

def float_bits(kind):
    """Edges of a format: zeros, ones, smallest, largest, infinities, quiet and signalling NaNs, halves for rounding."""
    exponent, mantissa = {"f16": (5, 10), "bf16": (8, 7), "f32": (8, 23), "f64": (11, 52)}[kind]
    top, one = ((1 << exponent) - 1) << mantissa, ((1 << (exponent - 1)) - 1) << mantissa
    step = 1 << mantissa
    positive = [0, 1, step - 1, step, step + 1, one, one + 1, one - 1, one + step // 2, one + step,
                one + step + step // 2, one - step, one + 3 * step + step // 3, one + 7 * step + 5,
                one + 15 * step + 3, one - 9 * step + 1,
                top - 1, top - step, top, top + 1, top + step // 2, top + step - 1]
    return positive + [bits | 1 << (exponent + mantissa) for bits in positive], (exponent + mantissa + 1) // 8


def integer_bits(size):
    bits = 8 * size
    low = [0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 32, 33, 63, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000]
    ones = (1 << bits) - 1
    return sorted({value & ones for value in low + [ones - value for value in low] +
                   [1 << (bits - 1), (1 << (bits - 1)) - 1, 0x0123456789ABCDEF0F1E2D3C4B5A6978 & ones]})


def drawn(kind, size, rng):
    """One operand of a kind ("f32", "f16", ..., "int") in a register of size bytes."""
    if kind == "int":
        if rng.random() < 0.4:
            return rng.getrandbits(8 * size).to_bytes(size, "little")
        return rng.choice(integer_bits(size)).to_bytes(size, "little")
    edges, width = float_bits(kind)
    value = b""
    while len(value) < size:
        bits = rng.choice(edges) if rng.random() < 0.6 else rng.getrandbits(8 * width)
        value += bits.to_bytes(width, "little")
    return value[:size]


KINDS = ("int", "f16", "bf16", "f32", "f64")
# Some forms want operands that are close to each other, or small: a second table holds ordinary numbers.
TABLES = [(kind, plain) for kind in KINDS for plain in (False, True)]


def ordinary(kind, size, rng):
    if kind == "int":
        return rng.randrange(0, 64).to_bytes(size, "little")
    width = float_bits(kind)[1]
    value = b""
    while len(value) < size:
        number = rng.choice((-1, 1)) * rng.uniform(0.01, 8)
        raw = struct.pack({"f16": "<e", "bf16": "<f", "f32": "<f", "f64": "<d"}[kind], number)
        value += raw[-width:] if kind == "bf16" else raw
    return value[:size]


def operands():
    """For each table, thread and slot 16 bytes; a register takes the first of them."""
    data = bytearray()
    for kind, plain in TABLES:
        rng = random.Random(f"{kind} {plain}")
        for _ in range(THREADS * SLOTS):
            # Drawn in pieces of one register's size, so that wider registers hold edges as well.
            if kind == "int":
                size = rng.choice((4, 4, 8, 8, 2, 16))
                value = (ordinary if plain else drawn)(kind, size, rng)
                data += (value * 16)[:16] if plain is False else value + bytes(16 - size)
            else:
                data += (ordinary if plain else drawn)(kind, 16, rng)
    return bytes(data)


# ---- kernels --------------------------------------------------------------------------------------------------------

def kind_of(letter, types):
    """What a register of a form holds: the last of its types that is as wide."""
    for name in reversed(types):
        if forms.WIDTH.get(name) == letter:
            base = name[:-2] if name.endswith("x2") else name
            return base if base in KINDS else "int"
    return "int"


def split(text):
    """Operands, at commas outside of braces and brackets."""
    return [part.strip() for part in re.split(r",(?![^{\[]*[}\]])", text)]


def space_of(words):
    return next((space for space in ("shared", "local") if re.search(rf"\.{space}\b", words)), "global")


def body(statement, index, plain):
    """The text of a kernel for a form, how many bytes of its record count and whether memory is part of them."""
    words, _, rest = statement.partition(" ")
    parts = split(rest)
    types = [word for word in re.split(r"\.", words)[1:] if word in forms.WIDTH]
    writes_memory = words.startswith(("st.", "red.", "atom"))
    address = re.search(r"\[(%rd\d+)\]", rest)
    results = [] if words.startswith(("st.", "red.")) else [m[0] for m in NAME.finditer(parts[0])]
    if WARP.match(words):
        parts[-1] = "-1"
        statement = f"{words} {', '.join(parts)}"
    sources = [m[0] for part in parts[len(results) > 0:] for m in NAME.finditer(part)]
    sources = [name for name in dict.fromkeys(sources) if not (address and name == address[1])]
    lines = ["ld.param.u64 %in, [pin]; ld.param.u64 %out, [pout]; mov.u32 %t, %tid.x;",
             f"mad.wide.u32 %in, %t, {ROW}, %in; mad.wide.u32 %out, %t, {RECORD}, %out;"]
    for slot, name in enumerate(dict.fromkeys([*results, *sources])):
        letter = LETTER[NAME.match(name)[1]]
        lines.append(load(name, letter, TABLES.index((kind_of(letter, types), plain)) * THREADS * ROW + slot * SLOT))
    space = space_of(words)
    if address:
        lines.append(scratch(space, address[1]))
    lines.append(f"{statement};")
    at = 0
    for name in results:
        letter = LETTER[NAME.match(name)[1]]
        at = -(-at // SIZE[letter]) * SIZE[letter]
        lines.append(store(name, letter, at))
        at += SIZE[letter]
    if writes_memory:
        lines.append(" ".join(f"ld.{space}.v4.b32 {{%w0,%w1,%w2,%w3}}, [{address[1]}+{i}]; "
                              f"st.global.v4.b32 [%out+{64 + i}], {{%w0,%w1,%w2,%w3}};" for i in range(0, 64, 16)))
    head = (f".visible .entry k{index}(.param .u64 pin, .param .u64 pout) {{ {forms.REGISTERS} .reg .b64 %in, %out; "
            ".reg .b32 %t, %w<4>; ")
    if address and space == "local":
        head += ".local .align 16 .b8 lm[64]; "
    return head + " ".join(lines) + " ret; }", at, writes_memory


def load(name, letter, offset):
    if letter == "p":
        return f"ld.global.b32 %w0, [%in+{offset}]; and.b32 %w0, %w0, 1; setp.ne.b32 {name}, %w0, 0;"
    if letter == "q":
        return f"ld.global.b128 {name}, [%in+{offset}];"
    return f"ld.global.b{8 * SIZE[letter]} {name}, [%in+{offset}];"


def store(name, letter, at):
    if letter == "p":
        return f"selp.b32 %w0, 1, 0, {name}; st.global.b8 [%out+{at}], %w0;"
    return f"st.global.b{8 * SIZE[letter]} [%out+{at}], {name};"


def scratch(space, register):
    """64 bytes of known contents of the thread's own at the address in register."""
    where = {"shared": "mov.u64 {0}, gsh; mad.wide.u32 {0}, %t, 64, {0};", "local": "mov.u64 {0}, lm;",
             "global": "add.u64 {0}, %out, 64;"}[space].format(register)
    base = TABLES.index(("int", False)) * THREADS * ROW
    copies = " ".join(f"ld.global.v4.b32 {{%w0,%w1,%w2,%w3}}, [%in+{base + 128 + i}]; "
                      f"st.{space}.v4.b32 [{register}+{i}], {{%w0,%w1,%w2,%w3}};" for i in range(0, 64, 16))
    return f"{where} {copies}"


def candidates(only):
    chosen = [line for line in forms.statements() if not LEFT_OUT.match(line) and re.search(only, line)]
    return [(line, plain) for line in chosen for plain in (False, True)]


# ---- a driver -------------------------------------------------------------------------------------------------------

class Refused(Exception):
    pass


class Driver:
    """The few calls of the CUDA driver that are needed, without a compiled program."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.call("cuInit", 0)
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, 256, device)
        self.name = name.value.decode()
        self.capability = tuple(self.attribute(device, which) for which in (75, 76))
        version = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(version))
        self.version = version.value
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def attribute(self, device, which):
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), which, device)
        return value.value

    def call(self, function, *arguments):
        code = getattr(self.lib, function)(*arguments)
        if code:
            raise Refused(f"{function}: {code}")

    def target(self):
        """Names the device with what only it has, where there is such a target."""
        number = self.capability[0] * 10 + self.capability[1]
        return f"sm_{number}a" if number in (90, 100, 103, 110, 120, 121) else f"sm_{min(number, 121)}"

    def allocate(self, size):
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address

    def load(self, text):
        """(module, '') or (None, the log)."""
        log = ctypes.create_string_buffer(1 << 20)
        options = (ctypes.c_int * 2)(5, 6)  # CU_JIT_ERROR_LOG_BUFFER and its size
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), len(log))
        module = ctypes.c_void_p()
        code = self.lib.cuModuleLoadDataEx(ctypes.byref(module), text.encode() + b"\0", 2, options, values)
        return (module, "") if code == 0 else (None, log.value.decode(errors="replace"))

    def run(self, module, index, source, out):
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, f"k{index}".encode())
        arguments = (ctypes.c_void_p * 2)(ctypes.addressof(source), ctypes.addressof(out))
        self.call("cuLaunchKernel", function, 1, 1, 1, THREADS, 1, 1, 0, None, arguments, None)
        self.call("cuCtxSynchronize")


def head(target):
    return (f".version 9.0\n.target {target}\n.address_size 64\n"
            f".shared .align 16 .b8 gsh[{64 * THREADS}];\n")


def module_of(driver, chosen):
    """A module with a kernel for each form that the driver takes: it names the lines of the others."""
    chosen = list(chosen)
    text_head = head(driver.target())
    while chosen:
        kernels = [body(statement, i, plain) for i, (statement, plain) in enumerate(chosen)]
        module, log = driver.load(text_head + "\n".join(kernel for kernel, _, _ in kernels) + "\n")
        if module:
            return module, [(form, size, memory) for form, (_, size, memory) in zip(chosen, kernels)]
        first = text_head.count("\n") + 1
        wrong = {int(n) - first for n in re.findall(r"\bline (\d+)(?:[;,]\s*(?:error|fatal)|:)", log)}
        kept = [form for i, form in enumerate(chosen) if i not in wrong]
        if len(kept) == len(chosen):
            sys.exit(f"golden: the driver names no line: {log[:500]}")
        chosen = kept
    return None, []


def results(driver, chosen):
    """{(statement, plain): bytes}, in the order of chosen."""
    data = operands()
    source = driver.allocate(len(data))
    driver.call("cuMemcpyHtoD_v2", source, data, ctypes.c_size_t(len(data)))
    out = driver.allocate(THREADS * RECORD)
    raw = ctypes.create_string_buffer(THREADS * RECORD)
    found = {}
    for at in range(0, len(chosen), CHUNK):
        module, kernels = module_of(driver, chosen[at:at + CHUNK])
        for index, (form, size, memory) in enumerate(kernels):
            driver.call("cuMemsetD8_v2", out, 0, ctypes.c_size_t(len(raw)))
            try:
                driver.run(module, index, source, out)
            except Refused as problem:
                if "cuModuleGetFunction" in str(problem) or problem.args[0].endswith(": 209"):
                    continue
                sys.exit(f"golden: {form[0]}: {problem}")
            driver.call("cuMemcpyDtoH_v2", raw, out, ctypes.c_size_t(len(raw)))
            found[form] = b"".join(raw.raw[t * RECORD:t * RECORD + size] +
                                   (raw.raw[t * RECORD + 64:t * RECORD + 128] if memory else b"")
                                   for t in range(THREADS))
        if module:
            driver.call("cuModuleUnload", module)
    return found


# ---- records --------------------------------------------------------------------------------------------------------

def write(path, driver, found):
    about = {"device": driver.name, "capability": driver.capability, "driver": driver.version,
             "date": datetime.date.today().isoformat(), "threads": THREADS,
             "forms": [[statement, plain, len(value)] for (statement, plain), value in found.items()]}
    with lzma.open(path, "wb", preset=9) as file:
        file.write(json.dumps(about).encode() + b"\n" + b"".join(found.values()))


def read(path):
    try:
        with lzma.open(path, "rb") as file:
            about = json.loads(file.readline())
            found = {(statement, plain): file.read(size) for statement, plain, size in about["forms"]}
    except (OSError, lzma.LZMAError, EOFError, ValueError, KeyError) as problem:
        sys.exit(f"golden: {path} is no record: {problem}")
    return about, found


def numbers(value, kind):
    if kind == "bf16":
        return [struct.unpack("<f", b"\0\0" + value[i:i + 2])[0] for i in range(0, len(value) - 1, 2)]
    code, size = {"f16": ("e", 2), "f32": ("f", 4), "f64": ("d", 8)}[kind]
    return [n for (n,) in struct.iter_unpack("<" + code, value[:len(value) // size * size])]


def allowed(statement):
    """(kind, relative error, absolute error) of a form that PTX leaves approximate; None where bits must be equal."""
    words = statement.split(" ")[0]
    if not re.search(r"\.(approx|full)\b", words) and not words.startswith("mma"):
        return None
    types = [word for word in words.split(".")[1:] if word in forms.WIDTH]
    kind = kind_of(forms.WIDTH[types[0]], types[:1]) if types else "f32"
    if words.startswith("mma"):
        return kind, 2.0 ** -9 if kind == "f16" else 2.0 ** -11, 1e-2
    if kind == "f64":
        return kind, 2.0 ** -20, 0
    if kind in ("f16", "bf16"):
        return kind, 2.0 ** (-9 if kind == "f16" else -6), 2.0 ** -14
    relative = 2.0 ** -10.9 if words.startswith("tanh") else 2.0 ** -21
    absolute = 2.0 ** -20 if words.startswith(("sin", "cos", "lg2")) else 2.0 ** -125
    return kind, relative, absolute


def close(a, b, relative, absolute):
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or abs(a - b) <= max(absolute, relative * max(abs(a), abs(b)))


def agrees(statement, a, b, exact):
    if a == b:
        return "same"
    rule = None if exact else allowed(statement)
    if rule is None or len(a) != len(b):
        return ""
    kind, relative, absolute = rule
    pairs = zip(numbers(a, kind), numbers(b, kind))
    # Sine and cosine of large arguments have no documented error.
    wild = re.match(r"(sin|cos)\.", statement) is not None
    near = all(close(x, y, relative, absolute) or wild and abs(x) <= 1 and abs(y) <= 1 for x, y in pairs)
    return "close" if near else ""


def difference(form, a, b):
    size = len(a) // THREADS
    thread = next(t for t in range(THREADS) if a[t * size:(t + 1) * size] != b[t * size:(t + 1) * size])
    count = sum(a[t * size:(t + 1) * size] != b[t * size:(t + 1) * size] for t in range(THREADS))
    was, now = (value[thread * size:(thread + 1) * size][::-1].hex() for value in (a, b))
    operands_were = " (ordinary operands)" if form[1] else ""
    return f"{form[0]}{operands_were}: {count} threads, the first {thread}: {was} recorded, {now} here"


def compare(path, options):
    about, old = read(path)
    os.environ.setdefault("SOFTGPU_PROFILE", PROFILES.get(tuple(about["capability"]), "13.0"))
    driver = Driver(options.driver)
    chosen = [form for form in old if re.search(options.only, form[0])]
    new = results(driver, chosen)
    counts = collections.Counter()
    for form in chosen:
        if form not in new:
            verdict = "missing"
        else:
            verdict = agrees(form[0], old[form], new[form], options.exact) or "different"
        counts[verdict] += 1
        if verdict == "missing":
            print(f"{form[0]}: {driver.name} does not take it")
        elif verdict == "different":
            print(difference(form, old[form], new[form]))
    print(f"golden: {about['device']} (driver {about['driver']}, {about['date']}) and {driver.name}: "
          f"{len(chosen)} cases: {counts['same']} the same to the bit, "
          f"{counts['close']} within their documented error, "
          f"{counts['different']} different, {counts['missing']} missing")
    return 1 if counts["different"] or counts["missing"] or not chosen else 0


def orders(options):
    status = 0
    os.environ.setdefault("SOFTGPU_PROFILE", "b200")  # takes the most forms
    with tempfile.TemporaryDirectory() as folder:
        record = os.path.join(folder, "record")
        again = [sys.executable, __file__, "--driver", options.driver, "--only", options.only]
        subprocess.run([*again, "--record", record], check=True)
        for order in ORDERS:
            done = subprocess.run([*again, "--exact", "--compare", record], env={**os.environ, **order},
                                  capture_output=True, text=True, check=False)
            settings = " ".join(f"{name}={value}" for name, value in order.items())
            print(f"{settings}: {(done.stdout + done.stderr).strip()}", flush=True)
            status |= done.returncode
    return 1 if status else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", help="the driver's library, as libcuda.so.1")
    parser.add_argument("--record", metavar="FILE")
    parser.add_argument("--compare", metavar="FILE")
    parser.add_argument("--exact", action="store_true", help="with --compare: approximate instructions, too")
    parser.add_argument("--orders", action="store_true")
    parser.add_argument("--show", metavar="FILE")
    parser.add_argument("--only", metavar="REGEX", default="")
    options = parser.parse_args()
    if options.show:
        about, found = read(options.show)
        print(f"{about['device']}, driver {about['driver']}, {about['date']}: {len(found)} cases of "
              f"{len({form[0] for form in found})} forms, {sum(map(len, found.values()))} bytes")
        return 0
    if not options.driver:
        parser.error("--driver is needed")
    if options.orders:
        return orders(options)
    if not options.compare and not options.record:
        parser.error("one of --record, --compare, --orders, --show is needed")
    os.environ.setdefault("TIDE_LOG", "error")  # forms that a device does not take are expected
    try:
        if options.compare:
            return compare(options.compare, options)
        driver = Driver(options.driver)
        found = results(driver, candidates(options.only))
        write(options.record, driver, found)
    except (Refused, OSError) as problem:
        print(f"golden: {options.driver}: {problem}", file=sys.stderr)
        return 2
    print(f"golden: {driver.name}, target {driver.target()}: {len(found)} cases of {len({f[0] for f in found})} forms "
          f"recorded, {os.path.getsize(options.record) // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
