// Pages of host memory that the worker tells unasked (docs/wire.md, Told pages): both real ends of the protocol in one
// thread, with a wire between them that delivers when a random number says so, compared with what one memory would
// hold.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "base/words.h"
#include "commands.h"
#include "fake_worker.h"
#include "interpose/mirror.h"
#include "interpose/process.h"
#include "server/pages_told.h"

namespace tide {
namespace {

constexpr uint64_t kPage = PagesTold::kPage, kPages = 3, kBytes = kPages * kPage;
constexpr uint32_t kStream = 0;

class NoLink : public Link {
 public:
  explicit NoLink(Region region) { region_ = region; }
  bool progress() override { return false; }
  void note(const Word&) override {}
  void wake() override {}
  void sleep(uint32_t, uint32_t) override {}
  bool alive() override { return true; }
  const char* transport() const override { return "none"; }
  void abandon() override {}
};

// Two copies of a region. What a side has published is a letter to the other; letters of one direction keep their
// order.
class SlowWire {
 public:
  SlowWire() {
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(create_region(&fds_[i], &regions_[i]).ok());
  }
  ~SlowWire() {
    for (int i = 0; i < 2; ++i) destroy_region(fds_[i], regions_[i]);
  }
  Region client() const { return regions_[0]; }
  Region worker() const { return regions_[1]; }

  void post_client() {
    to_worker_.push_back({client().client().command_head.load(), client().client().answer_tail.load(), 0, 0});
  }
  void post_worker() {
    const WorkerPage& page = worker().worker();
    to_client_.push_back(
        {page.answer_head.load(), page.command_tail.load(), page.acknowledged.load(), page.stream_progress[kStream]});
  }
  bool deliver_to_worker() {
    if (to_worker_.empty()) return false;
    const Letter letter = to_worker_.front();
    to_worker_.pop_front();
    ClientPage& page = worker().client();
    carry(client().commands(), worker().commands(), kCommandRingBytes, page.command_head, letter.head);
    page.answer_tail.store(letter.tail);
    return true;
  }
  bool deliver_to_client() {
    if (to_client_.empty()) return false;
    const Letter letter = to_client_.front();
    to_client_.pop_front();
    WorkerPage& page = client().worker();
    carry(worker().answers(), client().answers(), kAnswerRingBytes, page.answer_head, letter.head);
    page.acknowledged.store(letter.acknowledged);
    page.command_tail.store(letter.tail);
    page.stream_progress[kStream].store(letter.progress);
    return true;
  }

 private:
  struct Letter {
    uint64_t head, tail, acknowledged, progress;
  };
  static void carry(const std::byte* from, std::byte* to, uint64_t size, Word& head, uint64_t new_head) {
    for (uint64_t at = head.load(); at < new_head; at += kRecordAlign) {
      memcpy(to + at % size, from + at % size, kRecordAlign);
    }
    head.store(new_head);
  }

  int fds_[2] = {};
  Region regions_[2];
  std::deque<Letter> to_worker_, to_client_;
};

struct Pages {
  alignas(4096) std::byte bytes[kBytes] = {};
};

// A program, its kernels, and what they should see. A byte belongs to the program, or to a kernel from its launch until
// the program has waited for it: only its owner writes it.
class World {
 public:
  explicit World(uint32_t seed) : random_(seed) {
    process_ = Process::adopt();
    vgpu_ = process_->adopt_vgpu(Channel::adopt(wire_.client(), std::make_unique<NoLink>(wire_.client())),
                                 fake_device(), 1u << 30);
    reader_ = CommandReader(wire_.worker());
    writer_ = AnswerWriter(wire_.worker());
    told_ = std::make_unique<PagesTold>(kPages, true, true);
    mirror_ = Mirror::make(address(*host_), address(*device_), kBytes, Mirror::Far::kPages, *vgpu_);
    mirror_->make_told(send_work());
    // Few places, so that both sides meet: in one word, in one line, in one page, and alone. With very few and two
    // values, whole pages often become what they were.
    values_ = seed % 2 == 0 ? 2 : 3;
    for (int i = 0; i < (seed % 2 == 0 ? 8 : 60); ++i) {
      const uint64_t near[] = {0, 8, 64, 4088, 4096, 9000};
      places_.push_back(near[pick(6)] + uint64_t(pick(16)));
    }
    std::sort(places_.begin(), places_.end());
    places_.erase(std::unique(places_.begin(), places_.end()), places_.end());
  }
  // The process stays, as everywhere; nothing looks at its channel.
  ~World() {
    mirror_.reset();
    live_process.store(nullptr);
  }

  void step() {
    switch (pick(20)) {
      case 0:
      case 1:
      case 2:
        return write_as_host();
      case 3:
        return push();
      case 4:
        return launch();
      case 5:
      case 6:
      case 7:
        return write_as_kernel();
      case 8:
      case 9:
        return execute_one();
      case 10:
        return tell_running();
      case 11:
        return complete();
      case 12:
        return take_in();
      case 13:
      case 14:
        return deliver(&SlowWire::deliver_to_worker);
      case 15:
      case 16:
        return deliver(&SlowWire::deliver_to_client);
      case 17:
        return pick(3) == 0 ? move() : synchronise();
      default:
        return synchronise();
    }
  }

  // Everything comes to rest; then all three are one.
  void finish() {
    push();
    for (int i = 0; i < 3; ++i) {
      while (wire_.deliver_to_worker()) {
      }
      while (reader_.ready()) execute_one();
      while (!running_.empty()) complete();
      while (wire_.deliver_to_client()) {
      }
      while (!launched_.empty()) synchronise();
    }
    EXPECT_EQ(memcmp(host_->bytes, one_->bytes, kBytes), 0);
    EXPECT_EQ(memcmp(device_->bytes, one_->bytes, kBytes), 0);
  }
  uint64_t told_pages() const { return told_pages_; }

 private:
  struct Kernel {
    uint64_t sequence = 0;
    uint64_t launched = 0;  // when
    std::vector<uint64_t> places;
  };
  static uint64_t address(const Pages& pages) { return reinterpret_cast<uint64_t>(pages.bytes); }
  void deliver(bool (SlowWire::*one)()) {
    for (int i = pick(6); i > 0 && (wire_.*one)(); --i) {
    }
  }
  int pick(int n) {
    random_ = random_ * 6364136223846793005 + 1442695040888963407;
    return int((random_ >> 33) % uint64_t(n));
  }
  std::byte any() { return std::byte(pick(values_)); }
  bool is_hosts(uint64_t place) const {
    return std::none_of(launched_.begin(), launched_.end(), [&](const Kernel& k) {
      return std::find(k.places.begin(), k.places.end(), place) != k.places.end();
    });
  }
  uint64_t send_work() {
    uint64_t sequence = 0;
    EXPECT_EQ(vgpu_->channel().send(
                  {.call = Call::tideLaunch, .stream = kStream}, [](std::byte*) {}, &sequence),
              CUDA_SUCCESS);
    wire_.post_client();
    return sequence;
  }

  // --- the program ---
  void write_as_host() {
    ++now_;
    const bool wide = values_ > 2 && pick(20) == 0;  // as good as a whole page, which travels as one
    const uint64_t page = uint64_t(pick(kPages)) * kPage;
    for (uint64_t at = page; wide && at < page + kPage; ++at) {
      if (!std::binary_search(places_.begin(), places_.end(), at)) set_as_host(at, any());
    }
    for (int i = 0; i < 3; ++i) {
      const uint64_t place = places_[uint64_t(pick(int(places_.size())))];
      if (is_hosts(place)) set_as_host(place, any());
    }
  }
  void set_as_host(uint64_t at, std::byte value) {
    host_->bytes[at] = one_->bytes[at] = value;
    written_[at] = now_;
  }
  void push() {
    if (pick(2) == 0) take_in();
    EXPECT_EQ(mirror_->push(), CUDA_SUCCESS);
    wire_.post_client();
  }
  void launch() {
    if (launched_.size() >= 3) return;
    push();
    Kernel kernel;
    for (const uint64_t place : places_) {
      if (pick(3) == 0 && is_hosts(place)) kernel.places.push_back(place);
    }
    kernel.launched = now_++;
    kernel.sequence = send_work();
    launched_.push_back(kernel);
  }
  void take_in() {
    for (const auto& [at, page] : vgpu_->channel().take_told()) {
      ++told_pages_;
      mirror_->take_told(at - address(*device_), page.bytes.data(), page.executed);
    }
    wire_.post_client();
    for (uint64_t at = 0; at < kBytes; ++at) {
      if (host_->bytes[at] == one_->bytes[at]) continue;
      ASSERT_FALSE(is_hosts(at)) << "the program's byte " << at << " was overwritten";
    }
  }
  void synchronise() {
    if (launched_.empty() || wire_.client().worker().stream_progress[kStream] < launched_.front().sequence) return;
    take_in();
    for (const uint64_t place : launched_.front().places) {
      ASSERT_EQ(host_->bytes[place], one_->bytes[place]) << "a kernel's byte " << place << " has not come";
    }
    launched_.pop_front();
  }

  // --- the worker and its GPU ---
  void execute_one() {
    Command command;
    if (reader_.next(&command) != ReadState::kRecord) return;
    if (command.header.call == uint16_t(Call::tideWriteHost)) {
      store(command.payload);
    } else {
      begin_kernel(command.header.sequence);
    }
    executed_ = command.header.sequence;
    reader_.consume(command);
    wire_.post_worker();
  }
  void store(const std::byte* payload) {
    command::WriteHost write;
    memcpy(&write, payload, sizeof write);
    std::vector<uint64_t> mask(write.mask_bytes / 8);
    memcpy(mask.data(), payload + command::kWriteHostDataOffset, write.mask_bytes);
    const std::byte* const data = payload + command::kWriteHostDataOffset + write.mask_bytes;
    store_masked(reinterpret_cast<std::byte*>(write.address), data, write.bytes, mask.data());
    told_->written((write.address - address(*device_)) / kPage, write, {data, write.bytes});
  }
  // Kernels find what the program wrote before it launched them.
  void begin_kernel(uint64_t sequence) {
    const auto kernel =
        std::find_if(launched_.begin(), launched_.end(), [&](const Kernel& k) { return k.sequence == sequence; });
    if (kernel == launched_.end()) return;  // the command that made the block
    for (uint64_t at = 0; at < kBytes; ++at) {
      if (written_[at] > kernel->launched) continue;
      ASSERT_EQ(device_->bytes[at], one_->bytes[at]) << "a kernel does not find byte " << at;
    }
    running_.push_back(*kernel);
  }
  void write_as_kernel() {
    if (running_.empty()) return;
    const Kernel& kernel = running_[size_t(pick(int(running_.size())))];
    for (int i = 0; i < 2 && !kernel.places.empty(); ++i) {
      const uint64_t place = kernel.places[size_t(pick(int(kernel.places.size())))];
      device_->bytes[place] = one_->bytes[place] = any();
      written_[place] = 0;
    }
  }
  void tell() {
    ASSERT_TRUE(told_->tell(address(*device_), executed_, writer_));
    wire_.post_worker();
  }
  void tell_running() {
    const bool read_up = wire_.worker().client().answer_tail == wire_.worker().worker().answer_head;
    if (!running_.empty() && read_up) tell();
  }
  void complete() {
    if (running_.empty()) return;
    tell();
    wire_.worker().worker().stream_progress[kStream].store(running_.front().sequence);
    wire_.post_worker();
    running_.pop_front();
  }
  // Another worker goes on, once the streams have come to rest.
  void move() {
    if (!running_.empty()) return;
    reader_ = CommandReader(wire_.worker());
    writer_ = AnswerWriter(wire_.worker());
    told_ = std::make_unique<PagesTold>(kPages, false, true);
  }

  uint64_t random_;
  SlowWire wire_;
  Process* process_ = nullptr;
  Vgpu* vgpu_ = nullptr;
  std::unique_ptr<Pages> host_ = std::make_unique<Pages>(), device_ = std::make_unique<Pages>(),
                         one_ = std::make_unique<Pages>();
  std::unique_ptr<Mirror> mirror_;
  std::vector<uint64_t> places_;
  int values_ = 0;
  uint64_t now_ = 1;
  std::vector<uint64_t> written_ = std::vector<uint64_t>(kBytes);  // by the program: when
  std::deque<Kernel> launched_;                                    // and not waited for

  CommandReader reader_;
  AnswerWriter writer_;
  std::unique_ptr<PagesTold> told_;
  uint64_t executed_ = 0;
  std::deque<Kernel> running_;
  uint64_t told_pages_ = 0;
};

// One page of the worker's, and how often it is told.
struct OnePage {
  explicit OnePage(bool new_here) : told(1, new_here, true), writer(wire.worker()) {}
  bool is_told(uint64_t executed = 1) {
    const uint64_t head = writer.head();
    EXPECT_TRUE(told.tell(address(), executed, writer));
    return writer.head() != head;
  }
  // The client has what is there now, as it believes.
  void written(uint64_t seen) {
    const command::WriteHost write{address() + 8, 8, 8, page_digest(page->bytes), seen};
    told.written(0, write, {page->bytes + 8, 8});
  }
  uint64_t address() const { return reinterpret_cast<uint64_t>(page->bytes); }

  SlowWire wire;
  std::unique_ptr<Pages> page = std::make_unique<Pages>();
  PagesTold told;
  AnswerWriter writer;
};

TEST(PagesTold, a_page_is_told_once) {
  OnePage one(true);
  EXPECT_FALSE(one.is_told()) << "both sides begin with zeros";
  one.page->bytes[5] = std::byte{1};
  EXPECT_TRUE(one.is_told());
  EXPECT_FALSE(one.is_told());
  one.page->bytes[5] = std::byte{0};
  EXPECT_TRUE(one.is_told()) << "the client has 1";
}

TEST(PagesTold, what_the_client_writes_is_known_if_it_had_taken_in_what_was_told) {
  OnePage one(true);
  one.written(0);
  EXPECT_FALSE(one.is_told()) << "nothing was ever told";
  one.page->bytes[5] = std::byte{1};
  EXPECT_TRUE(one.is_told());
  one.page->bytes[8] = std::byte{7};
  one.written(one.writer.head());
  EXPECT_FALSE(one.is_told());
  one.page->bytes[5] = std::byte{2};
  EXPECT_TRUE(one.is_told());
  one.written(one.writer.head() - 16);
  EXPECT_TRUE(one.is_told()) << "they crossed";
  EXPECT_FALSE(one.is_told());
}

TEST(PagesTold, after_a_move_nothing_is_known_until_it_was_told_again) {
  OnePage one(false);
  one.written(100'000);
  EXPECT_TRUE(one.is_told()) << "the client may not have had what the worker before told";
  one.written(one.writer.head());
  EXPECT_FALSE(one.is_told());
}

TEST(PagesTold, when_the_ring_is_full_nothing_is_told_and_nothing_forgotten) {
  OnePage one(true);
  while (AnswerHeader* record = one.writer.reserve(1u << 16)) one.writer.publish(record);
  while (AnswerHeader* record = one.writer.reserve(256)) one.writer.publish(record);
  one.page->bytes[5] = std::byte{1};
  EXPECT_FALSE(one.told.tell(one.address(), 1, one.writer));
  one.wire.worker().client().answer_tail.store(one.writer.head());
  EXPECT_TRUE(one.is_told());
}

TEST(ToldPages, what_is_no_page_ends_the_channel) {
  const std::pair<uint64_t, uint32_t> wrong[] = {{0, 100}, {0, 2 * kPage}, {8, kPage}};
  for (const auto& [at, bytes] : wrong) {
    SlowWire wire;
    const auto channel = Channel::adopt(wire.client(), std::make_unique<NoLink>(wire.client()));
    AnswerWriter writer(wire.client());
    AnswerHeader* const record = writer.reserve(bytes);
    record->kind = uint16_t(AnswerKind::kPage);
    record->offset = at;
    writer.publish(record);
    EXPECT_TRUE(channel->take_told().empty());
    EXPECT_TRUE(channel->failed()) << at << " " << bytes;
  }
}

TEST(ToldPages, two_memories_are_as_one_in_whatever_order_their_messages_cross) {
  uint64_t told = 0;
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World world(seed);
    for (int i = 0; i < 4000 && !testing::Test::HasFailure(); ++i) world.step();
    if (!testing::Test::HasFailure()) world.finish();
    if (testing::Test::HasFailure()) return;
    told += world.told_pages();
  }
  EXPECT_GT(told, 10'000u) << "the worker told little: nothing was tried";
}

}  // namespace
}  // namespace tide
