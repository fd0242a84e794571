#!/usr/bin/env python3
"""Writes C++ from the rows of api/*.api: data and straight lines, no logic. The build runs it; nothing is kept.

generate.py OUTPUT_FILE...      what is written is chosen by the file's name, see PRODUCTS
"""

import pathlib
import re
import sys

import rows as api_rows

HERE = pathlib.Path(__file__).parent
NOTE = '// made by api/generate.py; do not edit\n'
FULL_CUDA = '#define __CUDA_API_VERSION_INTERNAL\n#include <cuda.h>\n#include <cudaProfiler.h>\n'


def declare(params):
    return ', '.join(f'{p.type} {p.name}' for p in params)


def command_name(row):
    """tideMapMemory -> MapMemory"""
    return row.name[len('tide') :]


def kind_of(param):
    if param.word in ('in', 'out', 'str', 'dev'):
        return {'in': 'in', 'out': 'out', 'str': 'string', 'dev': 'device'}[param.word]
    return 'handle' if param.is_handle else 'value'


# --- shared -----------------------------------------------------------------------------------------------------------


def calls_h(rows):
    lines = [
        NOTE,
        '#pragma once\n#include <cstdint>\n\nnamespace tide {\n',
        '// Wire opcodes: the numbers of the rows, never reused.',
        'enum class Call : uint16_t {',
    ]
    lines += [f'  {r.name} = {r.number},' for r in rows if r.on_wire]
    lines += [
        '};',
        f'inline constexpr uint16_t kCallLimit = {max(r.number for r in rows) + 1};\n',
        'enum class Travel : uint8_t { kAsync, kSync, kLocal, kInternal, kRefuse };',
        'enum class ParamKind : uint8_t { kValue, kHandle, kDevice, kIn, kOut, kString };\n',
        'struct ParamRow {\n  const char* name;\n  ParamKind kind;\n  uint8_t bytes;  // of one element\n};\n',
        'struct CallRow {\n  uint16_t number;\n  const char* name;\n  Travel travel;\n  bool work, keeps, cached;\n'
        '  uint8_t param_count;\n  const ParamRow* params;\n};\n',
        '// All rows, by number; and the one with a number (null: none).',
        f'inline constexpr uint16_t kCallRowCount = {len(rows)};',
        'extern const CallRow kCallRows[kCallRowCount];',
        'const CallRow* find_call(uint16_t number);',
        'const char* call_name(uint16_t number);  // "?" for none\n',
        '}  // namespace tide',
    ]
    return lines


def calls_cc(rows):
    lines = [NOTE, FULL_CUDA, '#include "calls.h"\n\nnamespace tide {\nnamespace {\n']
    for r in rows:
        if r.on_wire and r.params:
            items = ', '.join(
                f'{{"{p.name}", ParamKind::k{kind_of(p).capitalize()}, {size_text(p)}}}' for p in r.params
            )
            lines.append(f'const ParamRow kParams_{r.name}[] = {{{items}}};')
    lines += ['\n}  // namespace\n', 'const CallRow kCallRows[kCallRowCount] = {']
    for r in rows:
        flags = ', '.join(str(w in r.words).lower() for w in ('work', 'keeps', 'cached'))
        params = f'{len(r.params)}, kParams_{r.name}' if r.on_wire and r.params else '0, nullptr'
        lines.append(f'    {{{r.number}, "{r.name}", Travel::k{r.travel.capitalize()}, {flags}, {params}}},')
    lines += [
        '};\n',
        'const CallRow* find_call(uint16_t number) {\n  int low = 0, high = kCallRowCount - 1;\n'
        '  while (low <= high) {\n    const int middle = (low + high) / 2;\n'
        '    if (kCallRows[middle].number == number) return &kCallRows[middle];\n'
        '    if (kCallRows[middle].number < number) low = middle + 1; else high = middle - 1;\n  }\n'
        '  return nullptr;\n}\n',
        'const char* call_name(uint16_t number) {\n  const CallRow* row = find_call(number);\n'
        '  return row == nullptr ? "?" : row->name;\n}\n',
        '}  // namespace tide',
    ]
    return lines


def size_text(param):
    if param.word == 'str' or param.element == 'void':
        return '1'
    return f'uint8_t(sizeof({param.element if param.word in ("in", "out") else param.type}))'


def commands_h(rows):
    lines = [
        NOTE,
        '#pragma once\n#include <cstddef>\n#include <cstdint>\n#include <type_traits>\n\nnamespace tide::command {\n',
    ]
    for r in rows:
        if r.travel != 'internal':
            continue
        fixed = [p for p in r.params if p.word != 'in']
        data = [p for p in r.params if p.word == 'in']
        lines.append(f'struct {command_name(r)} {{')
        lines += [f'  {p.type} {p.name};' for p in fixed]
        if data:
            lines.append(
                f'  // Bytes of the data that follow at data_offset.\n  uint64_t data_bytes() const {{ return '
                f'{widen(data[0].count, fixed)}; }}'
            )
        lines.append('};')
        if fixed:
            lines.append(
                f'static_assert(std::is_trivially_copyable_v<{command_name(r)}> && sizeof({command_name(r)}) % 8 == 0);'
            )
        if data:
            lines.append(
                f'inline constexpr size_t k{command_name(r)}DataOffset = (sizeof({command_name(r)}) + 15) / 16 * 16;'
            )
        lines.append('')
    return lines + ['}  // namespace tide::command']


def widen(expression, fixed):
    """All arithmetic on counts from the wire is in 64 bits."""
    for p in fixed:
        expression = re.sub(rf'\b{p.name}\b', f'uint64_t({p.name})', expression)
    return expression


# --- client -----------------------------------------------------------------------------------------------------------


def pack_line(p):
    kind = kind_of(p)
    if kind == 'device':
        return f'  q.device({p.name}, {p.count});'
    if kind in ('in', 'out'):
        return f'  q.{kind}({p.name}, {p.count or 1});'
    return f'  q.{kind}({p.name});'


def client_stub(row):
    lines = [f'extern "C" CUresult {row.name}({declare(row.params)}) {{', f'  Request q(Call::{row.name});']
    lines += [pack_line(p) for p in row.params if kind_of(p) in ('value', 'handle', 'device')]
    lines += [pack_line(p) for p in row.params if kind_of(p) in ('in', 'string', 'out')]
    if 'work' in row.words and not any(p.type == 'CUstream' for p in row.params):
        lines.append('  q.default_stream();')
    if 'keeps' in row.words:
        lines.append('  q.keeps();')
    send = 'send' if row.travel == 'async' else 'call_cached' if 'cached' in row.words else 'call'
    return lines + [f'  return q.{send}();', '}', '']


def per_thread_wrappers(rows, symbols, everything=False):
    """X_ptsz and X_ptds: the same call with the per-thread default stream in place of the legacy one. `everything`: of
    refused functions, too."""
    served = {r.name: r for r in rows if r.travel != 'internal' and (everything or r.travel != 'refuse')}
    for symbol in sorted({s for _, _, _, s in symbols if s.endswith(('_ptsz', '_ptds'))}):
        base = served.get(symbol[:-5])
        if base is None or base.name.startswith('cuGetProcAddress'):
            continue
        yield symbol, base


SERVES = 'tide_serve_'  # what serves cuX in the client's library is the symbol tide_serve_cuX


def entries(rows):
    return [r for r in rows if r.travel not in ('refuse', 'internal')]


def client_names_h(rows):
    """Comes before all else in the client's sources: what they define as cuX is another symbol, and so is what they
    call by that name."""
    return [NOTE, '#pragma once\n', *[f'#pragma redefine_extname {r.name} {SERVES}{r.name}' for r in entries(rows)]]


def client_entries_cc(rows):
    """The exported functions. Each notes its number, so that whoever waits knows what the program called, and goes on
    to what serves it; calls of the library to itself do not pass here."""
    lines = [NOTE, FULL_CUDA, '#include "interpose/gate.h"\n', '#pragma GCC visibility push(default)\n']
    for r in entries(rows):
        entry = f'entry_{r.name}'
        lines += [
            f'extern "C" CUresult {entry}({wrapper_params(r)}) __asm__("{r.name}");',
            f'CUresult {entry}({wrapper_params(r)}) {{',
            f'  tide::begin_call({r.number});',
            f'  return {r.name}({", ".join(p.name for p in r.params)});',
            '}',
            '',
        ]
    return lines + ['#pragma GCC visibility pop']


def client_stubs_cc(rows, symbols):
    lines = [
        NOTE,
        FULL_CUDA,
        '#include "api/box.h"\n#include "calls.h"\n#include "interpose/request.h"\n',
        'using tide::Call;\nusing tide::Request;\nusing tide::span_of;\n',
        '#pragma GCC visibility push(default)\n',
    ]
    for r in rows:
        if r.travel in ('async', 'sync'):
            lines += client_stub(r)
    for symbol, base in per_thread_wrappers(rows, symbols):
        lines.append(f'extern "C" CUresult entry_{base.name}({wrapper_params(base)}) __asm__("{base.name}");')
        lines += wrapper(symbol, base, 'tide', f'entry_{base.name}')
    return lines + ['#pragma GCC visibility pop']


def wrapper(symbol, base, library, called=None):
    return [
        f'extern "C" CUresult {symbol}({wrapper_params(base)}) {{',
        f'  {library}::PerThreadDefault guard;',
        f'  return {called or base.name}({", ".join(p.name for p in base.params)});',
        '}',
        '',
    ]


FUNCTION_POINTERS = {('cuLaunchHostFunc', 'fn'): 'CUhostFn', ('cuStreamAddCallback', 'callback'): 'CUstreamCallback'}


def wrapper_params(base):
    return ', '.join(f'{FUNCTION_POINTERS.get((base.name, p.name), p.type)} {p.name}' for p in base.params)


def exported(symbols):
    return sorted({s for _, _, _, s in symbols})


def served_symbols(rows, symbols):
    names = {r.name for r in rows if r.travel not in ('refuse', 'internal')}
    names |= {s for s, _ in per_thread_wrappers(rows, symbols)}
    names |= {s for s in exported(symbols) if s == 'cuGetProcAddress_v2_ptsz'}
    return names


def client_refusals_cc(rows, symbols):
    """No cuda.h here: a refusal ignores its arguments, so one prototype serves all."""
    refused = [s for s in exported(symbols) if s not in served_symbols(rows, symbols)]
    lines = [
        NOTE,
        '#include <atomic>\n\nnamespace tide {\nint refuse(const char* name, std::atomic<bool>* logged) noexcept;\n}\n',
        '#pragma GCC visibility push(default)',
    ]
    for s in refused:
        lines.append(
            f'extern "C" int {s}() {{ static std::atomic<bool> logged; return tide::refuse("{s}", &logged); }}'
        )
    return lines + ['#pragma GCC visibility pop']


def resolver_lines(symbols, function, refusal):
    lines = []
    for name, per_thread, version, symbol in sorted(symbols):
        lines.append(
            f'    {{"{name}", {version}, {"true" if per_thread else "false"}, {function(symbol)}, {refusal(symbol)}}},'
        )
    return lines


def client_resolver_cc(rows, symbols):
    served = served_symbols(rows, symbols)
    lines = [NOTE, '#include <cstddef>\n#include "api/handshake/handshake.h"\n']
    # Addresses only: declared in a namespace with C linkage, so cuda.h's own prototypes do not get in the way.
    lines += (
        ['namespace symbol {']
        + [f'extern "C" int tide_address_of_{s}() __asm__("{s}");' for s in sorted(served)]
        + ['}\n']
    )
    lines += [
        'namespace tide {\nextern const handshake::Entry kEntries[];\nextern const size_t kEntryCount;\n'
        'const handshake::Entry kEntries[] = {'
    ]
    lines += resolver_lines(
        symbols,
        lambda s: f'reinterpret_cast<void*>(&symbol::tide_address_of_{s})' if s in served else 'nullptr',
        lambda s: 'nullptr',
    )
    return lines + ['};', 'const size_t kEntryCount = sizeof(kEntries) / sizeof(kEntries[0]);\n}  // namespace tide']


def client_exports_map(_rows, symbols, more=()):
    return ['{', '  global:'] + [f'    {s};' for s in [*exported(symbols), *more]] + ['  local: *;', '};']


# --- software GPU -----------------------------------------------------------------------------------------------------


def softgpu_refusals_cc(_rows, symbols):
    """Weak: the driver's own definition, where there is one, wins at link time."""
    lines = [
        NOTE,
        '#include <atomic>\n\nnamespace softgpu {\n'
        'int refuse(const char* name, std::atomic<bool>* logged) noexcept;\n}\n',
        '#pragma GCC visibility push(default)',
    ]
    for s in exported(symbols):
        lines.append(
            f'extern "C" int softgpu_refuse_{s}() {{ static std::atomic<bool> logged; '
            f'return softgpu::refuse("{s}", &logged); }}'
        )
        lines.append(f'extern "C" __attribute__((weak, alias("softgpu_refuse_{s}"))) int {s}();')
    return lines + ['#pragma GCC visibility pop']


def softgpu_resolver_cc(_rows, symbols):
    lines = [NOTE, '#include <cstddef>\n#include "api/handshake/handshake.h"\n', 'namespace symbol {']
    for s in exported(symbols):
        lines.append(f'extern "C" int address_of_{s}() __asm__("{s}");')
        lines.append(f'extern "C" int refusal_of_{s}() __asm__("softgpu_refuse_{s}");')
    lines += [
        '}\n',
        'namespace softgpu {\nextern const tide::handshake::Entry kEntries[];\nextern const size_t kEntryCount;\n'
        'const tide::handshake::Entry kEntries[] = {',
    ]
    lines += resolver_lines(
        symbols,
        lambda s: f'reinterpret_cast<void*>(&symbol::address_of_{s})',
        lambda s: f'reinterpret_cast<void*>(&symbol::refusal_of_{s})',
    )
    return lines + [
        '};',
        'const size_t kEntryCount = sizeof(kEntries) / sizeof(kEntries[0]);\n}  // namespace softgpu',
    ]


def softgpu_per_thread_cc(rows, symbols):
    lines = [NOTE, FULL_CUDA, '#include "softgpu/driver/per_thread.h"\n', '#pragma GCC visibility push(default)\n']
    # What the client refuses may be served here; what is not ends in the refusal of the plain form.
    for symbol, base in per_thread_wrappers(rows, symbols, everything=True):
        lines += wrapper(symbol, base, 'softgpu')
    return lines + ['#pragma GCC visibility pop']


def softgpu_exports_map(_rows, symbols):
    return (
        ['{', '  global:']
        + [f'    {s};' for s in exported(symbols)]
        + ['    softgpuSetImageBase;', '    softgpuGetImageRange;', '    softgpuSetObjectHandle;',
           '    softgpuHashChunks;', '    softgpuForgetHashes;', '    softgpuWriteNow;', '  local: *;', '};']
    )


# --- server -----------------------------------------------------------------------------------------------------------

# Beyond the rows, what the worker itself calls.
WORKER_CALLS = [
    'cuMemAddressReserve',
    'cuMemAddressFree',
    'cuMemCreate',
    'cuMemRelease',
    'cuMemMap',
    'cuMemUnmap',
    'cuMemSetAccess',
    'cuMemGetAllocationGranularity',
    'cuStreamWaitValue64_v2',
    'cuStreamWriteValue64_v2',
]


def driver_h(rows, symbols):
    wanted = sorted({r.name for r in rows if r.travel not in ('refuse', 'internal')} | set(WORKER_CALLS))
    known = set(exported(symbols))
    wanted = [w for w in wanted if w in known or w.startswith('cuProfiler')]
    lines = [
        NOTE,
        '#pragma once\n' + FULL_CUDA,
        'namespace tide {\n',
        '// The driver below: the real libcuda or the software GPU. A function that it lacks is null.',
        'struct Driver {',
    ]
    lines += [f'  decltype(&::{w}) {w} = nullptr;' for w in wanted]
    lines += [
        '};\n',
        '// Fills a Driver: look_up(name) gives the address of a symbol or null.',
        'template <class LookUp>\nvoid load_driver(Driver* driver, LookUp look_up) {',
    ]
    lines += [f'  driver->{w} = reinterpret_cast<decltype(driver->{w})>(look_up("{w}"));' for w in wanted]
    return lines + ['}\n', '}  // namespace tide']


def unpack_line(p, row):
    kind = kind_of(p)
    if kind == 'value':
        return f'  const auto {p.name} = q.value<{p.type}>();'
    if kind == 'handle':
        return f'  const auto {p.name} = q.handle<{p.type}>(session);'
    if kind == 'device':
        return f'  const auto {p.name} = q.device(session, {p.name}_bytes);'
    if kind == 'string':
        return f'  const char* {p.name} = q.string();'
    if kind == 'in':
        return f'  const auto* {p.name} = q.in<{p.element}>({p.count or 1});'
    return f'  auto* {p.name} = a.out<{p.element}>({p.count or 1});'


def serve_plain(row):
    lines = [
        f'CUresult serve_{row.name}([[maybe_unused]] Session& session, [[maybe_unused]] Received& q, '
        '[[maybe_unused]] Outputs& a) {'
    ]
    for p in row.params:
        if kind_of(p) == 'device':
            lines.append(f'  uint64_t {p.name}_bytes = 0;')
    lines += [unpack_line(p, row) for p in row.params if kind_of(p) in ('value', 'handle', 'device')]
    lines += [unpack_line(p, row) for p in row.params if kind_of(p) in ('in', 'string')]
    lines.append('  if (!q.ok()) return kMalformed;')
    lines += [unpack_line(p, row) for p in row.params if kind_of(p) == 'out']
    lines.append(f'  if (session.driver().{row.name} == nullptr) return CUDA_ERROR_NOT_SUPPORTED;')
    return lines + [f'  return session.driver().{row.name}({", ".join(map(passed, row.params))});', '}', '']


def passed(param):
    """Some functions take what they only read by a pointer to what is not const."""
    plain = kind_of(param) == 'in' and not param.type.startswith('const ')
    return f'const_cast<{param.type}>({param.name})' if plain else param.name


def serve_internal(row):
    name = command_name(row)
    data = any(p.word == 'in' for p in row.params)
    lines = [f'CUresult take_{row.name}(Session& session, Received& q, Outputs& a) {{']
    if row.params:
        lines.append(f'  const auto* command = q.fixed<command::{name}>();')
        lines.append('  if (command == nullptr) return kMalformed;')
        if data:
            lines.append(f'  if (!q.take_tail(command::k{name}DataOffset, command->data_bytes())) return kMalformed;')
        lines.append(f'  return serve_{row.name}(session, *command, q, a);')
    else:
        lines.append(f'  return serve_{row.name}(session, command::{name}{{}}, q, a);')
    return lines + ['}', '']


def serve_h(rows):
    lines = [
        NOTE,
        '#pragma once\n#include "commands.h"\n#include "server/outputs.h"\n#include "server/received.h"\n'
        '#include "server/session.h"\n',
        'namespace tide {\n',
        '// Hand-written in server/, one for each command of api/tide.api.',
    ]
    for r in rows:
        if r.travel == 'internal':
            lines.append(
                f'CUresult serve_{r.name}(Session& session, const command::{command_name(r)}& command, '
                'Received& q, Outputs& a);'
            )
    return lines + [
        '\nusing ServeFunction = CUresult (*)(Session& session, Received& q, Outputs& a);',
        '// By call number; null: no such command.',
        'ServeFunction find_serve(uint16_t call);\n',
        '}  // namespace tide',
    ]


def serve_cc(rows):
    lines = [NOTE, '#include "serve.h"\n\n#include "calls.h"\n\nnamespace tide {\nnamespace {\n']
    for r in rows:
        if r.travel in ('async', 'sync'):
            lines += serve_plain(r)
        elif r.travel == 'internal':
            lines += serve_internal(r)
    lines += ['}  // namespace\n', 'ServeFunction find_serve(uint16_t call) {\n  switch (call) {']
    for r in rows:
        if r.on_wire:
            lines.append(f'    case {r.number}: return {"take" if r.travel == "internal" else "serve"}_{r.name};')
    return lines + ['    default: return nullptr;\n  }\n}\n', '}  // namespace tide']


# --- tracer -----------------------------------------------------------------------------------------------------------

# How a parameter stands in a trace: one letter, interpose/trace/format.h.
UNSIGNED = ('unsigned int', 'unsigned', 'size_t', 'unsigned long long', 'cuuint32_t', 'cuuint64_t', 'unsigned char',
            'unsigned short')
NUMBERS = ('int', 'CUdevice')
ADDRESSES = ('CUdeviceptr', 'CUdeviceptr_v1', 'CUmemGenericAllocationHandle', 'CUtexObject', 'CUsurfObject')
BY_VALUE = ('CUipcMemHandle', 'CUipcEventHandle', 'CUmemLocation')
POINTERS = ('CUstream', 'CUgraphNode', 'CUgraph', 'CUtexref', 'CUfunction', 'CUarray', 'CUcontext', 'CUevent',
            'CUgraphExec', 'CUmemoryPool', 'CUmodule', 'CUlibrary', 'CUgreenCtx', 'CUgraphicsResource', 'CUkernel',
            'CUlinkState', 'CUmipmappedArray', 'CUuserObject', 'CUexternalMemory', 'CUdevResourceDesc', 'CUsurfref',
            'CUexternalSemaphore', 'CUasyncCallbackHandle', 'CUlogsCallbackHandle', 'CUhostFn', 'CUstreamCallback',
            'CUoccupancyB2DSize', 'CUasyncCallback', 'CUlogsCallback')
OUTPUTS = {'size_t': 'z', 'unsigned long long': 'z', 'cuuint64_t': 'z', 'int': 'n', 'CUdevice': 'n', 'float': 'g',
           'unsigned int': 'm'}
# Whose outputs are one value each, there when the call succeeded.
GIVES = re.compile(r'Create|Alloc|Get|Load|GraphAdd|Open|Retain|Instantiate|Clone|Reserve|EndCapture|IsCapturing|'
                   r'Elapsed|Import|CanAccess|Occupancy|ComputeCapability|TotalMem|FromGreen')
GIVES_MANY = re.compile(r'Batch|Enumerate|Nodes|Edges|Dependen|Attributes|AtomicCapabilities|Split')


def output_letter(row, param):
    element = param.type[:-1]
    if not GIVES.search(row.name) or GIVES_MANY.search(row.name) or param.type.startswith('const '):
        return 'x'
    if element == 'void*':
        return 'p' if param.name in ('pp', 'pfn', 'fptr') else 'x'
    return 'p' if element in POINTERS + ADDRESSES[:1] + ADDRESSES[2:] else OUTPUTS.get(element, 'x')


def trace_letter(row, param):
    if param.type == 'const char*':
        return 's'
    if param.type.endswith('*'):
        return output_letter(row, param)
    if param.type in UNSIGNED:
        return 'u'
    if param.type in ADDRESSES + POINTERS or (row.name, param.name) in FUNCTION_POINTERS:
        return 'x'
    return {'float': 'f', **dict.fromkeys(BY_VALUE, '-')}.get(param.type, 'i')  # the rest are numbers and enums


def traced(rows, symbols):
    """(symbol, the row that tells its parameters) in the order of their numbers in a trace."""
    served = {r.name: r for r in rows if r.travel != 'internal'}
    return [(s, served.get(s) or served[s[:-5]]) for s in exported(symbols)]


def trace_text(rows, symbols):
    lines = []
    for symbol, row in traced(rows, symbols):
        lines.append(' '.join([symbol] + [f'{p.name}:{trace_letter(row, p)}' for p in row.params]))
    return '\n'.join(lines) + '\n'


def trace_hash(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def trace_table_cc(rows, symbols):
    text = trace_text(rows, symbols)
    return [
        NOTE,
        '#include "interpose/trace/table.h"\n\nnamespace tide::trace {\n',
        'const char kTableText[] =',
        *[f'    "{line}\\n"' for line in text.splitlines()],
        '    ;\n\n}  // namespace tide::trace',
    ]


def trace_wrapper(number, symbol, row):
    types = ', '.join(FUNCTION_POINTERS.get((row.name, p.name), p.type) for p in row.params)
    passed_on = ', '.join(p.name for p in row.params)
    words = ', '.join(f"word<'{trace_letter(row, p)}'>({p.name})" for p in row.params) or '0'
    lines = [
        f'extern "C" CUresult {symbol}({wrapper_params(row)}) {{',
        f'  Span call_span({number});',
        f'  const CUresult call_result = call_span.next<CUresult({types})>()({passed_on});',
    ]
    if row.name.startswith('cuGetProcAddress'):
        lines.append('  call_span.replace(call_result, pfn);')
    lines.append(f'  const uint64_t call_words[] = {{{words}}};')
    return lines + ['  return call_span.end(call_result, call_words);', '}', '']


def trace_wrappers_cc(rows, symbols):
    functions = traced(rows, symbols)
    lines = [
        NOTE,
        FULL_CUDA,
        '#include "interpose/trace/span.h"\n#include "interpose/trace/table.h"\n',
        'namespace tide::trace {\nconst FunctionRow kFunctions[] = {',
        *[f'    {{"{s}", "{"".join(trace_letter(r, p) for p in r.params)}"}},' for s, r in functions],
        '};\nconst uint32_t kFunctionCount = sizeof kFunctions / sizeof kFunctions[0];',
        f'const uint64_t kTableHash = {trace_hash(trace_text(rows, symbols)):#x}u;',
        '}  // namespace tide::trace\n',
        'using tide::trace::Span;\nusing tide::trace::word;\n',
        '#pragma GCC visibility push(default)\n',
    ]
    for number, (symbol, row) in enumerate(functions):
        lines += trace_wrapper(number, symbol, row)
    return lines + [
        '#pragma GCC visibility pop\n\nnamespace tide::trace {',
        'void* const kWrappers[] = {',
        *[f'    reinterpret_cast<void*>(&{symbol}),' for symbol, _ in functions],
        '};\n}  // namespace tide::trace',
    ]


# --- documents --------------------------------------------------------------------------------------------------------


def cuda_support_md(rows):
    lines = [
        '# CUDA driver API: what is served',
        '',
        'Printed by `api/generate.py cuda_support.md` from the rows in `api/`.',
        '',
        '| function | travels |',
        '| --- | --- |',
    ]
    return lines + [f'| `{r.name}` | {" ".join((r.travel,) + r.words)} |' for r in rows if r.travel != 'internal']


PRODUCTS = {
    'calls.h': lambda r, s: calls_h(r),
    'calls.cc': lambda r, s: calls_cc(r),
    'commands.h': lambda r, s: commands_h(r),
    'client_names.h': lambda r, s: client_names_h(r),
    'client_entries.cc': lambda r, s: client_entries_cc(r),
    'client_stubs.cc': client_stubs_cc,
    'client_refusals.cc': client_refusals_cc,
    'client_resolver.cc': client_resolver_cc,
    'client_exports.map': client_exports_map,
    'softgpu_refusals.cc': softgpu_refusals_cc,
    'softgpu_resolver.cc': softgpu_resolver_cc,
    'softgpu_exports.map': softgpu_exports_map,
    'softgpu_per_thread.cc': softgpu_per_thread_cc,
    'driver.h': driver_h,
    'serve.h': lambda r, s: serve_h(r),
    'serve.cc': lambda r, s: serve_cc(r),
    'trace_exports.map': lambda r, s: client_exports_map(r, s, ('_exit', '_Exit')),
    'trace_table.cc': trace_table_cc,
    'trace_wrappers.cc': trace_wrappers_cc,
    'cuda_support.md': lambda r, s: cuda_support_md(r),
}


def main():
    try:
        rows = sorted(api_rows.read_all(HERE), key=lambda r: r.number)
    except api_rows.Malformed as error:
        sys.exit(f'api: {error}')
    symbols = api_rows.read_symbols(HERE)
    for output in map(pathlib.Path, sys.argv[1:]):
        output.write_text('\n'.join(PRODUCTS[output.name](rows, symbols)) + '\n')


if __name__ == '__main__':
    main()
