@0x8f66a1fe0718c30b;

# A job in the scheduler's record, as it lies in the store (store.h). Fields may be added (new numbers only): a record
# of an older release has their defaults, and an older release leaves out what it does not know. job_record.h says
# what each is.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("tide::record");

struct Place {                # no server: nowhere
  server @0 :Text;
  gpu @1 :UInt32;
}

struct Guard {
  server @0 :Text;
  epoch @1 :UInt64;
  madeMs @2 :UInt64;
  token @3 :Data;
}

struct Vgpu {
  at @0 :Place;
  home @1 :Place;
  epoch @2 :UInt64;
  deviceInfo @3 :Data;
  guard @4 :Guard;
}

struct Turn {
  excluded @0 :Bool;
  yielding @1 :Bool;
  ticket @2 :UInt64;
  beganMs @3 :UInt64;
  suspendMs @4 :UInt64;
  resumeMs @5 :UInt64;
  strain @6 :UInt32;
}

struct Job {
  number @0 :UInt64;
  token @1 :Data;
  gpus @2 :UInt32;
  minGpus @3 :UInt32;
  minGiven @4 :Bool;
  part @5 :UInt32 = 1000;
  memoryGiven @6 :UInt64;
  memoryBytes @7 :UInt64;
  queue @8 :Text;
  name @9 :Text;
  user @10 :Text;
  command @11 :Text;
  pid @12 :UInt32;
  target @13 :UInt32;
  pinned @14 :Bool;
  suspended @15 :Bool;
  idled @16 :Bool;
  idleMs @17 :UInt64;
  protectMs @18 :UInt64;
  held @19 :Bool;
  phase @20 :UInt8;
  reason @21 :Text;
  submittedMs @22 :UInt64;
  startedMs @23 :UInt64;
  endedMs @24 :UInt64;
  exitStatus @25 :Int32;
  moves @26 :UInt32;
  turn @27 :Turn;
  vgpus @28 :List(Vgpu);
  require @29 :Text;  # as it is printed (require.h)
  priority @30 :Int32;
  jobClass @31 :UInt8;
  minRuntimeMs @32 :UInt64;
  powersOfTwo @33 :Bool;
  estimateMs @34 :UInt64;
  deadlineMs @35 :UInt64;
  reservation @36 :Text;
  weight @37 :UInt32;
  usefulMs @38 :UInt64;
  disturbedMs @39 :List(UInt64);
  account @40 :Account;
}

# Until when its GPU time has been counted (accounts.h), so that the next scheduler goes on from there.
struct Account {
  struct Counter {
    epoch @0 :UInt64;
    usedMs @1 :Float64;
  }
  wallMs @0 :UInt64;   # since 1970
  boot @1 :UInt64;     # of the machine on whose clock `clockNs` is; 0: it was never counted
  clockNs @2 :UInt64;
  used @3 :List(Counter);  # of each vGPU: what its agent had counted
}

# Something that happened: history.h says what each field is.
struct Event {
  kind @0 :UInt8;
  job @1 :UInt64;
  atMs @2 :UInt64;
  queue @3 :Text;
  user @4 :Text;
  name @5 :Text;
  text @6 :Text;
  gpu @7 :Text;
  model @8 :Text;
  vgpu @9 :UInt32;
  before @10 :UInt32;
  after @11 :UInt32;
  fromMs @12 :UInt64;
  heldMs @13 :Float64;
  usedMs @14 :Float64;
  pauseMs @15 :Float64;
  bytes @16 :UInt64;
  status @17 :Int32;
}

# What lies under one key of the outbox.
struct Events {
  events @0 :List(Event);
}

# What queues had in the past (usage.h).
struct Usage {
  struct Queue {
    name @0 :Text;
    gpuSeconds @1 :Float64;
  }
  atMs @0 :UInt64;  # since 1970
  queues @1 :List(Queue);
}
