"""A protected job whose worker, or whole server, is killed goes on from its last checkpoint, unaware."""

import os
import signal
import time
import unittest

from hoards import Hoards
from pool import PoolTest, train, wait_until

PROTECT = '1s'


class Protect(PoolTest):
    environment = {'TIDE_LOG': 'info'}

    def start_protected(self, steps, step_ms, gpus=1):
        """Twice: undisturbed, and protected; waits until the second one has a checkpoint and has gone on from there."""
        program = train('--steps', steps, '--gpus', gpus)
        self.expected = self.expect_ok(self.pool.run('-g', gpus, '--', *program)).out
        self.assertIn('test accuracy', self.expected)
        job = self.pool.start('-g', gpus, '--name', 'safe', '--protect', PROTECT, '--', *program, '--step-ms', step_ms)
        wait_until(lambda: [vgpu['protection']['made_ms'] != 0 for vgpu in self.vgpus()] == [True] * gpus,
                   'a checkpoint of each', 20)
        seen = job.steps()
        wait_until(lambda: job.steps() > seen + 3 or not job.running(), 'it trains')
        return job

    def vgpus(self):
        info = self.pool.job('safe')
        return info['vgpus'] if info is not None else []

    def vgpu(self):
        return self.vgpus()[0]

    def agent_of(self, server):
        for pid, command in self.pool.processes().items():
            words = command.split()
            if os.path.basename(words[0]) == 'tide-agent' and words[words.index('--name') + 1] == server:
                return pid
        raise AssertionError(f'no agent named {server}: {self.pool.processes()}')

    @staticmethod
    def children(pid):
        with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as file:
            return [int(child) for child in file.read().split()]

    def expect_the_same(self, job):
        self.assertEqual(job.wait(60), 0, job.err())
        self.assertEqual(job.out(), self.expected, job.err())

    def test_a_killed_worker(self):
        self.pool.up(gpus=2, servers=2)
        job = self.start_protected(steps=120, step_ms=40)
        for round_ in range(1, 3):
            vgpu = self.vgpu()
            server, guard = vgpu['gpu'].split('/')[0], vgpu['protection']['guard']
            self.assertNotEqual(server, guard)
            workers = self.children(self.agent_of(server))
            self.assertEqual(len(workers), 1, 'the guard is on the other server')
            begin = time.monotonic()
            seen = job.steps()
            os.kill(workers[0], signal.SIGKILL)
            wait_until(lambda seen=seen: job.steps() > seen + 2 or not job.running(), 'it goes on', 20)
            print(f'goes on {time.monotonic() - begin:.1f} s after its worker was killed')
            wait_until(lambda round_=round_: self.vgpu()['protection']['recoveries'] >= round_ or not job.running(),
                       'it is counted')
        print(self.expect_ok(self.pool.tide('job', 'safe')).out)
        self.expect_the_same(job)
        self.expect_nothing_left()

    def test_a_killed_server_with_both_of_its_vgpus_while_no_other_gpu_is_free(self):
        self.pool.up(gpus=4, servers=2)
        job = self.start_protected(steps=80, step_ms=40, gpus=2)
        servers = {vgpu['gpu'].split('/')[0] for vgpu in self.vgpus()}
        self.assertEqual(len(servers), 1, 'its vGPUs lie together')
        other = self.pool.start('-g', 2, '--min', 2, '--name', 'other', '--', *train('--steps', 100000, '--gpus', 2))
        wait_until(lambda: (self.pool.job('other') or {}).get('state') == 'running', 'the other GPUs are taken')
        agent = self.agent_of(servers.pop())
        begin = time.monotonic()
        for pid in [agent] + self.children(agent):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: job.err().count('waits until the pool has restored it') == 2 or not job.running(),
                   'it is told to wait', 40)
        self.assertIn('restored from its checkpoint', self.pool.tide('why', 'safe').both)
        self.expect_ok(self.pool.tide('kill', 'other'))
        seen = job.steps()
        wait_until(lambda: job.steps() > seen + 2 or not job.running(), 'it goes on', 40)
        print(f'goes on {time.monotonic() - begin:.1f} s after its server was killed')
        self.expect_the_same(job)
        other.wait()

    def test_one_process_that_cannot_be_protected_ends_it_for_the_other_at_once(self):
        self.pool.up(gpus=2, servers=2)
        hoards = Hoards(self.pool, 2, '-g', 1, '--name', 'safe', '--protect', '30s')
        for which in range(2):
            self.assertEqual(hoards.tell(which, 'take', 8), 'took 8')
        wait_until(lambda: self.vgpu()['protection']['made_ms'] != 0, 'a checkpoint')
        self.assertEqual(hoards.tell(1, 'reach'), 'reached')
        says = 'not protected any more, as its server says'
        wait_until(lambda: says in hoards.job.err(), 'the other one hears of it', 10)
        self.assertIn('protected no more', self.pool.tide('job', 'safe').out)
        for which in range(2):
            self.assertEqual(hoards.tell(which, 'check'), 'whole')
        self.pool.tide('kill', 'safe')
        hoards.job.wait()
        hoards.close()


if __name__ == '__main__':
    unittest.main()
