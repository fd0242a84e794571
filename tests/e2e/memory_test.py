"""The memory quota is one of the job on a virtual GPU, over all of its processes."""

import os
import signal
import unittest

from hoards import Hoards
from pool import PoolTest, job_program

MEMORY_MIB = 512


class QuotaTest(PoolTest):
    def expect_one_quota(self, hoards):
        """Of MEMORY_MIB each of two has 16."""
        self.assertEqual(hoards.tell(0, 'take', 300), 'took 300')
        self.assertEqual(hoards.tell(1, 'take', 300), 'no 300', 'their sum is beyond the quota')
        self.assertEqual(hoards.left(1), MEMORY_MIB - 332)
        self.assertEqual(hoards.left(0), MEMORY_MIB - 332)
        self.assertEqual(hoards.tell(1, 'take', MEMORY_MIB - 332), f'took {MEMORY_MIB - 332}')
        self.assertEqual(hoards.tell(0, 'take', 2), 'no 2')
        self.assertEqual(hoards.left(0), 0)
        self.assertEqual(hoards.tell(0, 'free'), 'freed')
        self.assertEqual(hoards.tell(1, 'take', 298), 'took 298', 'what one frees the other has at once')
        self.assertEqual(hoards.tell(0, 'take', 4), 'no 4')
        for which in range(2):
            self.assertEqual(hoards.tell(which, 'check'), 'whole')


class OneQuota(QuotaTest):
    def test_of_a_whole_vgpu_after_a_move(self):
        self.pool.up(2, 2, '--gpu-memory', '1GiB')
        hoards = Hoards(self.pool, 2, '-g', 1, '--gpu-memory', f'{MEMORY_MIB}MiB', '--name', 'whole')
        # The first one is alone for a while, and has more than its half.
        self.assertEqual(hoards.tell(0, 'take', 400), 'took 400', hoards.job.err())
        self.assertEqual(hoards.tell(0, 'free'), 'freed')
        for which in range(2):
            self.assertEqual(hoards.tell(which, 'take', 16), 'took 16', hoards.job.err())
        gpu = self.pool.job('whole')['vgpus'][0]['gpu']
        self.expect_ok(self.pool.tide('migrate', 'whole', 'node1/0' if gpu == 'node0/0' else 'node0/0'))
        self.expect_one_quota(hoards)
        self.pool.tide('kill', 'whole')
        hoards.job.wait()
        hoards.close()
        self.expect_nothing_left()


class OneQuotaOverANetwork(QuotaTest):
    environment = {'TIDE_TRANSPORT': 'ucx'}

    def test_of_a_part(self):
        self.pool.up(1, 1, '--gpu-memory', '1GiB')
        hoards = Hoards(self.pool, 2, '-g', 0.5, '--name', 'half')
        for which in range(2):
            self.assertEqual(hoards.tell(which, 'take', 16), 'took 16', hoards.job.err())
        beside = self.pool.run('-g', 0.5, '--', job_program('oom'))
        self.expect_ok(beside)
        self.expect_one_quota(hoards)
        # A process that is gone leaves what it had.
        workers = self.pool.pids('tide-worker')
        self.assertEqual(len(workers), 2)
        os.kill(workers[0], signal.SIGKILL)
        said = [hoards.tell(which, 'take', 2).split()[0] for which in range(2)]
        self.assertEqual(sorted(said)[0], 'error', said)
        lives = 1 - said.index('error')
        self.assertNotEqual(said[lives], 'error')
        mine = 16 + (0 if lives == 0 else 478) + (2 if said[lives] == 'took' else 0)
        self.assertEqual(hoards.tell(lives, 'take', MEMORY_MIB - mine), f'took {MEMORY_MIB - mine}')
        self.assertEqual(hoards.tell(lives, 'take', 2), 'no 2')
        self.assertEqual(hoards.tell(lives, 'check'), 'whole')
        self.pool.tide('kill', 'half')
        hoards.job.wait()
        hoards.close()


if __name__ == '__main__':
    unittest.main(verbosity=2)
