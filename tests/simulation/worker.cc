// The worker's process around its link: what server/worker.cc does, in its order.

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "tests/simulation/session.h"
#include "transport/region.h"

namespace tide::simulation {
namespace {

constexpr uint64_t kHoldClosedMs = 1'500;  // server/worker.cc
constexpr uint32_t kCommandsPerTurn = 8;
constexpr uint32_t kSlot = 7;  // of the stream whose progress is told
constexpr uint64_t kIdle = 40 * kMs;

}  // namespace

SimWorker::SimWorker(SimSession& session, uint64_t number)
    : session_(session), world_(session.world()), number_(number), process_(world_.start_process("worker")) {}

SimWorker::~SimWorker() {
  process_->alive = false;
  drop_link();
}

void SimWorker::drop_link() {
  if (link_ == nullptr) return;
  link_->release();
  link_.reset();
  wire_->close_end(Side::kWorker);
}

void SimWorker::accept(std::shared_ptr<Wire> wire) {
  Region region;
  if (!map_private_region(&region).ok()) abort();
  wire_ = std::move(wire);
  link_ = std::make_unique<ReplicaLink>(region, Side::kWorker, wire_->lifeline(Side::kWorker),
                                        wire_->carrier(Side::kWorker));
  plan(0);
}

// Looks again at the latest then.
void SimWorker::plan(uint64_t ns) {
  const uint64_t when = world_.now() + ns;
  if (planned_ != 0 && planned_ <= when) return;
  planned_ = when;
  world_.after(process_, ns, [this, when] {
    if (planned_ != when) return;
    planned_ = 0;
    turn();
    plan(running_.empty() ? kIdle : running_.front().second - std::min(running_.front().second, world_.now()));
  });
}

bool SimWorker::resume(std::shared_ptr<Wire> wire) {
  if (gone() || !live_) return false;
  while (link_->progress()) {
  }
  link_->release();
  link_->take_back();
  lent_.clear();
  const KeptRegion kept = link_->leave_region();
  wire_->close_end(Side::kWorker);
  wire_ = std::move(wire);
  link_ = std::make_unique<ReplicaLink>(kept.region, Side::kWorker, wire_->lifeline(Side::kWorker),
                                        wire_->carrier(Side::kWorker), kept.received);
  lost_ns_ = 0;
  world_.note("worker resumed", number_, kept.received, executed_);
  return true;
}

void SimWorker::kill() {
  if (!gone()) end("killed");
}

void SimWorker::end(const char* why) {
  world_.note("worker ended", number_, executed_);
  process_->alive = false;
  drop_link();
  session_.worker_ended(why);
}

// Worker::may_come_back.
bool SimWorker::may_come_back() {
  if (!live_ || session_.hold_ms() == 0) return false;
  const uint64_t now = now_ns();
  if (lost_ns_ == 0) {
    lost_ns_ = now;
    link_->release();
  }
  const uint64_t hold_ms = link_->closed() ? std::min<uint64_t>(kHoldClosedMs, session_.hold_ms()) : session_.hold_ms();
  return now - lost_ns_ < hold_ms * kMs;
}

void SimWorker::go_live() {
  link_->progress();
  if (!link_->ready()) return;
  const Region region = link_->region();
  if (region.worker().acknowledged.load() != executed_) return end("the client's state does not fit");
  reader_ = CommandReader(region);
  out_ = AnswerWriter(region);
  live_ = true;
}

void SimWorker::turn() {
  if (gone() || link_ == nullptr) return;
  if (!link_->alive() && !may_come_back()) return end(live_ ? "not held any more" : "it broke before it began");
  link_->progress();
  if (!live_) go_live();
  if (gone()) return;
  uint32_t executed = 0;
  while (live_ && executed < kCommandsPerTurn && execute_one()) ++executed;
  if (gone()) return;
  if (live_ && reader_.reason()[0] != '\0') {
    world_.violate("order", "session %llu: the worker refuses its channel: %s",
                   static_cast<unsigned long long>(session_.number()), reader_.reason());
    return end("its channel is of no use");
  }
  const bool told = live_ && tell_done();
  if (executed != 0 || told) {
    link_->progress();
    notify(*link_, Side::kWorker);
  }
}

bool SimWorker::execute_one() {
  const uint64_t read = link_->region().client().answer_tail.load();
  while (!lent_.empty() && lent_.front().end() <= read) lent_.pop_front();
  Command command;
  if (reader_.next(&command) != ReadState::kRecord) return false;
  const uint64_t sequence = command.header.sequence;
  Work work;
  memcpy(static_cast<void*>(&work), command.payload, sizeof work);
  if (work.kind == WorkKind::kRead && !out_.fits(work.length)) {
    reader_.rewind();
    return false;
  }
  if (sequence != executed_ + 1) {
    world_.violate("exactly-once", "session %llu: command %llu is executed behind %llu",
                   static_cast<unsigned long long>(session_.number()), static_cast<unsigned long long>(sequence),
                   static_cast<unsigned long long>(executed_));
  }
  if (!session_.is_as_written(sequence, command.payload, command.header.payload_bytes)) {
    world_.violate("bytes", "session %llu: command %llu is not what the client wrote",
                   static_cast<unsigned long long>(session_.number()), static_cast<unsigned long long>(sequence));
  }
  executed_ = sequence;
  const auto answered = memory_.run(work, command.payload + sizeof work);
  if (work.kind == WorkKind::kRead) answer(sequence, answered);
  uint64_t done = world_.now() + world_.chance().below(300 * kUs);
  if (world_.strikes(Fault::kSlowGpu, 60)) done += world_.chance().between(5 * kMs, 400 * kMs);
  if (!running_.empty()) done = std::max(done, running_.back().second);
  running_.emplace_back(sequence, done);
  reader_.consume(command);
  world_.note("executed", number_, sequence);
  return true;
}

bool SimWorker::answer(uint64_t sequence, const std::vector<std::byte>& bytes) {
  AnswerHeader* header = out_.reserve(uint32_t(bytes.size()));
  if (header == nullptr) return false;
  header->kind = uint16_t(AnswerKind::kData);
  header->sequence = sequence;
  bool lent = false;
  if (link_->lends() && bytes.size() >= kLentBytesLeast) {
    const uint64_t begin = out_.start() + sizeof(AnswerHeader);
    lent_.push_back({begin, bytes});
    lent = link_->lend(begin, lent_.back().bytes.data(), bytes.size());
    if (!lent) lent_.pop_back();
  }
  if (!lent) std::copy(bytes.begin(), bytes.end(), payload_of(header));
  out_.publish(header);
  return true;
}

// What the GPU has done; an error is known before the work that failed is over.
bool SimWorker::tell_done() {
  bool any = false;
  WorkerPage& page = link_->region().worker();
  for (; !running_.empty() && running_.front().second <= world_.now(); running_.pop_front()) {
    const uint64_t sequence = running_.front().first;
    if (sequence % 10 == 0) tell(page.errors, sequence);
    tell(page.stream_progress[kSlot], sequence);
    any = true;
  }
  return any;
}

void SimWorker::tell(Word& word, uint64_t value) {
  word.store(value, std::memory_order_release);
  link_->note(word);
}

}  // namespace tide::simulation
