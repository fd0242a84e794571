"""Of a program with code for several compute capabilities, what the vGPU can use travels, and no more."""

import json
import os
import struct
import unittest

from pool import PoolTest, job_program

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


class Images(PoolTest):
    def run_traced(self, program, name, **environment):
        """The result, and the bytes that loading its code sent."""
        file = os.path.join(self.pool.home, name)
        done = self.pool.tide('run', '-g', 1, '--trace', file, '--', program, '--seconds', 0,
                              env=dict(self.pool.env, **environment))
        trace = json.loads(self.expect_ok(self.pool.tide('trace', file, '--json')).out)
        return done, sum(f['sent_bytes'] for f in trace['functions'] if f['name'] == 'cuLibraryLoadData')

    def test_only_code_for_the_device_travels(self):
        program = job_program('globals_fat')
        entries = max(entries_of(program), key=lambda entries: sum(size for _, _, size in entries))
        self.assertEqual([e[:2] for e in entries],
                         [(ELF, 75), (PTX, 75), (ELF, 80), (ELF, 90), (ELF, 120), (PTX, 120)])
        useless = sum(size for kind, capability, size in entries if (kind, capability) not in ((PTX, 75), (ELF, 80)))
        self.pool.up(gpus=1)
        whole, whole_sent = self.run_traced(program, 'whole', TIDE_IMAGES='whole')
        chosen, chosen_sent = self.run_traced(program, 'chosen')
        self.expect_ok(whole)
        self.expect_ok(chosen)
        self.assertEqual(whole_sent - chosen_sent, useless)
        self.assertLess(chosen_sent, whole_sent / 3)

    def test_programs_of_several_units(self):
        program = job_program('speaks_fat')
        self.pool.up(gpus=1)
        whole, whole_sent = self.run_traced(program, 'whole', TIDE_IMAGES='whole')
        chosen, chosen_sent = self.run_traced(program, 'chosen')
        self.assertIn('linked 42', chosen.out)
        self.assertEqual((whole.status, whole.out), (chosen.status, chosen.out))
        self.assertLess(chosen_sent, whole_sent / 3)

    def test_a_program_without_code_for_the_device_gets_the_same_error(self):
        program = job_program('globals_sm_120')
        self.pool.up(gpus=1)
        whole, whole_sent = self.run_traced(program, 'whole', TIDE_IMAGES='whole')
        chosen, chosen_sent = self.run_traced(program, 'chosen')
        self.assertIn('no kernel image is available for execution on the device (209)', chosen.err)
        self.assertEqual((whole.status, whole.out), (chosen.status, chosen.out))
        words = [[line for line in result.err.split('\n') if 'cannot load a GPU program' not in line]  # the worker's,
                 for result in (whole, chosen)]  # which may come too late
        self.assertEqual(*words)
        self.assertEqual(whole_sent, chosen_sent)


if __name__ == '__main__':
    unittest.main()
