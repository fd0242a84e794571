"""What a move must not lose, kind by kind: survives.cu makes it, somebody moves the vGPU, and it is looked at."""

import subprocess
import unittest

from pool import PoolTest, job_program, wait_until

LOOKS = 4


class Survives(PoolTest):
    def start(self, gpus, *cases):
        self.pool.up(gpus=4, servers=2)
        self.places = [f"{gpu['server']}/{gpu['index']}" for gpu in self.pool.json('gpus')]
        self.job = self.pool.start('-g', gpus, '--name', 'it', '--', job_program('survives'), '--looks', LOOKS, *cases,
                                   stdin=subprocess.PIPE)
        self.addCleanup(self.job.process.stdin.close)

    def wait_for_gate(self, number):
        wait_until(lambda: self.job.out().count('ready') > number or not self.job.running(), f'gate {number}', 60)
        self.assertTrue(self.job.running(), self.job.out() + self.job.err())

    def go_on(self):
        self.job.process.stdin.write(b'\n')
        self.job.process.stdin.flush()

    def place_of(self, vgpu):
        return self.pool.job('it')['vgpus'][vgpu]['gpu']

    def targets(self, vgpu):
        """Another GPU of the same server, one of the other server, and so on."""
        server = self.place_of(vgpu).split('/')[0]
        taken = {at['gpu'] for at in self.pool.job('it')['vgpus']}
        beside = [place for place in self.places if place.startswith(server + '/') and place not in taken]
        beyond = [place for place in self.places if not place.startswith(server + '/') and place not in taken]
        return beside, beyond

    def move(self, vgpu, beyond):
        target = self.targets(vgpu)[1 if beyond else 0][0]
        self.expect_ok(self.pool.tide('migrate', f'it:{vgpu}', target))
        self.assertEqual(self.place_of(vgpu), target)

    def test_everything_on_one_vgpu(self):
        self.start(1, 'all')
        for look in range(LOOKS):
            self.wait_for_gate(look)
            if look > 0:
                self.move(0, beyond=look % 2 == 0)
            self.go_on()
        self.assertEqual(self.job.wait(), 0, self.job.out() + self.job.err() + self.pool.logs())
        self.assertNotIn('LOST', self.job.out())
        said = [int(line.split()[1]) for line in self.job.out().splitlines() if line.startswith('said ')]
        self.assertEqual(said, list(range(5 * (LOOKS + 1))), 'what kernels printed')
        self.expect_nothing_left()

    def test_copies_between_two_that_move_apart(self):
        self.start(2, 'peers')
        for look in range(LOOKS):
            self.wait_for_gate(look)
            if look > 0:
                self.move(look % 2, beyond=True)
            self.go_on()
        self.assertEqual(self.job.wait(), 0, self.job.out() + self.job.err() + self.pool.logs())

    def test_an_error_that_stays(self):
        self.start(1, 'sticky')
        for look in range(LOOKS):
            self.wait_for_gate(look)
            if look > 0:
                result = self.pool.tide('migrate', 'it:0', self.targets(0)[1][0])
                self.assertNotEqual(result.status, 0)
                self.assertIn('error', result.err)
            self.go_on()
        self.assertEqual(self.job.wait(), 0, self.job.out() + self.job.err() + self.pool.logs())


if __name__ == '__main__':
    unittest.main(verbosity=2)
