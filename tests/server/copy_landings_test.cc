// Copies to the GPU whose bytes are put where they belong as they come: a session on the software GPU, and what a link
// asks of it.

#include "server/copy_landings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

#include "api/payload.h"
#include "base/clock.h"
#include "base/limits.h"
#include "calls.h"
#include "server/session.h"
#include "transport/region.h"

namespace tide {
namespace {

constexpr uint64_t kPlace = vgpu_range_base(3);
constexpr uint32_t kContext = 1, kStream = 0;
constexpr uint64_t kBytes = 300'000;

struct CopyLandingsTest : testing::Test {
  void SetUp() override {
    const Outcome opened = open_driver(&library);
    ASSERT_TRUE(opened.ok()) << opened.message();
    ASSERT_NE(library.write_now, nullptr);
    session = std::make_unique<Session>(library);
    ASSERT_TRUE(session->start(3, 64u << 20).ok());
    execute(Call::tideCreateContext, command::CreateContext{kContext, kStream, 0, 1});
    execute(Call::tideMapMemory, command::MapMemory{kPlace, kChunkBytes});
    landings().allow(true);
  }

  CopyLandings& landings() { return session->landings(); }

  struct Record {
    CommandHeader header;
    std::vector<std::byte> payload;
    static constexpr uint64_t kHead = command::kCopyInDataOffset;
    const std::byte* data() const { return payload.data() + kHead; }
    uint64_t bytes() const { return payload.size() - kHead; }
  };
  template <class C>
  Record record(Call call, const C& command, const std::vector<std::byte>& data = {}) {
    Record made;
    made.header.call = uint16_t(call);
    made.header.sequence = ++sequence;
    made.header.context = call == Call::tideCreateContext ? 0 : kContext;
    made.header.stream = call == Call::tideCopyIn ? kStream : kNoStream;
    made.payload.resize(data.empty() ? sizeof(C) : Record::kHead);
    memcpy(made.payload.data(), &command, sizeof(C));
    made.payload.insert(made.payload.end(), data.begin(), data.end());
    made.header.payload_bytes = uint32_t(made.payload.size());
    return made;
  }
  template <class C>
  void execute(Call call, const C& command) {
    const Record made = record(call, command);
    ASSERT_TRUE(session->execute(made.header, made.payload.data()));
  }
  Record copy_of(std::byte value, uint64_t to = kPlace) {
    return record(Call::tideCopyIn, command::CopyIn{to, kBytes, kBytes, 1}, std::vector<std::byte>(kBytes, value));
  }

  // As a link does it, so much of it.
  bool begin(const Record& copy) {
    return landings().head_bytes(copy.header) == Record::kHead && landings().begin(copy.header, copy.payload.data());
  }
  void put(const Record& copy, uint64_t from, uint64_t until) {
    for (uint64_t at = from; at < until; at += 60'000) {
      landings().put(at, copy.data() + at, std::min<uint64_t>(60'000, until - at));
    }
  }
  // The ring has only the front of what has landed.
  void execute(Record copy, bool landed) {
    if (landed) std::fill(copy.payload.begin() + Record::kHead, copy.payload.end(), std::byte{0xee});
    while (!session->execute(copy.header, copy.payload.data())) session->poll();
  }
  // Of device memory at this moment.
  std::byte there(uint64_t at) {
    std::byte value{};
    CUstream aside = nullptr;  // which waits for nobody
    session->contexts().use(kContext);
    EXPECT_EQ(library.calls.cuStreamCreateWithPriority(&aside, CU_STREAM_NON_BLOCKING, 0), CUDA_SUCCESS);
    EXPECT_EQ(library.calls.cuMemcpyDtoHAsync_v2(&value, kPlace + at, 1, aside), CUDA_SUCCESS);
    EXPECT_EQ(library.calls.cuStreamSynchronize(aside), CUDA_SUCCESS);
    EXPECT_EQ(library.calls.cuStreamDestroy_v2(aside), CUDA_SUCCESS);
    return value;
  }
  void finish() {
    session->settle();
    const uint64_t end = now_ns() + 10'000'000'000;
    while (!session->streams().idle() && now_ns() < end) session->poll();
    EXPECT_TRUE(session->streams().idle());
  }
  void expect_all(std::byte value) {
    finish();
    for (const uint64_t at : {uint64_t{0}, kBytes / 2, kBytes - 1}) EXPECT_EQ(there(at), value) << at;
    EXPECT_EQ(session->staging().in_use(), 0u);
    EXPECT_EQ(session->error_count(), 0u);
  }

  DriverLibrary library;
  std::unique_ptr<Session> session;
  uint64_t sequence = 0;
};

// Keeps the vGPU's stream busy until it is let go.
struct Work {
  explicit Work(CopyLandingsTest& test) {
    CUstream stream = nullptr;
    EXPECT_EQ(test.session->contexts().use(kContext), CUDA_SUCCESS);
    EXPECT_EQ(test.session->streams().enter(kStream, &stream), CUDA_SUCCESS);
    const auto wait = [](void* self) {
      auto* const work = static_cast<Work*>(self);
      while (!work->over.load()) sleep_us(100);
      work->done = true;
    };
    EXPECT_EQ(test.library.calls.cuLaunchHostFunc(stream, wait, this), CUDA_SUCCESS);
  }
  ~Work() {
    over = true;
    while (!done.load()) sleep_us(100);
  }
  std::atomic<bool> over{false}, done{false};
};

TEST_F(CopyLandingsTest, bytes_are_in_device_memory_before_the_copy_is_executed) {
  const Record copy = copy_of(std::byte{5});
  ASSERT_TRUE(begin(copy));
  put(copy, 0, 120'000);
  EXPECT_EQ(there(119'999), std::byte{5});
  EXPECT_EQ(there(120'000), std::byte{0});
  put(copy, 120'000, kBytes);
  execute(copy, true);
  expect_all(std::byte{5});
  EXPECT_EQ(landings().direct(), kBytes);
  EXPECT_EQ(landings().staged(), 0u);
}

TEST_F(CopyLandingsTest, copies_behind_one_another_land_before_the_first_is_executed) {
  const Record first = copy_of(std::byte{5}), second = copy_of(std::byte{6}, kPlace + kBytes);
  for (const Record* each : {&first, &second}) {
    ASSERT_TRUE(begin(*each));
    put(*each, 0, kBytes);
  }
  EXPECT_EQ(landings().direct(), 2 * kBytes);
  EXPECT_EQ(there(kBytes), std::byte{6});
  execute(first, true);
  execute(second, true);
  expect_all(std::byte{5});
}

TEST_F(CopyLandingsTest, what_the_stream_has_to_do_comes_first) {
  {
    const Work work(*this);
    const Record copy = copy_of(std::byte{5});
    ASSERT_TRUE(begin(copy));
    put(copy, 0, kBytes);
    execute(copy, true);
    EXPECT_EQ(there(0), std::byte{0});
    EXPECT_EQ(landings().staged(), kBytes);
  }
  expect_all(std::byte{5});
}

TEST_F(CopyLandingsTest, work_that_comes_in_the_middle_is_waited_for_with_the_rest) {
  const Record copy = copy_of(std::byte{5});
  ASSERT_TRUE(begin(copy));
  put(copy, 0, 120'000);
  {
    const Work work(*this);
    put(copy, 120'000, kBytes);
    execute(copy, true);
    EXPECT_EQ(there(120'000), std::byte{0});
  }
  expect_all(std::byte{5});
  EXPECT_EQ(landings().direct(), 120'000u);
}

TEST_F(CopyLandingsTest, a_command_ahead_that_is_not_executed_has_its_turn_first) {
  const Record ahead = copy_of(std::byte{4});
  const Record copy = copy_of(std::byte{5});
  ASSERT_TRUE(begin(copy));
  put(copy, 0, kBytes);
  EXPECT_EQ(there(0), std::byte{0});
  execute(ahead, false);
  execute(copy, true);
  expect_all(std::byte{5});
}

TEST_F(CopyLandingsTest, a_session_that_is_put_to_rest_is_not_written_any_more) {
  const Record copy = copy_of(std::byte{5});
  ASSERT_TRUE(begin(copy));
  put(copy, 0, 60'000);
  landings().allow(false);
  put(copy, 60'000, kBytes);
  EXPECT_EQ(there(60'000), std::byte{0});
  const Record other = copy_of(std::byte{6}, kPlace + kBytes);
  ASSERT_TRUE(begin(other));
  put(other, 0, kBytes);
  EXPECT_EQ(there(kBytes), std::byte{0});
  execute(copy, true);
  execute(other, true);
  expect_all(std::byte{5});
  EXPECT_EQ(there(kBytes), std::byte{6});
}

// What came first is not the copy: nobody is told of it, and it comes again from the start, or as a plain record.
TEST_F(CopyLandingsTest, a_connection_that_breaks_in_the_middle_leaves_no_copy) {
  for (const bool direct : {true, false}) {
    for (const bool lands_again : {true, false}) {
      landings().allow(direct);
      const Record copy = copy_of(std::byte(10 + 2 * direct + lands_again));
      const uint64_t progress = session->sequence();
      ASSERT_TRUE(begin(copy));
      put(copy, 0, 200'000);
      session->poll();
      EXPECT_EQ(session->sequence(), progress);
      if (lands_again) {
        ASSERT_TRUE(begin(copy));
        put(copy, 0, kBytes);
      }
      execute(copy, lands_again);
      expect_all(std::byte(10 + 2 * direct + lands_again));
    }
  }
}

TEST_F(CopyLandingsTest, what_is_not_the_vgpus_memory_and_what_is_small_stays_in_the_ring) {
  EXPECT_FALSE(begin(copy_of(std::byte{5}, kPlace - kChunkBytes)));
  EXPECT_FALSE(begin(copy_of(std::byte{5}, 0x1000)));
  Record lies = copy_of(std::byte{5});
  lies.header.payload_bytes -= 16;
  EXPECT_FALSE(begin(lies)) << "fewer bytes than it says";
  lies.header.payload_bytes = 1000;
  EXPECT_FALSE(begin(lies));
  lies = copy_of(std::byte{5});
  lies.header.sequence = 1;
  EXPECT_FALSE(begin(lies)) << "it is over";
  EXPECT_EQ(session->staging().in_use(), 0u);
}

// In the range, but nothing is mapped there: as the copy out of the ring, it fails, and is no word of another's memory.
TEST_F(CopyLandingsTest, a_copy_to_where_nothing_is_mapped_is_an_error) {
  const Record copy = copy_of(std::byte{5}, kPlace + 5 * kChunkBytes);
  ASSERT_TRUE(begin(copy));
  put(copy, 0, kBytes);
  execute(copy, true);
  EXPECT_EQ(session->error_count(), 1u);
  EXPECT_EQ(session->last_error(), uint64_t(CUDA_ERROR_INVALID_VALUE));
  EXPECT_EQ(session->staging().in_use(), 0u);
}

// The other way: device memory that is lent to the link, and who must not write it meanwhile.
class LendingLink : public Link {
 public:
  LendingLink() { EXPECT_TRUE(map_private_region(&region_).ok()); }
  ~LendingLink() override { unmap_region(region_); }
  bool progress() override { return false; }
  void note(const Word&) override {}
  void wake() override {}
  void sleep(uint32_t, uint32_t) override {}
  bool alive() override { return lives; }
  const char* transport() const override { return "test"; }
  void abandon() override {}
  bool lends() const override { return true; }
  bool lends_unknown() const override { return true; }
  uint64_t bytes_per_s() const override { return rate; }
  bool lend(uint64_t, const std::byte* from, uint64_t bytes) override {
    lent.emplace_back(from, bytes);
    return true;
  }
  void take_back() override { lent.clear(); }
  uint64_t rate = 5'000'000'000;
  bool lives = true;
  std::vector<std::span<const std::byte>> lent;
};

struct CopyOutTest : CopyLandingsTest {
  void SetUp() override {
    CopyLandingsTest::SetUp();
    const Record copy = copy_of(std::byte{5});
    execute(copy, false);
    finish();
    session->attach(&link);
    session->poll();  // what waited to be told goes first
    session->let_lend_memory(true);
  }
  void TearDown() override { session->attach(nullptr); }
  // Executes it as far as it goes. Whether that is to its end.
  bool bring(uint64_t bytes = kBytes) {
    Record made = record(Call::tideCopyOut, command::CopyOut{kPlace, bytes, bytes, 1, 0, 0, 0, 0, 0});
    made.header.stream = kStream;
    const bool over = session->execute(made.header, made.payload.data());
    if (!over) --sequence;
    return over;
  }
  void read_all() { link.region().client().answer_tail.store(link.region().worker().answer_head.load()); }
  // Whether the link has device memory, not a copy of it.
  bool follows_the_memory() {
    const std::byte before = link.lent.back()[0];
    const Record copy = copy_of(std::byte(int(before) + 1));
    execute(copy, false);
    finish();
    return link.lent.back()[0] == std::byte(int(before) + 1);
  }
  LendingLink link;
};

TEST_F(CopyOutTest, device_memory_is_lent_until_the_client_has_read_it) {
  EXPECT_TRUE(bring());
  EXPECT_EQ(session->outbox().in_place(), kBytes);
  ASSERT_EQ(link.lent.size(), 1u);
  EXPECT_EQ(link.lent[0][kBytes - 1], std::byte{5});
  EXPECT_EQ(session->staging().in_use(), 0u);
  const Record copy = copy_of(std::byte{6});
  ASSERT_TRUE(begin(copy));
  put(copy, 0, kBytes);
  EXPECT_EQ(there(0), std::byte{5}) << "written while it is lent";
  EXPECT_EQ(landings().staged(), kBytes);
  EXPECT_FALSE(session->execute(copy.header, copy.payload.data()));
  EXPECT_EQ(there(0), std::byte{5});
  read_all();
  EXPECT_FALSE(session->outbox().lends_in_place());
  execute(copy, true);
  expect_all(std::byte{6});
  EXPECT_TRUE(bring());
  read_all();
  EXPECT_TRUE(follows_the_memory());
}

TEST_F(CopyOutTest, no_more_than_a_few_mib_are_lent_at_once) {
  execute(Call::tideMapMemory, command::MapMemory{kPlace + kChunkBytes, 3 * kChunkBytes});
  EXPECT_FALSE(bring(6u << 20));
  EXPECT_LE(session->outbox().in_place(), (4u << 20) + 4096);
  EXPECT_GT(session->outbox().in_place(), 2u << 20);
  read_all();
  EXPECT_TRUE(bring(6u << 20));
}

TEST_F(CopyOutTest, nothing_is_lent_where_somebody_would_wait_for_it) {
  session->let_lend_memory(false);
  EXPECT_TRUE(bring());
  session->let_lend_memory(true);
  link.rate = 100'000'000;
  EXPECT_TRUE(bring());
  link.rate = 5'000'000'000;
  {
    const Work work(*this);
    EXPECT_TRUE(bring());
  }
  finish();
  EXPECT_EQ(session->outbox().in_place(), 0u);
}

TEST_F(CopyOutTest, what_was_lent_lies_in_the_ring_after_a_break) {
  EXPECT_TRUE(bring());
  link.lives = false;
  const Record copy = copy_of(std::byte{6});
  EXPECT_FALSE(session->execute(copy.header, copy.payload.data()));
  sleep_us(5'000);
  EXPECT_TRUE(session->execute(copy.header, copy.payload.data()));
  EXPECT_TRUE(link.lent.empty());
}

TEST_F(CopyOutTest, a_client_that_reads_slowly_is_lent_nothing_for_a_while) {
  EXPECT_TRUE(bring());
  EXPECT_TRUE(session->outbox().in_place_gets_on());
  sleep_us(5'000);
  EXPECT_FALSE(session->outbox().in_place_gets_on());
  read_all();
  EXPECT_TRUE(bring());
  EXPECT_FALSE(session->outbox().lends_in_place());
}

}  // namespace
}  // namespace tide
