"""An agent that dies and comes back: its jobs notice nothing. One that does not come back leaves nothing."""

import os
import re
import signal
import subprocess
import time
import unittest

from pool import PoolTest, job_program, train, wait_until


class Agents(PoolTest):
    def up(self, gpus=1):
        self.pool.up(gpus=gpus)
        self.agent = self.pool.pids('tide-agent')[0]
        with open(f'/proc/{self.agent}/cmdline', 'rb') as file:
            self.command = file.read().decode().split('\0')[:-1]
        self.again = None
        self.addCleanup(self.end_again)

    def end_again(self, how=signal.SIGTERM):
        """`tide down` does not know it."""
        if self.again is not None:
            self.again.send_signal(how)
            self.again.wait(20)
            self.again = None

    def kill_agent(self):
        if self.again is None:
            os.kill(self.agent, signal.SIGKILL)
            wait_until(lambda: self.agent not in self.pool.pids('tide-agent'), 'it ends')
        self.end_again(signal.SIGKILL)

    def start_agent(self):
        with open(os.path.join(self.pool.home, 'again.log'), 'a') as log:
            self.again = subprocess.Popen(self.command, env=self.pool.env, stdout=log, stderr=log,
                                          stdin=subprocess.DEVNULL)
        wait_until(lambda: all(gpu['online'] for gpu in self.pool.json('gpus')), 'its GPUs are there')

    def log(self):
        with open(os.path.join(self.pool.home, 'again.log')) as file:
            return file.read()

    def digests(self, text):
        found = re.findall('digest .*', text)
        self.assertTrue(found, text)
        return found

    def test_jobs_notice_nothing(self):
        self.up()
        steps = train('--steps', 120, '--gpus', 1)
        expected = self.digests(self.expect_ok(self.pool.run('-g', 1, '--', *steps)).out)
        for transport in ('shm', 'ucx', 'sim:rtt_us=300,gbit=10'):
            self.pool.env['TIDE_TRANSPORT'] = transport
            job = self.pool.start('-g', 1, '--', *steps, '--step-ms', 40)
            for _ in range(3):
                seen = job.steps()
                wait_until(lambda: job.steps() > seen + 2 or not job.running(), 'it trains')
                workers = self.pool.pids('tide-worker')
                self.kill_agent()
                seen = job.steps()
                wait_until(lambda: job.steps() > seen + 2 or not job.running(), 'it trains without an agent')
                self.start_agent()
                self.assertEqual(self.pool.pids('tide-worker'), workers)
            self.assertEqual(job.wait(), 0, job.err())
            self.assertEqual(self.digests(job.out()), expected, transport)
        self.assertIn('1 workers are taken over', self.log())
        self.end_again()
        self.expect_nothing_left()

    def test_connections_break_while_there_is_no_agent(self):
        self.up()
        steps = train('--steps', 60, '--gpus', 1)
        expected = self.digests(self.expect_ok(self.pool.run('-g', 1, '--', *steps)).out)
        self.pool.env['TIDE_TRANSPORT'] = 'sim:drop_after_bytes=200000,rtt_us=200'
        job = self.pool.start('-g', 1, '--', 'env', 'TIDE_LOG=info', *steps, '--step-ms', 40)
        for _ in range(4):
            seen = job.steps()
            wait_until(lambda: job.steps() > seen + 2 or not job.running(), 'it trains')
            self.kill_agent()
            time.sleep(0.5)
            self.start_agent()
        self.assertEqual(job.wait(), 0, job.err())
        self.assertEqual(self.digests(job.out()), expected)
        self.assertIn('is there again', job.err())

    def test_a_program_that_starts_meanwhile_waits_for_the_agent(self):
        self.up()
        mark = os.path.join(self.pool.home, 'go')
        steps = ' '.join(train('--steps', 3, '--gpus', 1))
        job = self.pool.start('-g', 1, '--', 'sh', '-c',
                              f'touch {mark}.waits; while [ ! -e {mark} ]; do sleep 0.05; done; {steps}')
        wait_until(lambda: os.path.exists(mark + '.waits'), 'the job runs')
        self.kill_agent()
        open(mark, 'w').close()
        time.sleep(1)
        self.start_agent()
        self.assertEqual(job.wait(), 0, job.err())

    def test_processes_that_share_memory(self):
        self.up()
        job = self.pool.start('-g', 1, '--', job_program('sharing'), 'exchange')
        for _ in range(3):
            time.sleep(0.3)
            self.kill_agent()
            self.start_agent()
        self.assertEqual(job.wait(), 0, job.err())

    def test_a_job_moves_after_its_agent_came_back(self):
        self.up(gpus=2)
        job = self.pool.start('-g', 1, '--name', 'moved', '--', *train('--steps', 60, '--step-ms', 50, '--gpus', 1))
        wait_until(lambda: job.steps() > 1, 'it trains')
        self.kill_agent()
        self.start_agent()
        free = next(f"{gpu['server']}/{gpu['index']}" for gpu in self.pool.json('gpus') if gpu['job'] == '')
        self.expect_ok(self.pool.tide('migrate', 'moved:0', free))
        self.kill_agent()
        self.start_agent()
        self.assertEqual(self.pool.job('moved')['vgpus'][0]['gpu'], free)
        self.assertEqual(job.wait(), 0, job.err())

    def test_an_agent_that_is_told_to_stop_takes_its_workers_along(self):
        self.up()
        job = self.pool.start('-g', 1, '--', *train('--steps', 3000, '--step-ms', 50, '--gpus', 1))
        wait_until(lambda: job.steps() > 1, 'it trains')
        self.kill_agent()
        self.start_agent()
        self.end_again()
        wait_until(lambda: not self.pool.pids('tide-worker'), 'no worker is left', 5)
        self.assertNotEqual(job.wait(30), 0)
        self.assertEqual(len(re.findall('is lost|was ended', job.err())), 1, job.err())

    def test_nothing_is_left_of_a_pool_whose_agent_was_killed(self):
        self.up()
        job = self.pool.start('-g', 1, '--', *train('--steps', 3000, '--step-ms', 50, '--gpus', 1))
        wait_until(lambda: job.steps() > 1, 'it trains')
        self.kill_agent()
        self.assertTrue(self.pool.pids('tide-worker'))
        self.expect_nothing_left()
        self.assertNotEqual(job.wait(30), 0)

    def test_nothing_is_left_of_a_local_run_that_is_killed_after_its_agent(self):
        job = self.pool.start('--local', '-g', 1, '--', *train('--steps', 3000, '--step-ms', 50, '--gpus', 1))
        wait_until(lambda: job.steps() > 1, 'it trains', 60)
        os.kill(self.pool.pids('tide-agent')[0], signal.SIGKILL)
        job.process.kill()
        job.wait()
        wait_until(lambda: not self.pool.processes(), 'its pool ends', 15)
        self.assertEqual(self.pool.left_over(), [])


if __name__ == '__main__':
    unittest.main(verbosity=2)
