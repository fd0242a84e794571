#!/usr/bin/env python3
"""Numba's own tests of its CUDA target, module by module: which run, which pass, and why the others do not.

numba_suite.py [--modules WORD] [--seconds N] [--json FILE] [--markdown FILE] -- COMMAND PYTHON
COMMAND (for instance `tide run --local -g 1 --`) is put before the interpreter that has Numba.
"""
import argparse
import collections
import json
import re
import subprocess
import sys
import textwrap
import time

import program

FOLDERS = 'core cudadrv cudapy doc_examples nocuda nrt'.split()


def modules(python):
    code = ('import importlib.util, pathlib\n'
            'root = pathlib.Path(importlib.util.find_spec("numba.cuda").origin).parent / "tests"\n'
            f'for folder in {FOLDERS!r}:\n'
            '    for path in sorted((root / folder).glob("test_*.py")):\n'
            '        print(f"numba.cuda.tests.{folder}.{path.stem}")\n')
    command = [python, '-W', 'ignore', '-c', code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def reasons(output):
    """What each failed test met first: the first line of its traceback that is an error and no frame."""
    found = {}
    for block in re.split(r'^={70}\n', output, flags=re.M)[1:]:
        head, _, rest = block.partition('\n')
        name = re.match(r'(?:ERROR|FAIL): (\S+)', head)
        lines = [line for line in rest.split('\n' + '-' * 70 + '\nRan ')[0].splitlines()
                 if re.match(r'[\w.]+(Error|Exception|Warning|Failure|Exit)\b', line)]
        if name:
            found[name[1]] = lines[0][:160] if lines else head
    return found


def run_module(command, module, seconds):
    began = time.monotonic()
    ended, text = program.execute([*command, '-W', 'ignore', '-m', 'unittest', '-v', module], seconds)
    counted = re.search(r'^Ran (\d+) tests? in', text, re.M)
    tail = re.search(r'^(?:OK|FAILED)(?: \((.*)\))?$', text, re.M)
    detail = dict(re.findall(r'([\w ]+?)=(\d+)', tail[1])) if tail and tail[1] else {}
    row = {'module': module.removeprefix('numba.cuda.tests.'), 'seconds': round(time.monotonic() - began, 1)}
    if not counted:
        last = next((line for line in reversed(text.strip().splitlines()) if line.strip()), '')
        return {**row, 'ended': ended, 'output': last[:200]}
    detail = {key.strip(', '): int(value) for key, value in detail.items()}
    why = reasons(text)  # of tests; unittest counts what fails in each of their parts
    skipped, total = detail.get('skipped', 0), int(counted[1])
    return {**row, 'tests': total, 'failed': len(why), 'skipped': skipped,
            'passed': total - len(why) - skipped, 'reasons': why,
            'skips': collections.Counter(re.findall(r"\.\.\. skipped '(.*)'", text))}


def kind(reason):
    """Reasons that differ only in names and numbers are one."""
    return re.sub(r"0x[0-9a-f]+|\d+|'[^']*'", '*', reason)[:110]


def summary(rows):
    ran = [row for row in rows if 'tests' in row]
    total = {key: sum(row[key] for row in ran) for key in ('tests', 'passed', 'failed', 'skipped')}
    lines = [f'{len(rows)} modules, {total["tests"]} tests: {total["passed"]} pass, {total["failed"]} fail, '
             f'{total["skipped"]} are skipped by Numba; {sum(row["seconds"] for row in rows):.0f} s.', '',
             '| module | tests | pass | fail | skipped | s |', '| --- | --- | --- | --- | --- | --- |']
    for row in rows:
        if 'tests' not in row:
            lines.append(f'| {row["module"]} | - | - | {row["ended"]} | - | {row["seconds"]} |')
        elif row['failed']:
            lines.append('| {module} | {tests} | {passed} | {failed} | {skipped} | {seconds} |'.format(**row))
    good = [f'{row["module"]} {row["passed"]}' for row in ran if row['passed'] and not row['failed']]
    idle = [row['module'] for row in ran if not row['failed'] and not row['passed']]
    for title, names in (('Nothing fails in', good), ('Nothing runs in', idle)):
        lines += ['', *textwrap.wrap(f'{title}: {", ".join(names)}.', 118, break_on_hyphens=False)]
    lines += ['', '| failed | reason | for instance |', '| --- | --- | --- |']
    groups = collections.defaultdict(list)
    for row in ran:
        for test, reason in row['reasons'].items():
            groups[kind(reason)].append((reason, f'{row["module"]}.{test}'))
    for members in sorted(groups.values(), key=len, reverse=True):
        reason = members[0][0].replace('|', '\\|')
        lines.append(f'| {len(members)} | `{reason}` | {members[0][1]} |')
    lines += ['', '| skipped | Numba\'s reason |', '| --- | --- |']
    skips = collections.Counter()
    for row in ran:
        skips.update(row['skips'])
    lines += [f'| {count} | {reason} |' for reason, count in skips.most_common()]
    return '\n'.join(lines) + '\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--modules', default='', help='only modules whose name has this word')
    parser.add_argument('--seconds', type=float, default=120, help='for one module')
    parser.add_argument('--json', help='the rows')
    parser.add_argument('--markdown', help='the summary')
    parser.add_argument('command', nargs='+')
    arguments = parser.parse_args()
    rows = []
    for module in modules(arguments.command[-1]):
        if arguments.modules in module:
            rows.append(run_module(arguments.command, module, arguments.seconds))
            shown = {key: rows[-1][key] for key in rows[-1] if key not in ('reasons', 'skips')}
            print(shown, file=sys.stderr, flush=True)
            if arguments.json:
                with open(arguments.json, 'w', encoding='utf-8') as out:
                    json.dump(rows, out, indent=1)
    text = summary(rows)
    print(text)
    if arguments.markdown:
        with open(arguments.markdown, 'w', encoding='utf-8') as out:
            out.write(text)


if __name__ == '__main__':
    main()
