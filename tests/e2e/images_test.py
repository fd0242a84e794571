"""Of a program's code what the vGPU can use travels, and no more; and once for each server."""

import glob
import json
import os
import struct
import sys
import unittest

from pool import PoolTest, job_program, wait_until

HEADER, ENTRY = struct.Struct('<IHHQ'), struct.Struct('<HHIQIIIIIIQQQ')
MAGIC = 0xBA55ED50
PTX, ELF = 1, 2


def entries_of(program):
    """[(kind, capability, bytes)] of each fat binary in a file."""
    with open(program, 'rb') as file:
        content = file.read()
    found, at = [], content.find(struct.pack('<I', MAGIC))
    while at >= 0:
        magic, version, header_bytes, entries_bytes = HEADER.unpack_from(content, at)
        end = at + header_bytes + entries_bytes
        if at % 8 == 0 and version == 1 and end <= len(content):
            entries, at = [], at + header_bytes
            while at < end:
                fields = ENTRY.unpack_from(content, at)
                entries.append((fields[0], fields[7], fields[2] + fields[3]))
                at += fields[2] + fields[3]
            found.append(entries)
        else:
            at += 4
        at = content.find(struct.pack('<I', MAGIC), at)
    return found


class Chosen(PoolTest):
    def run_traced(self, program, name, **environment):
        """The result, and the bytes that loading its code sent."""
        file = os.path.join(self.pool.home, name)
        done = self.pool.tide('run', '-g', 1, '--trace', file, '--', program, '--seconds', 0,
                              env=dict(self.pool.env, **environment))
        trace = json.loads(self.expect_ok(self.pool.tide('trace', file, '--json')).out)
        return done, sum(f['sent_bytes'] for f in trace['functions'] if f['name'] == 'cuLibraryLoadData')

    def run_both(self, program):
        self.pool.up(gpus=1)
        return *self.run_traced(program, 'whole', TIDE_IMAGES='whole'), *self.run_traced(program, 'chosen')

    def test_only_code_for_the_device_travels(self):
        program = job_program('globals_fat')
        entries = max(entries_of(program), key=lambda entries: sum(size for _, _, size in entries))
        self.assertEqual([e[:2] for e in entries],
                         [(ELF, 75), (PTX, 75), (ELF, 80), (ELF, 90), (ELF, 120), (PTX, 120)])
        useless = sum(size for kind, capability, size in entries if (kind, capability) not in ((PTX, 75), (ELF, 80)))
        whole, whole_sent, chosen, chosen_sent = self.run_both(program)
        self.expect_ok(whole)
        self.expect_ok(chosen)
        self.assertEqual(whole_sent - chosen_sent, useless)
        self.assertLess(chosen_sent, whole_sent / 3)

    def test_programs_of_several_units(self):
        program = job_program('speaks_fat')
        whole, whole_sent, chosen, chosen_sent = self.run_both(program)
        self.assertIn('linked 42', chosen.out)
        self.assertEqual((whole.status, whole.out), (chosen.status, chosen.out))
        self.assertLess(chosen_sent, whole_sent / 3)

    def test_a_program_without_code_for_the_device_gets_the_same_error(self):
        program = job_program('globals_sm_120')
        whole, whole_sent, chosen, chosen_sent = self.run_both(program)
        self.assertIn('no kernel image is available for execution on the device (209)', chosen.err)
        self.assertEqual((whole.status, whole.out), (chosen.status, chosen.out))
        words = [[line for line in result.err.split('\n') if 'cannot load a GPU program' not in line]  # the worker's,
                 for result in (whole, chosen)]  # which may come too late
        self.assertEqual(*words)
        self.assertEqual(whole_sent, chosen_sent)


MODULE = r"""
import ctypes, sys
cuda = ctypes.CDLL('libcuda.so.1')
def call(name, *arguments):
    result = getattr(cuda, name)(*arguments)
    assert result == 0, (name, result)
text = ('.version 7.0\n.target sm_70\n.address_size 64\n'
        '.visible .entry answer(.param .u64 out) {\n.reg .b64 %a;\n.reg .b32 %v;\nld.param.u64 %a, [out];\n'
        'mov.u32 %v, ' + sys.argv[1] + ';\nst.global.u32 [%a], %v;\nret;\n}\n' + '// a long image\n' * 20000).encode()
device, context, module, kernel = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
memory, answer = ctypes.c_uint64(), ctypes.c_uint32()
call('cuInit', 0)
for i in range(int(sys.argv[2])):
    call('cuDeviceGet', ctypes.byref(device), i)
    call('cuDevicePrimaryCtxRetain', ctypes.byref(context), device)
    call('cuCtxSetCurrent', context)
    call('cuModuleLoadData', ctypes.byref(module), text)
    call('cuModuleGetFunction', ctypes.byref(kernel), module, b'answer')
    call('cuMemAlloc_v2', ctypes.byref(memory), ctypes.c_size_t(4))
    parameters = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(memory), ctypes.c_void_p))
    call('cuLaunchKernel', kernel, 1, 1, 1, 1, 1, 1, 0, None, parameters, None)
    call('cuMemcpyDtoH_v2', ctypes.byref(answer), memory, ctypes.c_size_t(4))
    print(answer.value)
    call('cuModuleUnload', module)
    # Loaded, never used, and unloaded.
    call('cuLibraryLoadData', ctypes.byref(module), text + b'// unused', None, None, 0, None, None, 0)
    call('cuLibraryUnload', module)
call('cuCtxSynchronize')
"""
IMAGE_BYTES = 16 * 20000


class Kept(PoolTest):
    """An image crosses the network once for each server."""
    environment = {'TIDE_TRANSPORT': 'ucx'}

    def sent(self, answer, gpus=1):
        """Bytes to the server of a run, which prints the module's answer for each GPU."""
        file = os.path.join(self.pool.home, 'images.trace')
        code = os.path.join(self.pool.home, 'module.py')
        with open(code, 'w') as program:
            program.write(MODULE)
        done = self.pool.run('-g', gpus, '--trace', file, '--', sys.executable, code, answer, gpus)
        self.assertEqual(done.out, f'{answer}\n' * gpus, repr(done))
        return self.pool.json('trace', file)['total']['sent_bytes']

    def kept(self):
        return glob.glob(os.path.join(self.pool.home, 'node0', 'images', '*'))

    def test_second_processes_and_gpus_only_name_it(self):
        self.pool.up(gpus=2)
        self.assertGreater(self.sent(42), IMAGE_BYTES)
        wait_until(self.kept, 'the kept image')
        self.assertLess(self.sent(42, gpus=2), IMAGE_BYTES / 10)
        self.assertGreater(self.sent(43), IMAGE_BYTES)

    def test_what_was_damaged_is_sent_again(self):
        self.pool.up(gpus=1)
        self.sent(42)
        wait_until(self.kept, 'the kept image')
        for path in self.kept():
            with open(path, 'r+b') as file:
                file.seek(90)
                file.write(b'7')
        self.assertGreater(self.sent(42), IMAGE_BYTES)
        wait_until(self.kept, 'the kept image')
        self.assertLess(self.sent(42), IMAGE_BYTES / 10)


class NotKeptOnOneMachine(Kept):
    """Nothing crosses a network, nothing is kept."""
    environment = {}

    def test_second_processes_and_gpus_only_name_it(self):
        self.pool.up(gpus=1)
        self.assertGreater(self.sent(42), IMAGE_BYTES)
        self.assertGreater(self.sent(42), IMAGE_BYTES)
        self.assertEqual(self.kept(), [])

    test_what_was_damaged_is_sent_again = None


if __name__ == '__main__':
    unittest.main()
