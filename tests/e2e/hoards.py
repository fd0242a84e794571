"""Processes of one job that take memory of one virtual GPU as a test tells them (tests/jobs/hoard.cu)."""

import os
import threading

from pool import job_program


class Hoards:
    """`tide run` of as many processes, which hear and speak through named pipes."""

    def __init__(self, pool, count, *options):
        self.files, self.paths = [], []
        commands = []
        for i in range(count):
            paths = [os.path.join(pool.home, f'hoard{i}.{end}') for end in ('in', 'out')]
            self.paths += paths
            for path in paths:
                os.mkfifo(path)
            # Opened for both directions, so that nobody waits for the other end.
            self.files.append(tuple(open(path, 'r+b', buffering=0) for path in paths))
            commands.append(f'{job_program("hoard")} < {paths[0]} > {paths[1]} & pids="$pids $!"')
        script = 'pids=; ' + '; '.join(commands) + '; r=0; for p in $pids; do wait $p || r=1; done; exit $r'
        self.job = pool.start(*options, '--', 'sh', '-c', script)

    def tell(self, which, *words):
        """The line that it says to that."""
        self.files[which][0].write((' '.join(map(str, words)) + '\n').encode())
        heard = []
        reader = threading.Thread(target=lambda: heard.append(self.files[which][1].readline()), daemon=True)
        reader.start()
        reader.join(60)
        if not heard:
            raise AssertionError(f'hoard {which} does not answer {words}: {self.job.err()}')
        return heard[0].decode().strip()

    def left(self, which):
        return int(self.tell(which, 'left').split()[1])

    def close(self):
        for inbox, outbox in self.files:
            inbox.close()
            outbox.close()
        for path in self.paths:
            os.unlink(path)
