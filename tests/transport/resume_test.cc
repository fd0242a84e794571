// A connection that breaks at any point, and is made again: nothing is lost, nothing comes twice, nothing overtakes.
// Both sides' real replicas, rings and words; the network is two queues, and one seed decides what happens.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "tests/transport/peer.h"
#include "transport/region.h"
#include "transport/replica.h"
#include "transport/ring.h"

namespace tide {
namespace {

constexpr uint32_t kSlot = 7;  // of the stream whose progress is told

// What is written for a number, always the same.
std::vector<unsigned char> content(uint64_t seed, uint64_t sequence, uint32_t most) {
  peer::Numbers numbers{seed * 1000003 + sequence};
  std::vector<unsigned char> bytes(numbers.next() % 5 == 0 ? numbers.next() % most : numbers.next() % 200);
  peer::fill(numbers, bytes.data(), bytes.size());
  // Contents that look like the lengths of records.
  if (numbers.next() % 2 == 0) {
    for (size_t at = 0; at + 4 <= bytes.size(); at += 16) memcpy(bytes.data() + at, "\0\x10\0\0", 4);
  }
  return bytes;
}

bool same(const void* found, const std::vector<unsigned char>& bytes) {
  return std::equal(bytes.begin(), bytes.end(), static_cast<const unsigned char*>(found));
}

struct Flying {
  ParcelHeader header;
  std::vector<ParcelEntry> entries;
  std::vector<std::byte> ring;
};

struct Lent {
  uint64_t begin = 0;
  std::vector<unsigned char> bytes;
  uint64_t end() const { return begin + bytes.size(); }
};

class Session : private Landings, private CommandLandings {
 public:
  explicit Session(uint64_t seed) : seed_(seed), random_{seed} {
    EXPECT_TRUE(create_region(&fd_, &near_).ok());
    EXPECT_TRUE(map_private_region(&far_).ok());
    client_ = std::make_unique<Replica>(near_, Side::kClient);
    worker_ = std::make_unique<Replica>(far_, Side::kWorker);
    worker_->land_commands_in(this);
    commands_ = CommandWriter(near_);
    answers_ = AnswerReader(near_);
    client_->land_in(this);
  }
  ~Session() override {
    unmap_region(far_);
    destroy_region(fd_, near_);
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) step();
    EXPECT_GT(breaks_, 0);
    heal();
  }
  // The worker went on with a full ring while nobody heard it, and the client writes over what it has consumed.
  void run_full() {
    for (int i = 0; i < 20 && !testing::Test::HasFailure(); ++i) exchange();
    for (int i = 0; i < 3 && !testing::Test::HasFailure(); ++i) {
      fill_ring();
      for (int k = 0; k < 200; ++k) {  // some of it stays unsent
        depart(*client_, &to_worker_);
        arrive(&to_worker_, *worker_);
      }
      break_connection();
      for (uint64_t before = executed_ + 1; before != executed_;) {
        before = executed_;
        execute();
      }
      // The client writes as soon as it hears of the room, before it sends anything.
      for (int k = 0; k < 100; ++k) {
        depart(*client_, &to_worker_);
        arrive(&to_worker_, *worker_);
      }
      for (int k = 0; k < 100; ++k) depart(*worker_, &to_client_);
      while (!to_client_.empty() && !testing::Test::HasFailure()) arrive(&to_client_, *client_);
      fill_ring();
    }
    heal();
  }
  // What went to the worker over one connection comes once more over the next, whole or from somewhere on, in the place
  // of what the client would say. It is refused, or says nothing new; and then the client goes on. Whether it was
  // refused.
  bool run_replayed() {
    for (int i = 0; i < 60 && !testing::Test::HasFailure(); ++i) {
      send_command();
      exchange();
      if (i % 3 == 0) read_answers();
    }
    break_connection();
    const std::vector<Flying>& old = sent_last_;
    const size_t first = random_.next() % 2 == 0 ? 0 : random_.next() % old.size();
    const uint64_t before = executed_;
    bool refused = false;
    for (size_t i = first; i < old.size() && !refused; ++i) {
      refused = worker_->apply(old[i].header, old[i].entries.data(), old[i].ring.data()) != nullptr;
      execute();
    }
    EXPECT_LE(executed_, commands()) << "and each as it was sent, in its turn: execute() looks";
    EXPECT_GE(executed_, before);
    break_connection();
    heal();
    return refused;
  }
  uint64_t breaks() const { return breaks_; }
  uint64_t commands() const { return commands_.last_sequence(); }
  uint64_t landed() const { return landed_; }
  uint64_t landed_in() const { return landed_in_; }

 private:
  void step() {
    switch (random_.next() % 12) {
      case 0:
      case 1:
        return send_command();
      case 2:
      case 3:
        return execute();
      case 4:
        return read_answers();
      case 5:
      case 6:
        return depart(*client_, &to_worker_);
      case 7:
        return depart(*worker_, &to_client_);
      case 8:
      case 9:
        return arrive(&to_worker_, *worker_);
      case 10:
        return arrive(&to_client_, *client_);
      default:
        if (random_.next() % (steps_++ % 2000 < 1000 ? 20 : 300) == 0) break_connection();
    }
  }

  void exchange() {
    depart(*client_, &to_worker_);
    arrive(&to_worker_, *worker_);
    depart(*worker_, &to_client_);
    arrive(&to_client_, *client_);
    execute();
  }
  void fill_ring() {
    for (uint64_t before = commands() + 1; before != commands();) {
      before = commands();
      send_command();
    }
  }

  void send_command() {
    const auto bytes = content(seed_, commands_.last_sequence() + 1, 300'000);
    CommandHeader* header = commands_.reserve(uint32_t(bytes.size()));
    if (header == nullptr) return;  // the ring is full
    header->call = 1;
    lend_or_copy(*client_, commands_.start() + sizeof(CommandHeader), bytes, payload_of(header), &lent_commands_);
    commands_.publish(header);
    while (!lent_commands_.empty() && lent_commands_.front().end() <= near_.worker().command_tail.load()) {
      lent_commands_.pop_front();
    }
  }

  // The worker takes one command and answers it: from the ring, or from memory that it lends.
  void execute() {
    if (!begun_) {
      if (!worker_->synced()) return;
      reader_ = CommandReader(far_);
      out_ = AnswerWriter(far_);
      begun_ = true;
    }
    take_back();
    const auto answer = content(seed_ + 1, executed_ + 1, 200'000);
    if (!out_.fits(uint32_t(answer.size()))) return;
    Command command;
    const ReadState state = reader_.next(&command);
    ASSERT_NE(state, ReadState::kMalformed) << reader_.reason();
    if (state == ReadState::kEmpty) return;
    ASSERT_EQ(command.header.sequence, executed_ + 1);
    const auto bytes = content(seed_, command.header.sequence, 300'000);
    ASSERT_EQ(command.header.payload_bytes, bytes.size());
    check(command, bytes);
    ++executed_;
    AnswerHeader* header = out_.reserve(uint32_t(answer.size()));
    header->kind = uint16_t(AnswerKind::kData);
    header->sequence = executed_;
    lend_or_copy(*worker_, out_.start() + sizeof(AnswerHeader), answer, payload_of(header), &lent_);
    out_.publish(header);
    if (executed_ % 10 == 0) tell(far_.worker().errors, executed_);  // known before the work is over
    tell(far_.worker().stream_progress[kSlot], executed_);
    reader_.consume(command);
  }
  void tell(Word& word, uint64_t value) {
    word.store(value);
    worker_->note(word);
  }
  void take_back() {
    const uint64_t read = far_.client().answer_tail.load();
    while (!lent_.empty() && lent_.front().end() <= read) lent_.pop_front();
  }
  void lend_or_copy(Replica& replica, uint64_t begin, const std::vector<unsigned char>& bytes, std::byte* place,
                    std::deque<Lent>* lent) {
    if (bytes.size() >= kLentBytesLeast && random_.next() % 2 == 0) {
      lent->push_back({begin, bytes});
      const auto* from = reinterpret_cast<const std::byte*>(lent->back().bytes.data());
      if (replica.lend(begin, from, bytes.size())) return;
      lent->pop_back();
    }
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<unsigned char*>(place));
  }

  void read_answers() {
    const uint64_t progress = near_.worker().stream_progress[kSlot].load();
    ASSERT_GE(progress, progress_);
    ASSERT_GE(near_.worker().errors.load(), progress / 10 * 10) << "progress overtook the error that it stands for";
    progress_ = progress;
    Answer answer;
    ReadState state;
    while ((state = answers_.next(&answer)) == ReadState::kRecord) {
      ASSERT_EQ(answer.header.sequence, ++answered_);
      const auto bytes = content(seed_ + 1, answered_, 200'000);
      ASSERT_EQ(answer.header.payload_bytes, bytes.size());
      const bool landed = answer.header.flags == kAnswerLanded;
      ASSERT_EQ(answer.header.flags, landed ? kAnswerLanded : 0) << answered_;
      ASSERT_TRUE(same(landed ? landings_[answered_].data() : answer.payload, bytes)) << answered_;
      landed_ += landed;
      landings_.erase(answered_);
      answers_.consume(answer);
    }
    ASSERT_NE(state, ReadState::kMalformed) << answers_.reason();
    ASSERT_GE(answered_, progress) << "a word overtook the answer that it stands for";
    ASSERT_LE(near_.worker().acknowledged.load(), commands_.last_sequence());
  }

  // The front of it is in the ring, and the rest may have landed, once and whole.
  void check(const Command& command, const std::vector<unsigned char>& bytes) {
    const auto landed = landed_commands_.find(command.header.sequence);
    if (landed == landed_commands_.end()) {
      ASSERT_TRUE(same(command.payload, bytes)) << command.header.sequence;
      return;
    }
    std::vector<std::byte> found(command.payload, command.payload + kHead);
    found.insert(found.end(), landed->second.begin(), landed->second.end());
    ASSERT_EQ(found.size(), bytes.size());
    ASSERT_TRUE(same(found.data(), bytes)) << command.header.sequence;
    ++landed_in_;
    landed_commands_.erase(landed_commands_.begin(), std::next(landed));
  }

  // Of commands: every third large one stays in the ring.
  uint64_t head_bytes(const CommandHeader& header) override { return header.payload_bytes < 50'000 ? 0 : kHead; }
  bool begin(const CommandHeader& header, const std::byte* head) override {
    EXPECT_GT(header.sequence, executed_) << "it is over";
    const auto bytes = content(seed_, header.sequence, 300'000);
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.begin() + kHead, reinterpret_cast<const unsigned char*>(head)));
    if (header.sequence % 3 == 0) return false;
    landing_ = &landed_commands_[header.sequence];
    landing_->clear();
    return true;
  }
  void put(uint64_t at, const std::byte* from, uint64_t bytes) override {
    ASSERT_EQ(at, landing_->size());
    landing_->insert(landing_->end(), from, from + bytes);
  }

  // Of every fourth nobody knows where it belongs.
  bool put(const AnswerHeader& header, uint64_t at, const std::byte* from, uint64_t bytes) override {
    EXPECT_GT(header.sequence, answered_) << "it is over";
    if (header.sequence % 4 == 0) return false;
    std::vector<std::byte>& landing = landings_[header.sequence];
    landing.resize(header.payload_bytes);
    EXPECT_LE(at + bytes, landing.size());
    std::copy(from, from + bytes, landing.begin() + ptrdiff_t(at));
    return true;
  }

  void depart(Replica& from, std::deque<Flying>* flying) {
    Parcel parcel;
    if (!from.next(&parcel)) return;
    Flying one;
    one.header = parcel.header;
    one.entries.assign(parcel.entries, parcel.entries + parcel.header.entry_count);
    one.ring.assign(parcel.ring, parcel.ring + parcel.header.ring_bytes);
    if (flying == &to_worker_) sent_.push_back(one);
    flying->push_back(std::move(one));
  }
  void arrive(std::deque<Flying>* flying, Replica& to) {
    if (flying->empty()) return;
    const Flying one = std::move(flying->front());
    flying->pop_front();
    const char* refused = to.apply(one.header, one.entries.data(), one.ring.data());
    ASSERT_EQ(refused, nullptr) << refused;
  }

  // What flies is lost. Both begin again with what they have.
  void break_connection() {
    ++breaks_;
    sent_last_ = std::move(sent_);
    sent_.clear();
    to_worker_.clear();
    to_client_.clear();
    worker_->take_back();
    client_->take_back();
    lent_.clear();
    lent_commands_.clear();
    const bool known = worker_->synced() || begun_;
    const uint64_t received = worker_->received();
    worker_ = known ? std::make_unique<Replica>(far_, Side::kWorker, received)
                    : std::make_unique<Replica>(far_, Side::kWorker);
    worker_->land_commands_in(this);
    client_ = std::make_unique<Replica>(near_, Side::kClient);
    client_->land_in(this);
  }

  // No faults any more: all that was sent is executed, and all answers come.
  void heal() {
    for (int i = 0; i < 100'000 && !testing::Test::HasFailure(); ++i) {
      depart(*client_, &to_worker_);
      depart(*worker_, &to_client_);
      arrive(&to_worker_, *worker_);
      arrive(&to_client_, *client_);
      execute();
      read_answers();
      if (answered_ == commands_.last_sequence() && progress_ == answered_ && !client_->has_more()) break;
    }
    EXPECT_EQ(executed_, commands_.last_sequence());
    EXPECT_EQ(answered_, commands_.last_sequence());
    EXPECT_EQ(near_.worker().stream_progress[kSlot].load(), executed_);
    EXPECT_EQ(near_.worker().acknowledged.load(), executed_);
    EXPECT_EQ(near_.worker().command_tail.load(), near_.client().command_head.load());
  }

  const uint64_t seed_;
  peer::Numbers random_;
  int fd_ = -1;
  Region near_, far_;
  std::unique_ptr<Replica> client_, worker_;
  CommandWriter commands_;
  AnswerReader answers_;
  CommandReader reader_;
  AnswerWriter out_;
  bool begun_ = false;
  std::deque<Flying> to_worker_, to_client_;
  std::vector<Flying> sent_, sent_last_;  // to the worker, over this connection and the one before
  std::deque<Lent> lent_, lent_commands_;
  std::map<uint64_t, std::vector<std::byte>> landings_;  // by sequence
  uint64_t landed_ = 0;
  static constexpr uint64_t kHead = 48;
  std::map<uint64_t, std::vector<std::byte>> landed_commands_;  // by sequence
  std::vector<std::byte>* landing_ = nullptr;
  uint64_t landed_in_ = 0;
  uint64_t steps_ = 0;
  uint64_t executed_ = 0, answered_ = 0, progress_ = 0, breaks_ = 0;
};

// One thread: a sanitizer that looks for races, and takes ten times as long, has little to see here.
#ifdef __SANITIZE_THREAD__
constexpr uint64_t kSeeds = 2;
#else
constexpr uint64_t kSeeds = 20;
#endif

TEST(Resume, nothing_is_lost_and_nothing_comes_twice) {
  uint64_t breaks = 0, commands = 0, landed = 0, landed_in = 0;
  for (uint64_t seed = 1; seed <= kSeeds && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Session session(seed);
    session.run(6000);
    breaks += session.breaks();
    commands += session.commands();
    landed += session.landed();
    landed_in += session.landed_in();
  }
  EXPECT_GT(landed, commands / 50);
  EXPECT_GT(landed_in, commands / 50);
  printf("%llu commands, %llu breaks, %llu answers landed\n", static_cast<unsigned long long>(commands),
         static_cast<unsigned long long>(breaks), static_cast<unsigned long long>(landed));
}

TEST(Resume, an_old_connection_that_is_said_again_changes_nothing) {
  uint64_t refused = 0;
  for (uint64_t seed = 1; seed <= 3 * kSeeds && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    refused += Session(seed).run_replayed() ? 1 : 0;
  }
  EXPECT_GT(refused, 2 * kSeeds) << "of " << 3 * kSeeds;
}

TEST(Resume, a_full_ring_on_which_the_worker_went_on_unheard) {
  for (uint64_t seed = 1; seed <= kSeeds / 2 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Session(seed).run_full();
  }
}

}  // namespace
}  // namespace tide
