/* A session and its connections (docs/wire.md, "Parcels"; docs/decisions/0012): what each break, kill, move and late
 * frame leaves of commands and results. README.md says what is in it, what is left out and what it found; `check` runs it.
 *
 * CLIENTS clients, each with a session of one vGPU: a ring of commands, one of answers, and a word that says up to where
 * the work is done. Workers 0 and 1 have the sessions at first, 2 and 3 are where a move takes them. A command is a
 * record, a parcel carries one record or word. A connection is known by the number of the attempt that made it. What is
 * refused with "try again" waits at the door here. A step is atomic where the code's is, and changes something for good:
 * no run is without end, whoever is slow, which `check` looks at, too (no cycle in the state graph).
 * Names are those of the code (transport/replica.cc, server/worker*.cc, server/agent.cc, interpose/connection.cc).
 */

#ifndef CLIENTS
#define CLIENTS 2
#endif
#ifndef FAULTS
#define FAULTS 1 /* in all: a break, a parcel lost or twice, a kill, an attempt given up, a time that is over */
#endif
#ifndef MOVES
#define MOVES 1
#endif
#ifndef COMMANDS
#define COMMANDS 2 /* of each client */
#endif
#define RING 1 /* records that a ring holds */
#define QUEUE 2 /* parcels on their way */
#define SERIALS 4

mtype = {idle, dialling, on, seeking, done, told, killed};     /* clients; told: the one error */
mtype = {none, fresh, live, paused, left, restored, gone};     /* workers; fresh: has no state yet; left: moved away */
mtype = {state, record, cursor, begun, word, sent_away};       /* parcels */

/* The client's region: commands published, consumed as it has heard, answers that are here, read, the word; and its link. */
typedef Client {
  mtype is = idle;
  byte head, tail, answers, read, told_done;
  byte link, sent, serial_out, serial_in, told_read; /* link: its attempt; 0: none */
  bool synced, ever_synced, knows_place, refused;
  byte attempt, asked, opened, worker; /* asked, opened: under way to the door and back */
  byte place;                          /* where it was served, + 1 */
  bool again;
  byte late, late_worker; /* an attempt that was given up, still under way */
  bool late_again
}
/* The worker's copy: commands received, executed, answers sent, read as it has heard, the word as told; and its link. */
typedef Worker {
  mtype is = none;
  byte received, executed, sent, read, sent_done;
  byte link, newest, serial_out, serial_in, client;
  bool synced, resumed;
  byte had_answers, had_done /* told_digest() */
}
Client client[2];
Worker worker[4];
#ifdef BROKEN_OLD
#define PLACES 2 * QUEUE
#else
#define PLACES QUEUE
#endif
chan to_worker[4] = [PLACES] of {byte, byte, mtype, byte, byte, byte, byte}; /* attempt, serial, what, values */
chan to_client[2] = [PLACES] of {byte, byte, mtype, byte, byte, byte};
byte dead[2];       /* attempts up to this one have been cut */
bool decided[2];    /* the agent wrote down that the session leaves */
byte faults = FAULTS, moves = MOVES;

/* What is looked at only, not by the protocol. */
byte did[2];        /* commands executed, by whatever worker */
bool excused[2];    /* its session may end with an error */

/* The invariants; set where they are asserted, so that spin names them. */
bool exactly_once = true, delivered_once = true, well_formed = true, newest_only = true, unmixed = true, same_bytes = true,
     waits_end = true, none_lost = true, never_overtakes = true;
#define must(name, holds) name = (holds); assert(name)

/* Local to a step; zero between steps. */
byte g, s, v, x, y, z, n, door, try;
mtype what;

#define cl client[c]
#define wo worker[w]
#define other(c) (1 - (c))
/* What lies in the ring where record k was: a later one may have been written over it. */
#define in_ring(k, head) ((head) < (k) + RING -> (k) : (k) + RING * (((head) - (k)) / RING))
#define session_of(w) ((w) % 2)
/* Both sides hold this connection, and the network carries it. */
#define carries(c, w) (client[c].link != 0 && client[c].worker == w && worker[w].client == c && \
  worker[w].link == client[c].link && client[c].link > dead[c])
#define lives(w) (worker[w].is != none && worker[w].is != gone)
#define over(c) (client[c].is == done || client[c].is == told || client[c].is == killed)
/* The connection that the worker has is of no use: cut, or let go by the client, which is not about to take it. */
#define lost(w) (worker[w].link != 0 && !carries(worker[w].client, w) && \
  !(client[worker[w].client].opened == worker[w].link && worker[w].link > dead[worker[w].client]))

/* From when the source may send it until the destination has heard its client. */
#define changes_hands(c) (worker[c].is == paused || worker[c].is == left || \
  decided[c] && !lives(c) && worker[c + 2].is != live)
/* Known (docs/limits.md): before a session has begun, and while it changes hands, a break is its end. */
#define fragile(c) (!client[c].ever_synced || changes_hands(c))

inline cut(c, attempt_of_it) {
  excused[c] = excused[c] || fragile(c);
  dead[c] = attempt_of_it
}

inline clear(queue) {
  do
  :: len(queue) > 0 -> queue?g, s, what, v, x, y
  :: else -> break
  od
}
inline clear_commands(w) {
  do
  :: len(to_worker[w]) > 0 -> to_worker[w]?g, s, what, v, x, y, z
  :: else -> break
  od
}

/* ------------------------------------------------------------------------------------------------ the client's parcels */

inline send_to_worker(c, kind, a, b, d, e) {
  to_worker[cl.worker]!cl.link, cl.serial_out, kind, a, b, d, e;
  cl.serial_out = (cl.serial_out + 1) % SERIALS
}

#define may_send(c) (client[c].is == on && carries(c, client[c].worker) && len(to_worker[client[c].worker]) < QUEUE)

/* A record of the ring, and what was read of the answers. */
inline send_command(c) {
  v = in_ring(cl.sent + 1, cl.head);
  send_to_worker(c, record, cl.sent, v, cl.read, c);
  cl.sent++;
  cl.told_read = cl.read
}

inline send_read(c) {
  send_to_worker(c, cursor, 0, 0, cl.read, c);
  cl.told_read = cl.read
}

/* Channel::connect: over a connection that has just been accepted; the state goes first. */
inline connect(c) {
#ifndef BROKEN_OLD
  clear(to_client[c]);
#endif
  cl.link = cl.opened;
  cl.opened = 0;
  cl.asked = 0;
  cl.place = cl.worker + 1;
  cl.serial_out = 0;
  cl.serial_in = 0;
  cl.sent = cl.tail;
  cl.told_read = cl.read;
#ifdef BROKEN_EAGER
  cl.synced = true;
#else
  cl.synced = false;
#endif
  cl.is = on;
  if
  :: carries(c, cl.worker) -> send_to_worker(c, state, cl.tail, cl.answers, cl.read, cl.told_done)
  :: else
  fi
}

/* Replica::begin_client: the worker has so many commands already. */
inline take_begun(c, it_has) {
  must(well_formed, !cl.ever_synced || it_has >= cl.tail && it_has <= cl.head);
#ifdef BROKEN_RECEIVED
  cl.sent = cl.head;
#else
  cl.sent = it_has;
#endif
  cl.synced = true;
  cl.ever_synced = true
}

inline take_answer(c, ahead, content, consumed, whose) {
  must(unmixed, whose == c);
  must(delivered_once, ahead >= cl.answers);
  must(well_formed, ahead == cl.answers && consumed <= cl.head && consumed >= cl.tail);
  must(same_bytes, content == ahead + 1);
  cl.answers++;
  cl.tail = consumed
}

inline receive(c) {
  to_client[c]?g, s, what, v, x, y;
  must(newest_only, g == cl.link);
  n = y % 2;
  y = y / 2;
  if
#ifndef BROKEN_SERIAL
  :: s != cl.serial_in -> cut(c, cl.link); clear(to_client[c]) /* a parcel is missing */
#endif
  :: else ->
    cl.serial_in = (cl.serial_in + 1) % SERIALS;
    if
    :: what == begun -> take_begun(c, v)
    :: what == record -> take_answer(c, v, x, y, n)
    :: what == word ->
      must(unmixed, n == c);
      must(never_overtakes, v <= cl.answers && v >= cl.told_done);
      cl.told_done = v;
      cl.tail = (y > cl.tail -> y : cl.tail)
    :: what == sent_away -> cl.knows_place = true
    fi
  fi
}

/* It lets go of the connection: nothing that is still under way there may come any more. */
inline let_go(c) {
#ifndef BROKEN_OLD
  clear(to_client[c]);
#endif
  cl.link = 0;
  cl.synced = false
}

inline dial(c, where, once_more) {
  cl.attempt++;
  cl.asked = cl.attempt;
  cl.worker = where;
  cl.again = once_more;
  cl.refused = false
}

/* The connection is gone: back to the same worker, unless it had not begun, which ends both. */
inline lose(c) {
  let_go(c);
  if
  :: cl.ever_synced -> cl.is = seeking
  :: else -> must(none_lost, excused[c]); cl.is = told
  fi
}

inline fail(c) {
  must(none_lost, excused[c]);
  let_go(c);
  cl.is = told;
  cl.asked = 0;
  cl.opened = 0
}

/* ------------------------------------------------------------------------------------------------ the worker's parcels */

inline send_to_client(w, kind, a, b, d) {
  to_client[wo.client]!wo.link, wo.serial_out, kind, a, b, 2 * (d) + session_of(w);
  wo.serial_out = (wo.serial_out + 1) % SERIALS
}

#define is_heard(w) (worker[w].link != 0 && carries(worker[w].client, w) && len(to_client[worker[w].client]) < QUEUE)

/* Replica::begin_worker, resume_worker. */
inline take_state(w, its_tail, its_answers, its_read, its_done) {
  if
  :: wo.resumed ->
    must(well_formed, its_answers <= wo.executed && its_tail <= wo.executed);
    must(well_formed, its_read <= its_answers && wo.read <= its_read);
    wo.read = its_read;
#ifdef BROKEN_ANSWERS
    wo.sent = wo.executed; /* takes for granted that all of them arrived */
#else
    wo.sent = its_answers;
#endif
#ifndef BROKEN_NEWS
    wo.sent_done = its_done;
#endif
    wo.resumed = false
  :: else ->
    if
#ifndef BROKEN_DIGEST
    :: wo.had_answers != its_answers || wo.had_done != its_done || wo.executed != its_tail ->
      wo.is = gone /* Worker::fits, told_digest: one error */
#endif
    :: else ->
      wo.is = live;
      wo.received = its_tail;
      wo.executed = its_tail;
      wo.sent = its_answers;
      wo.read = its_read;
      wo.sent_done = its_done
    fi
  fi;
  if
  :: wo.is != gone ->
    wo.synced = true;
    if
    :: carries(wo.client, w) -> send_to_client(w, begun, wo.received, 0, 0)
    :: else
    fi
  :: else -> clear_commands(w); wo.link = 0
  fi
}

inline take(w) {
  to_worker[w]?g, s, what, v, x, y, z;
  must(newest_only, g == wo.link);
  if
#ifndef BROKEN_SERIAL
  :: s != wo.serial_in -> x = wo.client; cut(x, wo.link); clear_commands(w)
#endif
  :: else ->
    wo.serial_in = (wo.serial_in + 1) % SERIALS;
    if
    :: what == state -> take_state(w, v, x, y, z)
    :: what == record ->
      must(unmixed, z == session_of(w));
      must(well_formed, v == wo.received);
      must(same_bytes, x == v + 1);
      wo.received++;
      wo.read = (y > wo.read -> y : wo.read)
    :: what == cursor -> wo.read = (y > wo.read -> y : wo.read)
    fi
  fi
}

inline execute(w) {
  must(exactly_once, did[session_of(w)] == wo.executed);
  did[session_of(w)]++;
  wo.executed++
}

inline send_answer(w) {
  v = in_ring(wo.sent + 1, wo.executed);
  send_to_client(w, record, wo.sent, v, wo.executed);
  wo.sent++
}

inline send_word(w) {
  send_to_client(w, word, wo.executed, 0, wo.executed);
  wo.sent_done = wo.executed
}

inline end_worker(w) {
  clear_commands(w);
  wo.is = gone;
  wo.link = 0;
  wo.synced = false;
  wo.resumed = false
}

/* ------------------------------------------------------------------------------------------------ the agent's door */

inline accept(c, w, wish) {
  must(unmixed, session_of(w) == c);
  must(newest_only, wish > wo.newest);
#ifndef BROKEN_OLD
  clear_commands(w);
#endif
  wo.newest = wish;
  wo.link = wish;
  wo.client = c;
  wo.serial_out = 0;
  wo.serial_in = 0;
  wo.synced = false;
  if
  :: cl.attempt == wish && cl.asked == wish && !over(c) -> cl.opened = wish; cl.worker = w
  :: else /* nobody is there */
  fi
}

/* Worker::resume. What has come over the old connection counts (and may be taken in before this). */
inline resume(c, w, wish) {
  wo.resumed = true;
  accept(c, w, wish)
}

/* Agent::serve: kOpen of that attempt. To whom the door gives it: the worker that has the session. */
#ifdef FOUND_LATE
#define is_newer(w, wish) true
#else
#define is_newer(w, wish) ((wish) > worker[w].newest)
#endif
#define may_resume(w) (worker[w].is == live)
#define may_begin(w) ((w) < 2 && worker[w].is == none || worker[w].is == restored)

inline refuse(c, wish) {
  if
  :: cl.asked == wish -> cl.refused = true
  :: else
  fi
}

inline serve(c, w, wish, once_more) {
  if
#ifdef BROKEN_AGAIN
  :: !lives(w) && (w) < 2 -> /* begins anew where the session's worker has ended */
    end_worker(w);
    wo.received = 0; wo.executed = 0; wo.sent = 0; wo.read = 0; wo.sent_done = 0; wo.newest = 0;
    wo.is = fresh;
    accept(c, w, wish)
#endif
  :: once_more && may_resume(w) && is_newer(w, wish) -> resume(c, w, wish)
  :: !once_more && may_begin(w) -> wo.is = fresh; accept(c, w, wish)
  :: else -> refuse(c, wish)
  fi
}
/* It does not come to its answer before the move is settled, the worker before has ended, or the session has arrived. */
#define settled(c, w, once_more) (worker[w].is != paused && worker[w].is != left && \
  (!(once_more) || worker[w].is != fresh && worker[w].is != restored) && ((once_more) || worker[w].is != live))

inline at_door(c) {
  try = cl.asked;
  door = cl.worker;
  serve(c, door, try, cl.again);
  if
  :: cl.refused || cl.opened != 0 -> cl.asked = (cl.opened != 0 -> cl.asked : 0)
  :: else
  fi
}

#ifdef BROKEN_SESSION
inline mix(c) { /* any session that waits for its client */
  try = cl.asked;
  door = other(c);
  resume(c, door, try)
}
#define may_mix(c) (client[c].asked != 0 && client[c].opened == 0 && client[c].again && may_resume(other(c)))
#else
#define mix(c) skip
#define may_mix(c) false
#endif

inline late_at_door(c) {
  try = cl.late;
  door = cl.late_worker;
  cl.late = 0;
  serve(c, door, try, cl.late_again)
}

/* ------------------------------------------------------------------------------------------------ a move */

inline pause(c, w) {
  moves--;
  wo.is = paused
}

/* The session arrives at the destination. */
inline transfer(c, w) {
  worker[w + 2].is = restored;
  worker[w + 2].executed = wo.executed;
  worker[w + 2].had_answers = wo.executed;
  worker[w + 2].had_done = wo.executed
}

inline decide(c, w) {
  decided[c] = true;
  wo.is = left
}

inline call_off(c, w) {
  worker[w + 2].is = (worker[w + 2].is == restored -> gone : worker[w + 2].is);
  wo.is = live
}

/* Its last word; then it waits for the client to go. */
inline send_away(w) {
  send_to_client(w, sent_away, 0, 0, 0);
  wo.synced = false
}

/* ------------------------------------------------------------------------------------------------ what must hold */

inline check() {
  n = 0;
  do
  :: n < CLIENTS ->
    /* one worker has the session */
    must(exactly_once, !((worker[n].is == live) && (worker[n + 2].is == live)));
    must(exactly_once, did[n] <= client[n].head || client[n].is == told || client[n].is == killed);
    must(delivered_once, client[n].read <= client[n].answers && client[n].answers <= did[n]);
    must(never_overtakes, client[n].told_done <= client[n].answers);
    n++
  :: else -> break
  od;
  g = 0; s = 0; v = 0; x = 0; y = 0; z = 0; n = 0; door = 0; try = 0; what = 0
}

/* No step is left. */
inline at_rest() {
  n = 0;
  do
  :: n < CLIENTS ->
    must(waits_end, over(n));
    must(waits_end, !lives(n) && !lives(n + 2));
    must(none_lost, client[n].is != done || did[n] == COMMANDS && client[n].read == COMMANDS);
    must(none_lost, client[n].is == done || excused[n]);
    n++
  :: else -> break
  od
}

#define fault faults--
#define at_work(c) (client[c].is == on || client[c].is == seeking)
#define all_there(c) (client[c].read == COMMANDS && client[c].told_done == COMMANDS)

inline cut_off(c) {
  fault;
  cut(c, cl.link)
}

inline end_client(c, how) {
  let_go(c);
  cl.is = how;
  cl.asked = 0;
  cl.opened = 0
}

#ifdef BROKEN_ROOM
#define has_room(c) (client[c].head - client[c].sent < RING + 1)
#else
#define has_room(c) (client[c].head - client[c].tail < RING)
#endif

#ifdef BROKEN_HOLD
#define goes_with_client(w) false
#else
#define goes_with_client(w) over(session_of(w))
#endif

#ifdef BROKEN_KEEP
#define ends_when_lost(w) (worker[w].is == live && lost(w))
#else
#define ends_when_lost(w) false
#endif

#ifdef BROKEN_PAUSE
#define executes(w) (worker[w].is == live || worker[w].is == paused)
#else
#define executes(w) (worker[w].is == live)
#endif

#define OF_CLIENT(c) \
  :: d_step { client[c].is == idle -> client[c].is = dialling; dial_first(c); check() } \
  :: d_step { at_work(c) && client[c].head < COMMANDS && has_room(c) -> client[c].head++; check() } \
  :: d_step { may_send(c) && client[c].synced && client[c].sent < client[c].head -> send_command(c); check() } \
  :: d_step { may_send(c) && client[c].synced && client[c].sent == client[c].head && \
     client[c].told_read < client[c].read -> send_read(c); check() } \
  :: d_step { client[c].link != 0 && len(to_client[c]) > 0 -> receive(c); check() } \
  :: d_step { at_work(c) && client[c].read < client[c].answers -> client[c].read++; check() } \
  :: d_step { client[c].is == on && all_there(c) -> end_client(c, done); check() } \
  :: d_step { client[c].is == on && client[c].knows_place && client[c].worker < 2 -> \
     let_go(c); client[c].is = seeking; dial(c, c + 2, false); check() } \
  :: d_step { client[c].is == on && !carries(c, client[c].worker) && !client[c].knows_place -> lose(c); check() } \
  :: d_step { client[c].is == on && !carries(c, client[c].worker) && client[c].worker > 1 -> lose(c); check() } \
  :: d_step { client[c].is == seeking && client[c].asked == 0 && client[c].opened == 0 && !client[c].refused -> \
     dial_again(c); check() } \
  :: d_step { client[c].asked != 0 && client[c].opened == 0 && settled(c, client[c].worker, client[c].again) -> \
     at_door(c); check() } \
  :: d_step { may_mix(c) -> mix(c); check() } \
  :: d_step { client[c].late != 0 && settled(c, client[c].late_worker, client[c].late_again) -> late_at_door(c); check() } \
  :: d_step { client[c].opened != 0 && client[c].opened == client[c].asked -> connect(c); check() } \
  /* Channel::search: the scheduler knows where it is now, if it is anywhere */ \
  :: d_step { client[c].is == seeking && client[c].refused && decided[c] && client[c].worker < 2 -> \
     dial(c, c + 2, false); check() } \
  :: d_step { client[c].is == seeking && client[c].refused && !(decided[c] && client[c].worker < 2) -> fail(c); check() } \
  :: d_step { client[c].is == dialling && client[c].refused -> fail(c); check() } \
  /* faults */ \
  :: d_step { faults > 0 && client[c].is == on && carries(c, client[c].worker) -> cut_off(c); check() } \
  :: d_step { faults > 0 && client[c].asked != 0 && client[c].is == seeking -> give_up_attempt(c); check() } \
  :: d_step { faults > 0 && client[c].is == seeking -> fault; excused[c] = true; fail(c); check() } \
  :: d_step { faults > 0 && at_work(c) -> fault; excused[c] = true; end_client(c, killed); check() } \
  :: d_step { faults > 0 && len(to_client[c]) > 1 -> fault; to_client[c]?g, s, what, v, x, y; check() } \
  :: d_step { faults > 0 && len(to_client[c]) == 1 -> \
     fault; to_client[c]?g, s, what, v, x, y; to_client[c]!g, s, what, v, x, y; \
     to_client[c]!g, s, what, v, x, y; check() }

#define OF_WORKER(w) \
  :: d_step { worker[w].link != 0 && len(to_worker[w]) > 0 && worker[w].is != left -> take(w); check() } \
  :: d_step { executes(w) && worker[w].executed < worker[w].received && \
     worker[w].executed - worker[w].read < RING -> execute(w); check() } \
  :: d_step { is_heard(w) && worker[w].synced && worker[w].sent < worker[w].executed -> send_answer(w); check() } \
  :: d_step { is_heard(w) && worker[w].synced && worker[w].sent == worker[w].executed && \
     worker[w].sent_done < worker[w].executed -> send_word(w); check() } \
  :: d_step { worker[w].is == fresh && lost(w) && len(to_worker[w]) == 0 -> end_worker(w); check() } \
  :: d_step { lives(w) && worker[w].is != left && goes_with_client(w) -> end_worker(w); check() } \
  :: d_step { ends_when_lost(w) -> end_worker(w); check() } \
  :: d_step { worker[w].is == left && !is_heard(w) && (lost(w) || worker[w].link == 0) -> end_worker(w); check() } \
  :: d_step { worker[w].is == left && is_heard(w) && worker[w].synced && worker[w].sent == worker[w].executed && \
     worker[w].sent_done == worker[w].executed -> send_away(w); check() } \
  :: d_step { faults > 0 && lives(w) -> fault; excused[session_of(w)] = true; end_worker(w); check() } /* killed */ \
  :: d_step { faults > 0 && lives(w) && lost(w) && worker[w].is == live -> \
     fault; excused[session_of(w)] = true; end_worker(w); check() } /* hold_s is over */ \
  :: d_step { faults > 0 && len(to_worker[w]) > 1 -> \
     fault; to_worker[w]?g, s, what, v, x, y, z; check() } \
  :: d_step { faults > 0 && len(to_worker[w]) == 1 -> \
     fault; to_worker[w]?g, s, what, v, x, y, z; to_worker[w]!g, s, what, v, x, y, z; \
     to_worker[w]!g, s, what, v, x, y, z; check() }

#define OF_MOVE(c) \
  :: d_step { moves > 0 && worker[c].is == live && worker[c].synced && carries(c, c) && !decided[c] && \
     worker[c + 2].is == none -> pause(c, c); check() } \
  :: d_step { worker[c].is == paused && worker[c + 2].is == none && !lost(c) -> transfer(c, c); check() } \
  :: d_step { worker[c].is == paused && worker[c + 2].is == restored -> decide(c, c); check() } \
  :: d_step { worker[c].is == paused -> call_off(c, c); check() }

inline dial_first(c) { dial(c, c, false) }

inline dial_again(c) {
  door = cl.worker;
  dial(c, door, cl.place == door + 1)
}

inline give_up_attempt(c) {
  fault;
  excused[c] = excused[c] || changes_hands(c); /* the destination's worker may meet one who does not come */
  if
  :: client[c].opened != 0 -> client[c].opened = 0
  :: else ->
    client[c].late = client[c].asked;
    client[c].late_again = client[c].again;
    client[c].late_worker = client[c].worker
  fi;
  client[c].asked = 0
}

active proctype everything() {
  do
  OF_CLIENT(0)
  OF_WORKER(0)
  OF_WORKER(2)
  OF_MOVE(0)
#if CLIENTS > 1
  OF_CLIENT(1)
  OF_WORKER(1)
  OF_WORKER(3)
  OF_MOVE(1)
#endif
  :: else -> d_step { at_rest(); n = 0 }; break
  od
}
