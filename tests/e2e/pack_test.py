"""Copies that are packed or named: contents stay right, and what is saved is counted, in each mode."""

import unittest

from pool import PoolTest, job_program, wait_until
import train_test


class Modes(PoolTest):
    """Over a network that is slower than a core packs."""

    environment = {'TIDE_TRANSPORT': 'sim:rtt_us=300,gbit=1'}

    def counters(self, *options):
        """What `tide job` said last of a run of `batches`."""
        job = self.pool.start('-g', 1, '--name', 'packed', *options)
        last = {}
        while job.running():
            known = self.pool.job('packed')
            vgpus = known['vgpus'] if known is not None else []
            last = vgpus[0] if vgpus and vgpus[0].get('commands') else last
        self.assertEqual(job.wait(), 0, job.out() + job.err())
        self.assertIn('batches: ok', job.out())
        return last

    def batches(self, kind):
        return '--', job_program('batches'), '--mib', 8, '--seconds', 3, '--only', kind

    tokens, noise, repeat = range(3)

    def test_off_saves_nothing(self):
        self.pool.up(gpus=1)
        for kind in (self.tokens, self.repeat):
            seen = self.counters('--compress', 'off', *self.batches(kind))
            self.assertGreater(seen['bytes_in'], 8 << 20, seen)
            self.assertEqual((seen['saved_in'], seen['saved_out'], seen['kept_in']), (0, 0, 0), seen)

    def test_on_packs_what_shrinks_both_ways(self):
        self.pool.up(gpus=1)
        seen = self.counters('--compress', 'on', *self.batches(self.tokens))
        self.assertGreater(seen['saved_in'], 0.4 * seen['bytes_in'], seen)
        self.assertGreater(seen['saved_out'], 0.4 * seen['bytes_out'], seen)

    def test_auto_does_so_without_being_told(self):
        self.pool.up(gpus=1)
        seen = self.counters(*self.batches(self.tokens))
        self.assertGreater(seen['saved_in'], 0.2 * seen['bytes_in'], seen)
        self.assertGreater(seen['saved_out'], 0.1 * seen['bytes_out'], seen)

    def test_noise_goes_as_it_is_unless_the_server_has_it(self):
        self.pool.up(gpus=1)
        seen = self.counters(*self.batches(self.noise))
        self.assertLess(seen['saved_in'], 0.1 * seen['bytes_in'], seen)
        seen = self.counters(*self.batches(self.repeat))
        self.assertGreater(seen['kept_in'], 0.4 * seen['bytes_in'], seen)

    def test_a_server_that_keeps_nothing(self):
        self.pool.env['TIDE_CONTENT_CACHE'] = '0'
        self.pool.up(gpus=1)
        seen = self.counters('--compress', 'on', *self.batches(self.repeat))
        self.assertEqual(seen['kept_in'], 0, seen)

    def test_a_mode_that_there_is_not(self):
        done = self.pool.tide('run', '--compress', 'yes', '--', 'true')
        self.assertNotEqual(done.status, 0)
        self.assertIn('--compress is off, auto or on', done.err)


class Fast(Modes):
    """Where the network is faster than packing, nothing is."""

    environment = {'TIDE_TRANSPORT': 'sim:rtt_us=30,gbit=40'}

    def test_auto_does_so_without_being_told(self):
        self.pool.up(gpus=1)
        seen = self.counters(*self.batches(self.tokens))
        self.assertLess(seen['saved_in'] + seen['saved_out'], 0.05 * seen['bytes_in'], seen)

    test_off_saves_nothing = None
    test_on_packs_what_shrinks_both_ways = None
    test_noise_goes_as_it_is_unless_the_server_has_it = None
    test_a_server_that_keeps_nothing = None
    test_a_mode_that_there_is_not = None


class Moving(PoolTest):
    """What was sent before a move is named behind it."""

    environment = {'TIDE_TRANSPORT': 'ucx', 'TIDE_COMPRESS': 'on'}
    migrate_while_running = train_test.Moves.migrate_while_running

    def test_batches(self):
        self.assertGreater(self.migrate_while_running('batches', '--mib', '4'), 1)

    def test_known_contents(self):
        self.assertGreater(self.migrate_while_running('batches', '--mib', '4', '--only', '2'), 1)

    def test_threads_that_share_few_slots(self):
        """Contents are given up and named again by several threads, while the vGPU goes to and fro."""
        self.pool.env['TIDE_CONTENT_CACHE'] = '4'
        options = '--mib', '2', '--only', '3', '--threads', '3'
        self.assertGreater(self.migrate_while_running('batches', *options), 1)

    def test_copies_of_many_shapes(self):
        self.assertGreater(self.migrate_while_running('copies'), 1)


class ToAnotherMachine(train_test.TwoMachines):
    environment = {'TIDE_TRANSPORT': 'ucx', 'TIDE_COMPRESS': 'on'}

    def test_known_contents_go_along(self):
        command = [job_program('batches'), '--mib', 4, '--only', 2, '--seconds', 8]
        job = self.pool.start('-g', 1, '--name', 'moved', '--', *command)
        wait_until(lambda: self.pool.jobs_by_name().get('moved', {}).get('state') == 'running', 'running')
        moves = 0
        for target in ('far/0', 'node0/0') * 2:
            moves += self.pool.tide('migrate', 'moved:0', target).status == 0
            before = (self.pool.job('moved') or {'vgpus': [{}]})['vgpus'][0].get('kept_in', 0)
            wait_until(lambda: not job.running() or
                       (self.pool.job('moved') or {'vgpus': [{}]})['vgpus'][0].get('kept_in', 0) > before,
                       'contents named behind the move')
        self.assertEqual(job.wait(), 0, job.out() + job.err())
        self.assertGreaterEqual(moves, 3)

    test_copies_go_on_from_machine_to_machine = None
    test_one_virtual_gpu_here_and_one_there = None


if __name__ == '__main__':
    unittest.main(verbosity=2)
