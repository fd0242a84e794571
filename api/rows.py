"""The grammar of api/*.api: one row a function. Shared by the generator, the draft tool and the tests.

    NUMBER NAME(PARAMETER, ...) TRAVEL [WORD ...]

PARAMETER  a C declaration, then at most one word for how a pointer crosses the wire:
    (nothing)   by value; handle types are translated by type
    dev[BYTES]  a device address with that many bytes behind it (a C expression over the parameters)
    out         one value that comes back           out[N]  an array of N values that comes back
    in[N]       an array of N values that goes out  str     a NUL-terminated string that goes out
TRAVEL     async     no answer; an error sticks and comes out at the next call
           sync      waits for the answer           local   hand-written in interpose/, may use internal commands
           internal  a command of our own, hand-written on both sides
           refuse    CUDA_ERROR_NOT_SUPPORTED, logged once; cuGetProcAddress answers NULL
WORD       work      puts work on a stream: its CUstream parameter, else the default stream
           keeps     changes an object's state: kept and replayed when the vGPU moves
           cached    sync once per distinct argument list, then local
"""

import dataclasses
import pathlib
import re

TRAVELS = ('async', 'sync', 'local', 'internal', 'refuse')
WORDS = ('work', 'keeps', 'cached')
HANDLES = ('CUstream', 'CUevent', 'CUfunction', 'CUkernel', 'CUlibrary', 'CUdevice')


@dataclasses.dataclass
class Param:
    type: str  # 'CUdeviceptr', 'const void*'
    name: str
    word: str = ''  # '', 'dev', 'out', 'in', 'str'
    count: str = ''  # the expression in brackets, '' for one

    @property
    def is_handle(self):
        return self.type in HANDLES

    @property
    def element(self):
        return self.type.replace('const ', '').rstrip('*').strip()


@dataclasses.dataclass
class Row:
    number: int
    name: str
    params: list
    travel: str
    words: tuple
    place: str

    @property
    def on_wire(self):
        return self.travel in ('async', 'sync', 'internal')


class Malformed(Exception):
    pass


def split_params(text):
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += c in '([' and 1 or (c in ')]' and -1 or 0)
        if c == ',' and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return [p.strip() for p in parts if p.strip()]


def parse_param(text, place):
    word, count = '', ''
    match = re.search(r'\s(dev|in|out)\[(.*)\]$', text) or re.search(r'\s(out|str)$', text)
    if match:
        word = match.group(1)
        count = match.group(2) if match.re.groups == 2 else ''
        text = text[: match.start()].strip()
    if '(' in text:  # a pointer to a function
        return Param('void*', text, word, count)
    match = re.match(r'(.*?)\s*(\w+)((?:\[\d*\])?)$', text)
    if not match or not match.group(1).strip():
        raise Malformed(f'{place}: cannot read parameter "{text}"')
    kind = re.sub(r'\s*\*', '*', match.group(1).strip()) + ('*' if match.group(3) else '')
    return Param(kind, match.group(2), word, count)


def parse_row(line, place):
    match = re.match(r'(\d+)\s+(\w+)\((.*)\)\s+([a-z ]+)$', line)
    if not match:
        raise Malformed(f'{place}: not a row: {line}')
    number, name, params, words = match.groups()
    travel, *rest = words.split()
    if travel not in TRAVELS:
        raise Malformed(f'{place}: {name}: unknown travel "{travel}"')
    for word in rest:
        if word not in WORDS:
            raise Malformed(f'{place}: {name}: unknown word "{word}"')
    row = Row(
        int(number),
        name,
        [parse_param(p, f'{place}: {name}') for p in split_params(params)],
        travel,
        tuple(rest),
        place,
    )
    check(row)
    return row


def check(row):
    if row.travel not in ('async', 'sync'):
        return
    for p in row.params:
        if '*' in p.type and not p.word:
            raise Malformed(f"{row.place}: {row.name}: pointer '{p.name}' does not say how it crosses the wire")
        if p.word == 'out' and row.travel == 'async':
            raise Malformed(f"{row.place}: {row.name}: an async call cannot have the output '{p.name}'")
        if p.type == 'CUdeviceptr' and p.word != 'dev':
            raise Malformed(
                f"{row.place}: {row.name}: device address '{p.name}' does not say how many bytes it covers"
            )
    if 'cached' in row.words and row.travel != 'sync':
        raise Malformed(f'{row.place}: {row.name}: only a sync call can be cached')


def read_all(folder):
    result, numbers, names = [], {}, {}
    for file in sorted(pathlib.Path(folder).glob('*.api')):
        for n, line in enumerate(file.read_text().splitlines(), 1):
            line = line.strip()
            if not line or line.startswith('#'):
                continue
            row = parse_row(line, f'{file.name}:{n}')
            if row.number in numbers:
                raise Malformed(f'{row.place}: number {row.number} is taken by {numbers[row.number]}')
            if row.name in names:
                raise Malformed(f'{row.place}: {row.name} has a row already at {names[row.name]}')
            numbers[row.number], names[row.name] = row.name, row.place
            result.append(row)
    return result


def read_symbols(folder):
    """The resolver table: (name, per_thread, min_version, symbol) for all exported symbols."""
    lines = (pathlib.Path(folder) / 'procaddress.tsv').read_text().splitlines()[1:]
    return [(n, int(p), int(v), s) for n, p, v, s in (line.split('\t') for line in lines if line)]
