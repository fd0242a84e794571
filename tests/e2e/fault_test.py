"""What dies, dies clearly: no hang, no lost job, nothing left over."""

import glob
import os
import re
import shutil
import signal
import stat
import unittest

from pool import PoolTest, train, wait_until

LONG = ('--steps', 3000, '--step-ms', 50)


class Faults(PoolTest):
    def start_long(self, name, gpus=2):
        job = self.pool.start('-g', gpus, '--name', name, '--', *train(*LONG))
        wait_until(lambda: job.steps() > 1, f'{name} trains: {job.err()}')
        return job

    def kill(self, program):
        pids = self.pool.pids(program)
        self.assertTrue(pids, f'no {program} among {self.pool.processes()}')
        os.kill(pids[0], signal.SIGKILL)
        return pids[0]

    def test_the_training_process_is_killed(self):
        self.pool.up(gpus=2)
        job = self.start_long('victim')
        self.kill('train_digits')
        self.assertEqual(job.wait(20), 128 + signal.SIGKILL)
        self.expect_ok(self.pool.run('-g', 2, '--min', 2, '--', *train('--steps', 2)))
        self.expect_nothing_left()

    def kill_local(self, job):
        """Kills a `tide run --local` as no handler can answer; its pool ends, though nobody says `tide down`."""
        homes = re.findall(r'/tmp/tide-local-\w+', ' '.join(self.pool.processes().values()))
        for home in set(homes):
            self.addCleanup(shutil.rmtree, home, True)
        job.process.kill()
        job.wait()
        wait_until(lambda: not self.pool.processes(), 'the pool of a killed `tide run --local` ends', 15)
        self.assertEqual(self.pool.left_over(), [])
        for home in set(homes):
            sockets = [path for path in glob.glob(home + '/**', recursive=True)
                       if stat.S_ISSOCK(os.lstat(path).st_mode)]
            self.assertEqual(sockets, [])

    def test_a_local_run_is_killed(self):
        job = self.pool.start('--local', '-g', 2, '--', *train(*LONG))
        wait_until(lambda: job.steps() > 1, 'it trains', 60)
        self.assertTrue(self.pool.pids('tide-worker'))
        self.kill_local(job)

    def test_a_local_run_is_killed_while_its_pool_starts(self):
        for program in ('tide-scheduler', 'tide-agent'):
            job = self.pool.start('--local', '-g', 1, '--', *train(*LONG))
            wait_until(lambda: self.pool.pids(program), program)
            self.kill_local(job)

    def test_a_worker_is_killed(self):
        self.pool.up(gpus=2)
        job = self.start_long('victim')
        self.kill('tide-worker')
        self.assertNotEqual(job.wait(30), 0)
        self.assertRegex(job.err(), r'(?i)worker|lost|ended|vgpu|server')
        self.expect_ok(self.pool.run('-g', 2, '--', *train('--steps', 2)))
        self.expect_nothing_left()

    def test_an_agent_is_killed(self):
        self.pool.up(gpus=2, servers=2)
        job = self.start_long('victim')
        self.kill('tide-agent')
        self.assertNotEqual(job.wait(60), 0)
        self.assertNotEqual(job.err().strip(), '')
        wait_until(lambda: len(self.pool.pids('tide-worker')) == 0, 'no worker outlives its agent', 30)
        self.expect_ok(self.pool.run('-g', 1, '--', *train('--steps', 2)))

    def test_the_scheduler_is_killed(self):
        self.pool.up(gpus=2)
        self.expect_ok(self.pool.run('-g', 1, '--name', 'before', '--', 'true'))
        self.kill('tide-scheduler')
        result = self.pool.tide('status')
        self.assertNotEqual(result.status, 0)
        self.assertRegex(result.both, r'(?i)tide (up|down)|scheduler')
        self.pool.down()
        wait_until(lambda: not self.pool.processes(), f'all gone: {self.pool.processes()}', 30)
        self.pool.up(gpus=2)  # and the record is still there
        listed = self.pool.tide('job', 'before')
        self.assertEqual(listed.status, 0, repr(listed))
        self.expect_nothing_left()

    def test_the_command_is_interrupted(self):
        self.pool.up(gpus=2)
        job = self.start_long('victim')
        job.process.send_signal(signal.SIGTERM)
        self.assertEqual(job.wait(20), 128 + signal.SIGTERM)
        self.expect_nothing_left()

    def test_the_pool_goes_down_under_a_job(self):
        self.pool.up(gpus=2)
        job = self.start_long('victim')
        self.expect_ok(self.pool.down())
        self.assertNotEqual(job.wait(30), 0)
        self.assertNotEqual(job.err().strip(), '')
        self.assertEqual(self.pool.left_over(), [])

    def test_the_disk_under_the_store_is_full(self):
        limited = Limited(self.pool)
        self.addCleanup(limited.unmount)
        if not limited.mount():
            self.skipTest('needs the right to mount a small tmpfs')
        self.pool.up(gpus=1)
        limited.fill()
        result = self.pool.run('-g', 1, '--', 'true', seconds=60)
        if result.status != 0:
            self.assertEqual(result.status, 125, repr(result))
            self.assertRegex(result.err, r'(?i)disk|space|full|store')
        limited.empty()
        self.expect_ok(self.pool.run('-g', 1, '--', 'true'))


class Limited:
    """The pool's home on a file system of a few MiB."""

    def __init__(self, pool):
        self.home, self.filler = pool.home, os.path.join(pool.home, 'filler')

    def mount(self):
        self.mounted = os.system(f'mount -t tmpfs -o size=4m tmpfs {self.home} 2>/dev/null') == 0
        return self.mounted

    def fill(self):
        with open(self.filler, 'wb', buffering=0) as file:
            try:
                for size in (1 << 16, 1 << 12, 1):
                    try:
                        while True:
                            file.write(b'x' * size)
                    except OSError:
                        pass
            except OSError:
                pass

    def empty(self):
        os.unlink(self.filler)

    def unmount(self):
        if self.mounted:
            os.system(f'umount -l {self.home} 2>/dev/null')


if __name__ == '__main__':
    unittest.main(verbosity=2)
