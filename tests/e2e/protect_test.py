"""A protected job whose worker, or whole server, is killed goes on from its last checkpoint, unaware."""

import os
import signal
import time
import unittest

from pool import PoolTest, train, wait_until

PROTECT = '1s'


class Protect(PoolTest):
    environment = {'TIDE_LOG': 'info'}

    def start_protected(self, steps, step_ms):
        """Twice: undisturbed, and protected; waits until the second one has a checkpoint and has gone on from there."""
        program = train('--steps', steps, '--gpus', 1)
        self.expected = self.expect_ok(self.pool.run('-g', 1, '--', *program)).out
        self.assertIn('test accuracy', self.expected)
        job = self.pool.start('-g', 1, '--name', 'safe', '--protect', PROTECT, '--', *program, '--step-ms', step_ms)
        wait_until(lambda: self.vgpu() is not None and self.vgpu()['protection']['made_ms'] != 0, 'a checkpoint', 20)
        seen = job.steps()
        wait_until(lambda: job.steps() > seen + 3 or not job.running(), 'it trains')
        return job

    def vgpu(self):
        info = self.pool.job('safe')
        return info['vgpus'][0] if info is not None and info['vgpus'] else None

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

    def test_a_killed_server(self):
        self.pool.up(gpus=2, servers=2)
        job = self.start_protected(steps=80, step_ms=40)
        vgpu = self.vgpu()
        agent = self.agent_of(vgpu['gpu'].split('/')[0])
        begin = time.monotonic()
        for pid in [agent] + self.children(agent):
            os.kill(pid, signal.SIGKILL)
        seen = job.steps()
        wait_until(lambda: job.steps() > seen + 2 or not job.running(), 'it goes on', 40)
        print(f'goes on {time.monotonic() - begin:.1f} s after its server was killed')
        self.expect_the_same(job)


if __name__ == '__main__':
    unittest.main()
