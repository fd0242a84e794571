"""What `tide run --trace` takes down is what the programs did, and the programs notice nothing."""

import collections
import json
import os
import re
import sys
import unittest

from pool import PoolTest, job_program, wait_until

# What saxpy_drv calls, from its source.
SAXPY = {
    'cuInit': 1, 'cuDeviceGet': 1, 'cuDevicePrimaryCtxRetain': 1, 'cuCtxSetCurrent': 1, 'cuModuleLoadData': 1,
    'cuModuleGetFunction': 2, 'cuStreamCreate': 1, 'cuMemAlloc_v2': 2, 'cuModuleGetGlobal_v2': 1,
    'cuMemsetD32Async': 1, 'cuMemcpyHtoDAsync_v2': 2, 'cuLaunchKernel': 2, 'cuMemcpyDtoHAsync_v2': 1,
    'cuStreamSynchronize': 1, 'cuMemcpyDtoH_v2': 1, 'cuMemFree_v2': 2, 'cuStreamDestroy_v2': 1, 'cuModuleUnload': 1,
    'cuDevicePrimaryCtxRelease_v2': 1,
}
# What cannot be answered without somebody else; and what waits if the GPU is not done yet.
ASKS = {'cuInit', 'cuDevicePrimaryCtxRetain', 'cuModuleLoadData', 'cuModuleGetGlobal_v2'}
MAY_WAIT = {'cuMemcpyDtoHAsync_v2', 'cuMemcpyDtoH_v2', 'cuStreamSynchronize'}


class Trace(PoolTest):
    def setUp(self):
        super().setUp()
        self.file = os.path.join(self.pool.home, 'job.trace')

    def traced(self, *command):
        self.pool.up(gpus=1)
        return self.expect_ok(self.pool.run('-g', 1, '--trace', self.file, '--', *command))

    def read(self, *options):
        done = self.expect_ok(self.pool.tide('trace', self.file, '--json', *options))
        return json.loads(done.out)

    def functions(self):
        return {f['name']: f for f in self.read()['functions']}

    def expect_fails(self, result, status, text):
        self.assertEqual(result.status, status, repr(result))
        self.assertRegex(result.err, text)
        self.assertEqual(result.out, '')

    def test_a_program_of_the_driver_api(self):
        program = job_program('saxpy_drv')
        done = self.traced(program)
        plain = self.expect_ok(self.pool.run('-g', 1, '--', program))
        self.assertEqual((done.out, done.err), (plain.out, plain.err))
        trace = self.read('--calls')
        functions = {f['name']: f for f in trace['functions']}
        self.assertEqual({name: f['calls'] for name, f in functions.items()}, SAXPY)
        waited = {name for name, f in functions.items() if f['round_trips'] > 0}
        self.assertLessEqual(ASKS, waited)
        self.assertLessEqual(waited, ASKS | MAY_WAIT)
        self.assertEqual(functions['cuMemcpyDtoHAsync_v2']['received_bytes'], 40000)
        self.assertEqual(functions['cuMemcpyDtoH_v2']['received_bytes'], 4)
        self.assertGreater(functions['cuMemcpyHtoDAsync_v2']['sent_bytes'], 80000)
        self.assertEqual(functions['cuLaunchKernel']['commands'], 2)
        self.assertEqual(functions['cuDeviceGet']['local'], 1)
        self.assertEqual([trace['complete'], trace['threads'], len(trace['processes'])], [True, 1, 1])
        self.assertEqual(trace['processes'][0]['command'], program)

    def test_calls_have_their_arguments_and_results(self):
        self.traced(job_program('saxpy_drv'))
        calls = collections.defaultdict(list)
        for call in self.read('--calls')['calls']:
            calls[call['name']].append(call)
        first, second = calls['cuLaunchKernel']
        self.assertEqual([first['arguments'][name] for name in ('gridDimX', 'gridDimY', 'blockDimX')], [79, 1, 128])
        self.assertEqual([first['kernel'], second['kernel'], first['how']], ['saxpy', 'saxpy', 'sent'])
        self.assertEqual(first['arguments']['hStream'], calls['cuStreamCreate'][0]['arguments']['phStream'])
        found, missing = calls['cuModuleGetFunction']
        self.assertEqual([found['result'], found['arguments']['name']], ['CUDA_SUCCESS', 'saxpy'])
        self.assertEqual([missing['result'], missing['arguments']['name']], ['CUDA_ERROR_NOT_FOUND', 'no_such_kernel'])
        text = self.expect_ok(self.pool.tide('trace', self.file, '--calls')).out
        self.assertRegex(text, r'cuModuleGetFunction\(.*name="no_such_kernel"\) = CUDA_ERROR_NOT_FOUND')

    def test_threads_of_the_runtime_and_a_shell_between(self):
        threads, rounds = 5, 7
        command = [job_program('threaded'), '--threads', threads, '--rounds', rounds]
        done = self.traced(*command)
        plain = self.expect_ok(self.pool.run('-g', 1, '--', *command))
        self.assertEqual((done.out, done.err), (plain.out, plain.err))
        trace, functions = self.read(), self.functions()
        self.assertEqual([trace['complete'], trace['threads'], len(trace['processes'])], [True, threads + 1, 1])
        for name in ('cuLaunchKernel', 'cuMemcpyHtoDAsync_v2', 'cuMemcpyDtoHAsync_v2', 'cuStreamSynchronize'):
            self.assertEqual(functions[name + '_ptsz']['calls'], threads * rounds, name)
        self.assertEqual(functions['cuMemAlloc_v2']['calls'], threads)
        self.assertEqual(functions['cuMemcpyDtoHAsync_v2_ptsz']['received_bytes'], threads * rounds * 1024)
        self.assertGreater(functions['cuMemcpyDtoHAsync_v2_ptsz']['round_trips'], 0)
        self.assertEqual(functions['cuLaunchKernel_ptsz']['round_trips'], 0)

    def test_the_events_of_a_thread_are_nested(self):
        self.traced(job_program('threaded'))
        path = os.path.join(self.pool.home, 'events.json')
        self.expect_ok(self.pool.tide('trace', self.file, '--perfetto', path))
        with open(path) as file:
            events = json.load(file)['traceEvents']
        tracks = collections.defaultdict(list)
        for event in events:
            if event['ph'] == 'X':
                tracks[event['pid'], event['tid']].append(event)
        self.assertEqual(sum(map(len, tracks.values())), self.read()['total']['calls'])
        self.assertEqual(len(tracks), 5)
        for track in tracks.values():
            ends = []
            for event in sorted(track, key=lambda e: (e['ts'], -e['dur'])):
                begin, end = round(event['ts'] * 1000), round((event['ts'] + event['dur']) * 1000)
                while ends and ends[-1] <= begin:
                    ends.pop()
                self.assertTrue(not ends or end <= ends[-1], event)
                ends.append(end)
        launch = next(e for e in events if e['name'] == 'cuLaunchKernel_ptsz')
        self.assertIn('add', launch['args']['kernel name'])
        self.assertEqual(launch['args']['blockDimX'], 256)

    def test_processes_of_a_job_share_the_file_and_others_write_nothing(self):
        program = job_program('saxpy_drv')
        self.traced('bash', '-c', f'{program} & (true; /bin/echo a | cat); {program}; wait')
        trace = self.read()
        self.assertEqual([p['command'] for p in trace['processes']], [program] * 2)
        self.assertEqual({p['calls'] for p in trace['processes']}, {sum(SAXPY.values())})
        self.expect_ok(self.pool.run('--trace', self.file, '--', 'bash', '-c', 'true; /bin/echo a | cat'))
        self.assertEqual(self.read()['processes'], [])
        self.assertRegex(self.pool.tide('trace', self.file).out, 'no process of the job has called the driver')

    def test_perfetto_shows_all_that_a_process_was_and_wide_numbers(self):
        program = job_program('saxpy_drv')
        code = ('import ctypes, os, sys, time\n'
                'assert ctypes.CDLL("libcuda.so.1").cuInit(0) == 0\n'
                'ctypes.CDLL("libcuda.so.1").cuMemAlloc_v2(None, ctypes.c_size_t(-1))\n'
                'time.sleep(1.1)\n'  # what is older is written by the next call
                'assert ctypes.CDLL("libcuda.so.1").cuInit(0) == 0\n'
                'os.execv(sys.argv[1], sys.argv[1:])\n')
        script = os.path.join(self.pool.home, 'becomes.py')
        with open(script, 'w') as file:
            file.write(code)
        self.traced(sys.executable, script, program, 'https://a/b/', '/')
        path = os.path.join(self.pool.home, 'events.json')
        self.expect_ok(self.pool.tide('trace', self.file, '--perfetto', path))
        with open(path) as file:
            events = json.load(file)['traceEvents']
        # No slash: Perfetto shows what is behind the last.
        names = [event['args']['name'] for event in events if event['ph'] == 'M']
        python = os.path.basename(sys.executable)
        self.assertEqual(names, [f'{python} becomes.py saxpy_drv b, then saxpy_drv b'])
        self.assertEqual({event['pid'] for event in events if event['ph'] == 'X'}, {events[0]['pid']})
        # As a number Perfetto shows it as -1.
        sizes = [e['args']['bytesize'] for e in events if e['name'] == 'cuMemAlloc_v2']
        self.assertEqual((sizes[0], {type(size) for size in sizes[1:]}), (str(2**64 - 1), {int}))

    def test_a_trace_that_is_being_written_is_not_made_anew(self):
        self.pool.up(gpus=2)
        release = os.path.join(self.pool.home, 'release')
        wait = f'echo ready; until [ -e {release} ]; do sleep 0.05; done; exec {job_program("saxpy_drv")}'
        first = self.pool.start('-g', 1, '--trace', self.file, '--', 'bash', '-c', wait)
        wait_until(lambda: 'ready' in first.out(), 'the first job')
        second = self.pool.run('-g', 1, '--trace', self.file, '--', 'echo', 'ran')
        self.expect_fails(second, 125, r'^tide: no trace: \S+ is the trace of a job that still runs')
        self.expect_fails(self.pool.tide('env', '--trace', self.file), 1, 'is the trace of a job that still runs')
        with open(release, 'w'):
            pass
        self.assertEqual(first.wait(), 0, first.err())
        self.assertEqual({name: f['calls'] for name, f in self.functions().items()}, SAXPY)
        self.expect_ok(self.pool.run('-g', 1, '--trace', self.file, '--', 'true'))
        self.assertEqual(self.read()['processes'], [])

    def test_the_library_under_every_name_is_traced(self):
        code = ('import ctypes\n'
                'for name in ("libcuda.so.1", "libcuda.so"):\n'
                '  library = ctypes.CDLL(name)\n'
                '  entry = ctypes.c_void_p()\n'
                '  assert library.cuInit(0) == 0\n'
                '  assert library.cuGetProcAddress_v2(b"cuDeviceGetCount", ctypes.byref(entry), 13000, 0, None) == 0\n'
                '  count = ctypes.c_int()\n'
                '  assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(entry.value)(ctypes.byref(count)) == 0\n'
                '  assert count.value == 1\n')
        self.traced(sys.executable, '-c', code)
        counts = {name: f['calls'] for name, f in self.functions().items()}
        self.assertEqual(counts, {'cuInit': 2, 'cuGetProcAddress_v2': 2, 'cuDeviceGetCount': 2})

    def test_what_cannot_be_read_or_written(self):
        self.traced(job_program('saxpy_drv'))
        size, foreign = os.path.getsize(self.file), os.path.join(self.pool.home, 'foreign')
        with open(foreign, 'w') as file:
            file.write('#!/bin/sh\n')
        self.expect_fails(self.pool.tide('trace', foreign), 1, 'is not a trace')
        self.expect_fails(self.pool.tide('trace', foreign + '.none'), 1, 'No such file')
        self.expect_fails(self.pool.tide('trace'), 2, 'one FILE')
        for path in (foreign, self.pool.home, '/nowhere/file', '/dev/null'):
            self.expect_fails(self.pool.run('--trace', path, '--', 'echo', 'ran'), 125, '^tide: no trace: ')
            self.expect_fails(self.pool.tide('env', '--trace', path), 1, '^tide: no trace: ')
        with open(foreign) as file:
            self.assertEqual(file.read(), '#!/bin/sh\n')
        os.truncate(self.file, size - 9)
        cut = self.expect_ok(self.pool.tide('trace', self.file, '--json'))
        self.assertRegex(cut.err, 'the file ends in the middle')
        self.assertFalse(json.loads(cut.out)['complete'])
        self.assertEqual(json.loads(cut.out)['total']['calls'], sum(SAXPY.values()))

    def test_children_that_leave_by_exit_are_whole(self):
        code = ('import ctypes, multiprocessing, os\n'
                'def work(n):\n'
                '  library, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()\n'
                '  assert library.cuInit(0) == 0\n'
                '  for i in range(n): assert library.cuDeviceGetCount(ctypes.byref(count)) == 0\n'
                'children = [multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in (3, 4)]\n'
                'for child in children: child.start()\n'
                'for child in children: child.join()\n'
                'assert [child.exitcode for child in children] == [0, 0]\n'
                'work(5)\n'
                'os._exit(7)\n')
        self.pool.up(gpus=1)
        done = self.pool.run('-g', 1, '--trace', self.file, '--', sys.executable, '-c', code)
        self.assertEqual(done.status, 7, repr(done))
        trace = self.read()
        self.assertTrue(trace['complete'], trace['problems'])
        self.assertEqual(sorted(p['calls'] for p in trace['processes']), [4, 5, 6])

    def test_a_trace_that_is_lost_on_the_way_leaves_the_program_alone(self):
        code = ('import ctypes, os\n'
                'library, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()\n'
                'assert library.cuInit(0) == 0\n'
                'os.remove(os.environ["TIDE_TRACE"])\n'
                'for i in range(20000):\n'
                '  assert library.cuDeviceGetCount(ctypes.byref(count)) == 0\n'
                'print("done")\n')
        done = self.traced(sys.executable, '-c', code)
        self.assertEqual(done.out, 'done\n')
        self.assertRegex(done.err, r'the trace \S+ is not complete: No such file or directory; the program goes on')
        self.assertEqual(done.err.count('not complete'), 1)

    def test_a_shell_can_be_traced(self):
        self.pool.up(gpus=1)
        exports = self.expect_ok(self.pool.tide('env', '-g', 1, '--trace', self.file)).out
        self.assertTrue(re.search(r"export LD_PRELOAD='\S*libtidetrace\.so:\S*libtidecuda\.so\S*'", exports), exports)
        self.assertIn(f"export TIDE_TRACE='{self.file}'", exports)


class RoundTrips(PoolTest):
    """`tide job` says how often a program waits, and which of its calls do."""

    def of_a_step_that_reads_its_loss(self):
        self.pool.up(gpus=1)
        job = self.pool.start('-g', 1, '--name', 'reads', '--', job_program('launch_bound'), '--steps', 20000)

        def trips():
            vgpus = (self.pool.job('reads') or {}).get('vgpus', [])
            return {'round_trips': 0, 'round_trips_per_s': 0, **(vgpus[0] if vgpus else {})}

        wait_until(lambda: trips()['round_trips'] > 500 and trips()['round_trips_per_s'] > 10, 'round trips')
        counted = trips()
        job.process.terminate()
        job.wait()
        calls = {each['call']: each['count'] for each in counted['round_trip_calls']}
        self.assertEqual(max(calls, key=calls.get), 'cuMemcpyDtoHAsync_v2', calls)
        self.assertGreater(calls['cuMemcpyDtoHAsync_v2'], 0.9 * counted['round_trips'], calls)
        self.assertLess(abs(sum(calls.values()) - counted['round_trips']), 10, counted)

    def test_in_shared_memory(self):
        self.of_a_step_that_reads_its_loss()


class RoundTripsOverUcx(RoundTrips):
    environment = {'TIDE_TRANSPORT': 'ucx'}


if __name__ == '__main__':
    unittest.main()
