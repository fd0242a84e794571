"""Jobs with a part of a GPU: they run side by side on one, none of them notices, and each gets its part of the time."""

import re
import unittest

from pool import PoolTest, job_program, wait_until

LEAST_LAPS = 60  # of the smaller part, so that its share means something


def digest(text):
    return re.search(r'^digest (\w+)$', text, re.M).group(1)


def laps(text):
    """(count, time in ns) of each line."""
    return [(int(count), int(ns)) for count, ns in re.findall(r'^laps (\d+) (\d+)$', text, re.M)]


def share(one, other):
    """Of the first job in the kernels that both did while both ran, but for the beginning."""
    a, b = laps(one), laps(other)
    begin, end = max(a[0][1], b[0][1]) + 300_000_000, min(a[-1][1], b[-1][1])
    done = []
    for lines in (a, b):
        inside = [line for line in lines if begin <= line[1] <= end]
        done.append((inside[-1][0] - inside[0][0]) / (inside[-1][1] - inside[0][1]) * (end - begin))
    return done[0] / sum(done), min(done)


class Fractions(PoolTest):
    def state(self, name):
        job = self.pool.job(name)
        return job and job['state']

    def start_half(self, name, *command):
        job = self.pool.start('-g', 0.5, '--name', name, '--', *command)
        wait_until(lambda: self.state(name) in ('running', 'queued') or not job.running(), f'{name} is known')
        return job

    def test_two_halves_run_on_one_gpu_at_once_and_a_third_waits(self):
        self.pool.up(gpus=1)
        steady = [job_program('steady'), '--rounds', 60, '--pause-us', 30_000]
        expected = digest(self.expect_ok(self.pool.run('-g', 1, '--', *steady)).out)
        first, second = self.start_half('first', *steady), self.start_half('second', *steady)
        third = self.start_half('third', *steady)
        wait_until(lambda: 'round 1 ' in first.out() and 'round 1 ' in second.out(), 'both run')
        self.assertEqual(self.state('third'), 'queued')
        self.assertIn('needs 0.5 of a GPU', self.pool.tide('why', 'third').out)
        gpu = self.pool.json('gpus')[0]
        self.assertEqual([(each['job'], each['part']) for each in gpu['shares']], [('2', 0.5), ('3', 0.5)])
        self.assertEqual(gpu['free_part'], 0)
        one = self.pool.job('first')
        self.assertEqual((one['part'], one['memory_bytes']), (0.5, gpu['memory_bytes'] // 2))
        self.assertEqual([job.wait() for job in (first, second)], [0, 0], first.err() + second.err() + self.pool.logs())
        self.assertEqual(third.wait(), 0, third.err())
        for job in (first, second, third):
            self.assertEqual(digest(job.out()), expected, 'it noticed the other')
        self.expect_nothing_left()

    def test_each_gets_its_part_of_the_time(self):
        self.pool.up(gpus=1)
        command = [job_program('laps'), '--seconds', 4]
        quarter = self.pool.start('-g', 0.25, '--', *command)
        rest = self.pool.start('-g', 0.75, '--', *command)
        self.assertEqual([job.wait() for job in (quarter, rest)], [0, 0], quarter.err() + rest.err() + self.pool.logs())
        got, least = share(quarter.out(), rest.out())
        self.assertGreater(least, LEAST_LAPS)
        self.assertGreater(got, 0.1)
        self.assertLess(got, 0.42)

    def test_weights_say_how_much_and_the_class_says_when(self):
        self.pool.up(gpus=1)
        laps_job = job_program('laps')
        heavy = self.pool.start('-g', 0.25, '--weight', 3, '--name', 'heavy', '--', laps_job, '--seconds', 3)
        light = self.pool.start('-g', 0.25, '--', laps_job, '--seconds', 3)
        wait_until(lambda: self.state('heavy') == 'running', 'it runs')
        self.assertEqual(self.pool.job('heavy')['weight'], 3)
        self.assertEqual([heavy.wait(), light.wait()], [0, 0], heavy.err() + light.err() + self.pool.logs())
        got, least = share(heavy.out(), light.out())
        self.assertGreater(least, LEAST_LAPS)
        self.assertGreater(got, 0.55)
        self.assertLess(got, 0.9)
        batch = self.pool.start('-g', 0.5, '--name', 'batch', '--', laps_job, '--seconds', 100, '--work', 60_000)
        wait_until(lambda: laps(batch.out()), 'it is busy')
        asks = [laps_job, '--seconds', 2, '--work', 4000, '--ahead', 1, '--every-ms', 12]
        p50 = {'interactive': [], 'batch': []}
        for job_class in [*p50, *p50]:  # of each the better: the machine has other work
            done = self.expect_ok(self.pool.run('-g', 0.3, '--class', job_class, '--', *asks))
            p50[job_class].append(int(re.search(r'^waits \d+ p50 (\d+)', done.out, re.M).group(1)))
        print('p50 us of a small launch beside a busy job:', p50)
        self.assertTrue(batch.running())
        self.expect_ok(self.pool.tide('kill', 'batch'))
        self.assertLess(min(p50['interactive']), min(p50['batch']))

    def test_replicas_on_one_gpu_take_the_sum_of_their_times(self):
        self.pool.up(gpus=1)
        seconds = {}
        for gpus in (1, 4):
            done = self.expect_ok(self.pool.run('-g', gpus, '--min', 1, '--', job_program('replicas'), '--gpus', gpus,
                                                '--kernels', 16, '--work', 5000))
            seconds[gpus] = float(re.search(r'^steps \d+ ([0-9.]+) s$', done.out, re.M).group(1))
        ratio = seconds[4] / (4 * seconds[1])
        print(f'four replicas on one GPU: {ratio:.2f} of the sum of their times')
        self.assertLess(ratio, 1.6)  # what else runs on the machine counts, too

    def test_a_half_is_suspended_and_comes_back_beside_another(self):
        self.pool.up(gpus=2)
        steady = [job_program('steady'), '--rounds', 100, '--pause-us', 20_000]
        expected = digest(self.expect_ok(self.pool.run('-g', 1, '--', *steady)).out)
        first, second = self.start_half('first', *steady), self.start_half('second', *steady)
        wait_until(lambda: 'round 5 ' in first.out() and 'round 5 ' in second.out(), 'both run')
        self.assertEqual(self.pool.tide('resize', 'first', '--gpus', 1).status, 1)
        self.expect_ok(self.pool.tide('suspend', 'first'))
        self.expect_ok(self.pool.tide('resume', 'first'))
        self.expect_ok(self.pool.tide('migrate', 'second', 'node0/1'))
        self.expect_ok(self.pool.tide('migrate', 'first', 'node0/1'))
        self.assertEqual([len(gpu['shares']) for gpu in self.pool.json('gpus')], [0, 2])
        self.assertTrue(first.running() and second.running(), 'over too soon to say')
        self.assertEqual([job.wait() for job in (first, second)], [0, 0], first.err() + second.err() + self.pool.logs())
        self.assertEqual([digest(job.out()) for job in (first, second)], [expected] * 2)


if __name__ == '__main__':
    unittest.main(verbosity=2)
