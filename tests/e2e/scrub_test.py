"""No tenant finds in its memory what another one left. The GPUs keep what was written, as real cards do
(SOFTGPU_KEEP_MEMORY); one test shows that this is found where nobody clears it."""

import os
import re
import signal
import unittest

from pool import PoolTest, job_program, wait_until

GPU_MIB = 256


class Scrub(PoolTest):
    def setUp(self):
        super().setUp()
        self.pool.env['SOFTGPU_KEEP_MEMORY'] = os.path.join(self.pool.home, 'gpu-')

    def up(self, gpus=1):
        self.pool.up(gpus, 1, '--gpu-memory', f'{GPU_MIB}MiB')

    def fill(self):
        """A tenant that waits to be killed, when all of its memory holds the pattern."""
        job = self.pool.start('--name', 'left', '-g', 1, '--', job_program('pattern'), 'fill')
        wait_until(lambda: 'filled' in job.out() or not job.running(), 'memory full of the pattern', 60)
        self.expect_filled(job.out())
        return job

    def expect_filled(self, out):
        self.assertGreater(int(re.search(r'filled (\d+) MiB', out).group(1)), GPU_MIB * 9 // 10, out)

    def search(self):
        """How many words of the pattern the next tenant of all of a GPU's memory finds."""
        result = self.expect_ok(self.pool.run('-g', 1, '--', job_program('pattern'), 'search'))
        hits, mib = map(int, re.search(r'hits (\d+) in (\d+) MiB', result.out).groups())
        self.assertGreater(mib, GPU_MIB * 9 // 10, result)
        return hits

    def kill(self, pids):
        self.assertEqual(len(pids), 1, pids)
        os.kill(pids[0], signal.SIGKILL)

    def test_after_a_job_that_ended(self):
        self.up()
        result = self.expect_ok(self.pool.run('-g', 1, '--', job_program('pattern'), 'fill', '--end'))
        self.expect_filled(result.out)
        self.assertEqual(self.search(), 0)

    def test_after_a_client_that_was_killed(self):
        self.up()
        job = self.fill()
        self.kill(self.pool.pids('pattern'))
        self.assertNotEqual(job.wait(), 0)
        self.assertEqual(self.search(), 0)

    def test_after_a_worker_that_was_killed(self):
        self.up()
        job = self.fill()
        self.kill(self.pool.pids('tide-worker'))
        self.pool.tide('kill', 'left')
        self.assertNotEqual(job.wait(), 0)
        self.assertEqual(self.search(), 0)

    def test_after_a_job_that_was_moved_away(self):
        self.up(gpus=2)
        job = self.fill()
        before = self.pool.job('left')['vgpus'][0]['gpu']
        free = next(name for gpu in self.pool.json('gpus') if (name := f"{gpu['server']}/{gpu['index']}") != before)
        self.expect_ok(self.pool.tide('migrate', 'left:0', free))
        self.assertEqual(self.search(), 0)
        self.pool.tide('kill', 'left')
        job.wait()
        self.assertEqual(self.search(), 0)

    def test_what_nobody_clears_is_found(self):
        self.pool.env['SOFTGPU_MEMORY_IS_NEW'] = '1'  # so it is said
        self.up()
        self.expect_ok(self.pool.run('-g', 1, '--', job_program('pattern'), 'fill', '--end'))
        self.assertGreater(self.search(), GPU_MIB * (1 << 20) // 8 // 2)


if __name__ == '__main__':
    unittest.main()
