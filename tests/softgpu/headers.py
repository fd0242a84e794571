#!/usr/bin/env python3
"""Every instruction that the CUDA toolkit's headers write as inline assembly, tried on the software GPU.

  headers.py --tool TOOL --include DIR     what does not lower, and is not on the list of what is refused, fails
  ... --refused                            prints what is on the list and really does not lower

TOOL is softgpu-ptx-check, DIR the toolkit's include directory. No header is compiled: the texts of `asm` statements are
read, and operands become registers of the kind that their constraints name.
"""

import argparse
import pathlib
import re
import sys

import forms

# Only for targets with an `a` or `f`; docs/softgpu.md.
REFUSED = re.compile(r"\b(tcgen05|wgmma)\.")

# Host code, 32-bit addresses, and names of functions.
FOREIGN = re.compile(r"(yield|pause|clock32|cvta(\.to)?\.param\.u32)\b")

ASM = re.compile(r"\b(?:asm|__asm__)\s*(?:__volatile__|volatile)?\s*\(")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
REGISTER = {"h": "%h", "r": "%r", "f": "%r", "l": "%rd", "d": "%rd", "q": "%q"}
FOLDERS = (".", "crt", "cooperative_groups", "cccl")


def arguments(text, at):
    """The text between the parentheses that open before `at`, and without comments."""
    depth, out, quoted = 1, [], False
    while at < len(text):
        char = text[at]
        if quoted and char == "\\":
            out.append(text[at:at + 2])
            at += 2
            continue
        if char == '"':
            quoted = not quoted
        if not quoted:
            if text.startswith("//", at):
                at = text.index("\n", at)
                continue
            depth += (char == "(") - (char == ")")
            if depth == 0:
                return "".join(out)
        out.append(char)
        at += 1
    return ""


def sections(body):
    """The parts between colons outside of strings and parentheses."""
    parts, depth, at = [""], 0, 0
    while at < len(body):
        string = STRING.match(body, at)
        if string:
            parts[-1] += string[0]
            at = string.end()
            continue
        char = body[at]
        depth += (char in "([{<") - (char in ")]}>")
        if body.startswith("::", at) and depth > 0:
            parts[-1] += "::"
            at += 2
            continue
        if char == ":" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += char
        at += 1
    return parts


def constraints(section):
    """The constraint of each operand; None for what is not written out."""
    return [text for text in STRING.findall(section)]


def unquoted(section):
    """The assembly, or None where macros are part of it."""
    text = "".join(STRING.findall(section))
    if STRING.sub("", section).strip(" \t\n\\"):
        return None
    text = text.replace("\\n", "\n").replace("\\t", " ").replace('\\"', '"')
    return re.sub(r"//[^\n]*", "", text)


def statements_of(text, constant):
    """Inline assembly with registers in place of its operands, and `constant` where a number must stand."""
    for match in ASM.finditer(text):
        parts = sections(arguments(text, match.end()))
        assembly = unquoted(parts[0])
        if not assembly or not assembly.strip():
            continue
        operands, used = [], {}
        for constraint in [c for part in parts[1:3] for c in constraints(part)]:
            letter = constraint.lstrip("=+&")
            if letter in ("n", "C"):
                operands.append(constant)
                continue
            name = REGISTER.get(letter)
            if name is None:
                break
            used[name] = used.get(name, 0) + 1
            operands.append(f"{name}{used[name]}")
        else:
            numbers = [int(n) for n in re.findall(r"(?<!%)%(\d+)", assembly)]
            if numbers and max(numbers) >= len(operands):
                continue
            line = re.sub(r"(?<!%)%(\d+)", lambda m: operands[int(m[1])], assembly).replace("%%", "%")
            line = " ".join(line.split()).rstrip("; ")
            foreign = line.startswith((".", "//")) or FOREIGN.match(line)
            if line and not foreign and line.count("{") == line.count("}"):
                yield line


def all_statements(include, constant):
    found = {}
    for folder in FOLDERS:
        files = (include / folder).glob("*.h*") if folder in (".", "crt") else (include / folder).rglob("*")
        for path in sorted(files):
            if path.is_file():
                for line in statements_of(path.read_text(errors="replace"), constant):
                    found.setdefault(line, str(path.relative_to(include)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--include", required=True, type=pathlib.Path)
    parser.add_argument("--refused", action="store_true")
    options = parser.parse_args()
    forms.REGISTERS = re.sub(r"%(\w+)<\d+>", r"%\1<300>", forms.REGISTERS)
    found = all_statements(options.include, "16")
    ours = forms.lowered(options.tool, found)
    # Not every instruction takes every number.
    for constant in ("0", "128"):
        others = all_statements(options.include, constant)
        again = forms.lowered(options.tool, [o for line, o in zip(found, others) if ours[line] and o not in found])
        ours |= {line: None for line, o in zip(found, others) if ours[line] and o in again and again[o] is None}
    lacking = {line: why for line, why in ours.items() if why is not None}
    refused = {line: why for line, why in lacking.items() if REFUSED.search(line)}
    wrong = {line: why for line, why in lacking.items() if line not in refused}
    print(f"headers: {len(found)} pieces of assembly, {len(found) - len(lacking)} lower, {len(refused)} are refused "
          f"by name, {len(wrong)} are missing")
    for line, why in (refused if options.refused else wrong).items():
        print(f"{found[line]}: {line[:160]}: {why}")
    return 1 if wrong or len(found) < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
