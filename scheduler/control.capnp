@0xc3a1b7d2f4e59680;

# The control plane: `tide` and the agents to the scheduler, and the scheduler to its agents. Low rate; may grow fields
# (new numbers only). The data plane (docs/wire.md) is elsewhere. Times are milliseconds, sizes bytes.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("tide::control");

# Grows when what one side says would be misunderstood by the other. 1 was before anybody said it.
const protocol :UInt32 = 3;

# For a GPU's index: on none. The vGPU is kept in that server's host memory or on its disk, and executes nothing.
const parked :UInt32 = 0xffffffff;

# The same, where a vGPU's checkpoints are kept that is served elsewhere.
const guarding :UInt32 = 0xfffffffe;

struct GpuInfo {
  index @0 :UInt32;
  name @1 :Text;
  memoryBytes @2 :UInt64;
  uuid @3 :Text;
  deviceInfo @4 :Data;        # api/device_info.h; opaque to the scheduler
  healthy @5 :Bool = true;
  software @6 :Bool;
  compute @7 :UInt32;         # its compute capability: 90 is 9.0; 0: not known
}

struct ServerInfo {
  name @0 :Text;              # unique in the pool
  endpoint @1 :Text;          # of the agent's door (transport/door.h)
  gpus @2 :List(GpuInfo);
  version @3 :Text;
  leases @4 :List(Lease);     # what it serves already (after the scheduler restarted)
}

struct Lease {                # one vGPU on one physical GPU
  job @0 :Text;
  vgpu @1 :UInt32;
  gpu @2 :UInt32;             # index on the server, `parked` or `guarding`
  epoch @3 :UInt64;           # grows with every assignment of this vGPU; older ones are refused
  token @4 :Data;             # kTokenBytes; what a client must show
  memoryBytes @5 :UInt64;     # quota
  protected @6 :Bool;         # checkpoints are made of it
  part @7 :UInt32;            # its job's part of the GPU's time, in thousandths; 0: all of it
  weight @8 :UInt32;          # what that counts beside other vGPUs on the GPU; 0: 1
  latency @9 :Bool;           # what it begins goes before others' there
}

struct MoveReport {
  bytes @0 :UInt64;           # that were copied between workers
  pauseMs @1 :Float64;        # longest time that a vGPU consumed no commands
  rounds @2 :UInt32;          # copy rounds, the last of them in the pause
  vgpus @3 :UInt32;           # that were moved
  totalMs @4 :Float64;
  pauseBytes @5 :UInt64;      # of bytes, in the pauses
  drainMs @6 :Float64;        # of the longest pause: until nothing was under way any more,
  copyMs @7 :Float64;         # until what had changed, and all else, was sent,
  restoreMs @8 :Float64;      # until the vGPU was made again at its destination
}

struct CheckpointReport {
  bytes @0 :UInt64;           # that were sent: of all sessions, and of memory only what had changed
  pauseMs @1 :Float64;        # longest time that a session consumed no commands
  pauseBytes @2 :UInt64;      # of bytes, in the pauses
  rounds @3 :UInt32;
  drainMs @4 :Float64;        # of the longest pause: until nothing was under way any more,
  copyMs @5 :Float64;         # until all was sent
  totalMs @6 :Float64;
  cpuMs @7 :Float64;          # of the server's processors
  sessions @8 :UInt32;        # of which there is one now; 0: no program uses the vGPU
  refused @9 :Text;           # why there can be none, of this vGPU and from now on
}

struct ClientStats {          # a process of the job that uses the vGPU
  pid @0 :UInt32;             # where the job runs
  residentBytes @1 :UInt64;
}

struct CallCount {
  call @0 :Text;              # a function of the driver API; "other": of no function, or of one too many
  count @1 :UInt64;
}

struct LinkStats {            # between the program and the vGPU's server
  roundTripUs @0 :UInt64;     # of the network, as measured last; 0: not known, or there is none
  bytesPerS @1 :UInt64;       # to the server, while bytes waited; 0: not known
  windowMs @2 :UInt64;        # the last seconds, of which
  waitMs @3 :UInt64;          # so many the program waited, and the server had nothing to do
  windowBytes @4 :UInt64;     # carried in them, both ways
  landedDirect @5 :UInt64;    # of copies to the GPU that a network brought: bytes put into device memory as they came,
  landedStaged @6 :UInt64;    # and into the worker's page-locked memory; since the worker began, of all processes
}

struct VgpuStats {
  vgpu @0 :UInt32;
  workerPids @1 :List(UInt32);
  residentBytes @2 :UInt64;
  commands @3 :UInt64;
  roundTrips @4 :UInt64;
  bytesIn @5 :UInt64;
  bytesOut @6 :UInt64;
  waitNs @7 :UInt64;
  transport @8 :Text;
  objects @9 :UInt32;
  moves @10 :UInt32;
  busyPermille @11 :UInt32;   # of the last second, in which its workers had work under way
  clients @12 :List(ClientStats);
  roundTripsPerS @13 :Float64;  # of the last second
  roundTripCalls @14 :List(CallCount);  # which functions waited
  savedIn @15 :UInt64;   # of bytesIn: what needed not be carried, because it was packed or the worker kept it
  savedOut @16 :UInt64;  # of bytesOut: because it was packed
  keptIn @17 :UInt64;    # of savedIn: what the worker kept
  link @18 :LinkStats;
  quiet @19 :Bool;       # all that its programs began is done; parked: none of them wants it
  keptInMemory @20 :UInt64;  # parked: bytes that it takes of the server's host memory,
  keptOnDisk @21 :UInt64;    # and of its disk; of chunks that others of its job have there, too, a part
  keptApart @22 :UInt64;     # both together, if equal chunks were not kept once
}

struct VgpuUsage {            # of a vGPU on a GPU, or one that was there a moment ago
  job @0 :Text;
  vgpu @1 :UInt32;
  epoch @2 :UInt64;
  gpu @3 :UInt32;
  usedMs @4 :Float64;         # that the GPU worked for it since the lease, or the agent, began. It only grows; of all
                              # that share a GPU together it grows no faster than time
  residentBytes @5 :UInt64;
  busyPermille @6 :UInt32;    # of the last second
}

# Implemented by tide-agent; every action may be repeated safely: an action of an older epoch is refused, one that has
# been done already succeeds again.
interface Agent {
  place @0 (lease :Lease);
  # Ends the vGPU's workers and forgets the lease; returns when they are gone.
  release @1 (job :Text, vgpu :UInt32, epoch :UInt64);
  # Destination of a move: takes the lease and makes ready to receive; address is for the source's move().
  prepare @2 (lease :Lease) -> (address :Text);
  # Source of a move: copies the vGPU to `address` while it runs, pauses it at a command boundary, sends what has
  # changed meanwhile, tells its clients to go to `endpoint` with `lease.epoch`. Returns when they are
  # served there, or fails with the vGPU running on here.
  move @3 (job :Text, vgpu :UInt32, epoch :UInt64, lease :Lease, address :Text, endpoint :Text) -> (report :MoveReport);
  # Destination again: the move failed, forget what prepare() made.
  cancel @4 (job :Text, vgpu :UInt32, epoch :UInt64);
  stats @5 (job :Text) -> (vgpus :List(VgpuStats));
  ping @6 ();
  # While `on`, the vGPU's programs begin nothing new; what they have begun is executed. A vGPU that moves is let go.
  hold @7 (job :Text, vgpu :UInt32, epoch :UInt64, on :Bool);
  # Of protected vGPUs. A guard begins with prepare(), its lease being `guarding`, and ends with cancel(). This sends a
  # checkpoint of all sessions to it; the one before stands where that fails.
  checkpoint @8 (job :Text, vgpu :UInt32, epoch :UInt64, guard :Lease, address :Text) -> (report :CheckpointReport);
  # To the guard, whose lease has this epoch: gives its checkpoint to the vGPU of `lease`, at `address` (prepare()). It
  # stays a guard, and takes nothing from another worker until it is asked to.
  give @9 (job :Text, vgpu :UInt32, epoch :UInt64, lease :Lease, address :Text) -> (report :MoveReport);
  # Returns when a worker was lost, or a checkpoint is wanted soon; fails when the lease is not there.
  watch @10 (job :Text, vgpu :UInt32, epoch :UInt64) -> (lost :Bool);
  # Of all vGPUs on its GPUs at once.
  usage @11 () -> (vgpus :List(VgpuUsage));
}

enum Together {               # which of a job's physical GPUs must have in common
  preferred @0;               # none; the same server, where that can be
  server @1;
  switch @2;
}

enum JobClass {
  batch @0;
  interactive @1;             # somebody waits for each answer, and sleeps in between
  inference @2;               # it serves requests
  asQueueSays @3;             # of one that is submitted: batch, where the queue says nothing
}

struct JobSpec {
  gpus @0 :UInt32;            # vGPUs
  minGpus @1 :UInt32 = 1;     # least physical GPUs at any time
  queue @2 :Text;
  name @3 :Text;
  memoryBytes @4 :UInt64;     # a vGPU's quota; 0: its first GPU's memory
  user @5 :Text;
  command @6 :Text;           # for people
  pid @7 :UInt32;
  idleMs @9 :UInt64;          # without work for so long it gives its GPUs back until its next call; 0: never
  protectMs @10 :UInt64;      # checkpoints are made so often, from which it goes on where a server is lost; 0: none
  minGiven @8 :Bool;          # somebody chose minGpus: more vGPUs than physical GPUs may share
  noTurns @11 :Bool;          # where jobs take turns: it keeps its GPUs until it ends
  part @12 :UInt32;           # of its one GPU, in thousandths; 0: all of it
  gpuModel @13 :Text;         # words of its GPUs' names, like "H200"; empty: any
  labels @14 :List(Text);     # "KEY=VALUE"; each of them its servers have
  together @15 :Together;
  priority @16 :Int32;        # within its queue: a higher one starts first
  jobClass @17 :JobClass;
  minRuntimeMs @18 :UInt64;   # of useful running before it is disturbed for others' sake; 0: as pool.toml says
  powersOfTwo @19 :Bool;      # it has 1, 2, 4, 8, ... physical GPUs, or as many as it has vGPUs
  estimateMs @20 :UInt64;     # that it will run on all its GPUs, as its user thinks; 0: not said
  deadlineMs @21 :UInt64;     # since 1970; 0: none
  reservation @22 :Text;      # whose GPUs it may use; empty: none
  weight @23 :UInt32;         # where vGPUs share a GPU's time, beside others'; 0: as its part says
}

enum JobState {
  queued @0;
  running @1;
  ended @2;
  suspended @3;               # runs, and none of its vGPUs is on a GPU
}

struct ProtectionInfo {       # of a vGPU of a job with protectMs
  guard @0 :Text;             # the server that keeps its last checkpoint; empty: none
  sameServer @1 :Bool;        # the one that serves the vGPU: the checkpoint does not outlive it
  madeMs @2 :UInt64;          # since 1970; 0: none is whole
  last @3 :CheckpointReport;  # the last that was made since the scheduler started; sessions 0: none
  problem @4 :Text;           # why there is none, or none newer
  refused @5 :Bool;           # and there will be none
  recoveries @6 :UInt32;      # how often it went on from one, since the scheduler started
}

struct VgpuInfo {
  vgpu @0 :UInt32;
  server @1 :Text;
  gpu @2 :UInt32;
  epoch @3 :UInt64;
  moving @4 :Bool;
  protection @6 :ProtectionInfo;
  lastMove @5 :MoveReport;    # its last one since the scheduler started; vgpus 0: none
}

# Where jobs take turns: of one that has GPUs, or waits for them. Counted from the answer.
struct TurnInfo {
  taken @0 :Bool;             # its turns may end
  lengthMs @1 :UInt64;        # of its turns; all ones: until the job ends
  next @2 :Text;              # who waits for the end of its turn; empty: nobody
  endsMs @3 :UInt64;          # with `next`: when its turn ends
  waits @4 :Bool;             # it waits for its turn,
  comesMs @5 :UInt64;         # about so long
  switchMs @6 :UInt64;        # what suspending and resuming it took the last time; 0: not measured
  doubled @7 :UInt32;         # how often its turns were doubled: switching failed or was not worth it
}

enum PromiseState {
  none @0;                    # it has no deadline
  kept @1;                    # the deadline was promised, and can be kept
  late @2;                    # it cannot any more; as much is done for it as can be
  overrun @3;                 # the job runs longer than was estimated, so nothing is promised any more
  passed @4;                  # the deadline has passed, and the job has not ended
  met @5;                     # the job has ended before it,
  missed @6;                  # or after it
}

struct PromiseInfo {
  state @0 :PromiseState;
  leftMs @1 :UInt64;          # of the estimate
  gpus @2 :UInt32;            # that it has to have now; 0: it may wait
  endsMs @3 :UInt64;          # since 1970: when it is done if it gets no more than it has to; 0: not known
  startsMs @4 :UInt64;        # since 1970: it waits like others, and gets GPUs at this time at the latest, about; 0: no
}

enum ExpectedBy {
  nobody @0;                  # it came without an estimate, and too few jobs have ended
  user @1;                    # its estimate
  learned @2;                 # from jobs that ended
}

struct ExpectedInfo {         # what a job is expected to need yet
  by @0 :ExpectedBy;
  leftMs @1 :UInt64;          # that it will run on all its GPUs; 0: not known
  jobs @2 :UInt64;            # that it was learned from
  text @3 :Text;              # all that in words
  endsMs @4 :UInt64;          # since 1970: it runs, and will be over then; 0: not known
  passes @5 :Text;            # it runs: the pool drained for that job when it started; empty: for none
}

struct JobInfo {
  id @0 :Text;
  spec @1 :JobSpec;
  state @2 :JobState;
  reason @3 :Text;            # why queued, or how it ended
  submittedMs @4 :UInt64;     # since 1970
  startedMs @5 :UInt64;
  endedMs @6 :UInt64;
  vgpus @7 :List(VgpuInfo);
  physicalGpus @8 :UInt32;
  exitStatus @9 :Int32;
  target @10 :UInt32;         # physical GPUs wanted by `tide resize`; 0: as many as there are
  moves @11 :UInt32;
  suspended @13 :Bool;        # shall be: `tide suspend` said so and `tide resume` has not
  idled @14 :Bool;            # suspended because it did nothing: its next call resumes it
  memoryBytes @12 :UInt64;    # the quota that spec.memoryBytes = 0 has become; 0: not decided yet
  turn @15 :TurnInfo;
  next @16 :Text;             # of job(): what can be done about it, where `reason` is its queue; else empty
  usefulMs @17 :UInt64;       # that it has run, all of it on GPUs and none of it on its way
  disturbed @18 :UInt32;      # how often in the last hour for others' sake
  spared @19 :Text;           # why it is not to be disturbed for others' sake now; empty: it may be
  promise @20 :PromiseInfo;
  expected @21 :ExpectedInfo;
}

struct GpuShare {             # what a job has of a GPU
  job @0 :Text;
  vgpus @1 :List(UInt32);
  part @2 :UInt32;            # thousandths
}

struct PoolGpu {
  server @0 :Text;
  info @1 :GpuInfo;
  job @2 :Text;               # who holds it; empty: free. Of several, the oldest
  vgpus @3 :List(UInt32);     # of that job
  online @4 :Bool;
  shares @5 :List(GpuShare);  # of all who hold it
  draining @6 :Bool;          # its server is: it takes nothing new, and what is there moves away
  labels @7 :List(Text);      # of its server
  networkSwitch @8 :Text;     # the same; empty: not known
}

enum LeftKind {
  gpu @0;                     # virtual GPUs on its GPUs,
  parked @1;                  # or of a suspended job, kept there
  guard @2;                   # checkpoints of virtual GPUs that are elsewhere
}

enum LeftDoing {
  leaves @0;                  # it is on its way, or next
  retries @1;                 # that failed and is tried again
  stays @2;                   # until what `reason` says has changed
}

struct Left {                 # something of a job on a server that is being drained
  job @0 :Text;
  kind @1 :LeftKind;
  vgpus @2 :List(UInt32);
  doing @3 :LeftDoing;
  reason @4 :Text;
  next @5 :Text;
}

struct ServerState {
  name @0 :Text;
  known @1 :Bool;             # it is in the pool; else it is only remembered that it shall be drained
  online @2 :Bool;
  gpus @3 :UInt32;
  labels @4 :List(Text);
  networkSwitch @5 :Text;
  drainingMs @6 :UInt64;      # since 1970; 0: it is not being drained
  left @7 :List(Left);        # while it is
}

struct QueueInfo {            # amounts are thousandths of a GPU
  name @0 :Text;
  parent @1 :Text;            # empty: of the pool
  leaf @2 :Bool;              # jobs can be submitted to it
  inFile @3 :Bool = true;     # false: pool.toml has no such queue any more, but jobs of it are there
  quota @4 :UInt64;
  limit @5 :UInt64 = 0xffffffffffffffff;  # all ones: none
  overQuotaWeight @6 :Float64;
  priority @7 :Int32;
  preemptible @8 :Bool;       # false also below one that is not
  fairShare @9 :UInt64;       # what it is owed now
  allocated @10 :UInt64;
  demand @11 :UInt64;         # all that its jobs want, those that run and those that wait
  runningJobs @12 :UInt32;
  waitingJobs @13 :UInt32;
  waitingGpus @14 :UInt64;    # what these want
  usedGpuS @15 :Float64;      # GPU-seconds in the past; half are forgotten in each half-life
  usedPart @16 :Float64;      # the part of the pool that it was, 0 to 1
  models @17 :List(ModelInfo);
}

struct ModelInfo {            # what a queue has of GPUs of a model
  model @0 :Text;             # words of their names
  quota @1 :UInt32;
  limit @2 :UInt32 = 0xffffffff;  # all ones: none
  held @3 :UInt32;            # that its jobs are on
  there @4 :UInt32;           # usable ones in the pool
}

struct ReservationInfo {
  name @0 :Text;
  gpus @1 :UInt32;
  gpuModel @2 :Text;          # words of their names; empty: any
  labels @3 :List(Text);
  fromMs @4 :UInt64;          # since 1970
  untilMs @5 :UInt64;
  users @6 :List(Text);       # whose jobs may use it; with no users and no queues: everybody's
  queues @7 :List(Text);
  exclusive @8 :Bool;         # nobody else has its GPUs, also while it does not use them
  begun @9 :Bool;
  over @10 :Bool;
  kept @11 :UInt32;           # GPUs that are kept for it now; the rest is lent
  used @12 :UInt32;           # GPUs that its jobs have
  there @13 :UInt32;          # usable GPUs of the pool that are such as it may have
  runningJobs @14 :UInt32;
  waitingJobs @15 :UInt32;
}

struct Touched {              # a job to which a change of the configuration does something
  job @0 :Text;
  what @1 :Text;
  pauseMs @2 :Float64 = -1;   # that a program of it stands still, about; less than 0: not known
  source @3 :Text;            # from where that is known
}

struct ConfigOutcome {
  errors @0 :List(Text);      # then nothing has changed, and the rest is empty
  changes @1 :List(Text);     # of what can change while the pool runs
  restart @2 :List(Text);     # what takes effect with the next start of the scheduler, or of an agent
  touched @3 :List(Touched);
  keptIn @4 :Text;            # the scheduler's pool.toml; with the one before it in keptIn.before
}

struct DecisionInfo {         # about one job
  number @0 :UInt64;
  atMs @1 :UInt64;            # since 1970
  what @2 :Text;              # "starts on a/0"
  reason @3 :Text;            # empty: it was there
}

struct JournalInfo {          # of decisions
  directory @0 :Text;         # empty: nothing is recorded
  first @1 :UInt64;           # numbers of decisions; 0: none
  last @2 :UInt64;
  bytes @3 :UInt64;
  bytesMax @4 :UInt64;
  leftOut @5 :UInt64;         # decisions that were not written, since the scheduler started
  problem @6 :Text;           # why; empty: the last one was written
}

# Something large on its way from the scheduler.
interface Pieces {
  next @0 () -> (piece :Data);  # empty: that was all
}

# A pool.toml on its way to the scheduler, in pieces that fit into a message.
interface Draft {
  add @0 (text :Text);
  # All of it counts, or nothing. `file`: its name, for messages.
  apply @1 (file :Text, dryRun :Bool) -> (outcome :ConfigOutcome);
}

# Dropping the last reference (or the connection) ends the job: its GPUs are free at once.
interface JobHandle {
  # Returns when the job runs; reason() says meanwhile why it waits.
  running @0 ();
  info @1 () -> (job :JobInfo);
  # The command ended; the exit status is for the record.
  ended @2 (exitStatus :Int32);
  # Returns when the job has ended, by whomever; job.reason says how.
  wait @3 () -> (job :JobInfo);
}

interface Registration {      # held by an agent; dropping it takes the server out of the pool
  heartbeat @0 ();
}

struct ReportRow {            # GPU-seconds are of whole GPUs: half of one for a second is half of one
  key @0 :Text;               # the queue, the user, or the job's id
  name @1 :Text;              # of a job: its name, queue and user
  queue @2 :Text;
  user @3 :Text;
  jobs @4 :UInt32;            # that held GPUs, or started
  heldGpuS @5 :Float64;
  usedGpuS @6 :Float64;       # of that, GPUs worked
  started @7 :UInt32;         # jobs,
  waitS @8 :Float64;          # and how long these had waited, in the mean
  money @9 :Float64;          # what was held, at today's prices
  unpricedGpuS @10 :Float64;  # of heldGpuS: of GPUs without a price
}

struct Report {
  rows @0 :List(ReportRow);   # who held most comes first
  more @1 :UInt32;            # rows that are left out: they held least
  total @2 :ReportRow;
  sinceMs @3 :UInt64;         # since 1970: what was asked for,
  untilMs @4 :UInt64;
  firstMs @5 :UInt64;         # and what the history has of it; 0: nothing
  lastMs @6 :UInt64;
  capacityGpuS @7 :Float64;   # of all GPUs of the pool while a scheduler led it
  priced @8 :Bool;            # pool.toml has prices
  currency @9 :Text;
  idleJobs @10 :UInt32;       # that worked in less than a tenth of what they held,
  idleGpuS @11 :Float64;      # and how much of that GPUs did nothing
  notes @12 :List(Text);      # what is missing in it, and why
}

struct TopGpu {
  server @0 :Text;
  gpu @1 :UInt32;
  model @2 :Text;
  memoryBytes @3 :UInt64;
  usable @4 :Bool;            # its server answers, it is healthy, and it is not being drained
  heard @5 :Bool;             # its server has said what it does; else the next two are not known
  usedBytes @6 :UInt64;
  busyPermille @7 :UInt32;    # of the last second
  jobs @8 :Text;              # who holds it; of several, with commas between
}

struct TopJob {
  id @0 :Text;
  name @1 :Text;
  queue @2 :Text;
  user @3 :Text;
  state @4 :JobState;
  vgpus @5 :UInt32;
  physicalGpus @6 :UInt32;
  part @7 :UInt32;            # of its one GPU, in thousandths
  busyPermille @8 :UInt32;    # of the last second, of its GPUs together
  usedBytes @9 :UInt64;
  submittedMs @10 :UInt64;    # since 1970
  startedMs @11 :UInt64;      # 0: not yet
}

struct HistoryState {
  kept @0 :Bool;              # false: no history is kept
  path @1 :Text;
  problem @2 :Text;           # why it is not written; empty: it is
  waiting @3 :UInt64;         # batches that wait in the store for it
  lost @4 :UInt64;            # that could not wait any longer
}

interface Pool {
  submit @0 (spec :JobSpec) -> (id :Text, token :Data, doorAddress :Text, handle :JobHandle);
  # `tide run` again, after the scheduler restarted.
  reattach @1 (id :Text, token :Data) -> (handle :JobHandle);
  register @2 (server :ServerInfo, agent :Agent) -> (registration :Registration, leaseMs :UInt32);
  jobs @3 (ended :Bool) -> (jobs :List(JobInfo));
  job @4 (job :Text) -> (job :JobInfo, vgpus :List(VgpuStats));
  gpus @5 () -> (gpus :List(PoolGpu));
  resize @6 (job :Text, gpus :UInt32) -> (report :MoveReport);
  migrate @7 (job :Text, vgpu :Int32, server :Text, gpu :UInt32) -> (report :MoveReport);  # vgpu -1: all
  kill @8 (job :Text);
  status @9 () -> (version :Text, pid :UInt32, startedMs :UInt64, servers :UInt32, doorAddress :Text,
                   turns :Text,  # as in pool.toml
                   history :HistoryState);
  shutdown @10 ();
  # Returns when no GPU is held any more; it fails with the job running on as before.
  suspend @11 (job :Text) -> (report :MoveReport);
  # Returns when the job runs again, or at once with `queued` where it has to wait: then it runs when there is room.
  resume @12 (job :Text) -> (report :MoveReport, queued :Text);
  # Parents before their children, else in the order of pool.toml.
  queues @13 () -> (queues :List(QueueInfo), halfLifeMs :UInt64);
  # Written down when it returns; servers() says how far it is. A server that is not in the pool can be undrained.
  drain @14 (server :Text, draining :Bool) -> (server :ServerState);
  servers @15 () -> (servers :List(ServerState));
  configure @16 () -> (draft :Draft);
  # One reason why a job waits, has fewer GPUs than it could, or is where it is; found by asking the policy what would
  # be if that were otherwise. Empty: what its JobInfo says is all.
  why @17 (job :Text) -> (reason :Text, next :Text, evidence :List(Text));
  reservations @18 () -> (reservations :List(ReservationInfo));  # in the order of pool.toml
  # What jobs have had of GPUs in a time. `by`: "queue", "user" or "job"; untilMs 0: until now.
  report @19 (by :Text, sinceMs :UInt64, untilMs :UInt64) -> (report :Report);
  # All at a glance, each server being asked once for all who look at it. Jobs that run come first, who holds most
  # before the others, then those that wait, in the order of submission; `jobsMax` of them at most.
  top @20 (jobsMax :UInt32) -> (gpus :List(TopGpu), jobs :List(TopJob), queues :List(QueueInfo), running :UInt32,
                                suspended :UInt32, waiting :UInt32, nowMs :UInt64);
  # What the policy was asked with and what it answered, as a file for `tide simulate --snapshot` (state.capnp): the
  # decision of this number, else the last one at this time (since 1970), else the last; or how the pool is now.
  snapshot @21 (number :UInt64, atMs :UInt64, now :Bool) -> (pieces :Pieces);
  # What was decided about a job, oldest first, as far as the journal goes back. Without a job: how the journal is.
  decisions @22 (job :Text) -> (decisions :List(DecisionInfo), journal :JournalInfo);
}

enum Caller {
  tide @0;
  agent @1;
}

# What a connection begins with: the pool is behind it. Another version is refused, with both and whom to update; so is
# who asks for the pool at once, as version 1 did.
interface Entrance {
  # Of several schedulers one leads. From another, `pool` refuses everything, and `leader` is the address of the one
  # that leads; empty: none does at present.
  enter @0 (protocol :UInt32, caller :Caller) -> (pool :Pool, follower :Bool, leader :Text);
}
