"""The promise: a program trains on virtual GPUs, and never notices what is moved under it."""

import os
import subprocess
import unittest

from pool import BUILD, DIGITS, PoolTest, TwoMachinesTest, job_program, train, wait_until


def losses(text):
    return [float(line.split()[3]) for line in text.split('\n') if line.startswith('step ')]


class Train(PoolTest):
    def test_losses_are_those_of_the_reference(self):
        self.pool.up(gpus=4)
        ours = self.undisturbed('--steps', 300)
        reference = subprocess.run([f'{BUILD}/tests/jobs/digits_reference', DIGITS, '300'], check=True,
                                   capture_output=True, text=True).stdout
        for step, (got, expected) in enumerate(zip(losses(ours), losses(reference), strict=True)):
            self.assertAlmostEqual(got, expected, delta=2e-3 + 0.02 * expected, msg=f'step {step}')
        self.assertIn('replicas 4 equal', ours)
        self.assertGreaterEqual(float(ours.split('test accuracy ')[1].split()[0]), 95.0)
        self.expect_nothing_left()

    def test_one_job_after_another_gives_the_same_bits(self):
        self.pool.up(gpus=2)
        first = self.expect_ok(self.pool.run('-g', 2, '--', *train('--steps', 20))).out
        second = self.expect_ok(self.pool.run('-g', 2, '--', *train('--steps', 20))).out
        self.assertEqual(first, second)

    def test_four_virtual_gpus_on_one_physical_one(self):
        self.pool.up(gpus=4)
        expected = self.undisturbed('--steps', 20)
        self.expect_ok(self.pool.down())
        self.pool.up(gpus=1)
        shared = self.pool.run('-g', 4, '--min', 1, '--', *train('--steps', 20))
        self.assertEqual(expected, self.expect_ok(shared).out)


class Moves(PoolTest):
    def move_while_training(self, targets, *move, steps=150, pace_ms=40):
        """Trains twice, moves after every few steps of the second; returns the reports."""
        expected = self.undisturbed('--steps', steps)
        job = self.pool.start('-g', 4, '--name', 'moved', '--', *train('--steps', steps, '--step-ms', pace_ms))
        reports = []
        for target in targets:
            seen = job.steps()
            wait_until(lambda: job.steps() >= seen + 5 or not job.running(), f'5 more steps after {seen}', 60)
            if not job.running():
                break
            reports.append(self.pool.json(*[str(word).format(target) for word in move]))
        self.assertEqual(job.wait(), 0, job.err() + self.pool.logs())
        self.assertEqual(job.out(), expected, 'the job noticed')
        self.assertEqual(len(reports), len(targets), 'the job ended before all moves were made')
        return reports

    def test_resize_back_and_forth(self):
        self.pool.up(gpus=4)
        reports = self.move_while_training([1, 3, 2, 4], 'resize', 'moved', '--gpus', '{}')
        for report in reports:
            self.assertGreater(report['vgpus'], 0, reports)
            self.assertGreater(report['bytes'], 0, reports)
            self.assertGreater(report['pause_ms'], 0, reports)
        self.expect_nothing_left()

    def test_resize_in_a_loop(self):
        self.pool.up(gpus=4)
        self.move_while_training([1, 4] * 5, 'resize', 'moved', '--gpus', '{}', steps=200)

    def test_moves_between_servers(self):
        self.pool.up(gpus=4, servers=2)
        gpus = self.pool.json('gpus')
        names = sorted({f"{gpu['server']}/{gpu['index']}" for gpu in gpus})
        self.assertEqual(len({name.split('/')[0] for name in names}), 2, names)
        self.move_while_training([names[0], names[-1], names[1], names[-2]], 'migrate', 'moved:2', '{}')
        self.expect_nothing_left()

    def test_resize_over_two_servers(self):
        self.pool.up(gpus=4, servers=2)
        self.move_while_training([1, 4, 2, 3], 'resize', 'moved', '--gpus', '{}')

    def test_variables_of_modules_move_too(self):
        self.pool.up(gpus=2)
        job = self.pool.start('-g', 2, '--name', 'moved', '--', job_program('globals'), '--seconds', 5)
        for target in (1, 2, 1, 2):
            wait_until(lambda: self.pool.jobs_by_name().get('moved', {}).get('state') == 'running', 'running')
            self.pool.json('resize', 'moved', '--gpus', str(target))
        self.assertEqual(job.wait(), 0, job.err())

    def migrate_while_running(self, *program, seconds=4, rounds=3):
        """The program ends well while its vGPU goes to and fro; the number of moves."""
        self.pool.up(gpus=2)
        name, *options = program
        command = [job_program(name), '--seconds', seconds, *options]
        job = self.pool.start('-g', 1, '--name', 'moved', '--', *command)
        names = [f"{gpu['server']}/{gpu['index']}" for gpu in self.pool.json('gpus')]
        wait_until(lambda: self.pool.jobs_by_name().get('moved', {}).get('state') == 'running', 'running')
        moves = 0
        for target in names * rounds:
            if job.running():
                moves += self.pool.tide('migrate', 'moved:0', target).status == 0
        self.assertEqual(job.wait(), 0, job.out() + job.err())
        return moves

    def test_arrays_and_textures_move_too(self):
        self.assertGreater(self.migrate_while_running('images'), 1)

    def test_texture_references_move_too(self):
        self.assertGreater(self.migrate_while_running('references'), 1)

    def test_what_is_made_and_ended_while_moving(self):
        self.migrate_while_running('churn')

    def test_copies_go_on_while_moving(self):
        self.assertGreater(self.migrate_while_running('copies'), 1)

    def test_page_locked_memory_is_read_while_moving(self):
        self.assertGreater(self.migrate_while_running('pinned'), 1)

    both_change_one_word = ['--live']

    def test_host_memory_moves_too(self):
        self.assertGreater(self.migrate_while_running('mirrors', *self.both_change_one_word), 1)

    def test_graphs_are_launched_across_moves(self):
        self.migrate_while_running('graphs', seconds=5, rounds=2)

    def test_graphs_that_the_gpu_decides_on_are_launched_across_moves(self):
        self.assertGreater(self.migrate_while_running('repeats_drv', seconds=5), 1)


class OverUcx(Moves):
    """Once more with the transport between hosts; but what does not depend on it."""

    environment = {'TIDE_TRANSPORT': 'ucx'}
    test_variables_of_modules_move_too = test_resize_in_a_loop = test_texture_references_move_too = None
    test_graphs_are_launched_across_moves = test_graphs_that_the_gpu_decides_on_are_launched_across_moves = None

    def test_the_transport_is_ucx(self):
        self.pool.up(gpus=1)
        job = self.pool.start('-g', 1, '--name', 'one', '--', *train('--steps', 30, '--step-ms', 100))
        wait_until(lambda: job.steps() > 2, 'steps')
        self.assertEqual({vgpu['transport'] for vgpu in self.pool.job('one')['vgpus']}, {'ucx'})
        wait_until(lambda: self.pool.job('one')['vgpus'][0]['link']['landed_direct_bytes'] > 0,
                   "copies land in the GPU's memory")
        self.assertRegex(self.pool.tide('job', 'one').out,
                         r'copies to virtual GPU 0: .*iB landed in its memory as they came')
        self.assertEqual(job.wait(), 0, job.err())

    both_change_one_word = []  # between hosts each side has its own

    def test_host_memory_is_compared_where_the_system_does_not_watch_it(self):
        self.pool.up(gpus=1)
        self.expect_ok(self.pool.run('--', 'env', 'TIDE_PAGE_WATCH=off', job_program('mirrors')))

    def test_host_memory_over_a_slow_network(self):
        self.pool.up(gpus=1)
        network = 'TIDE_TRANSPORT=sim:rtt_us=1000,gbit=1'
        self.expect_ok(self.pool.run('--', 'env', network, job_program('mirrors'), '--small'))

    def test_page_locked_memory_that_waits_for_a_slow_network_moves_too(self):
        self.pool.env['TIDE_TRANSPORT'] = 'sim:rtt_us=3000,gbit=2'
        self.assertGreater(self.migrate_while_running('pinned'), 1)

    def test_of_host_memory_only_changes_travel(self):
        self.pool.up(gpus=1)
        trace, mib = os.path.join(self.pool.home, 'trace'), 16
        program = [job_program('mirror_cost'), '--mib', mib, '--rounds', 5]
        self.expect_ok(self.pool.run('--trace', trace, '--', *program))
        calls = self.pool.json('trace', trace)['functions']
        self.assertLess(sum(call['sent_bytes'] for call in calls), 2 * mib << 20)
        self.assertLess(sum(call['received_bytes'] for call in calls), 1 << 20)

    def test_small_blocks_of_host_memory_cost_no_round_trip_of_their_own(self):
        """What a kernel changed there comes with the word that it is done."""
        self.pool.up(gpus=1)
        trace = os.path.join(self.pool.home, 'trace')
        program = [job_program('mirror_cost'), '--kib', 8, '--rounds', 20]
        self.expect_ok(self.pool.run('--trace', trace, '--', *program))
        calls = self.pool.json('trace', trace)['functions']
        waits = next(call for call in calls if call['name'].startswith('cuCtxSynchronize'))
        self.assertLessEqual(waits['round_trips'], waits['calls'], waits)
        allocation = next(call for call in calls if call['name'] == 'cuMemAllocManaged')
        self.assertEqual(allocation['round_trips'], 0, allocation)

    # The long ones need not be repeated.
    test_resize_in_a_loop = None
    test_variables_of_modules_move_too = None
    test_what_is_made_and_ended_while_moving = None
    test_arrays_and_textures_move_too = None
    test_texture_references_move_too = None
    test_graphs_are_launched_across_moves = None
    test_resize_over_two_servers = None


class TwoMachines(TwoMachinesTest):
    def test_copies_go_on_from_machine_to_machine(self):
        job = self.pool.start('-g', 1, '--name', 'moved', '--', job_program('copies'), '--seconds', 8)
        wait_until(lambda: self.pool.jobs_by_name().get('moved', {}).get('state') == 'running', 'running')
        moves = 0
        for target in ('far/0', 'node0/0') * 2:
            moves += self.pool.tide('migrate', 'moved:0', target).status == 0
        self.assertEqual(job.wait(), 0, job.out() + job.err())
        self.assertGreaterEqual(moves, 3)

    def test_one_virtual_gpu_here_and_one_there(self):
        for first in (0, 1):
            self.expect_ok(self.pool.run('-g', 2, '--min', 2, '--', job_program('two_machines'), '--from', first))


if __name__ == '__main__':
    unittest.main(verbosity=2)
