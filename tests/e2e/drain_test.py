"""Servers are drained under a training job, and the pool's file changes under it; it notices nothing."""

import os
import signal
import unittest

from pool import PoolTest, train, wait_until

FILE = '''[pool]
listen = "127.0.0.1:0"
turns = "off"
[[server]]
name = "node0"
labels = ["rack=a"]
[[server]]
name = "node1"
labels = ["rack=b"]
'''


class Drain(PoolTest):
    def servers_of(self, name):
        job = self.pool.job(name)
        return {vgpu['gpu'].split('/')[0] for vgpu in job['vgpus']} if job else set()

    def test_a_server_of_two_is_emptied_under_a_training_job(self):
        self.pool.up(4, 2)
        expected = self.expect_ok(self.pool.run('-g', 2, '--', *train('--steps', 60))).out
        job = self.pool.start('-g', 2, '--name', 'train', '--', *train('--steps', 60, '--step-ms', 80))
        wait_until(lambda: job.steps() > 10, 'it trains')
        source = self.servers_of('train')
        self.assertEqual(len(source), 1, source)
        source, other = source.pop(), {'node0': 'node1', 'node1': 'node0'}
        drained = self.expect_ok(self.pool.tide('drain', source))
        self.assertIn('virtual GPUs 0,1: leaves', drained.out)
        self.assertIn(f'server {source} is drained: nothing of a job is on it', drained.out)
        self.assertTrue(job.running(), 'it was drained before it ended')
        self.assertEqual(self.servers_of('train'), {other[source]})
        state = {(gpu['server'], gpu['draining']) for gpu in self.pool.json('gpus')}
        self.assertEqual(state, {(source, True), (other[source], False)})
        self.assertIn('drained', self.pool.tide('gpus').out)
        self.assertEqual([s['drained'] for s in self.pool.json('status')['draining']], [True])
        self.assertIn(f'drained    {source} (empty)', self.pool.tide('status').out)

        # A suspended job, that is kept there, too.
        second = self.pool.tide('drain', other[source])
        self.assertEqual(second.status, 1, repr(second))
        self.assertIn(f'server {other[source]} is not empty', second.err)
        self.assertIn('it needs 1 GPU; on servers that take jobs there are 0', second.err)
        self.expect_ok(self.pool.tide('suspend', 'train'))
        self.assertEqual(self.servers_of('train'), {other[source]})
        self.expect_ok(self.pool.tide('undrain', source))
        self.expect_ok(self.pool.tide('drain', other[source], '--wait'))
        self.assertEqual(self.servers_of('train'), {source})
        self.expect_ok(self.pool.tide('resume', 'train', '--wait'))
        self.assertEqual(self.servers_of('train'), {source})
        self.assertEqual(job.wait(), 0, job.err())
        self.assertEqual(job.out(), expected)
        self.expect_ok(self.pool.tide('undrain', other[source]))
        self.expect_nothing_left()

    def test_the_pool_s_file_changes_under_a_job(self):
        path = os.path.join(self.pool.home, 'mine.toml')
        with open(path, 'w', encoding='utf-8') as file:
            file.write(FILE)
        self.pool.up(2, 2, '--config', path)
        expected = self.expect_ok(self.pool.run('-g', 1, '--', *train('--steps', 60))).out
        refused = self.pool.run('--label', 'rack=c', '--', 'true')
        self.assertEqual(refused.status, 125)
        self.assertIn('no server of the pool has the label rack=c; the labels are rack=a (node0), rack=b (node1)',
                      refused.err)
        job = self.pool.start('--label', 'rack=b', '--name', 'train', '--', *train('--steps', 60, '--step-ms', 80))
        wait_until(lambda: job.steps() > 5, 'it trains')
        self.assertEqual(self.servers_of('train'), {'node1'})

        other = os.path.join(self.pool.home, 'other.toml')
        with open(other, 'w', encoding='utf-8') as file:
            file.write(FILE.replace('rack=a', 'rack=x').replace('rack=b', 'rack=a').replace('rack=x', 'rack=b')
                       .replace('"off"', '"30s"'))
        dry = self.expect_ok(self.pool.tide('config', 'apply', other, '--dry-run'))
        for line in ('turns: off -> 30s', 'server node1: rack=b -> rack=a', 'it would touch 1 job',
                     '1 virtual GPU moves: 0 from node1/0 to node0/0; pause not known', 'nothing was changed'):
            self.assertIn(line, dry.out)
        self.assertEqual(self.servers_of('train'), {'node1'})
        self.assertEqual(self.pool.json('status')['turns'], 'off')

        bad = os.path.join(self.pool.home, 'bad.toml')
        with open(bad, 'w', encoding='utf-8') as file:
            file.write(FILE.replace('turns', 'turn').replace('rack=b', 'rack'))
        wrong = self.pool.tide('config', 'apply', bad)
        self.assertEqual(wrong.status, 1)
        self.assertIn(f"{bad}:3:1: unknown key 'turn' in [pool]; did you mean 'turns'?", wrong.err)
        self.assertIn(f"{bad}:9:11: 'rack' is no label", wrong.err)

        self.expect_ok(self.pool.tide('config', 'apply', other))
        wait_until(lambda: self.servers_of('train') == {'node0'}, 'it moves where it may be')
        with open(path, encoding='utf-8') as file, open(other, encoding='utf-8') as applied:
            self.assertEqual(file.read(), applied.read())
        with open(path + '.before', encoding='utf-8') as file:
            self.assertEqual(file.read(), FILE)
        self.replace_scheduler()
        self.assertEqual(self.pool.json('status')['turns'], '30s')

        with open(path, 'w', encoding='utf-8') as file:
            file.write(FILE.replace('"off"', '"40s"').replace('rack=a', 'rack=x').replace('rack=b', 'rack=a'))
        for pid in self.pool.pids('tide-scheduler'):
            os.kill(pid, signal.SIGHUP)
        wait_until(lambda: self.pool.json('status')['turns'] == '40s', 'the file was read again')
        self.assertEqual(job.wait(), 0, job.err())
        self.assertEqual(job.out(), expected)


if __name__ == '__main__':
    unittest.main()
