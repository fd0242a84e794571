"""Jobs that wait for GPUs take turns with those that run, and their programs notice nothing."""

import os
import re
import subprocess
import unittest

from pool import PATIENCE_S, PoolTest, job_program, train, wait_until


class Turns(PoolTest):
    def up(self, gpus, turns):
        path = os.path.join(self.pool.home, 'pool.toml')
        with open(path, 'w') as file:
            file.write(f'[pool]\nturns = "{turns}"\n')
        self.pool.up(gpus, 1, '--config', path)

    def states(self):
        return {name: job['state'] for name, job in self.pool.jobs_by_name().items()}

    def ballast(self, steps):
        return [job_program('ballast'), '--mib', 64, '--share', 20, '--steps', steps, '--step-ms', 20]

    def test_three_on_one_gpu_all_finish_as_if_alone(self):
        self.up(1, '600ms')
        alone = self.expect_ok(self.pool.run('--', *self.ballast(100))).out
        digest = re.search('digest [0-9a-f]{16}', alone).group()
        names = ('a', 'b', 'c')
        jobs = {name: self.pool.start('-g', 1, '--name', name, '--', *self.ballast(100)) for name in names}
        seen = set()

        def all_seen():
            states = self.states()
            self.assertLessEqual(list(states.values()).count('running'), 2, states)  # one of them leaves
            seen.update(name for name, state in states.items() if state == 'suspended')
            return seen == set(names)

        wait_until(all_seen, 'each has waited for a turn', 30)
        waiting = next(name for name, state in self.states().items() if state == 'suspended')
        said = self.expect_ok(self.pool.tide('why', waiting)).out
        self.assertRegex(said, 'waits for its turn, |is being resumed|has its turn')
        self.assertIn('turns      600ms', self.expect_ok(self.pool.tide('status')).out)
        turn = self.pool.job(waiting)['turn']
        self.assertEqual((turn['taken'], turn['ends']), (True, True), turn)
        self.replace_scheduler()
        for name, job in jobs.items():
            self.assertEqual(job.wait(), 0, name + job.out() + job.err() + self.pool.logs())
            self.assertIn(digest, job.out(), name)
            self.assertGreaterEqual(self.pool.job(name)['moves'], 2, name)

    def test_two_gpus_of_a_job_go_together(self):
        self.up(2, '1s')
        steps = ('--steps', 60)
        expected = self.expect_ok(self.pool.run('-g', 2, '--min', 2, '--', *train(*steps))).out
        jobs = [self.pool.start('-g', 2, '--min', 2, '--name', name, '--', *train(*steps, '--step-ms', 40))
                for name in ('a', 'b')]
        kept = self.pool.start('-g', 2, '--min', 2, '--no-turns', '--name', 'kept', '--', *train('--steps', 3))
        for job in jobs + [kept]:
            self.assertEqual(job.wait(), 0, job.out() + job.err() + self.pool.logs())
        self.assertEqual([job.out() for job in jobs], [expected] * 2, 'a job noticed')
        self.assertEqual([self.pool.job(name)['moves'] % 4 for name in ('a', 'b')], [0, 0], 'both there and back')
        self.assertGreater(self.pool.job('a')['moves'], 0)
        self.assertEqual(self.pool.job('kept')['moves'], 0)
        self.expect_nothing_left()

    def test_without_turns_they_run_one_after_the_other(self):
        self.pool.up(1)
        first = self.pool.start('--name', 'a', '--', job_program('ballast'), '--until-told', 1, stdin=subprocess.PIPE)
        wait_until(lambda: 'ready' in first.out(), 'it runs')
        second = self.pool.start('--name', 'b', '--', *self.ballast(5))
        wait_until(lambda: self.states().get('b') == 'queued', 'it waits')
        self.assertEqual(self.pool.json('status')['turns'], 'off')
        first.process.stdin.close()
        self.assertEqual(first.wait(PATIENCE_S), 0, first.err())
        self.assertEqual(second.wait(), 0, second.err())
        self.assertEqual(self.pool.job('a')['moves'], 0)


if __name__ == '__main__':
    unittest.main(verbosity=2)
