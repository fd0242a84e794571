@0xb7c1e05a49d2f683;

# What the policy was asked with and what it answered, as the scheduler's journal keeps it and `tide snapshot` fetches
# it. Fields may be added (new numbers only): what an older version wrote has their defaults. state.h says what each
# is; snapshot.h reads and writes this, and a test counts that no field of state.h is left out.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("tide::snapshot");

const format :UInt32 = 1;     # grows when an older reader would misunderstand it

struct Place {
  server @0 :UInt32;          # in State.servers, counted from 1; 0: nowhere
  gpu @1 :UInt32;
}

struct Traits {
  model @0 :Text;
  networkSwitch @1 :Text;
  labels @2 :List(Text);
}

struct Gpu {
  at @0 :Place;
  memoryBytes @1 :UInt64;
  online @2 :Bool;
  healthy @3 :Bool;
  draining @4 :Bool;
  traits @5 :UInt32;          # in State.traits, counted from 1; 0: nothing is known
}

struct Turn {
  gives @0 :Bool;
  ticket @1 :UInt64;
  hadMs @2 :UInt64;
  lengthMs @3 :UInt64;
}

struct Job {
  id @0 :Text;
  vgpus @1 :UInt32;
  minGpus @2 :UInt32;
  part @3 :UInt32;
  target @4 :UInt32;
  memoryBytes @5 :UInt64;
  memoryGiven @6 :Bool;
  running @7 :Bool;
  suspended @8 :Bool;
  pinned @9 :Bool;
  skipped @10 :UInt32;
  places @11 :List(Place);
  failedOn @12 :List(Text);
  keeps @13 :List(Place);
  refusedBy @14 :List(Text);
  turn @15 :Turn;
  queue @16 :Int32;
  priority @17 :Int32;
  preemptible @18 :Bool;
  require @19 :Text;          # as it is printed (require.h)
  jobClass @20 :UInt8;
  powersOfTwo @21 :Bool;
  spared @22 :Bool;
  bytes @23 :UInt64;
  usefulMs @24 :UInt64;
  estimateMs @25 :UInt64;
  deadlineMs @26 :UInt64;
  failedMoves @27 :UInt32;
  movesFor @28 :Text;
  switchMs @29 :UInt64;
  dueGpus @30 :UInt32;
  yieldsTo @31 :Text;
  keptOutFor @32 :Text;
  reservation @33 :Text;
  barred @34 :List(Place);    # null: none
  entitled @35 :Bool;
  dueMore @36 :UInt32;
  place @37 :Int64;
  leftMs @38 :UInt64;
  endsMs @39 :UInt64;
  passes @40 :Text;
  overrun @41 :Bool;
}

struct Reservation {
  name @0 :Text;
  gpus @1 :UInt32;
  require @2 :Text;           # as it is printed (require.h)
  fromMs @3 :UInt64;
  untilMs @4 :UInt64;
  exclusive @5 :Bool;
}

struct ModelQuota {
  model @0 :Text;
  quota @1 :UInt32;
  limit @2 :Int64 = -1;       # less than 0: none
}

struct Queue {
  name @0 :Text;
  parent @1 :Int32;
  children @2 :List(Int32);
  quota @3 :Int64;
  limit @4 :Int64;
  weight @5 :Float64;
  priority @6 :Int32;
  preemptible @7 :Bool;
  models @8 :List(ModelQuota);
}

struct State {
  servers @0 :List(Text);     # names, once each
  traits @1 :List(Traits);
  gpus @2 :List(Gpu);
  jobs @3 :List(Job);
  turns @4 :Bool;
  nextTurn @5 :Text;
  queues @6 :List(Queue);
  topQueues @7 :List(Int32);
  used @8 :List(Float64);
  pastWeight @9 :Float64;
  nowMs @10 :UInt64;
  consolidate @11 :Bool;
  reservations @12 :List(Reservation);
}

# A state by what is otherwise than in the one before: `state` has the GPUs and jobs that are new or have changed (new
# ones come last), and all else whole.
struct Difference {
  state @0 :State;
  gone @1 :List(Text);        # jobs
}

struct Decision {             # about one job
  job @0 :Text;
  running @1 :Bool;
  places @2 :List(Place);
  reason @3 :UInt32;          # in Answer.reasons, counted from 1; 0: none
  wasRunning @4 :Bool;
  wasPlaces @5 :List(Place);
  movedFor @6 :Text;
  passes @7 :Text;
}

struct Answer {               # of whom nothing is said, nothing changes
  servers @0 :List(Text);
  reasons @1 :List(Text);
  decisions @2 :List(Decision);
  version @3 :Text;           # of the scheduler
}

struct Snapshot {             # a file of `tide snapshot`
  format @0 :UInt32;
  number @1 :UInt64;          # of the decision; 0: none, this is how the pool was
  atMs @2 :UInt64;            # since 1970
  state @3 :State;
  answer @4 :Answer;
}
