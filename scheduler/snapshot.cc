#include "scheduler/snapshot.h"

#include <capnp/message.h>
#include <capnp/serialize-packed.h>
#include <kj/io.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/log.h"
#include "scheduler/state.capnp.h"

namespace tide::sched {
namespace {

constexpr char kMagic[] = "tide snapshot\n";
constexpr uint64_t kUnpackedMost = 1024;                // times as many bytes: what packing can save
constexpr uint32_t kVgpusMost = 4096;                   // of a job; more are damage
constexpr int64_t kThousandthsMost = int64_t(1) << 50;  // of what queues may have

std::string text_of(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

template <class List>
void fill_texts(List list, const std::set<std::string>& texts) {
  uint32_t i = 0;
  for (const std::string& text : texts) list.set(i++, text);
}
std::set<std::string> read_texts(capnp::List<capnp::Text>::Reader list) {
  std::set<std::string> texts;
  for (const auto text : list) texts.insert(text_of(text));
  return texts;
}

// Numbers from 1 for what is written once, in the order in which it is met.
template <class Of>
class Table {
 public:
  uint32_t number_of(const Of& each) {
    const auto [found, added] = numbers_.emplace(each, uint32_t(all_.size() + 1));
    if (added) all_.push_back(each);
    return found->second;
  }
  const std::vector<Of>& all() const { return all_; }

 private:
  std::unordered_map<Of, uint32_t> numbers_;
  std::vector<Of> all_;
};
using Texts = Table<std::string>;

void write_texts(capnp::List<capnp::Text>::Builder list, const Texts& texts) {
  for (uint32_t i = 0; i < list.size(); ++i) list.set(i, texts.all()[i]);
}

// ---- Writing

struct Tables {
  Texts servers, reasons;
  Table<std::shared_ptr<const GpuTraits>> traits;
};

void write(const GpuId& id, Tables* tables, snapshot::Place::Builder out) {
  if (id.none()) return;
  out.setServer(tables->servers.number_of(id.server));
  out.setGpu(id.index);
}

template <class Places>
void write_all(const Places& places, Tables* tables, capnp::List<snapshot::Place>::Builder list) {
  uint32_t i = 0;
  for (const GpuId& id : places) write(id, tables, list[i++]);
}

void write(const GpuView& gpu, Tables* tables, snapshot::Gpu::Builder out) {
  write(gpu.id, tables, out.initAt());
  out.setMemoryBytes(gpu.memory_bytes);
  out.setOnline(gpu.online);
  out.setHealthy(gpu.healthy);
  out.setDraining(gpu.draining);
  if (gpu.traits != nullptr) out.setTraits(tables->traits.number_of(gpu.traits));
}

void write(const TurnView& turn, snapshot::Turn::Builder out) {
  out.setGives(turn.gives);
  out.setTicket(turn.ticket);
  out.setHadMs(turn.had_ms);
  out.setLengthMs(turn.length_ms);
}

void write(const JobView& job, Tables* tables, snapshot::Job::Builder out) {
  out.setId(job.id);
  out.setVgpus(job.vgpus);
  out.setMinGpus(job.min_gpus);
  out.setPart(job.part);
  out.setTarget(job.target);
  out.setMemoryBytes(job.memory_bytes);
  out.setMemoryGiven(job.memory_given);
  out.setRunning(job.running);
  out.setSuspended(job.suspended);
  out.setPinned(job.pinned);
  out.setSkipped(job.skipped);
  write_all(job.places, tables, out.initPlaces(uint32_t(job.places.size())));
  if (!job.failed_on.empty()) fill_texts(out.initFailedOn(uint32_t(job.failed_on.size())), job.failed_on);
  if (!job.keeps.empty()) write_all(job.keeps, tables, out.initKeeps(uint32_t(job.keeps.size())));
  if (!job.refused_by.empty()) fill_texts(out.initRefusedBy(uint32_t(job.refused_by.size())), job.refused_by);
  if (job.turn != TurnView()) write(job.turn, out.initTurn());
  out.setQueue(job.queue);
  out.setPriority(job.priority);
  out.setPreemptible(job.preemptible);
  if (job.require.any()) out.setRequire(to_text(job.require));
  out.setJobClass(uint8_t(job.job_class));
  out.setPowersOfTwo(job.powers_of_two);
  out.setSpared(job.spared);
  out.setBytes(job.bytes);
  out.setUsefulMs(job.useful_ms);
  out.setEstimateMs(job.estimate_ms);
  out.setDeadlineMs(job.deadline_ms);
  out.setFailedMoves(job.failed_moves);
  if (!job.moves_for.empty()) out.setMovesFor(job.moves_for);
  out.setSwitchMs(job.switch_ms);
  out.setDueGpus(job.due_gpus);
  out.setDueMore(job.due_more);
  if (!job.yields_to.empty()) out.setYieldsTo(job.yields_to);
  if (!job.kept_out_for.empty()) out.setKeptOutFor(job.kept_out_for);
  if (!job.reservation.empty()) out.setReservation(job.reservation);
  if (job.barred != nullptr) write_all(*job.barred, tables, out.initBarred(uint32_t(job.barred->size())));
  out.setEntitled(job.entitled);
  out.setPlace(job.place);
  out.setLeftMs(job.left_ms);
  out.setEndsMs(job.ends_ms);
  if (!job.passes.empty()) out.setPasses(job.passes);
  out.setOverrun(job.overrun);
}

void write(const Queue& queue, snapshot::Queue::Builder out) {
  out.setName(queue.name);
  out.setParent(queue.parent);
  auto children = out.initChildren(uint32_t(queue.children.size()));
  for (uint32_t i = 0; i < children.size(); ++i) children.set(i, queue.children[i]);
  out.setQuota(queue.quota);
  out.setLimit(queue.limit);
  out.setWeight(queue.weight);
  out.setPriority(queue.priority);
  out.setPreemptible(queue.preemptible);
  auto models = out.initModels(uint32_t(queue.models.size()));
  for (uint32_t i = 0; i < models.size(); ++i) {
    models[i].setModel(queue.models[i].model);
    models[i].setQuota(queue.models[i].quota);
    models[i].setLimit(queue.models[i].limit ? int64_t(*queue.models[i].limit) : -1);
  }
}

// Of GPUs and jobs those that are given.
void write(const State& state, const std::vector<const GpuView*>& gpus, const std::vector<const JobView*>& jobs,
           snapshot::State::Builder out) {
  Tables tables;
  auto gpu_list = out.initGpus(uint32_t(gpus.size()));
  for (uint32_t i = 0; i < gpu_list.size(); ++i) write(*gpus[i], &tables, gpu_list[i]);
  auto job_list = out.initJobs(uint32_t(jobs.size()));
  for (uint32_t i = 0; i < job_list.size(); ++i) write(*jobs[i], &tables, job_list[i]);
  out.setTurns(state.turns);
  out.setNextTurn(state.next_turn);
  auto queues = out.initQueues(uint32_t(state.queues.queues.size()));
  for (uint32_t i = 0; i < queues.size(); ++i) write(state.queues.queues[i], queues[i]);
  auto top = out.initTopQueues(uint32_t(state.queues.top.size()));
  for (uint32_t i = 0; i < top.size(); ++i) top.set(i, state.queues.top[i]);
  auto used = out.initUsed(uint32_t(state.used.size()));
  for (uint32_t i = 0; i < used.size(); ++i) used.set(i, state.used[i]);
  out.setPastWeight(state.share_rules.past_weight);
  out.setNowMs(state.now_ms);
  out.setConsolidate(state.consolidate);
  auto reservations = out.initReservations(uint32_t(state.reservations.size()));
  for (uint32_t i = 0; i < reservations.size(); ++i) {
    const Reservation& from = state.reservations[i];
    reservations[i].setName(from.name);
    reservations[i].setGpus(from.gpus);
    reservations[i].setRequire(to_text(from.require));
    reservations[i].setFromMs(from.from_ms);
    reservations[i].setUntilMs(from.until_ms);
    reservations[i].setExclusive(from.exclusive);
  }
  write_texts(out.initServers(uint32_t(tables.servers.all().size())), tables.servers);
  auto traits = out.initTraits(uint32_t(tables.traits.all().size()));
  for (uint32_t i = 0; i < traits.size(); ++i) {
    const GpuTraits& from = *tables.traits.all()[i];
    traits[i].setModel(from.model);
    traits[i].setNetworkSwitch(from.network_switch);
    fill_texts(traits[i].initLabels(uint32_t(from.labels.size())), from.labels);
  }
}

template <class Of>
std::vector<const Of*> pointers_to(const std::vector<Of>& all) {
  std::vector<const Of*> pointers;
  pointers.reserve(all.size());
  for (const Of& each : all) pointers.push_back(&each);
  return pointers;
}

void write(const State& state, snapshot::State::Builder out) {
  write(state, pointers_to(state.gpus), pointers_to(state.jobs), out);
}

void write_answer(const Snapshot& snapshot, snapshot::Answer::Builder out) {
  const std::vector<Decided>& answer = snapshot.answer;
  out.setVersion(snapshot.version);
  Tables tables;
  auto list = out.initDecisions(uint32_t(answer.size()));
  for (uint32_t i = 0; i < list.size(); ++i) {
    const Decided& from = answer[i];
    list[i].setJob(from.job);
    list[i].setRunning(from.decision.running);
    write_all(from.decision.places, &tables, list[i].initPlaces(uint32_t(from.decision.places.size())));
    if (!from.decision.reason.empty()) list[i].setReason(tables.reasons.number_of(from.decision.reason));
    if (!from.decision.moved_for.empty()) list[i].setMovedFor(from.decision.moved_for);
    if (!from.decision.passes.empty()) list[i].setPasses(from.decision.passes);
    list[i].setWasRunning(from.was_running);
    write_all(from.was_places, &tables, list[i].initWasPlaces(uint32_t(from.was_places.size())));
  }
  write_texts(out.initServers(uint32_t(tables.servers.all().size())), tables.servers);
  write_texts(out.initReasons(uint32_t(tables.reasons.all().size())), tables.reasons);
}

std::string packed(capnp::MallocMessageBuilder& message) {
  kj::VectorOutputStream out;
  capnp::writePackedMessage(out, message);
  return {reinterpret_cast<const char*>(out.getArray().begin()), out.getArray().size()};
}

// ---- Reading

// What is wrong is noted, the first of it, and nothing of it is used.
class StateReader {
 public:
  explicit StateReader(snapshot::State::Reader from) : from_(from) {
    for (const auto name : from.getServers()) servers_.push_back(text_of(name));
    for (const auto each : from.getTraits()) {
      traits_.push_back(std::make_shared<const GpuTraits>(GpuTraits{.model = text_of(each.getModel()),
                                                                    .network_switch = text_of(each.getNetworkSwitch()),
                                                                    .labels = read_texts(each.getLabels())}));
    }
  }

  // `whole`: not of a difference, whose jobs and GPUs are some only.
  Outcome read(State* state, bool whole) {
    State made;
    for (const auto each : from_.getGpus()) made.gpus.push_back(gpu(each));
    for (const auto each : from_.getJobs()) made.jobs.push_back(job(each));
    made.turns = from_.getTurns();
    made.next_turn = text_of(from_.getNextTurn());
    for (const auto each : from_.getQueues()) made.queues.queues.push_back(queue(each));
    for (const int32_t top : from_.getTopQueues()) made.queues.top.push_back(top);
    for (const double used : from_.getUsed()) made.used.push_back(used);
    made.share_rules.past_weight = from_.getPastWeight();
    made.now_ms = from_.getNowMs();
    made.consolidate = from_.getConsolidate();
    for (const auto each : from_.getReservations()) made.reservations.push_back(reservation(each));
    check_queues(made);
    if (whole) check_names(made);
    if (!wrong_.empty()) return Outcome::fail(wrong_);
    *state = std::move(made);
    return {};
  }

 private:
  void note(const std::string& wrong) {
    if (wrong_.empty()) wrong_ = wrong;
  }

  GpuId place(snapshot::Place::Reader in) {
    if (in.getServer() == 0) return {};
    if (in.getServer() <= servers_.size() && !servers_[in.getServer() - 1].empty())
      return {servers_[in.getServer() - 1], in.getGpu()};
    note("a place on a server that is not there");
    return {};
  }
  std::vector<GpuId> places(capnp::List<snapshot::Place>::Reader in) {
    if (in.size() > kVgpusMost) {
      note("a job with too many places");
      return {};
    }
    std::vector<GpuId> all;
    for (const auto each : in) all.push_back(place(each));
    return all;
  }

  GpuView gpu(snapshot::Gpu::Reader in) {
    GpuView gpu{.id = place(in.getAt()),
                .memory_bytes = in.getMemoryBytes(),
                .online = in.getOnline(),
                .healthy = in.getHealthy(),
                .draining = in.getDraining()};
    if (!gpu.id.on_gpu()) note("a GPU without a place");
    if (in.getTraits() > traits_.size()) note("a GPU of which something is known that is not there");
    if (in.getTraits() != 0 && in.getTraits() <= traits_.size()) gpu.traits = traits_[in.getTraits() - 1];
    return gpu;
  }

  JobView job(snapshot::Job::Reader in) {
    JobView job;
    job.id = text_of(in.getId());
    job.vgpus = in.getVgpus();
    job.min_gpus = in.getMinGpus();
    job.part = in.getPart();
    job.target = in.getTarget();
    job.memory_bytes = in.getMemoryBytes();
    job.memory_given = in.getMemoryGiven();
    job.running = in.getRunning();
    job.suspended = in.getSuspended();
    job.pinned = in.getPinned();
    job.skipped = in.getSkipped();
    job.places = places(in.getPlaces());
    job.failed_on = read_texts(in.getFailedOn());
    for (const GpuId& id : places(in.getKeeps())) job.keeps.insert(id);
    job.refused_by = read_texts(in.getRefusedBy());
    if (in.hasTurn()) {
      const auto turn = in.getTurn();
      job.turn = {.gives = turn.getGives(),
                  .ticket = turn.getTicket(),
                  .had_ms = turn.getHadMs(),
                  .length_ms = turn.getLengthMs()};
    }
    job.queue = in.getQueue();
    job.priority = in.getPriority();
    job.preemptible = in.getPreemptible();
    if (!parse_requirements(text_of(in.getRequire()), &job.require)) note("job " + job.id + " requires nonsense");
    job.job_class = JobClass(in.getJobClass());
    job.powers_of_two = in.getPowersOfTwo();
    job.spared = in.getSpared();
    job.bytes = in.getBytes();
    job.useful_ms = in.getUsefulMs();
    job.estimate_ms = in.getEstimateMs();
    job.deadline_ms = in.getDeadlineMs();
    job.failed_moves = in.getFailedMoves();
    job.moves_for = text_of(in.getMovesFor());
    job.switch_ms = in.getSwitchMs();
    job.due_gpus = in.getDueGpus();
    job.due_more = in.getDueMore();
    job.yields_to = text_of(in.getYieldsTo());
    job.kept_out_for = text_of(in.getKeptOutFor());
    job.reservation = text_of(in.getReservation());
    if (in.hasBarred()) {
      std::set<GpuId> barred;
      for (const auto each : in.getBarred()) barred.insert(place(each));
      job.barred = std::make_shared<const std::set<GpuId>>(std::move(barred));
    }
    job.entitled = in.getEntitled();
    job.place = in.getPlace();
    job.left_ms = in.getLeftMs();
    job.ends_ms = in.getEndsMs();
    job.passes = text_of(in.getPasses());
    job.overrun = in.getOverrun();
    check(job);
    return job;
  }

  void check(const JobView& job) {
    const bool sized = job.vgpus >= 1 && job.vgpus <= kVgpusMost && job.min_gpus >= 1 && job.min_gpus <= job.vgpus;
    const bool part = job.part >= kPartLeast && job.part <= kWholeGpu && (job.part == kWholeGpu || job.vgpus == 1);
    const bool placed = job.places.size() == job.vgpus || (job.places.empty() && !job.running);
    if (job.id.empty() || !sized || !part || !placed || job.job_class > JobClass::kInference)
      note("job " + job.id + " is none that there can be");
  }

  Queue queue(snapshot::Queue::Reader in) {
    Queue queue{.name = text_of(in.getName()), .parent = in.getParent()};
    for (const int32_t child : in.getChildren()) queue.children.push_back(child);
    queue.quota = in.getQuota();
    queue.limit = in.getLimit();
    queue.weight = in.getWeight();
    queue.priority = in.getPriority();
    queue.preemptible = in.getPreemptible();
    for (const auto each : in.getModels()) {
      ModelQuota& model = queue.models.emplace_back();
      model.model = text_of(each.getModel());
      model.quota = each.getQuota();
      if (each.getLimit() >= 0) model.limit = uint32_t(each.getLimit());
    }
    return queue;
  }

  Reservation reservation(snapshot::Reservation::Reader in) {
    Reservation made{.name = text_of(in.getName()),
                     .gpus = in.getGpus(),
                     .from_ms = in.getFromMs(),
                     .until_ms = in.getUntilMs(),
                     .exclusive = in.getExclusive()};
    if (!parse_requirements(text_of(in.getRequire()), &made.require))
      note("reservation " + made.name + " requires nonsense");
    return made;
  }

  // A tree, with parents before their children; the policy takes that for granted.
  void check_queues(const State& state) {
    const auto& queues = state.queues.queues;
    const auto count = int32_t(queues.size());
    size_t below = 0;
    const auto all_of = [&](const std::vector<int32_t>& children, int32_t parent) {
      below += children.size();
      return std::all_of(children.begin(), children.end(), [&](int32_t child) {
        return child > parent && child < count && queues[size_t(child)].parent == parent;
      });
    };
    bool good = all_of(state.queues.top, kNoQueue);
    for (int32_t i = 0; i < count; ++i) {
      const Queue& queue = queues[size_t(i)];
      const bool amounts = queue.quota >= 0 && queue.quota <= kThousandthsMost && queue.limit >= 0;
      good &= all_of(queue.children, i) && amounts && queue.weight >= 0 && std::isfinite(queue.weight);
    }
    const auto plain = [](double number) { return number >= 0 && std::isfinite(number); };
    good &= below == size_t(count) && state.used.size() <= queues.size() && plain(state.share_rules.past_weight) &&
            std::all_of(state.used.begin(), state.used.end(), plain);
    if (!good) note("its queues are no tree");
    for (const JobView& job : state.jobs) {
      const bool leaf = job.queue >= 0 && job.queue < count && queues[size_t(job.queue)].leaf();
      if (good && !queues.empty() && !leaf) note("job " + job.id + " is in no queue");
    }
  }

  void check_names(const State& state) {
    std::set<std::string> jobs;
    std::set<GpuId> gpus;
    for (const JobView& job : state.jobs) jobs.insert(job.id);
    for (const GpuView& gpu : state.gpus) gpus.insert(gpu.id);
    if (jobs.size() != state.jobs.size() || gpus.size() != state.gpus.size()) note("something is in it twice");
  }

  snapshot::State::Reader from_;
  std::vector<std::string> servers_;
  std::vector<std::shared_ptr<const GpuTraits>> traits_;
  std::string wrong_;
};

Outcome read(snapshot::Answer::Reader from, Snapshot* snapshot) {
  std::vector<std::string> servers, reasons;
  for (const auto name : from.getServers()) servers.push_back(text_of(name));
  for (const auto reason : from.getReasons()) reasons.push_back(text_of(reason));
  bool good = true;
  const auto read_places = [&](capnp::List<snapshot::Place>::Reader in) {
    std::vector<GpuId> places;
    for (const auto place : in) {
      good &= place.getServer() <= servers.size();
      const bool there = place.getServer() != 0 && place.getServer() <= servers.size();
      places.push_back(there ? GpuId{servers[place.getServer() - 1], place.getGpu()} : GpuId());
    }
    return places;
  };
  std::vector<Decided> made;
  for (const auto each : from.getDecisions()) {
    good &= each.getReason() <= reasons.size() && each.getPlaces().size() <= kVgpusMost &&
            each.getWasPlaces().size() <= kVgpusMost;
    if (!good) return Outcome::fail("a decision in it is damaged");
    made.push_back({.job = text_of(each.getJob()),
                    .decision = {.running = each.getRunning(),
                                 .reason = each.getReason() == 0 ? "" : reasons[each.getReason() - 1],
                                 .places = read_places(each.getPlaces()),
                                 .moved_for = text_of(each.getMovedFor()),
                                 .passes = text_of(each.getPasses())},
                    .was_running = each.getWasRunning(),
                    .was_places = read_places(each.getWasPlaces())});
  }
  if (!good) return Outcome::fail("a decision in it is damaged");
  snapshot->answer = std::move(made);
  snapshot->version = text_of(from.getVersion());
  return {};
}

// Gives a packed message to `use`; what it is not, and damage that Cap'n Proto finds, is the outcome.
template <class Root, class Use>
Outcome unpacked(std::string_view bytes, Use use) {
  Outcome outcome;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                 kj::ArrayInputStream in({reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()});
                 const uint64_t most = std::min<uint64_t>(4 * kSnapshotBytesMax, bytes.size() * kUnpackedMost);
                 capnp::PackedMessageReader message(in, {.traversalLimitInWords = most / 8});
                 outcome = use(message.template getRoot<Root>());
               })) {
    return Outcome::fail(std::string("it is damaged: ") + exception->getDescription().cStr());
  }
  return outcome;
}

std::string list_of(const std::vector<GpuId>& places) {
  std::string text;
  for (const GpuId& place : places) text += (text.empty() ? "" : ", ") + to_text(place);
  return text;
}

size_t gpus_in(const std::vector<GpuId>& places) {
  std::set<GpuId> gpus;
  for (const GpuId& place : places) {
    if (place.on_gpu()) gpus.insert(place);
  }
  return gpus.size();
}

}  // namespace

std::string to_bytes(const Snapshot& from) {
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<snapshot::Snapshot>();
  out.setFormat(snapshot::FORMAT);
  out.setNumber(from.number);
  out.setAtMs(from.at_ms);
  write(from.state, out.initState());
  write_answer(from, out.initAnswer());
  return kMagic + packed(message);
}

Outcome from_bytes(const std::string& bytes, Snapshot* to) {
  const size_t begin = sizeof(kMagic) - 1;
  if (bytes.compare(0, begin, kMagic) != 0) return Outcome::fail("it is no snapshot; `tide snapshot FILE` writes one");
  return unpacked<snapshot::Snapshot>(std::string_view(bytes).substr(begin), [&](snapshot::Snapshot::Reader in) {
    if (in.getFormat() != snapshot::FORMAT) {
      return Outcome::fail(format("it has format %u, and this version reads format %u; use the `tide` of version %s",
                                  in.getFormat(), snapshot::FORMAT, in.getAnswer().getVersion().cStr()));
    }
    Snapshot made;
    made.number = in.getNumber();
    made.at_ms = in.getAtMs();
    Outcome outcome = StateReader(in.getState()).read(&made.state, true);
    if (outcome.ok()) outcome = read(in.getAnswer(), &made);
    if (outcome.ok()) *to = std::move(made);
    return outcome;
  });
}

std::string state_bytes(const State& state) {
  capnp::MallocMessageBuilder message;
  write(state, message.initRoot<snapshot::State>());
  return packed(message);
}

Outcome read_state(const std::string& bytes, State* state) {
  return unpacked<snapshot::State>(bytes,
                                   [&](snapshot::State::Reader in) { return StateReader(in).read(state, true); });
}

std::string difference_bytes(const State& before, const State& after) {
  if (before.gpus.size() != after.gpus.size()) return "";
  std::vector<const GpuView*> gpus;
  for (size_t i = 0; i < after.gpus.size(); ++i) {
    if (before.gpus[i].id != after.gpus[i].id) return "";
    if (before.gpus[i] != after.gpus[i]) gpus.push_back(&after.gpus[i]);
  }
  // Both are in the order of submission: those that stay are met in the same order.
  std::vector<const JobView*> jobs;
  std::vector<std::string> gone;
  std::set<std::string> there;
  for (const JobView& job : after.jobs) there.insert(job.id);
  size_t next = 0;
  for (const JobView& was : before.jobs) {
    if (there.count(was.id) == 0) {
      gone.push_back(was.id);
    } else if (next == after.jobs.size() || after.jobs[next].id != was.id) {
      return "";
    } else if (const JobView& is = after.jobs[next++]; is != was) {
      jobs.push_back(&is);
    }
  }
  for (; next < after.jobs.size(); ++next) jobs.push_back(&after.jobs[next]);
  capnp::MallocMessageBuilder message;
  auto out = message.initRoot<snapshot::Difference>();
  write(after, gpus, jobs, out.initState());
  auto list = out.initGone(uint32_t(gone.size()));
  for (uint32_t i = 0; i < list.size(); ++i) list.set(i, gone[i]);
  return packed(message);
}

Outcome apply_difference(const std::string& bytes, State* state) {
  return unpacked<snapshot::Difference>(bytes, [&](snapshot::Difference::Reader in) {
    State made;
    const Outcome outcome = StateReader(in.getState()).read(&made, false);
    if (!outcome.ok()) return outcome;
    std::map<GpuId, GpuView> gpus;
    for (const GpuView& gpu : made.gpus) gpus[gpu.id] = gpu;
    std::unordered_map<std::string, const JobView*> changed;
    for (const JobView& job : made.jobs) changed[job.id] = &job;
    std::set<std::string> gone = read_texts(in.getGone());
    std::vector<JobView> jobs;
    for (JobView& job : state->jobs) {
      const auto found = changed.find(job.id);
      if (found != changed.end()) {
        jobs.push_back(*found->second);
        changed.erase(found);
      } else if (gone.count(job.id) == 0) {
        jobs.push_back(std::move(job));
      }
    }
    for (const JobView& job : made.jobs) {
      if (changed.count(job.id) != 0) jobs.push_back(job);
    }
    made.gpus = std::move(state->gpus);
    for (GpuView& gpu : made.gpus) {
      if (const auto found = gpus.find(gpu.id); found != gpus.end()) gpu = found->second;
    }
    made.jobs = std::move(jobs);
    *state = std::move(made);
    return Outcome();
  });
}

std::string answer_bytes(const Snapshot& snapshot) {
  capnp::MallocMessageBuilder message;
  write_answer(snapshot, message.initRoot<snapshot::Answer>());
  return packed(message);
}

Outcome read_answer(const std::string& bytes, Snapshot* to) {
  return unpacked<snapshot::Answer>(bytes, [&](snapshot::Answer::Reader in) { return read(in, to); });
}

std::string what_of(const Decided& decided) {
  const Decision& decision = decided.decision;
  const size_t has = gpus_in(decision.places), had = gpus_in(decided.was_places);
  if (!decision.running && !decided.was_running) return "waits";
  if (!decision.running) return "gives its GPUs away";
  if (!decided.was_running || had == 0) return "starts on " + list_of(decision.places);
  if (has == 0) return "is kept without a GPU on " + list_of(decision.places);
  std::string moves;
  for (size_t v = 0; v < decision.places.size() && v < decided.was_places.size(); ++v) {
    if (decision.places[v] == decided.was_places[v]) continue;
    moves += (moves.empty() ? "" : ", ") + std::to_string(v) + " from " + to_text(decided.was_places[v]) + " to " +
             to_text(decision.places[v]);
  }
  if (moves.empty()) return "stays";
  const std::string size = format("from %zu to %zu GPU%s: ", had, has, has == 1 ? "" : "s");
  return (has > had ? "grows " + size : has < had ? "shrinks " + size : "moves: ") + moves;
}

}  // namespace tide::sched
