#!/usr/bin/env python3
"""Broken builds for tests/sim: each skips one check of a protocol, and names the checker that must see it.

  mutants.py --list            name, source, checker: a line each
  mutants.py NAME OUTPUT       writes the broken copy of NAME's source
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# name: (source, what it says, what the broken copy says, the checker that must see it, scenario)
MUTANTS = {
    'parcel-serial': (  # a parcel that is missing, or came twice, is not noticed
        'transport/replica.cc',
        '  if (header.serial != serial_in_) return "a parcel is missing";\n',
        '',
        'words', 'sessions'),
    'answers-after-break': (  # a resumed worker takes for granted that all of its answers arrived
        'transport/replica.cc',
        'go_on_from({.head = it.answer_head,',
        'go_on_from({.head = head,',
        'words', 'sessions'),
    'received-on-resume': (  # a resumed client sends from where it was, not from what the worker has
        'transport/replica.cc',
        '  sent_bytes_ = received;\n  whole_records();',
        '  sent_bytes_ = out_.head->load();\n  whole_records();',
        'wait', 'sessions'),
    'news-after-break': (  # what the worker said while nobody heard it is not said again
        'transport/replica.cc',
        '      if (value == resumption_->words[word - word_at(kWorker)]) continue;\n',
        '      continue;\n',
        'words', 'sessions'),
    'word-overtakes': (  # a word is told before the answers that it stands for
        'transport/replica.cc',
        '    if (note.before.head > sent_bytes_ || !put_cursors(parcel, note.before)) break;\n',
        '    if (!put_cursors(parcel, sent_)) break;\n',
        'words', 'sessions'),
    'lent-forgotten': (  # what was lent is not copied back before the next connection
        'transport/replica.cc',
        '    memcpy(out_.bytes + lent->begin % out_.size, lent->from, lent->end - lent->begin);\n',
        '',
        'bytes', 'sessions'),
    'durable-first': (  # a grant is acknowledged before it is on the disk
        'scheduler/kv_sqlite.cc',
        '"PRAGMA synchronous=FULL"',
        '"PRAGMA synchronous=OFF"',
        'grant', 'pool'),
    'epoch-first': (  # an agent hears of an epoch before it is in the record
        'scheduler/reconciler_actions.cc',
        'const Outcome saved = save(fresh);',
        'const Outcome saved;',
        'epoch', 'pool'),
    'void-leases': (  # what an agent holds and should not is left to it
        'scheduler/reconciler_servers.cc',
        '    tasks_.add(release.send().ignoreResult().catch_([](kj::Exception&&) {}));\n',
        '',
        'wait', 'pool'),
    'silent-servers': (  # a lease does not end
        'scheduler/reconciler.cc',
        'if (server.online && now - server.last_seen_ns > uint64_t(kLeaseMs) * 1\'000\'000) {',
        'if (server.online && now - server.last_seen_ns > uint64_t(kLeaseMs) * 1\'000\'000\'000) {',
        'lease', 'pool'),
    'suspended-forgotten': (  # that a job is suspended is not in the record
        'scheduler/job_record.cc',
        'out.setSuspended(job.suspended)',
        'out.setSuspended(false)',
        'suspend', 'pool'),
    'held-for-ever': (  # programs whose suspending failed are not let go
        'scheduler/reconciler_suspend.cc',
        'const bool wanted = job->record.held && ',
        'const bool wanted = false && ',
        'wait', 'pool'),
    'over-packed': (  # jobs that share a GPU have more than one in sum
        'scheduler/room.cc',
        'return portion.part <= part_left && ',
        'return ',
        'owner', 'pool'),
    'shares-twice': (  # what is left of a GPU is given to two at the same moment
        'scheduler/plan.cc',
        '    if (action.ready) occupants.add(*to, *of);',
        '    if (false) occupants.add(*to, *of);',
        'owner', 'pool'),
    'squeezed-in': (  # who is moved away so that a part of a GPU fits beside the others is not counted
        'scheduler/actions/consolidate.cc',
        '    return room.fits(job.portion());\n  };\n',
        '    return room.fits(job.portion()) || !off.empty();\n  };\n',
        'decision', 'pool'),
    'home-given-away': (  # a GPU is given to others before all of the job that leaves it is parked
        'scheduler/ledger.cc',
        'view.keeps.insert(vgpu.home);',
        'view.keeps.clear();',
        'home', 'pool'),
    'turn-order': (  # whose turn is next follows from the submission, not from who has waited longest
        'scheduler/tentative.cc',
        '  if (turns_) return {.rank = int64_t(share.job->turn.ticket)',
        '  if (false) return {.rank = int64_t(share.job->turn.ticket)',
        'turn', 'pool'),
    'turn-again': (  # whose turn is over is the first of those who wait
        'scheduler/reconciler_turns.cc',
        '  job->record.turn.ticket = ledger_.next_ticket();\n',
        '',
        'wait', 'pool'),
    'turn-for-ever': (  # that a job gave its GPUs away for a turn only is not in the record
        'scheduler/job_record.cc',
        'out.setYielding(turn.yielding)',
        'out.setYielding(false)',
        'suspend', 'pool'),
    'sent-before-still': (  # one process of a vGPU is sent while another one, which shares memory with it, still works
        'server/agent_move.cc',
        'state->alone = state->ready.size() == 1;',
        'state->alone = true;',
        'bytes', 'sessions'),
    'decision-not-written': (  # the destination begins, and a next agent would not know that the source has left
        'server/agent_move.cc',
        '  if (!save()) {',
        '  if (false) {',
        'place', 'sessions'),
    'decided-and-called-off': (  # the next agent tells a source to go on though the last one had decided
        'server/agent_adopt.cc',
        'lease.committed ? ControlType::kCommit : ControlType::kAbort',
        'ControlType::kAbort',
        'place', 'sessions'),
    'called-off-and-decided': (  # a move that was called off, or of which one session has failed, is decided on
        'server/agent_move.cc',
        '  if (!lease->second->called_off.empty()) return refusal(0, lease->second->called_off);\n'
        '  lease->second->committed = true;\n',
        '  lease->second->committed = true;\n',
        'exactly-once', 'sessions'),
    'half-made-stays': (  # what was made at the destination of a move that failed is not forgotten
        'server/agent.cc',
        '{ forget({{job, vgpu}, epoch}); }',
        '{ (void)job, (void)vgpu, (void)epoch; }',
        'left', 'sessions'),
    'told-not-compared': (  # a client that has missed what the source said at last is served at the destination
        'server/told_digest.cc',
        'return XXH3_64bits_withSeed(words, bytes, seed);',
        'return 0 * XXH3_64bits_withSeed(words, bytes, seed);',
        'words', 'sessions'),
}


def main():
    if sys.argv[1:] == ['--list']:
        for name, (source, _, _, checker, scenario) in MUTANTS.items():
            print(name, source, checker, scenario)
        return 0
    if len(sys.argv) != 3 or sys.argv[1] not in MUTANTS:
        sys.stderr.write(__doc__)
        return 2
    source, before, after, _, _ = MUTANTS[sys.argv[1]]
    with open(os.path.join(ROOT, source)) as file:
        text = file.read()
    if text.count(before) != 1:
        sys.stderr.write(f'{source} has {text.count(before)} places like this, not one; mend the mutant:\n{before}')
        return 1
    with open(sys.argv[2], 'w') as file:
        file.write(text.replace(before, after))
    return 0


if __name__ == '__main__':
    sys.exit(main())
