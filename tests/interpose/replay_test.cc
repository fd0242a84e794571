// A worker that dies at any point, and another one that has its session from the last checkpoint: what the program
// sees, and what becomes of the GPU's memory, is as if nothing had been. Random programs, which wait for what they rely
// on and for nothing else; real rings, replicas and logs; a worker whose streams run in an order that is drawn each
// time anew.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "calls.h"
#include "interpose/protection.h"
#include "tests/transport/peer.h"
#include "transport/region.h"
#include "transport/replica.h"
#include "transport/ring.h"

namespace tide {
namespace {

using Numbers = peer::Numbers;

constexpr uint32_t kStreams = 4, kHidden = kStreams, kCells = 6;
constexpr uint32_t kTextStream = 0;

// What a command is about; its payload begins so.
struct Order {
  uint64_t to = 0, from = 0, value = 0;
};

uint64_t mixed(uint64_t a, uint64_t b) { return Numbers{a * 31 + b}.next(); }
std::vector<unsigned char> contents_of(uint64_t cell, uint64_t sequence) {
  std::vector<unsigned char> bytes(sequence % 7 == 0 ? 70'000 + cell % 90'000 : 16 + cell % 500);
  peer::fill(Numbers{cell}, bytes.data(), bytes.size());
  return bytes;
}
std::string text_of(uint64_t sequence) { return "line " + std::to_string(sequence * 7919) + "\n"; }

// What a test takes out of the client, to see that it is missed.
enum class Mutant { kNone, kNoMarks, kNoSignals, kLosesCommand, kPrintsTwice, kForgetsAnswer, kWorkerDiffers };

// --- the worker

struct Work {
  CommandHeader header;
  Order order;
};

struct FarState {
  uint64_t cells[kCells] = {};
  uint64_t executed = 0, answers = 0;
};

class Far {
 public:
  Far(Region region, Replica* replica, uint64_t chance, const FarState& state)
      : state_(state), region_(region), replica_(replica), random_{chance} {}

  void step(bool pausing) {
    if (!live()) return;
    if (!pausing && random_.next() % 2 == 0) take();
    run_one();
  }
  bool idle() const {
    return std::all_of(std::begin(queues_), std::end(queues_), [](const auto& queue) { return queue.empty(); });
  }
  // At a checkpoint: all work is over, all answers were read.
  bool may_save() const {
    return begun_ && idle() && region_.client().answer_tail.load() == region_.worker().answer_head.load();
  }
  FarState state() const {
    FarState state = state_;
    state.answers = region_.worker().answer_head.load();
    return state;
  }
  void tell(Word& word, uint64_t value) {
    word.store(value);
    if (replica_ != nullptr) replica_->note(word);
  }
  void damage() { state_.cells[0] ^= 1; }
  const FarState& look() const { return state_; }
  bool malformed() const { return malformed_; }

 private:
  bool live() {
    if (begun_) return true;
    if (replica_ != nullptr && !replica_->synced()) return false;
    if (region_.worker().acknowledged.load() != state_.executed) return false;
    reader_ = CommandReader(region_);
    writer_ = AnswerWriter(region_);
    return begun_ = true;
  }
  void take() {
    Command command;
    const ReadState read = reader_.next(&command);
    malformed_ |= read == ReadState::kMalformed;
    if (read != ReadState::kRecord) return;
    Work work{command.header, {}};
    memcpy(&work.order, command.payload, sizeof work.order);
    if (work.header.stream != kNoStream) {
      queues_[work.header.stream].push_back(work);
    } else if (!answer_at_once(work)) {
      return reader_.rewind();
    }
    state_.executed = work.header.sequence;
    reader_.consume(command);
  }
  bool answer_at_once(const Work& work) {
    const bool timed = Call(work.header.call) == Call::tideElapsed;
    const uint64_t says = timed ? random_.next() : mixed(work.header.sequence, 5);
    return answer(AnswerKind::kResult, work.header.sequence, 0, &says, sizeof says, 0);
  }
  bool answer(AnswerKind kind, uint64_t sequence, int32_t result, const void* payload, size_t bytes, uint64_t offset) {
    AnswerHeader* const place = writer_.reserve(uint32_t(bytes));
    if (place == nullptr) return false;
    place->kind = uint16_t(kind);
    place->sequence = sequence;
    place->result = result;
    place->offset = offset;
    memcpy(payload_of(place), payload, bytes);
    writer_.publish(place);
    return true;
  }
  void run_one() {
    auto& queue = queues_[random_.next() % (kStreams + 1)];
    if (queue.empty() || !run(queue.front())) return;
    const CommandHeader header = queue.front().header;
    queue.pop_front();
    if (Call(header.call) == Call::tideRecordEvent) tell(region_.worker().event_done[header.context], header.sequence);
    tell(region_.worker().stream_progress[header.stream], header.sequence);
  }
  bool run(const Work& work) {
    const Order& o = work.order;
    switch (Call(work.header.call)) {
      case Call::tideCopyIn:
        state_.cells[o.to] = o.value;
        return true;
      case Call::tideCopyWithin:
        state_.cells[o.to] = mixed(state_.cells[o.to], state_.cells[o.from]);
        return true;
      case Call::tideWaitSignal:
        return region_.client().signals[o.to].load() >= o.value;
      case Call::tideLaunch: {
        const std::string text = text_of(work.header.sequence);
        return answer(AnswerKind::kText, 0, 1, text.data(), text.size(), 0);
      }
      case Call::tideCopyOut:
        return copy_out(work);
      default:
        return true;
    }
  }
  // In pieces, cut anywhere.
  bool copy_out(const Work& work) {
    const auto bytes = contents_of(state_.cells[work.order.from], work.header.sequence);
    if (!writer_.fits(uint32_t(2 * bytes.size() + 4096))) return false;
    for (size_t at = 0; at < bytes.size();) {
      const size_t most = bytes.size() - at, piece = std::min<size_t>(most, 1 + random_.next() % (bytes.size() + 1));
      answer(AnswerKind::kData, work.header.sequence, 0, bytes.data() + at, piece, at);
      at += piece;
    }
    return true;
  }

  FarState state_;
  Region region_;
  Replica* const replica_;
  Numbers random_;
  bool begun_ = false, malformed_ = false;
  CommandReader reader_;
  AnswerWriter writer_;
  std::deque<Work> queues_[kStreams + 1];
};

// --- the client, its program, and what lies between

struct Flying {
  ParcelHeader header;
  std::vector<ParcelEntry> entries;
  std::vector<std::byte> ring;
};

// A vGPU: what the client has of it, its worker, and what lies between.
class Gpu {
 public:
  Gpu(uint64_t chance, bool shared, Mutant mutant, std::string* fault)
      : mutant_(mutant), chance_{chance}, shared_(shared), fault_(*fault) {
    EXPECT_TRUE(create_region(&fd_, &near_).ok());
    EXPECT_TRUE(shared_ || map_private_region(&far_region_).ok());
    protection_ = std::make_unique<Protection>(near_, 0, 64u << 20);
    commands_ = CommandWriter(near_);
    answers_ = AnswerReader(near_);
    connect();
  }
  ~Gpu() {
    if (!shared_) unmap_region(far_region_);
    destroy_region(fd_, near_);
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  // Everything but the program.
  void work() {
    far_->step(pausing_);
    if (far_->malformed()) fault_ = "the worker cannot read its commands";
    if (pausing_ && far_->may_save()) save();
    if (pausing_ && chance_.next() % 300 == 0) pausing_ = false;  // a stream waits for what has not been executed
    read_answers();
    if (protection_->feeds()) protection_->feed(&commands_, [this](const Word& word) { note(word); });
  }
  void exchange() {
    if (shared_) return;
    const uint64_t draw = chance_.next();
    if (draw & 1) depart(*client_replica_, &to_worker_);
    if (draw & 2) arrive(&to_worker_, *worker_replica_);
    if (draw & 4) depart(*worker_replica_, &to_client_);
    if (draw & 8) arrive(&to_client_, *client_replica_);
  }
  void begin_checkpoint() { pausing_ = true; }
  void die() {
    ++deaths_;
    pausing_ = false;
    read_answers();
    const char* const refused = protection_->set_back({deaths_, saved_.executed, saved_.answers}, &commands_);
    if (refused != nullptr) {
      fault_ = refused;
      return;
    }
    for (auto& [sequence, awaited] : awaited_) awaited.digest = {}, awaited.bytes.clear();
    connect();
    if (mutant_ == Mutant::kWorkerDiffers) far_->damage();
  }

  // --- for the program
  bool may_send() const {
    return !protection_->feeds() && commands_.head() - near_.worker().command_tail.load() < kCommandRingBytes / 2;
  }
  uint64_t send(Call call, uint32_t stream, const Order& order, uint32_t context = 0) {
    trim();
    CommandHeader* const header = commands_.reserve(sizeof order);
    header->call = uint16_t(call);
    header->stream = stream;
    header->context = context;
    memcpy(payload_of(header), &order, sizeof order);
    ++sent_;
    const bool lost = mutant_ == Mutant::kLosesCommand && call == Call::tideCopyIn && ++writes_ % 8 == 0;
    CommandHeader kept = *header;
    if (lost) kept.call = uint16_t(Call::tideNull);
    EXPECT_TRUE(protection_->sent(kept, payload_of(header)));
    return commands_.publish(header);
  }
  bool saw_stream(uint32_t stream, uint64_t sequence) {
    const bool there =
        near_.worker().stream_progress[stream].load() >= sequence || protection_->has_reached_stream(stream, sequence);
    EXPECT_TRUE(!there || mutant_ == Mutant::kNoMarks ||
                protection_->reached(CommandLog::Kind::kStreamMark, stream, sequence));
    if (there) seen_streams_[stream] = std::max(seen_streams_[stream], sequence);
    if (!there && seen_streams_[stream] >= sequence && mutant_ != Mutant::kNoMarks) fault_ = "a stream goes back";
    return there;
  }
  bool saw_event(uint32_t event, uint64_t sequence) {
    const bool there =
        near_.worker().event_done[event].load() >= sequence || protection_->has_reached_event(event, sequence);
    EXPECT_TRUE(!there || mutant_ == Mutant::kNoMarks ||
                protection_->reached(CommandLog::Kind::kEventMark, event, sequence));
    return there;
  }
  void signal(uint32_t slot, uint64_t value) {
    bool now = true;
    EXPECT_TRUE(mutant_ == Mutant::kNoSignals || protection_->signal(slot, value, &now));
    if (!now) return;
    near_.client().signals[slot].store(value);
    note(near_.client().signals[slot]);
  }
  // Of a command that is answered. `expected`: empty if the answer is another one each time.
  void await(uint64_t sequence, std::vector<unsigned char> expected) {
    awaited_[sequence].expected = std::move(expected);
  }
  bool awaits(uint64_t sequence) const { return awaited_.count(sequence) != 0; }

  bool at_rest() const {
    return !protection_->feeds() && far_->idle() && awaited_.empty() && far_->look().executed == sent_ &&
           near_.worker().answer_head.load() == near_.client().answer_tail.load() &&
           worker_region().worker().answer_head.load() == near_.client().answer_tail.load();
  }
  uint64_t cell(uint32_t number) const { return far_->look().cells[number]; }
  const std::string& printed() const { return printed_; }
  uint64_t deaths() const { return deaths_; }
  uint64_t commands() const { return sent_; }
  uint64_t repeated() const { return repeated_; }
  uint64_t saves() const { return saves_; }

 private:
  struct Awaited {
    std::vector<unsigned char> bytes, expected;
    AnswerDigest digest;
  };

  Region worker_region() const { return shared_ ? near_ : far_region_; }
  void connect() {
    if (!shared_) {
      memset(far_region_.base, 0, kCommandRingOffset);  // another process
      to_worker_.clear();
      to_client_.clear();
      worker_replica_ = std::make_unique<Replica>(far_region_, Side::kWorker);
      client_replica_ = std::make_unique<Replica>(near_, Side::kClient);
    }
    far_ = std::make_unique<Far>(worker_region(), worker_replica_.get(), chance_.next(), saved_);
  }
  void depart(Replica& from, std::deque<Flying>* flying) {
    Parcel parcel;
    if (!from.next(&parcel)) return;
    Flying one{parcel.header, {parcel.entries, parcel.entries + parcel.header.entry_count}, {}};
    one.ring.assign(parcel.ring, parcel.ring + parcel.header.ring_bytes);
    flying->push_back(std::move(one));
  }
  void arrive(std::deque<Flying>* flying, Replica& to) {
    if (flying->empty()) return;
    const Flying one = std::move(flying->front());
    flying->pop_front();
    const char* const refused = to.apply(one.header, one.entries.data(), one.ring.data());
    if (refused != nullptr) fault_ = refused;
  }
  void note(const Word& word) {
    if (!shared_) client_replica_->note(word);
  }
  void save() {
    pausing_ = false;
    ++saves_;
    saved_ = far_->state();
    if (chance_.next() % 4 == 0) return die();  // before the client hears of it
    far_->tell(worker_region().worker().safe_answers, saved_.answers);
    far_->tell(worker_region().worker().safe_sequence, saved_.executed);
  }
  void trim() {
    const uint64_t safe = near_.worker().safe_sequence.load();
    while (protection_->drop_to(safe)) {
    }
    protection_->answers.drop_to(safe);
    protection_->text.drop_to(near_.worker().safe_answers.load());
  }
  void read_answers() {
    Answer answer;
    ReadState state;
    while ((state = answers_.next(&answer)) == ReadState::kRecord) {
      take(answer);
      answers_.consume(answer);
    }
    if (state == ReadState::kMalformed) fault_ = answers_.reason();
  }
  void take(const Answer& answer) {
    const AnswerHeader& header = answer.header;
    if (AnswerKind(header.kind) == AnswerKind::kText) {
      uint64_t again = protection_->text.take(header.result, header.payload_bytes, answer.end);
      if (mutant_ == Mutant::kPrintsTwice) again = 0;
      printed_.append(reinterpret_cast<const char*>(answer.payload) + again, header.payload_bytes - again);
      return;
    }
    const bool data = AnswerKind(header.kind) == AnswerKind::kData;
    const auto found = awaited_.find(header.sequence);
    if (found == awaited_.end()) return compare(answer, data);
    Awaited& awaited = found->second;
    const auto* const from = reinterpret_cast<const unsigned char*>(answer.payload);
    if (header.offset != awaited.bytes.size()) fault_ = "a piece is missing";
    awaited.bytes.insert(awaited.bytes.end(), from, from + header.payload_bytes);
    if (!awaited.digest.add(header.offset, from, header.payload_bytes)) fault_ = "a digest's piece is missing";
    if (data && awaited.bytes.size() < awaited.expected.size()) return;
    const bool timed = awaited.expected.empty();
    if (!timed && awaited.bytes != awaited.expected) fault_ = "an answer is wrong";
    if (mutant_ != Mutant::kForgetsAnswer) protection_->answers.remember(header.sequence, awaited.digest, !timed);
    awaited_.erase(found);
  }
  void compare(const Answer& answer, bool data) {
    const SeenAnswers::Part part{
        answer.header.sequence, answer.header.offset, answer.payload, answer.header.payload_bytes, data, !data,
        answer.header.result};
    const SeenAnswers::Verdict verdict = protection_->answers.take(part);
    if (verdict == SeenAnswers::Verdict::kDiffers) fault_ = "an answer differs from the one before";
    if (verdict == SeenAnswers::Verdict::kNew) fault_ = "an answer that nobody awaits";
    ++repeated_;
  }

  const Mutant mutant_;
  Numbers chance_;
  const bool shared_;
  std::string& fault_;
  int fd_ = -1;
  Region near_, far_region_;
  std::unique_ptr<Replica> client_replica_, worker_replica_;
  std::deque<Flying> to_worker_, to_client_;
  std::unique_ptr<Far> far_;
  FarState saved_;
  bool pausing_ = false;
  std::unique_ptr<Protection> protection_;
  CommandWriter commands_;
  AnswerReader answers_;
  uint64_t writes_ = 0;
  uint64_t seen_streams_[kStreams + 1] = {};
  std::map<uint64_t, Awaited> awaited_;
  std::string printed_;
  uint64_t sent_ = 0, deaths_ = 0, repeated_ = 0, saves_ = 0;
};

// A program of one vGPU, or of two that wait for each other and copy to each other. They make checkpoints when each of
// them likes, and die alone or together.
class World {
 public:
  World(uint64_t seed, Mutant mutant, uint32_t gpus = 1) : mutant_(mutant), program_{seed}, chance_{seed * 77 + 1} {
    for (uint32_t g = 0; g < gpus; ++g) {
      const bool shared = (seed >> g) % 2 == 0;
      gpus_.push_back(std::make_unique<Gpu>(chance_.next(), shared, mutant, &fault_));
    }
  }

  // What went wrong; empty: nothing.
  std::string run(int steps) {
    for (int i = 0; i < steps && fault_.empty(); ++i) step();
    for (int i = 0; i < 300'000 && fault_.empty() && !at_rest(); ++i) work();
    if (fault_.empty() && !at_rest()) fault_ = "it hangs";
    for (uint32_t cell = 0; cell < kCells * gpus_.size() && fault_.empty(); ++cell) {
      if (gpus_[cell / kCells]->cell(cell % kCells) != cells_[cell]) fault_ = "memory differs";
    }
    for (size_t g = 0; g < gpus_.size() && fault_.empty(); ++g) {
      if (gpus_[g]->printed() != expected_text_[g]) fault_ = "text differs";
    }
    return fault_;
  }
  uint64_t sum(uint64_t (Gpu::*of)() const) const {
    uint64_t all = 0;
    for (const auto& gpu : gpus_) all += (*gpu.*of)();
    return all;
  }
  uint64_t crossings() const { return crossings_; }

 private:
  struct Access {
    uint32_t stream = 0;
    uint64_t sequence = 0;
  };
  // A host function, or what the client does when a stream has come so far; another stream waits for that. Where
  // `from` is another vGPU: its event is waited for, and with `copies` its cell is read, and what was read is written.
  struct Task {
    uint32_t from = 0, to = 0;
    uint32_t event = 0, slot = 0, cell = 0, source = 0;
    uint64_t recorded = 0, own = 0, signal = 0, value = 0, read = 0, written = 0;
    bool copies = false, called = false, over = false;
  };

  Gpu& gpu(uint32_t number) { return *gpus_[number]; }
  void step() {
    work();
    const uint64_t draw = chance_.next() % 1000, which = chance_.next() % gpus_.size();
    if (draw < 4) gpus_[which]->die();
    if (gpus_.size() > 1 && draw < 2) gpus_[1 - which]->die();  // the whole server
    if (draw >= 4 && draw < 40) gpus_[which]->begin_checkpoint();
    if (next_program_step_ <= 0) {
      act();
      next_program_step_ = int(chance_.next() % 3);
    } else {
      --next_program_step_;
    }
  }
  // Everything but the program.
  void work() {
    for (auto& gpu : gpus_) gpu->exchange();
    for (auto& gpu : gpus_) gpu->work();
    for (Task& task : tasks_) advance(task);
    while (!tasks_.empty() && tasks_.front().over) tasks_.pop_front();
  }

  // --- the program
  // Whether work on this stream may use the cell: what used it last is on the same stream, or is over.
  bool is_ours(uint32_t g, uint32_t cell, uint32_t stream) {
    const Access& last = last_[g * kCells + cell];
    return last.sequence == 0 || last.stream == stream || gpu(g).saw_stream(last.stream, last.sequence);
  }
  // One thing that the program does, drawn when the one before is done; and until it can be done it is waited for.
  void act() {
    if (tasks_.size() > 6) return;
    if (!drawn_) {
      draw_ = {program_.next() % kCells, program_.next() % kCells, program_.next()};
      stream_ = uint32_t(program_.next() % kStreams);
      what_ = program_.next() % (gpus_.size() > 1 ? 22 : 16);
      at_ = uint32_t(gpus_.size() > 1 ? program_.next() % gpus_.size() : 0);
      drawn_ = true;
    }
    Gpu& here = gpu(at_);
    if (!here.may_send()) return;
    const bool two = what_ >= 4 && what_ < 8;
    const bool one = what_ < 12;
    if ((one && !is_ours(at_, uint32_t(draw_.to), stream_)) || (two && !is_ours(at_, uint32_t(draw_.from), stream_))) {
      return;
    }
    uint64_t* const cells = &cells_[at_ * kCells];
    Access* const last = &last_[at_ * kCells];
    if (what_ < 4) {
      cells[draw_.to] = draw_.value;
      last[draw_.to] = {stream_, here.send(Call::tideCopyIn, stream_, draw_)};
    } else if (two) {
      cells[draw_.to] = mixed(cells[draw_.to], cells[draw_.from]);
      last[draw_.to] = last[draw_.from] = {stream_, here.send(Call::tideCopyWithin, stream_, draw_)};
    } else if (what_ < 10) {
      const uint64_t sequence = here.send(Call::tideCopyOut, stream_, {0, draw_.to, 0});
      last[draw_.to] = {stream_, sequence};
      here.await(sequence, contents_of(cells[draw_.to], sequence));
    } else if (what_ < 12) {
      begin_task();
    } else if (what_ < 14) {
      expected_text_[at_] += text_of(here.send(Call::tideLaunch, kTextStream, {}));
    } else if (what_ < 16) {
      ask(what_ == 14 ? Call::tideGlobal : Call::tideElapsed);
    } else if (!cross(what_ < 20)) {
      return;
    }
    drawn_ = false;
  }
  void ask(Call call) {
    const uint64_t sequence = gpu(at_).send(call, kNoStream, {});
    const uint64_t says = mixed(sequence, 5);
    std::vector<unsigned char> expected(call == Call::tideElapsed ? 0 : sizeof says);
    if (!expected.empty()) memcpy(expected.data(), &says, sizeof says);
    gpu(at_).await(sequence, expected);
  }
  void number(Task* task) {
    task->event = uint32_t(next_task_ % 40);
    task->slot = uint32_t(next_task_ % 20);
    task->signal = ++next_task_;
  }
  // The cell is written by the client, on a stream of its own, when this stream has come to here; it waits for that.
  void begin_task() {
    Task task;
    number(&task);
    task.from = task.to = at_;
    task.cell = uint32_t(draw_.to);
    task.value = draw_.value;
    task.recorded = gpu(at_).send(Call::tideRecordEvent, stream_, {}, task.event);
    last_[at_ * kCells + task.cell] = {stream_,
                                       gpu(at_).send(Call::tideWaitSignal, stream_, {task.slot, 0, task.signal})};
    cells_[at_ * kCells + task.cell] = task.value;
    tasks_.push_back(task);
  }
  // This stream waits for one of the other vGPU; and with `copies` its cell gets what the other one's cell has, through
  // the client. False: not now.
  bool cross(bool copies) {
    const uint32_t other = 1 - at_, far_stream = uint32_t(draw_.value % kStreams);
    const auto to = uint32_t(draw_.to), from = uint32_t(draw_.from);
    if (!gpu(other).may_send() || !is_ours(at_, to, stream_) || !is_ours(other, from, far_stream)) return false;
    ++crossings_;
    Task task;
    number(&task);
    task.from = other, task.to = at_;
    task.cell = to, task.source = from;
    task.copies = copies;
    task.recorded = gpu(other).send(Call::tideRecordEvent, far_stream, {}, task.event);
    if (copies) {
      task.read = gpu(other).send(Call::tideCopyOut, far_stream, {0, from, 0});
      const std::vector<unsigned char> bytes = contents_of(cells_[other * kCells + from], task.read);
      gpu(other).await(task.read, bytes);
      last_[other * kCells + from] = {far_stream, task.read};
      task.value = mixed(cells_[other * kCells + from], task.read);
      cells_[at_ * kCells + to] = task.value;
      // What is written on the hidden stream comes behind what this stream did before.
      task.own = gpu(at_).send(Call::tideRecordEvent, stream_, {}, task.event);
    }
    const uint64_t held = gpu(at_).send(Call::tideWaitSignal, stream_, {task.slot, 0, task.signal});
    last_[at_ * kCells + to] = {stream_, held};
    tasks_.push_back(task);
    return true;
  }
  bool has_come(const Task& task) {
    Gpu& from = gpu(task.from);
    if (!from.saw_event(task.event, task.recorded)) return false;
    return !task.copies || (!from.awaits(task.read) && gpu(task.to).saw_event(task.event, task.own));
  }
  void advance(Task& task) {
    Gpu& to = gpu(task.to);
    if (task.over || !to.may_send()) return;
    if (!task.called) {
      if (!has_come(task)) return;
      task.called = true;
      const bool writes = task.copies || task.from == task.to;
      if (writes) task.written = to.send(Call::tideCopyIn, kHidden, {task.cell, 0, task.value});
      return;
    }
    if (task.written != 0 && !to.saw_stream(kHidden, task.written)) return;
    task.over = true;
    to.signal(task.slot, task.signal);
  }
  bool at_rest() const {
    for (size_t g = 0; g < gpus_.size(); ++g) {
      if (!gpus_[g]->at_rest() || gpus_[g]->printed().size() < expected_text_[g].size()) return false;
    }
    return tasks_.empty();
  }

  const Mutant mutant_;
  Numbers program_;  // what the program does
  Numbers chance_;   // what happens to it
  std::string fault_;
  std::vector<std::unique_ptr<Gpu>> gpus_;
  int next_program_step_ = 0;
  bool drawn_ = false;
  Order draw_;
  uint32_t stream_ = 0, at_ = 0;
  uint64_t what_ = 0, next_task_ = 0, crossings_ = 0;
  uint64_t cells_[2 * kCells] = {};
  Access last_[2 * kCells];
  std::deque<Task> tasks_;
  std::string expected_text_[2];
};

#ifdef __SANITIZE_THREAD__
constexpr uint64_t kSeeds = 6;
#else
constexpr uint64_t kSeeds = 60;
#endif
constexpr int kSteps = 6000;

class Replay : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(vgpus, Replay, ::testing::Values(1u, 2u));

TEST_P(Replay, nothing_is_seen_of_a_worker_that_dies) {
  uint64_t commands = 0, deaths = 0, repeated = 0, saves = 0, crossings = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    World world(seed, Mutant::kNone, GetParam());
    ASSERT_EQ(world.run(kSteps), "") << "seed " << seed;
    commands += world.sum(&Gpu::commands);
    deaths += world.sum(&Gpu::deaths);
    repeated += world.sum(&Gpu::repeated);
    saves += world.sum(&Gpu::saves);
    crossings += world.crossings();
  }
  EXPECT_GT(deaths, 10 * kSeeds);
  EXPECT_GT(repeated, kSeeds * 20);
  if (GetParam() > 1) {
    EXPECT_GT(crossings, kSeeds * 20);
  }
  printf(
      "%llu commands, %llu deaths, %llu checkpoints, %llu parts of answers came again, %llu copies and waits between "
      "vGPUs\n",
      static_cast<unsigned long long>(commands), static_cast<unsigned long long>(deaths),
      static_cast<unsigned long long>(saves), static_cast<unsigned long long>(repeated),
      static_cast<unsigned long long>(crossings));
}

// The test sees what it is there to see.
TEST_P(Replay, what_is_left_out_is_missed) {
  for (const Mutant mutant : {Mutant::kNoMarks, Mutant::kNoSignals, Mutant::kLosesCommand, Mutant::kPrintsTwice,
                              Mutant::kForgetsAnswer, Mutant::kWorkerDiffers}) {
    uint64_t caught = 0;
    for (uint64_t seed = 1; seed <= kSeeds / 6; ++seed) {
      caught += World(seed, mutant, GetParam()).run(kSteps).empty() ? 0 : 1;
    }
    EXPECT_GT(caught, kSeeds / 12) << "mutant " << int(mutant);
    printf("mutant %d: missed in %llu of %llu\n", int(mutant), static_cast<unsigned long long>(caught),
           static_cast<unsigned long long>(kSeeds / 6));
  }
}

}  // namespace
}  // namespace tide
