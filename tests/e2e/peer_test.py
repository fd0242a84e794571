"""Copies between virtual GPUs: the bytes go from worker to worker, whatever moves, dies or is in the way."""

import os
import signal
import subprocess
import time
import unittest

from pool import PATIENCE_S, PoolTest, TwoMachinesTest, job_program, wait_until

MIB = 1 << 20
REST_S = 1.5
CROSSES = 'through this program'  # in the log's line about a copy that cannot go directly


class Counted:
    """What crosses the program's links while it copies `mib` MiB from vGPU 0 to vGPU 1 `rounds` times."""

    def counters(self, name):
        """Of a job that waits at a gate: asked until they stand still, as they come a little later."""
        before, since = [None], [0.0]

        def at_rest():
            job = self.pool.job(name)
            vgpus = job['vgpus'] if job else []
            now = sum(vgpu.get('bytes_in', 0) + vgpu.get('bytes_out', 0) for vgpu in vgpus)
            if now != before[0]:
                before[0], since[0] = now, time.monotonic()
            return len(vgpus) == 2 and now > 0 and time.monotonic() - since[0] > REST_S

        wait_until(at_rest, f'the counters of {name} to rest')
        return before[0]

    def crossing_bytes(self, name, mib, rounds, **environment):
        command = [self.pool.tide_path, 'run', '-g', '2', '--min', '2', '--name', name, '--', job_program('peers'),
                   '--mib', str(mib), '--rounds', str(rounds), '--gate', '1']
        process = subprocess.Popen(command, env=dict(self.pool.env, **environment), text=True, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        seen = []
        for line in process.stdout:
            if line.strip() in ('ready', 'copied'):
                seen.append(self.counters(name))
                process.stdin.write('\n')
                process.stdin.flush()
        _, err = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(len(seen), 2)
        return seen[1] - seen[0], err

    def expect_that_bytes_do_not_cross(self, **environment):
        crossed, err = self.crossing_bytes('direct', 32, 3, **environment)
        self.assertLess(crossed, MIB)
        self.assertNotIn(CROSSES, err)
        crossed, err = self.crossing_bytes('through', 32, 3, TIDE_PEER_COPIES='client', **environment)
        self.assertGreaterEqual(crossed, 2 * 3 * 32 * MIB, 'the counters count')


class OneMachine(PoolTest, Counted):
    def test_bytes_do_not_cross_the_program(self):
        self.pool.up(gpus=2)
        self.expect_that_bytes_do_not_cross()

    def test_bytes_arrive_by_either_way(self):
        self.pool.up(gpus=3)
        for environment in ([], ['TIDE_PEER_COPIES=client'], ['TIDE_TRANSPORT=ucx']):
            done = self.expect_ok(self.pool.run('-g', 3, '--min', 3, '--', 'env', *environment, job_program('peers')))
            self.assertNotIn(CROSSES, done.err)

    def test_four_virtual_gpus_on_one_physical_one(self):
        self.pool.up(gpus=1)
        self.expect_ok(self.pool.run('-g', 4, '--min', 1, '--', job_program('peers')))

    def test_copies_go_on_while_both_sides_move(self):
        self.pool.up(gpus=4, servers=2)
        job = self.pool.start('-g', 2, '--name', 'moved', '--', job_program('peers'), '--seconds', 15)
        wait_until(lambda: 'a round' in job.out() or not job.running(), 'a round', 60)
        names = sorted(f"{gpu['server']}/{gpu['index']}" for gpu in self.pool.json('gpus'))
        moves = 0
        for vgpu, target in ((0, names[3]), (1, names[2]), (0, names[0]), (1, names[1]), (0, names[2])):
            if job.running():
                moves += self.pool.tide('migrate', f'moved:{vgpu}', target).status == 0
        self.assertEqual(job.wait(), 0, job.out() + job.err())
        self.assertGreater(moves, 2)
        self.assertNotIn(CROSSES, job.err())
        self.expect_nothing_left()

    def test_a_worker_is_killed(self):
        self.pool.up(gpus=2)
        for which in (0, 1):
            job = self.pool.start('-g', 2, '--min', 2, '--name', f'victim{which}', '--', job_program('peers'), '--mib',
                                  64, '--rounds', 100000)
            moving = wait_until(lambda: (self.pool.job(f'victim{which}') or {}).get('vgpus'), 'vGPUs')
            wait_until(lambda: all(vgpu.get('commands', 0) > 20 for vgpu in
                                   self.pool.job(f'victim{which}')['vgpus']), 'copies', 60)
            vgpu = next(v for v in self.pool.job(f'victim{which}')['vgpus'] if v['vgpu'] == which)
            self.assertTrue(vgpu['worker_pids'], moving)
            os.kill(vgpu['worker_pids'][0], signal.SIGKILL)
            self.assertNotEqual(job.wait(40), 0)
            self.assertRegex(job.err(), r'(?i)worker|lost|ended|vgpu|server')
            self.assertNotIn(CROSSES, job.err())
        self.expect_nothing_left()

    def test_the_program_is_killed(self):
        self.pool.up(gpus=2)
        job = self.pool.start('-g', 2, '--min', 2, '--name', 'victim', '--', job_program('peers'), '--mib', 64,
                              '--rounds', 100000)
        wait_until(lambda: self.pool.pids('peers'), 'the program')
        wait_until(lambda: all(vgpu.get('commands', 0) > 20 for vgpu in (self.pool.job('victim') or {})['vgpus']),
                   'copies', 60)
        os.kill(self.pool.pids('peers')[0], signal.SIGKILL)
        self.assertEqual(job.wait(20), 128 + signal.SIGKILL)
        wait_until(lambda: not self.pool.pids('tide-worker'), 'no worker is left')
        self.expect_ok(self.pool.run('-g', 2, '--min', 2, '--', job_program('peers')))
        self.expect_nothing_left()


class NoWay(PoolTest, Counted):
    """The workers cannot use UCX, the program's links do not need it."""

    environment = {'TIDE_UCX_TLS': 'nosuch'}

    def test_copies_go_through_the_program_and_it_is_said(self):
        self.pool.up(gpus=2)
        crossed, err = self.crossing_bytes('through', 32, 3)
        self.assertGreaterEqual(crossed, 2 * 3 * 32 * MIB)
        self.assertEqual(err.count(CROSSES), 1, err)
        self.assertIn('nosuch', err)
        self.expect_ok(self.pool.run('-g', 2, '--min', 2, '--', job_program('peers')))


class TwoMachines(TwoMachinesTest, Counted):
    def test_bytes_do_not_cross_the_program(self):
        self.expect_that_bytes_do_not_cross()

    def test_bytes_arrive(self):
        done = self.expect_ok(self.pool.run('-g', 2, '--min', 2, '--', job_program('peers')))
        self.assertNotIn(CROSSES, done.err)


if __name__ == '__main__':
    unittest.main(verbosity=2)
