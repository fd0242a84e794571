"""Processes of a job share memory and events, and nobody else does."""

import os
import unittest

from pool import PoolTest, job_program, wait_until


class Sharing(PoolTest):
    def sharing(self, gpus, *mode, transport=None):
        env = ('env', f'TIDE_TRANSPORT={transport}') if transport else ()
        return self.pool.run('-g', gpus, '--', *env, job_program('sharing'), *mode)

    def expect_verdict(self, result, *names):
        self.expect_ok(result)
        self.assertEqual(sorted(result.out.split('\n')), sorted([''] + [f'{name}: ok' for name in names]))

    def test_two_processes_take_turns_on_each_gpu(self):
        self.pool.up(gpus=2)
        self.expect_verdict(self.sharing(2, 'exchange'), *['partner', 'late'] * 2, 'exchange')
        self.expect_nothing_left()

    def test_without_common_memory(self):
        self.pool.up(gpus=1)
        self.expect_verdict(self.sharing(1, 'exchange', transport='sim'), 'partner', 'late', 'exchange')

    def test_an_owner_dies(self):
        self.pool.up(gpus=1)
        self.expect_verdict(self.sharing(1, 'death'), 'death')
        self.expect_nothing_left()

    def test_another_job_gets_nothing_and_a_move_is_refused(self):
        self.pool.up(gpus=2)
        path = os.path.join(self.pool.home, 'handles')
        owner = self.pool.start('-g', 1, '--name', 'owner', '--', job_program('sharing'), 'publish', path)
        wait_until(lambda: os.path.exists(path), 'the handles are there')
        self.expect_verdict(self.sharing(1, 'foreign', path), 'foreign')
        here = self.pool.job('owner')['vgpus'][0]['gpu']
        names = [f"{gpu['server']}/{gpu['index']}" for gpu in self.pool.json('gpus')]
        target = next(name for name in names if name != here)
        moved = self.pool.tide('migrate', 'owner:0', target)
        self.assertNotEqual(moved.status, 0, repr(moved))
        self.assertRegex(moved.err, r'shared with other processes')
        self.assertRegex(self.pool.tide('job', 'owner').out, r'shared with other processes')
        os.unlink(path)
        self.assertEqual(owner.wait(), 0, owner.err())
        self.assertEqual(owner.out(), 'publish: ok\n')
        self.expect_nothing_left()


if __name__ == '__main__':
    unittest.main(verbosity=2)
