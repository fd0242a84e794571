#!/usr/bin/env python3
"""The linter of docs/style.md that is just a test.

  tests/tidy.py                       all rules that need no compiler
  tests/tidy.py --headers BUILD       every header compiles alone (results are kept in BUILD/tidy-headers)
  tests/tidy.py --format              clang-format agrees with every file
  tests/tidy.py --lint BUILD SECONDS  clang-tidy over some sources, within a time
"""

import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINE_MAX = 120
FUNCTION_MAX = 70
FILE_MAX = 800
# Functions that were longer when the rule came: may shrink, may not grow. "file:line text" -> lines.
LONG_FUNCTIONS = {}

ROOMS = {  # room -> rooms whose headers it may include
    'base': [],
    'api': ['base'],
    'transport': ['base'],
    'interpose': ['base', 'api', 'transport'],
    'softgpu': ['base', 'api'],
    'server': ['base', 'api', 'transport', 'scheduler/control.capnp', 'scheduler/config.h',
               'scheduler/addresses.h', 'scheduler/enter.h', 'scheduler/remote_error.h'],
    'scheduler': ['base', 'transport'],
    'tools': ['base', 'api', 'transport', 'interpose', 'softgpu', 'server', 'scheduler'],
    'tests': ['base', 'api', 'transport', 'interpose', 'softgpu', 'server', 'scheduler', 'tools'],
}
# These live inside other people's processes: nothing but the standard library and libc.
PLAIN_ROOMS = ('base', 'api', 'transport', 'interpose')
PLAIN_EXCEPT = ('transport/ucx',)
PLAIN_BANNED = re.compile(r'#include [<"](absl|capnp|kj|gtest|sqlite3|toml)')

BANNED = [  # pattern, where it is allowed, what to use
    (re.compile(r'std::chrono::\w*clock::now|std::this_thread::sleep|\b(usleep|nanosleep)\s*\('
                r'|(?<![\w.>])sleep\s*\(\s*\d|\b(clock_gettime|gettimeofday)\s*\('),
     ('base/', 'tests/jobs/'), 'base/clock.h'),
    (re.compile(r'(?<![\w.>])(rand|srand|random|drand48)\s*\(|std::random_device|std::mt19937'),
     ('base/', 'tests/jobs/'), 'a seeded generator that is passed in'),
]
LEFTOVER = re.compile(r'\b(TO' r'DO|FIX' r'ME|X' r'XX)\b')
MACHINE_PATH = re.compile(r'(?<![\w$}/.])/(work|root|home|farm)/[a-z]')
CODE = ('.h', '.cc', '.cpp', '.cu', '.inc')
LINTED = ('base', 'transport', 'server', 'scheduler')
# What the e2e tests compile with nvcc, not meson; and what tests/fuzz/run compiles with clang.
NOT_IN_MESON = ('tests/jobs/',)
FOR_CLANG = 'tests/fuzz/'


def files():
    command = ['git', '-C', ROOT, 'ls-files', '-co', '--exclude-standard']
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode == 0:
        names = listed.stdout.split('\n')
    else:  # not a checkout
        names = [os.path.join(folder, name) for folder, _, here in os.walk(ROOT) for name in here]
        names = [os.path.relpath(name, ROOT) for name in names]
        names = [name for name in names if not re.match(r'build|\.git/', name)]
    return sorted(name for name in set(names) if name and os.path.isfile(os.path.join(ROOT, name)))


def read(name):
    with open(os.path.join(ROOT, name), encoding='utf-8', errors='replace') as file:
        return file.read()


def is_script(name):
    with open(os.path.join(ROOT, name), 'rb') as file:
        return file.read(2) == b'#!'


def blanked(text):
    """The text with comments and the contents of literals replaced by spaces; line breaks stay."""
    pattern = re.compile(r'R"(\w*)\(.*?\)\1"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"'
                         r'|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'', re.S)
    return pattern.sub(lambda m: re.sub(r'[^\n]', ' ', m.group()), text)


CONTROL = re.compile(r'^\s*(namespace|extern|struct|class|enum|union|if|for|while|switch|do|else|try|catch)\b')


def functions(text):
    """(first line, lines, head) of every outermost function body."""
    text = re.sub(r'^[ \t]*#[^\n]*(\\\n[^\n]*)*', lambda m: re.sub(r'[^\n]', ' ', m.group()), blanked(text), flags=re.M)
    stack, head_at, inside = [], 0, 0
    for match in re.finditer(r'[{};]|\b(?:public|private|protected)\s*:', text):
        at, sign = match.start(), match.group()
        if sign == '{':
            head = text[head_at:at]
            is_function = not inside and ')' in head and not CONTROL.match(head) and '=' not in head.split('(')[0]
            inside += is_function
            stack.append((is_function, head_at + len(head) - len(head.lstrip()), head))
        elif sign == '}' and stack:
            is_function, start, head = stack.pop()
            if is_function:
                inside -= 1
                first = text.count('\n', 0, start) + 1
                yield first, text.count('\n', 0, at) + 2 - first, ' '.join(head.split())
        if sign != ';' or not inside:
            head_at = match.end()


def check_lengths(name, text):
    if name.endswith(CODE + ('.py', '.capnp', '.build', '.sh')) or is_script(name):
        for number, line in enumerate(text.split('\n'), 1):
            if len(line) > LINE_MAX:
                yield f'{name}:{number}: {len(line)} columns; {LINE_MAX} is the limit'
        lines = text.count('\n')
        if lines > FILE_MAX:
            yield f'{name}: {lines} lines; {FILE_MAX} is the limit: split it by its nouns'
    if name.endswith(CODE):
        for first, lines, head in functions(text):
            allowed = LONG_FUNCTIONS.get(f'{name}:{head}', FUNCTION_MAX)
            if lines > allowed:
                yield f'{name}:{first}: function of {lines} lines; {allowed} is the limit: {head[:60]}'


def check_includes(name, text):
    room = name.split('/')[0]
    if not name.endswith(CODE) or room not in ROOMS:
        return
    for number, line in enumerate(text.split('\n'), 1):
        match = re.match(r'#include "((\w+)/[^"]*)"', line)
        if match and match.group(2) in ROOMS and match.group(2) != room:
            if not any(match.group(1).startswith(allowed) for allowed in ROOMS[room]):
                yield f'{name}:{number}: {room}/ may not include from {match.group(2)}/ (docs/architecture.md)'
        if room in PLAIN_ROOMS and not name.startswith(PLAIN_EXCEPT) and PLAIN_BANNED.match(line):
            yield f'{name}:{number}: {room}/ uses the standard library and libc only'
    if name.endswith('.h') and '#pragma once' not in text:
        yield f'{name}: has no #pragma once'


def check_words(name, text):
    if not name.endswith(CODE):
        return
    for number, line in enumerate(blanked(text).split('\n'), 1):
        for pattern, allowed, instead in BANNED:
            if pattern.search(line) and not name.startswith(allowed):
                yield f'{name}:{number}: "{pattern.search(line).group().strip()}": use {instead}'


def check_leftovers(name, text):
    if name.endswith(('.csv', '.tsv')) or name == 'LICENSE':
        return
    for number, line in enumerate(text.split('\n'), 1):
        if LEFTOVER.search(line):
            yield f'{name}:{number}: leftover {LEFTOVER.search(line).group()}'
        if MACHINE_PATH.search(line):
            yield f'{name}:{number}: names a path of one machine'
    if 'made by ' + 'generate.py' in text and name not in ('api/generate.py', 'tests/tidy.py') and 'docs' not in name:
        yield f'{name}: is generated; it does not belong into git'


def check_document(name, text):
    if not name.endswith('.md'):
        return
    plain = re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)
    titles = re.findall(r'^# .+', plain, flags=re.M)
    if len(titles) != 1 or not plain.startswith('# '):
        yield f'{name}: a document begins with its one "# Title" (found {len(titles)})'
    for target in re.findall(r'\]\(([^)#\s]+)[^)]*\)', plain):
        if '://' not in target and not os.path.exists(os.path.join(ROOT, os.path.dirname(name), target)):
            yield f'{name}: links to {target}, which does not exist'


def check_script(name, text):
    if not is_script(name):
        return
    if text.startswith(('#!/bin/bash', '#!/usr/bin/env bash', '#!/bin/sh')):
        result = subprocess.run(['bash', '-n', os.path.join(ROOT, name)], capture_output=True, text=True)
        if result.returncode != 0:
            yield f'{name}: {result.stderr.strip()}'
    if name.startswith(('tools/', '.ci/')) and not os.access(os.path.join(ROOT, name), os.X_OK):
        yield f'{name}: begins with #! but is not executable'


def check_listed(names):
    """Every source is named by a meson.build in a folder above it."""
    builds = {os.path.dirname(name): read(name) for name in names if os.path.basename(name) == 'meson.build'}
    for name in names:
        if not name.endswith(('.cc', '.cpp')) or (name.startswith(NOT_IN_MESON) and not name.endswith('.cc')):
            continue
        if name.startswith(FOR_CLANG):
            continue
        folder = os.path.dirname(name)
        while True:
            relative = os.path.relpath(name, folder or '.')
            stem = re.sub(r'\.\w+$', '', relative)
            if re.search(rf"'({re.escape(relative)}|{re.escape(stem)})'", builds.get(folder, '')):
                break
            if not folder:
                yield f'{name}: is in no meson.build'
                break
            folder = os.path.dirname(folder)


def rules():
    names = files()
    for name in names:
        text = read(name)
        for check in (check_lengths, check_includes, check_words, check_leftovers, check_document, check_script):
            yield from check(name, text)
    yield from check_listed(names)


def include_flags(build):
    """What the compiler is given to find headers; no room's own folder, or base/limits.h stands in for <limits.h>."""
    flags = {'-I' + ROOT}
    with open(os.path.join(build, 'compile_commands.json')) as file:
        for entry in json.load(file):
            words = entry['command'].split()
            for i, word in enumerate(words):
                if word.startswith('-I') and len(word) > 2:
                    folder = os.path.normpath(os.path.join(entry['directory'], word[2:]))
                    if not folder.startswith(ROOT + '/') or (folder + '/').startswith(build + '/'):
                        flags.add('-I' + folder)
                elif word == '-isystem':
                    flags.add('-isystem' + words[i + 1])
                elif word.startswith('-isystem'):
                    flags.add(word)
    return sorted(flags)


def digest(name, seen=None):
    """Of a header and of all that it includes from the tree."""
    seen = set() if seen is None else seen
    if name in seen or not os.path.isfile(os.path.join(ROOT, name)):
        return ''
    seen.add(name)
    text = read(name)
    inner = ''.join(digest(other, seen) for other in re.findall(r'#include "([^"]+)"', text))
    return hashlib.sha256((text + inner).encode()).hexdigest()


def comes_first_in_its_source(header):
    """Then the build has compiled it alone."""
    try:
        with open(os.path.join(ROOT, header[:-2] + '.cc'), encoding='utf-8') as source:
            first = next((line for line in source if line.startswith('#')), '')
    except FileNotFoundError:
        return False
    return first.strip() == f'#include "{header}"'


def headers(build):
    build = os.path.abspath(build)
    kept = os.path.join(build, 'tidy-headers')
    os.makedirs(kept, exist_ok=True)
    flags = include_flags(build)

    def compile_alone(name):
        stamp = os.path.join(kept, digest(name))
        if os.path.exists(stamp):
            return None
        command = ['g++', '-std=c++20', '-fsyntax-only', '-x', 'c++', '-w', *flags, os.path.join(ROOT, name)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            return f'{name}: does not compile alone:\n{result.stderr[:2000]}'
        open(stamp, 'w').close()
        return None

    names = [name for name in files()
             if name.endswith('.h') and not name.startswith('tests/jobs/') and not comes_first_in_its_source(name)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from filter(None, pool.map(compile_alone, names))


def formatting():
    names = [name for name in files() if name.endswith(('.h', '.cc', '.cpp', '.cu'))]
    command = ['clang-format', '--dry-run', '-Werror', *names]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    wrong = sorted(set(re.findall(r'^(\S+?):\d+:\d+: error', result.stderr, flags=re.M)))
    yield from (f'{name}: run clang-format -i on it' for name in wrong)
    if result.returncode != 0 and not wrong:
        yield result.stderr.strip()


def lint(build, seconds):
    """clang-tidy over as many sources of some rooms as fit, smallest first."""
    names = [name for name in files() if name.endswith('.cc') and name.split('/')[0] in LINTED]
    with open(os.path.join(build, 'compile_commands.json')) as file:
        known = {os.path.relpath(os.path.join(e['directory'], e['file']), ROOT) for e in json.load(file)}
    names = sorted(known.intersection(names), key=lambda name: os.path.getsize(os.path.join(ROOT, name)))
    end, done = time.monotonic() + float(seconds), 0
    for name in names:
        left = end - time.monotonic()
        if left < 5:
            break
        command = ['clang-tidy', '-p', build, '--quiet', '--warnings-as-errors=*',
                   '--extra-arg=-Wno-unknown-warning-option', os.path.join(ROOT, name)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            break
        done += 1
        found = [line for line in result.stdout.split('\n') if re.search(r' (warning|error): ', line)]
        yield from found
    print(f'tidy: clang-tidy looked at {done} of {len(names)} sources in the time')


def main(arguments):
    mode = arguments[0] if arguments else ''
    if mode == '--headers':
        found = headers(arguments[1])
    elif mode == '--format':
        found = formatting()
    elif mode == '--lint':
        found = lint(arguments[1], arguments[2])
    else:
        found = rules()
    count = 0
    for problem in found:
        print(problem)
        count += 1
    print(f'tidy: {count} problems' if count else 'tidy: ok')
    return 1 if count else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
