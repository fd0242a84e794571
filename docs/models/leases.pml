/* Leases, fencing and moves: who may drive a vGPU, and what each crash, cut and late message leaves of that. README.md
 * says what is in it, what is left out and what it found; `check` runs it.
 *
 * Two schedulers, of which one acts at a time: when it dies the next goes on with what was stored. Two agents with a GPU
 * each. Two clients, each of a job with one vGPU. A step is atomic where the code's is: every process has one thread,
 * which does not wait between looking and acting. Names are those of the code (scheduler/reconciler*.cc, server/agent*.cc,
 * interpose/connection.cc).
 */

#define NOWHERE 2 /* instead of an agent */
#define EPOCHS 4  /* at most, of a vGPU; then its job is given up */

#ifndef FAULTS
#define FAULTS 2 /* in all: a scheduler dies, an agent dies, a wire is cut, a client's connection breaks, a job is killed */
#endif
#ifndef MOVES
#define MOVES 1
#endif

mtype = {queued, started, ended};                         /* jobs */
mtype = {nothing, placing, preparing, moving, releasing}; /* what the scheduler does with a vGPU */
mtype = {gone, live, receiving, paused, dying};           /* workers */
mtype = {outside, served, seeking, told};                 /* clients; told: one defined error, or its own end */
mtype = {place, prepare, move, cancel, release, drop};    /* orders; drop: a release whose answer nobody waits for */

/* The store, and the acting scheduler's own memory. */
byte stored_epoch[2], stored_at[2] = NOWHERE;
mtype stored_phase[2] = queued;
bool recovering;
mtype phase[2] = queued, doing[2] = nothing;
byte at[2] = NOWHERE, to[2] = NOWHERE, last_epoch[2], epoch[2];
bool missing[2], known[2], online[2];

/* The agents. A lease is its epoch; 0: none. is_moving, next_epoch and owes die with an agent, the rest is in its file or
 * in its workers. */
typedef Agent {
  byte lease[2], fence[2], next_epoch[2], worker_epoch[2];
  bool is_moving[2], committed[2];
  mtype worker[2];
  mtype owes[2] /* the answer to a call that has not ended: move, release, or nothing */
}
Agent agent[2];
bool wire[2] = true, linked[2]; /* linked: the agent believes in its connection */
bool been[2];                   /* it was connected once */

mtype client[2] = outside;
byte client_at[2] = NOWHERE, client_epoch[2], sent_to[2] = NOWHERE, sent_epoch[2];

chan orders[2] = [4] of {mtype, byte, byte, byte};           /* what, job, epoch, epoch before */
chan answers[2] = [4] of {mtype, bool, byte, byte, byte};   /* what, done, job, epoch, before */

byte faults = FAULTS, moves = MOVES;
bool gave_up;     /* a time was over, or a job was killed: from here on clients may be told an error */
byte place_of[8]; /* by job and epoch: the agent that had that lease, + 1 */

/* Local to a step; zero between steps. */
byte j, a, b, e, n, old;
mtype what;
bool good;

#define other(x) (1 - (x))
#define taken(x) (at[0] == x || to[0] == x || at[1] == x || to[1] == x)
#define works(x, y) (agent[x].worker[y] == live)
#define there(x, y) (agent[x].worker[y] != gone)
#define holds(x, y) (agent[x].lease[y] != 0 && !agent[x].committed[y])
#define acts(x, y) (works(x, y) || agent[x].worker[y] == receiving || agent[x].worker[y] == paused && !agent[x].committed[y])
#define alive(x, y) (agent[x].worker[y] != gone && agent[x].worker[y] != dying)

/* ------------------------------------------------------------------------------------------------ the scheduler */

inline save(y) {
  stored_epoch[y] = last_epoch[y];
  stored_at[y] = at[y];
  stored_phase[y] = phase[y]
}

inline new_epoch(y) {
  last_epoch[y]++;
#ifndef BROKEN_STORE
  save(y)
#endif
}

inline end_job(y) {
  phase[y] = ended;
  save(y)
}

inline order(x, w, y, v, before) {
  if
  :: online[x] -> assert(len(orders[x]) < 4); orders[x]!w, y, v, before
  :: else
  fi
}

inline moved(y) {
  doing[y] = nothing;
  at[y] = to[y];
  to[y] = NOWHERE;
  epoch[y] = last_epoch[y];
  save(y)
}

/* Also drop_move: it stays where it is, or is lost. */
inline move_failed(y) {
  if
  :: to[y] != NOWHERE -> order(to[y], cancel, y, last_epoch[y], 0)
  :: else
  fi;
  doing[y] = nothing;
  to[y] = NOWHERE
}

#define is_move(y) (doing[y] == moving || doing[y] == preparing) /* Doing::kMoving */

inline hear(x, w, done, y, v, before) {
  if
  :: w == place && doing[y] == placing && v == last_epoch[y] ->
    doing[y] = nothing;
    if
    :: done -> at[y] = to[y]; epoch[y] = v
    :: else
    fi;
    to[y] = NOWHERE
  :: w == prepare ->
    if
#ifdef FOUND_PREPARED
    :: done && online[other(x)] -> /* whether the move is still wanted is not asked */
#else
    :: done && online[other(x)] && doing[y] == preparing && v == last_epoch[y] ->
#endif
      doing[y] = (doing[y] == preparing && v == last_epoch[y] -> moving : doing[y]);
      order(other(x), move, y, v, before)
    :: else ->
      if
      :: doing[y] == preparing && v == last_epoch[y] -> move_failed(y)
      :: else
      fi
    fi
  :: w == move && is_move(y) && v == last_epoch[y] ->
    if
    :: done -> moved(y)
    :: else -> move_failed(y)
    fi
  :: w == release && doing[y] == releasing ->
    doing[y] = nothing;
    if
#ifdef FOUND_RELEASED
    :: done -> at[y] = NOWHERE; save(y) /* wherever it is by now */
#else
    :: done && at[y] == x -> at[y] = NOWHERE; save(y)
#endif
    :: else
    fi
  :: else
  fi
}

inline drop_answers(x) {
  do
  :: len(answers[x]) > 0 -> answers[x]?what, good, n, e, old
  :: else -> break
  od
}

/* Calls end with their connection. Of a move that was ordered the source alone knows what came of it. */
inline agent_gone(x) {
  online[x] = false;
  drop_answers(x);
  n = 0;
  do
  :: n < 2 ->
    if
    :: doing[n] == placing && to[n] == x -> doing[n] = nothing; to[n] = NOWHERE
    :: doing[n] == preparing && to[n] == x -> move_failed(n)
    :: doing[n] == releasing && at[n] == x -> doing[n] = nothing
    :: else
    fi;
    n++
  :: else -> break
  od;
  n = 0
}

inline lose(y) {
  if
  :: is_move(y) -> move_failed(y)
  :: else -> doing[y] = nothing
  fi;
  at[y] = NOWHERE;
  missing[y] = false;
  save(y)
}

inline lose_server(x) {
  known[x] = false;
  n = 0;
  do
  :: n < 2 ->
    gave_up = gave_up || to[n] == x;
    if
    :: at[n] == x ->
      gave_up = true;
      lose(n);
      if
      :: phase[n] == started -> end_job(n)
      :: else
      fi
    :: else
    fi;
    n++
  :: else -> break
  od;
  n = 0
}

inline take_word(x, y, v) {
  missing[y] = false;
  if
  :: is_move(y) && to[y] == x -> moved(y)
  :: else ->
    at[y] = x;
    epoch[y] = v;
    if
    :: is_move(y) -> move_failed(y)
    :: else
    fi
  fi
}

inline judge(x, y, v) {
  if
#ifdef BROKEN_JUDGE
  :: true -> take_word(x, y, v)
#else
  /* a job that has ended and holds nothing is forgotten */
  :: v > last_epoch[y] || phase[y] == ended && at[y] == NOWHERE && to[y] == NOWHERE -> orders[x]!drop, y, v, 0
  :: else ->
    if
    :: at[y] == x -> take_word(x, y, v)
    :: at[y] != x && v != last_epoch[y] -> orders[x]!drop, y, v, 0
    :: at[y] != x && v == last_epoch[y] ->
      if
      :: at[y] == NOWHERE || missing[y] -> take_word(x, y, v)
      :: else ->
        if
        :: is_move(y) && to[y] == x -> skip /* open: its source will say */
        :: !(is_move(y) && to[y] == x) && (is_move(y) || online[at[y]]) -> orders[x]!drop, y, v, 0
        :: else -> doing[y] = moving; to[y] = x
        fi
      fi
    fi
#endif
  fi
}

inline miss(y) {
  if
  :: is_move(y) && known[to[y]] -> moved(y)
  :: else ->
    if
    :: recovering && phase[y] != ended -> missing[y] = true
    :: else ->
      to[y] = NOWHERE; doing[y] = nothing; at[y] = NOWHERE;
      if
      :: phase[y] == started -> end_job(y)
      :: else -> save(y)
      fi
    fi
  fi
}

/* What is there for a connection is lost with it: unread orders, answers to calls. */
inline unlink(x) {
  linked[x] = false;
  agent[x].owes[0] = nothing;
  agent[x].owes[1] = nothing;
  do
  :: len(orders[x]) > 0 -> orders[x]?what, n, e, old
  :: else -> break
  od
}

/* Agent::call_off_moves: before the next scheduler hears of the leases. */
inline call_off(x) {
  n = 0;
  do
  :: n < 2 ->
    if
    :: agent[x].is_moving[n] && !agent[x].committed[n] ->
      agent[x].is_moving[n] = false;
      agent[x].next_epoch[n] = 0;
      agent[x].worker[n] = (agent[x].worker[n] == paused -> live : agent[x].worker[n])
    :: else
    fi;
    n++
  :: else -> break
  od
}

/* Reconciler::register_agent and adopt: what the agent has against what we believe. */
inline register(x) {
  if
  :: online[x] -> agent_gone(x)
  :: else
  fi;
  unlink(x);
  drop_answers(x);
#ifndef BROKEN_CALL_OFF
  call_off(x);
#endif
  been[x] = true;
  online[x] = true;
  known[x] = true;
  linked[x] = true;
  j = 0;
  do
  :: j < 2 ->
    e = (agent[x].committed[j] -> 0 : agent[x].lease[j]);
    if
    :: e != 0 -> judge(x, j, e)
    :: else
    fi;
    if
    :: (e == 0 || at[j] != x) && at[j] == x -> miss(j)
    :: else
    fi;
    j++
  :: else -> break
  od
}

inline crash() {
  faults--;
  recovering = true;
  a = 0;
  do
  :: a < 2 ->
    online[a] = false; known[a] = false; missing[a] = false;
    drop_answers(a);
    phase[a] = stored_phase[a]; at[a] = stored_at[a]; to[a] = NOWHERE; doing[a] = nothing;
    last_epoch[a] = stored_epoch[a]; epoch[a] = stored_epoch[a];
    a++
  :: else -> break
  od
}

/* The time to come back is over. */
inline recovered() {
  recovering = false;
  n = 0;
  do
  :: n < 2 ->
    if
    :: at[n] != NOWHERE && (missing[n] || !known[at[n]]) -> gave_up = gave_up || !online[0] || !online[1]; lose(n); end_job(n)
    :: else
    fi;
    n++
  :: else -> break
  od
}

/* ------------------------------------------------------------------------------------------------------ an agent */

inline answer(x, w, done, y, v, before) {
  if
  :: linked[x] && wire[x] -> assert(len(answers[x]) < 4); answers[x]!w, done, y, v, before
  :: else
  fi
}

inline forget(x, y) {
  agent[x].fence[y] = (agent[x].lease[y] > agent[x].fence[y] -> agent[x].lease[y] : agent[x].fence[y]);
  agent[x].lease[y] = 0;
  agent[x].is_moving[y] = false;
  agent[x].committed[y] = false;
  agent[x].next_epoch[y] = 0;
  agent[x].worker[y] = (agent[x].worker[y] == gone -> gone : dying)
}

inline take_lease(x, y, v) {
  good = agent[x].lease[y] <= v && agent[x].fence[y] < v;
  if
  :: good && agent[x].lease[y] != v ->
    /* stale: an older lease of the same vGPU on the same GPU would go on beside the new one */
    assert(agent[x].lease[y] == 0);
    agent[x].lease[y] = v;
    /* an epoch leads to one place, and was stored before anybody heard of it */
    assert(place_of[y * EPOCHS + v - 1] == 0 || place_of[y * EPOCHS + v - 1] == x + 1);
    place_of[y * EPOCHS + v - 1] = x + 1;
    assert(v <= stored_epoch[y])
  :: else
  fi
}

inline obey(x) {
  orders[x]?what, j, e, old;
  if
  :: what == place || what == prepare -> take_lease(x, j, e); answer(x, what, good, j, e, old)
  :: what == move ->
    if
    :: agent[x].lease[j] != 0 && agent[x].lease[j] == old && !agent[x].is_moving[j] && !agent[x].committed[j] ->
      agent[x].is_moving[j] = true;
      agent[x].next_epoch[j] = e;
      agent[x].owes[j] = move
    :: else -> answer(x, move, false, j, e, 0)
    fi
  :: what == cancel ->
    if
    :: agent[x].lease[j] == e -> forget(x, j)
    :: else
    fi
  :: what == release || what == drop ->
    if
    :: agent[x].lease[j] > e ->
      if
      :: what == release -> answer(x, release, false, j, e, 0)
      :: else
      fi
    :: agent[x].lease[j] != 0 && agent[x].lease[j] <= e ->
      forget(x, j);
      if
      :: what == release && agent[x].worker[j] == gone -> answer(x, release, true, j, e, 0)
      :: else -> agent[x].owes[j] = (what == release -> release : nothing)
      fi
    :: else ->
      if
      :: what == release -> answer(x, release, true, j, e, 0) /* its worker may not have ended yet */
      :: else
      fi
    fi
  fi
}

/* It has ended for good, its GPU is free. */
inline reap(x, y) {
  agent[x].worker[y] = gone;
  agent[x].worker_epoch[y] = 0;
  if
  :: agent[x].owes[y] == release -> agent[x].owes[y] = nothing; answer(x, release, true, y, 0, 0)
  :: else
  fi
}

/* From worker to worker; the destination's agent is asked by the source's. */
inline transfer(x, y) {
  b = other(x);
  if
  :: agent[x].worker[y] == gone -> decide(x, y) /* nothing to send, and nobody is asked */
  :: agent[x].worker[y] != gone && agent[b].lease[y] == agent[x].next_epoch[y] && !there(b, y) ->
    agent[x].worker[y] = paused;
    agent[b].worker[y] = receiving;
    agent[b].worker_epoch[y] = agent[b].lease[y]
  :: else -> abort(x, y)
  fi
}

/* Written down before anybody is told. */
inline decide(x, y) {
#ifdef BROKEN_COMMIT
  sent_to[y] = other(x);
  sent_epoch[y] = agent[x].next_epoch[y];
#endif
  agent[x].committed[y] = true
}

inline tell(x, y) {
  sent_to[y] = other(x);
  sent_epoch[y] = (agent[x].next_epoch[y] != 0 -> agent[x].next_epoch[y] : agent[other(x)].lease[y]);
  agent[x].worker[y] = dying
}

inline abort(x, y) {
  agent[x].is_moving[y] = false;
  agent[x].worker[y] = (agent[x].worker[y] == paused -> live : agent[x].worker[y]);
  if
  :: agent[x].owes[y] == move -> answer(x, move, false, y, agent[x].next_epoch[y], 0)
  :: else
  fi;
  agent[x].owes[y] = (agent[x].owes[y] == move -> nothing : agent[x].owes[y]);
  agent[x].next_epoch[y] = 0
}

inline finish(x, y) {
  e = agent[x].next_epoch[y];
  good = agent[x].owes[y] == move;
  forget(x, y);
  if
  :: good -> agent[x].owes[y] = nothing; answer(x, move, true, y, e, 0)
  :: else
  fi
}

/* The next agent of the same directory. Workers that paused for a move that was not decided hear that it is off. */
inline restart(x) {
  faults--;
  unlink(x);
  n = 0;
  do
  :: n < 2 ->
    agent[x].is_moving[n] = false;
#ifdef BROKEN_COMMIT
    agent[x].committed[n] = false;
#endif
    if
    :: agent[x].committed[n] -> skip
    :: else ->
      agent[x].next_epoch[n] = 0;
      agent[x].worker[n] = (agent[x].worker[n] == paused -> live : agent[x].worker[n])
    fi;
    n++
  :: else -> break
  od
}

/* ------------------------------------------------------------------------------------------------------ a client */

/* kOpen at an agent's door. */
#ifdef BROKEN_EPOCH
#define fits(x, y, v) (agent[x].lease[y] != 0)
#define asks_anywhere true
#else
#define fits(x, y, v) (v != 0 && agent[x].lease[y] == v)
#define asks_anywhere false
#endif
#define may_open(y, x, v) (fits(x, y, v) && !agent[x].is_moving[y] && !agent[x].committed[y] && \
  (agent[x].worker[y] == receiving || agent[x].worker[y] == gone && client_epoch[y] == 0 || \
   works(x, y) && client_at[y] == x))

inline open(y, x, v) {
  agent[x].worker_epoch[y] = (there(x, y) -> agent[x].worker_epoch[y] : agent[x].lease[y]);
  agent[x].worker[y] = live;
  client[y] = served;
  client_at[y] = x;
  client_epoch[y] = v
}

/* With the program still at its first open, the scheduler tells it the newest place whenever it asks. */
#define knows(y) (at[y] != NOWHERE && epoch[y] > client_epoch[y] && phase[y] == started)
#define was_sent(y) (sent_epoch[y] > client_epoch[y])
#define serves(y) (client_at[y] != NOWHERE && \
  (agent[client_at[y]].worker[y] == live || agent[client_at[y]].worker[y] == paused))
/* Something under way may still bring it its place: a client looks for so long. */
#define may_come(y) (was_sent(y) && agent[sent_to[y]].lease[y] == sent_epoch[y] || is_move(y) || missing[y] || \
  phase[y] == started && (recovering || at[y] != NOWHERE && (!online[at[y]] || \
  may_open(y, at[y], epoch[y]) && epoch[y] > client_epoch[y])))

/* ------------------------------------------------------------------------------------------------ what must hold */

inline check() {
  /* one worker: of the workers of a vGPU one at most executes */
  assert(!(works(0, 0) && works(1, 0)) && !(works(0, 1) && works(1, 1)));
  /* no stale epoch acts: who executes does so under its agent's lease, and a client with its own epoch */
  assert(!works(0, 0) || agent[0].worker_epoch[0] == agent[0].lease[0]);
  assert(!works(0, 1) || agent[0].worker_epoch[1] == agent[0].lease[1]);
  assert(!works(1, 0) || agent[1].worker_epoch[0] == agent[1].lease[0]);
  assert(!works(1, 1) || agent[1].worker_epoch[1] == agent[1].lease[1]);
  assert(client[0] != served || !works(client_at[0], 0) || agent[client_at[0]].worker_epoch[0] == client_epoch[0]);
  assert(client[1] != served || !works(client_at[1], 1) || agent[client_at[1]].worker_epoch[1] == client_epoch[1]);
  /* one owner: an agent has a lease of its GPU for one job, and workers of one; what has been told to go does not count */
  assert(!(holds(0, 0) && holds(0, 1)) && !(holds(1, 0) && holds(1, 1)));
  assert(!(acts(0, 0) && acts(0, 1)) && !(acts(1, 0) && acts(1, 1)));
#ifdef FOUND_DYING
  /* and none while another's is still ending */
  assert(!(there(0, 0) && there(0, 1)) && !(there(1, 0) && there(1, 1)));
#endif
  j = 0; a = 0; b = 0; e = 0; n = 0; old = 0; what = 0; good = false
}

/* Nothing is left to be done, all wires are whole: every wait has ended, and all agree. */
inline at_rest() {
  j = 0;
  do
  :: j < 2 ->
    assert(client[j] == served || client[j] == told || client[j] == outside && phase[j] == queued);
    assert(client[j] != served || (works(client_at[j], j) && at[j] == client_at[j] && epoch[j] == client_epoch[j]));
    assert(client[j] != told || phase[j] == ended && at[j] == NOWHERE);
    assert(doing[j] == nothing && to[j] == NOWHERE);
    a = 0;
    do
    :: a < 2 ->
      assert(agent[a].lease[j] == 0 || at[j] == a);
      assert(agent[a].worker[j] == gone || agent[a].worker[j] == live);
      assert(online[a] && linked[a]);
      a++
    :: else -> break
    od;
    /* no acknowledged grant is lost, by a restart or otherwise, while nobody's time is over */
    assert(gave_up || client[j] == served);
    j++
  :: else -> break
  od
}

inline try_place(y, x) {
  doing[y] = placing;
  to[y] = x;
  new_epoch(y);
  order(x, place, y, last_epoch[y], 0)
}

inline try_move(y) {
  moves--;
  doing[y] = preparing;
  to[y] = other(at[y]);
  new_epoch(y);
  order(to[y], prepare, y, last_epoch[y], epoch[y])
}

inline try_release(y) {
  doing[y] = releasing;
  order(at[y], release, y, epoch[y], 0)
}

#define may_place(y, x) (phase[y] != ended && at[y] == NOWHERE && doing[y] == nothing && online[x] && !taken(x) && \
  last_epoch[y] < EPOCHS)
#define may_move(y) (moves > 0 && phase[y] == started && doing[y] == nothing && at[y] != NOWHERE && \
  online[at[y]] && online[other(at[y])] && !taken(other(at[y])) && last_epoch[y] < EPOCHS)
#define must_release(y) (phase[y] == ended && at[y] != NOWHERE && doing[y] == nothing && online[at[y]])
#define undecided(x, y) (agent[x].is_moving[y] && !agent[x].committed[y])

#define OF_JOB(y) \
  :: may_place(y, 0) -> try_place(y, 0) \
  :: may_place(y, 1) -> try_place(y, 1) \
  :: may_move(y) -> try_move(y) \
  :: must_release(y) -> try_release(y) \
  :: phase[y] == queued && at[y] != NOWHERE && doing[y] == nothing -> phase[y] = started; save(y) /* note_started() */ \
  :: phase[y] == queued && at[y] == NOWHERE && last_epoch[y] == EPOCHS && doing[y] == nothing -> \
     end_job(y); gave_up = true \
  :: phase[y] != ended && client[y] == told -> end_job(y) /* `tide run` ends with its program */ \
  :: phase[y] == ended && client[y] != told -> client[y] = told /* and the program with it */ \
  :: phase[y] == started && faults > 0 -> faults--; gave_up = true; end_job(y) /* killed */ \
  :: client[y] == served && faults > 0 && serves(y) -> faults--; client[y] = seeking \
  :: client[y] == served && !serves(y) -> client[y] = seeking \
  :: client[y] == seeking && works(client_at[y], y) && may_open(y, client_at[y], client_epoch[y]) -> \
     open(y, client_at[y], client_epoch[y]) \
  :: client[y] == seeking && was_sent(y) && may_open(y, sent_to[y], sent_epoch[y]) -> open(y, sent_to[y], sent_epoch[y]) \
  :: (client[y] == seeking || client[y] == outside) && knows(y) && may_open(y, at[y], epoch[y]) -> open(y, at[y], epoch[y]) \
  :: asks_anywhere && client[y] == seeking && may_open(y, 0, client_epoch[y]) -> open(y, 0, client_epoch[y]) \
  :: asks_anywhere && client[y] == seeking && may_open(y, 1, client_epoch[y]) -> open(y, 1, client_epoch[y]) \
  :: client[y] == seeking && !serves(y) && !may_come(y) -> client[y] = told

#define OF_BOTH(x, y) \
  :: undecided(x, y) && (works(x, y) || agent[x].worker[y] == gone) -> transfer(x, y) \
  :: undecided(x, y) && agent[x].worker[y] != dying -> abort(x, y) /* it took too long */ \
  :: undecided(x, y) && agent[x].worker[y] == paused -> decide(x, y) \
  :: agent[x].committed[y] && agent[x].worker[y] == paused -> tell(x, y) \
  :: agent[x].committed[y] && agent[x].worker[y] == gone -> finish(x, y) \
  :: agent[x].worker[y] == dying -> reap(x, y) \
  :: agent[x].owes[y] == release -> agent[x].owes[y] = nothing; answer(x, release, false, y, 0, 0) /* kReleasePatience */ \
  :: alive(x, y) && client[y] == told -> agent[x].worker[y] = dying /* its client went */

#define OF_AGENT(x) \
  :: len(orders[x]) > 0 && linked[x] -> obey(x) \
  :: !linked[x] && wire[x] -> register(x) \
  :: online[x] && !linked[x] -> agent_gone(x) \
  :: linked[x] && !online[x] && len(orders[x]) == 0 -> unlink(x) /* after what that scheduler had still sent */ \
  :: linked[x] && !wire[x] -> unlink(x) \
  :: faults > 0 && wire[x] && linked[x] -> faults--; wire[x] = false \
  :: !wire[x] && (!linked[x] || !online[x]) -> wire[x] = true \
  :: !online[x] && !wire[x] && known[x] -> lose_server(x) \
  :: faults > 0 && been[x] -> restart(x)

active proctype everything() {
  d_step {
    a = 0;
    do
    :: a < 2 ->
      agent[a].worker[0] = gone; agent[a].worker[1] = gone;
      agent[a].owes[0] = nothing; agent[a].owes[1] = nothing;
      a++
    :: else -> break
    od;
    a = 0
  };
  do
  :: atomic {
    if
    OF_JOB(0)
    OF_JOB(1)
    OF_BOTH(0, 0)
    OF_BOTH(0, 1)
    OF_BOTH(1, 0)
    OF_BOTH(1, 1)
    OF_AGENT(0)
    OF_AGENT(1)
    :: online[0] && len(answers[0]) > 0 -> answers[0]?what, good, j, e, old; hear(0, what, good, j, e, old)
    :: online[1] && len(answers[1]) > 0 -> answers[1]?what, good, j, e, old; hear(1, what, good, j, e, old)
    :: faults > 0 && (been[0] || been[1]) -> crash()
    :: recovering && online[0] && online[1] -> recovered()
    :: recovering && (!wire[0] || !wire[1]) -> recovered()
    :: else -> at_rest(); break
    fi;
    check() }
  od
}
