// What a move sends of memory that changes meanwhile, against a destination that is made of what was sent.

#include "server/chunk_carrier.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "base/hex.h"
#include "server/kept.h"
#include "server/precopy.h"
#include "server/verdict.h"

namespace tide {
namespace {

constexpr uint64_t kBase = vgpu_range_base(6);

// How a stream breaks at a frame.
enum class Break {
  kBefore,  // nothing of the frame arrives
  kWithin,  // of what follows the frame nothing does
  kBehind,  // all arrives, and its answer does not come back
  kUnseen,  // neither it nor what is sent behind it arrives, which shows where an answer is waited for
};

// Does with a model of the destination what is sent.
class Model : public ByteStream {
 public:
  Outcome send(const void* data, size_t bytes, uint32_t) override {
    const auto* at = static_cast<const std::byte*>(data);
    if (broken) return broke();
    unseen_ |= breaks(Break::kUnseen) && data_for_ == 0 && !asked_;
    if (bytes == 0 || unseen_) return {};
    if (data_for_ != 0) {
      EXPECT_EQ(bytes, kChunkBytes);
      const uint64_t chunk = std::exchange(data_for_, 0);
      if (breaks(Break::kWithin)) return broke();
      chunks[chunk].assign(at, at + bytes);
      ++data;
      return end_frame();
    }
    if (asked_) {
      asked_ = false;
      if (breaks(Break::kWithin)) return broke();
      take_asked(at, bytes);
      return end_frame();
    }
    ChunkFrame frame;
    EXPECT_EQ(bytes, sizeof frame);
    memcpy(&frame, data, sizeof frame);
    return begin_frame(frame);
  }
  Outcome receive(void* data, size_t bytes, uint32_t) override {
    if (broken || unseen_) return broke();
    if (said_.size() < bytes) return Outcome::fail("nothing comes");
    memcpy(data, said_.data(), bytes);
    said_.erase(0, bytes);
    return {};
  }
  Outcome flush(uint32_t) override { return {}; }
  void cancel() override {}
  void close() override {}

  // The source is back.
  uint64_t mend() {
    broken = unseen_ = false;
    break_at = ~uint64_t{0};
    said_.clear();
    return done;
  }

  std::map<uint64_t, std::vector<std::byte>> chunks;  // what is mapped there
  std::map<uint64_t, MemoryRange> told_in;            // and what was told with it in one
  std::vector<MemoryRange> maps;                      // as they were told
  uint32_t data = 0, zeros = 0, taken = 0;            // chunks that came so, or were asked for and known
  std::unique_ptr<ChunkSlots> slots;
  std::vector<std::vector<std::byte>> known;  // chunks
  ChunkSecret secret;
  uint64_t done = 0;                 // frames
  std::set<uint64_t> with_more;      // of these, which something followed
  uint64_t break_at = ~uint64_t{0};  // which of them
  Break how = Break::kBefore;
  bool broken = false;

 private:
  Outcome broke() {
    broken = true;
    return Outcome::fail("the far side is gone");
  }
  bool breaks(Break in_this_way) const { return done == break_at && how == in_this_way; }
  Outcome end_frame() {
    const bool now = breaks(Break::kBehind);
    ++done;
    return now ? broke() : Outcome();
  }
  void say(const std::string& words) {
    struct Said final : ByteStream {
      explicit Said(std::string& in) : to(in) {}
      Outcome send(const void* data, size_t bytes, uint32_t) override {
        return to.append(static_cast<const char*>(data), bytes), Outcome();
      }
      Outcome receive(void*, size_t, uint32_t) override { return {}; }
      Outcome flush(uint32_t) override { return {}; }
      void cancel() override {}
      void close() override {}
      std::string& to;
    } said(said_);
    EXPECT_TRUE(send_verdict(said, {}, words).ok());
  }
  Outcome begin_frame(const ChunkFrame& frame) {
    if (breaks(Break::kBefore)) return broke();
    const bool more = frame.kind == ChunkFrameKind::kData || frame.kind == ChunkFrameKind::kAsk;
    if (more) with_more.insert(done);
    if (frame.kind == ChunkFrameKind::kAsk) return asked_ = true, Outcome();
    if (frame.kind == ChunkFrameKind::kData) return data_for_ = frame.address, Outcome();
    if (frame.kind == ChunkFrameKind::kPass) say({});
    if (frame.kind == ChunkFrameKind::kSecret) say(hex(secret.bytes, ChunkSecret::kBytes));
    if (frame.kind == ChunkFrameKind::kMap) maps.push_back({frame.address, frame.bytes});
    for (uint64_t chunk = frame.address; chunk < frame.address + frame.bytes; chunk += kChunkBytes) take(frame, chunk);
    return end_frame();
  }
  void take_asked(const std::byte* at, size_t bytes) {
    std::vector<AskedChunk> asked(bytes / sizeof(AskedChunk));
    memcpy(static_cast<void*>(asked.data()), at, bytes);
    uint64_t there = 0;
    for (size_t i = 0; i < asked.size(); ++i) {
      EXPECT_EQ(chunks.count(asked[i].address), 1u);
      for (const std::vector<std::byte>& chunk : known) {
        if (hash_chunk(secret, chunk.data()) != asked[i].hash) continue;
        chunks[asked[i].address] = chunk;
        there |= uint64_t{1} << i;
        ++taken;
      }
    }
    say(hex(reinterpret_cast<const uint8_t*>(&there), sizeof there));
  }
  void take(const ChunkFrame& frame, uint64_t chunk) {
    const bool mapped = chunks.count(chunk) != 0;
    EXPECT_EQ(mapped, frame.kind != ChunkFrameKind::kMap) << "chunk " << chunk - kBase;
    if (frame.kind == ChunkFrameKind::kMap) {
      // As a piece of which a part stayed mapped: what was there is there again.
      chunks[chunk] = old_.count(chunk) != 0 ? old_[chunk] : std::vector<std::byte>(kChunkBytes);
      told_in[chunk] = {frame.address, frame.bytes};
    } else if (frame.kind == ChunkFrameKind::kUnmap) {
      old_[chunk] = chunks[chunk];
      chunks.erase(chunk);
    } else if (frame.kind == ChunkFrameKind::kZero) {
      chunks[chunk].assign(kChunkBytes, std::byte{0});
      ++zeros;
    } else {
      ++data;
      take_slot(frame.slot, chunk);
    }
  }
  // As one whose GPU still reads the last.
  void take_slot(uint32_t slot, uint64_t chunk) {
    ASSERT_TRUE(slots != nullptr && slots->is_ours(slot));
    chunks[chunk].assign(slots->at(slot), slots->at(slot) + kChunkBytes);
    if (last_ != kNoSlot) slots->give_back(last_);
    last_ = slot;
  }

  uint64_t data_for_ = 0;
  bool asked_ = false, unseen_ = false;
  std::string said_;
  uint32_t last_ = kNoSlot;
  std::map<uint64_t, std::vector<std::byte>> old_;
};

class ChunkCarrierTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const Outcome outcome = open_driver(&library_);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    begin();
  }
  // With nothing mapped, and nothing sent.
  void begin() {
    sender_.reset();
    session_.reset();
    model_ = Model();
    session_ = std::make_unique<Session>(library_);
    Outcome outcome = session_->start(6, 1u << 30);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    sender_ = std::make_unique<ChunkSender>(library_, session_->contexts(), session_->memory(), model_);
    outcome = sender_->start();
    ASSERT_TRUE(outcome.ok()) << outcome.message();
  }
  // Of the test's driver the CPU sees the memory, too.
  static std::byte* host(uint64_t chunk) { return reinterpret_cast<std::byte*>(kBase + chunk * kChunkBytes); }
  void map(uint64_t chunk, uint64_t chunks) {
    ASSERT_EQ(session_->memory().map(kBase + chunk * kChunkBytes, chunks * kChunkBytes), CUDA_SUCCESS);
  }
  void unmap(uint64_t chunk, uint64_t chunks) {
    ASSERT_EQ(session_->memory().unmap(kBase + chunk * kChunkBytes, chunks * kChunkBytes, 0), CUDA_SUCCESS);
    session_->memory().collect(session_->streams());
  }
  ChunkSender::Pass pass() {
    ChunkSender::Pass pass;
    const Outcome outcome = sender_->pass([] { return true; }, &pass);
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    EXPECT_TRUE(pass.whole);
    return pass;
  }
  void expect_equal() {
    uint64_t mapped = 0;
    for (const MemoryRange& range : session_->memory().ranges()) {
      for (uint64_t at = range.address; at < range.address + range.bytes; at += kChunkBytes, ++mapped) {
        ASSERT_EQ(model_.chunks.count(at), 1u);
        ASSERT_EQ(memcmp(model_.chunks[at].data(), reinterpret_cast<void*>(at), kChunkBytes), 0) << at - kBase;
      }
    }
    EXPECT_EQ(model_.chunks.size(), mapped);
  }

  DriverLibrary library_;
  std::unique_ptr<Session> session_;
  Model model_;
  std::unique_ptr<ChunkSender> sender_;
};

class ThroughSlots : public ChunkCarrierTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(ChunkCarrierTest::SetUp());
    std::unique_ptr<ChunkSlots> slots;
    Outcome outcome = ChunkSlots::make(&model_.slots);
    if (outcome.ok()) outcome = ChunkSlots::take(model_.slots->offer(), &slots);
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    sender_->use(std::move(slots));
  }
};

TEST_F(ChunkCarrierTest, only_what_changed_is_sent_again) {
  map(0, 40);
  for (uint64_t chunk = 0; chunk < 30; ++chunk) memset(host(chunk), int(chunk) + 1, kChunkBytes);
  EXPECT_EQ(pass().bytes, 30 * kChunkBytes);
  EXPECT_EQ(model_.zeros, 0u) << "new memory is zero there, too";
  EXPECT_EQ(pass().chunks, 0u);
  host(4)[77] = std::byte{99};
  memset(host(5), 0, kChunkBytes);
  EXPECT_EQ(pass().bytes, kChunkBytes);
  EXPECT_EQ(model_.zeros, 1u);
  expect_equal();
}

TEST_F(ChunkCarrierTest, what_is_mapped_again_is_sent_again) {
  map(0, 32);
  for (uint64_t chunk = 0; chunk < 32; ++chunk) memset(host(chunk), 1, kChunkBytes);
  pass();
  unmap(3, 1);
  unmap(16, 16);  // all of a piece
  pass();
  EXPECT_EQ(model_.chunks.size(), 15u);
  map(3, 1);
  map(16, 4);
  memset(host(3), 0, kChunkBytes);
  pass();
  expect_equal();
  unmap(16, 4);
  map(16, 4);  // between two passes: nobody has seen it
  pass();
  expect_equal();
}

// Others have a shared piece as it is cut here, and all of it.
TEST_F(ChunkCarrierTest, a_shared_piece_is_told_in_one_whatever_of_it_is_mapped) {
  map(0, 3);
  map(3, 4);
  map(7, 2);
  for (uint64_t chunk = 0; chunk < 9; ++chunk) memset(host(chunk), int(chunk) + 1, kChunkBytes);
  pass();
  EXPECT_EQ(model_.maps, (std::vector<MemoryRange>{{kBase, 9 * kChunkBytes}}));
  model_.maps.clear();
  session_->memory().name_pieces({kBase + 3 * kChunkBytes, 4 * kChunkBytes});
  unmap(4, 1);
  pass();
  EXPECT_EQ(model_.maps, (std::vector<MemoryRange>{{kBase, 3 * kChunkBytes},
                                                   {kBase + 3 * kChunkBytes, 4 * kChunkBytes},
                                                   {kBase + 7 * kChunkBytes, 2 * kChunkBytes}}));
  EXPECT_EQ(memcmp(model_.chunks[kBase + 4 * kChunkBytes].data(), host(4), kChunkBytes), 0);
  EXPECT_EQ(model_.chunks.size(), 9u);
  EXPECT_EQ(pass().chunks, 0u);
  unmap(3, 1);
  unmap(5, 2);
  pass();
  EXPECT_EQ(model_.chunks.size(), 5u) << "a piece of which nothing is mapped has ended";
  expect_equal();
}

TEST_F(ChunkCarrierTest, what_is_read_stays_until_it_was_read) {
  map(0, 2);
  Memory& memory = session_->memory();
  ASSERT_TRUE(memory.pin(kBase));
  unmap(0, 2);
  EXPECT_TRUE(memory.has_condemned());
  EXPECT_FALSE(memory.pin(kBase)) << "it is not mapped";
  EXPECT_EQ(host(0)[5], std::byte{0}) << "but can be read";
  memory.unpin(kBase);
  memory.collect(session_->streams());
  EXPECT_FALSE(memory.has_condemned());
}

TEST_F(ThroughSlots, only_what_changed_is_sent_again) {
  map(0, 40);
  for (uint64_t chunk = 0; chunk < 30; ++chunk) memset(host(chunk), int(chunk) + 1, kChunkBytes);
  EXPECT_EQ(pass().bytes, 30 * kChunkBytes);
  EXPECT_EQ(model_.data, 30u);
  EXPECT_EQ(pass().chunks, 0u);
  host(4)[77] = std::byte{99};
  memset(host(5), 0, kChunkBytes);
  EXPECT_EQ(pass().bytes, kChunkBytes);
  expect_equal();
}

// What is looked at and not sent leaves the destination with the last slot in its hands.
TEST_F(ThroughSlots, much_that_need_not_be_sent_waits_for_no_slot) {
  map(0, 200);
  for (uint64_t chunk = 0; chunk < 200; chunk += 50) memset(host(chunk), 3, kChunkBytes);
  for (int round = 1; round < 4; ++round) {
    EXPECT_EQ(pass().chunks, 4u);
    for (uint64_t chunk = 0; chunk < 200; chunk += 50) host(chunk)[round] = std::byte{7};
  }
  pass();
  expect_equal();
}

TEST_F(ThroughSlots, what_goes_to_and_fro_while_it_is_read_arrives_as_it_is_at_the_end) {
  map(0, 4);
  for (int round = 0; round < 20; ++round) {
    std::atomic<bool> stop{false};
    std::thread writer([&] {
      for (uint32_t turn = 0; !stop || turn % 2 != 0; ++turn) {
        for (uint64_t chunk = 0; chunk < 4; ++chunk) memset(host(chunk), turn % 2 == 0 ? 0x33 : 0x11, kChunkBytes);
      }
    });
    for (int i = 0; i < 3; ++i) pass();
    stop = true;
    writer.join();
    pass();
    ASSERT_NO_FATAL_FAILURE(expect_equal()) << "round " << round;
  }
}

// Its hash is taken when it has one content, it is read when it has the other, and at the end it has the first again.
TEST_F(ChunkCarrierTest, what_goes_to_and_fro_while_it_is_read_arrives_as_it_is_at_the_end) {
  map(0, 2);
  for (int round = 0; round < 60; ++round) {
    std::atomic<bool> stop{false};
    std::thread writer([&] {
      for (uint32_t turn = 0; !stop || turn % 2 != 0; ++turn) {
        memset(host(0), turn % 2 == 0 ? 0x33 : 0x11, kChunkBytes);
        memset(host(1) + 4096, turn % 2 == 0 ? 0x44 : 0, 4096);
      }
    });
    for (int i = 0; i < 3; ++i) pass();
    stop = true;
    writer.join();
    pass();
    ASSERT_NO_FATAL_FAILURE(expect_equal()) << "round " << round;
    EXPECT_EQ(pass().chunks, 0u);
  }
}

TEST_F(ChunkCarrierTest, a_pass_that_ends_early_leaves_the_rest_to_the_next) {
  map(0, 20);
  for (uint64_t chunk = 0; chunk < 20; ++chunk) memset(host(chunk), 7, kChunkBytes);
  int asked = 0;
  ChunkSender::Pass first;
  const Outcome outcome = sender_->pass([&] { return ++asked < 5; }, &first);
  ASSERT_TRUE(outcome.ok()) << outcome.message();
  EXPECT_FALSE(first.whole);
  EXPECT_LT(first.chunks, 20u);
  EXPECT_EQ(first.chunks + pass().chunks, 20u);
  expect_equal();
}

// One pass after the other, each of which is confirmed; the stream breaks once, wherever it may, and goes on.
class OverBreaks : public ChunkCarrierTest {
 protected:
  // False: it broke.
  bool try_round(ChunkCarrier& carrier) {
    ChunkCarrier::Pass pass;
    Outcome outcome = carrier.pass([] { return true; }, &pass);
    if (outcome.ok()) outcome = carrier.confirm();
    EXPECT_EQ(outcome.ok(), !model_.broken) << outcome.message();
    return outcome.ok();
  }
  void round(ChunkCarrier& carrier) {
    if (try_round(carrier)) return;
    ++breaks_;
    const Outcome back = carrier.return_to(model_.mend());
    ASSERT_TRUE(back.ok()) << back.message();
    ASSERT_TRUE(try_round(carrier));
  }
  void round() { round(*sender_); }
  void meet(ChunkCarrier& carrier, const char* offer) {
    const Outcome met = carrier.meet(offer, true);
    ASSERT_TRUE(met.ok()) << met.message();
    ASSERT_TRUE(carrier.may_return());
  }
  void fill(uint64_t chunk, uint64_t seed) {
    auto* words = reinterpret_cast<uint64_t*>(host(chunk));
    for (uint64_t i = 0; i < kChunkBytes / 8; ++i) words[i] = (seed + 1) * 0x9e3779b97f4a7c15u + i;
  }
  // `story` is told with a break at each frame, in each way, and then it is like one without.
  void at_each_frame(const std::function<void()>& story) {
    begin(), story();
    const uint64_t frames = model_.done;
    const uint32_t data = model_.data, taken = model_.taken;
    const std::set<uint64_t> with_more = model_.with_more;
    ASSERT_GT(frames, 3u);
    for (const Break how : {Break::kBefore, Break::kWithin, Break::kBehind, Break::kUnseen}) {
      for (uint64_t at = first_; at < frames; ++at) {
        if (how == Break::kWithin && with_more.count(at) == 0) continue;
        begin();
        model_.break_at = at;
        model_.how = how;
        breaks_ = 0;
        ASSERT_NO_FATAL_FAILURE(story()) << "a break at frame " << at << " in way " << int(how);
        EXPECT_EQ(breaks_, 1u) << "at frame " << at << " in way " << int(how);
        EXPECT_EQ(model_.data, data) << "what has arrived is not sent again, at frame " << at << " in way " << int(how);
        EXPECT_GE(model_.taken, taken);
      }
    }
  }

  uint32_t breaks_ = 0;
  uint64_t first_ = 1;  // the first frame says that it may break
};

TEST_F(OverBreaks, what_was_lost_of_any_kind_is_sent_again_and_nothing_else) {
  at_each_frame([this] {
    meet(*sender_, " returns 0");
    map(0, 8);
    for (const uint64_t chunk : {0, 1, 2, 3, 5}) fill(chunk, chunk);
    round(), expect_equal();
    unmap(2, 1), map(16, 3);
    fill(16, 16), fill(3, 103), memset(host(1), 0, kChunkBytes);
    round(), expect_equal();
    unmap(0, 1), unmap(16, 3), map(2, 1), map(17, 1);  // come back with what they had, or as new memory
    fill(2, 2), fill(6, 106);
    round(), expect_equal();
    unmap(2, 1), map(0, 1), memset(host(0), 0, kChunkBytes);
    round(), expect_equal();
  });
}

TEST_F(OverBreaks, who_was_asked_and_not_heard_is_asked_again) {
  first_ = 2;  // the secret is asked for before there is anything to be lost
  at_each_frame([this] {
    ASSERT_TRUE(make_secret(&model_.secret));
    map(0, 20);
    for (uint64_t chunk = 0; chunk < 20; chunk += 2) {
      fill(chunk, chunk);
      if (chunk % 4 == 0) model_.known.emplace_back(host(chunk), host(chunk) + kChunkBytes);
    }
    meet(*sender_, " returns 0\nknows");
    round(), expect_equal();
    fill(4, 8), fill(6, 206), fill(18, 218);  // what another one had, and what nobody has
    round(), expect_equal();
    EXPECT_GE(model_.taken, 6u);
  });
}

// The destination took it, and nobody heard of that; then it is again what it was before.
TEST_F(OverBreaks, what_became_of_chunks_that_were_asked_for_and_not_heard_of_is_not_known) {
  ASSERT_TRUE(make_secret(&model_.secret));
  map(0, 2);
  meet(*sender_, " returns 0\nknows");
  fill(0, 7);
  round();
  for (const uint64_t chunk : {0, 1}) {
    fill(chunk, 8 + chunk);
    model_.known.emplace_back(host(chunk), host(chunk) + kChunkBytes);
  }
  model_.break_at = model_.done;
  model_.how = Break::kBehind;
  EXPECT_FALSE(try_round(*sender_));
  EXPECT_EQ(model_.taken, 2u);
  fill(0, 7), memset(host(1), 0, kChunkBytes);
  ASSERT_TRUE(sender_->return_to(model_.mend()).ok());
  round();
  expect_equal();
}

TEST_F(OverBreaks, a_shared_piece_is_told_in_one_all_the_same) {
  at_each_frame([this] {
    meet(*sender_, " returns 0");
    map(0, 3), map(3, 4), map(7, 2);
    for (uint64_t chunk = 0; chunk < 9; ++chunk) fill(chunk, chunk);
    round(), expect_equal();
    session_->memory().name_pieces({kBase + 3 * kChunkBytes, 4 * kChunkBytes});
    unmap(4, 1), unmap(8, 1);
    round();
    EXPECT_EQ(model_.chunks.size(), 8u);
    for (uint64_t chunk = 3; chunk < 7; ++chunk) {
      EXPECT_EQ(model_.told_in[kBase + chunk * kChunkBytes], (MemoryRange{kBase + 3 * kChunkBytes, 4 * kChunkBytes}));
      EXPECT_EQ(memcmp(model_.chunks[kBase + chunk * kChunkBytes].data(), host(chunk), kChunkBytes), 0);
    }
  });
}

TEST_F(OverBreaks, through_slots_nobody_waits_for_a_source_that_is_gone) {
  ASSERT_TRUE(ChunkSlots::make(&model_.slots).ok());
  ASSERT_TRUE(sender_->meet(model_.slots->offer() + returns_words(0), true).ok());
  EXPECT_FALSE(sender_->may_return());
  EXPECT_EQ(model_.done, 0u);
}

TEST_F(OverBreaks, a_destination_that_claims_too_much_is_not_believed) {
  meet(*sender_, " returns 0");
  map(0, 4);
  fill(1, 1);
  round();
  EXPECT_FALSE(sender_->return_to(model_.done + 1).ok());
  EXPECT_FALSE(sender_->return_to(model_.done - 1).ok()) << "it has confirmed it";
  EXPECT_TRUE(sender_->return_to(model_.done).ok());
  round();
  expect_equal();
}

// What a keeper has, and sends when the vGPU goes on.
class KeptOverBreaks : public OverBreaks {
 protected:
  // What a source sends to be kept.
  class Told final : public ByteStream {
   public:
    Outcome send(const void* data, size_t bytes, uint32_t) override {
      return bytes_.append(static_cast<const char*>(data), bytes), Outcome();
    }
    Outcome receive(void* data, size_t bytes, uint32_t) override {
      if (bytes_.size() - read_ < bytes) return Outcome::fail("nothing comes");
      memcpy(data, bytes_.data() + read_, bytes);
      read_ += bytes;
      return {};
    }
    Outcome flush(uint32_t) override { return {}; }
    void cancel() override {}
    void close() override {}

   private:
    std::string bytes_;
    size_t read_ = 0;
  };

  void SetUp() override {
    ChunkCarrierTest::SetUp();
    char name[] = "/tmp/tide-kept-test-XXXXXX";
    directory_ = mkdtemp(name);
    kept_ = std::make_unique<Kept>(6, 0, ShelfPlace{directory_ + "/parked", directory_ + "/ledger", 1u << 30});
    ASSERT_TRUE(kept_->start(nullptr).ok());
    Told told;
    ChunkSender sender(library_, session_->contexts(), session_->memory(), told);
    ASSERT_TRUE(sender.start().ok());
    map(0, 12), map(20, 8), map(40, 4);
    for (const uint64_t chunk : {0, 1, 2, 5, 6, 20, 21, 22, 23, 24, 25, 26, 27, 41}) fill(chunk, chunk);
    ChunkCarrier::Pass pass;
    ASSERT_TRUE(sender.pass([] { return true; }, &pass).ok());
    ASSERT_TRUE(sender.end().ok());
    const TransferOutline outline;
    ASSERT_TRUE(told.send(&outline, sizeof outline, 0).ok());
    ASSERT_TRUE(send_piece(told, nullptr, 0).ok());
    const Outcome kept = kept_->receive(told);
    ASSERT_TRUE(kept.ok()) << kept.message();
    for (const MemoryRange& range : session_->memory().ranges()) {
      const auto* at = reinterpret_cast<const std::byte*>(range.address);
      for (uint64_t i = 0; i < range.bytes; i += kChunkBytes)
        chunks_[range.address + i].assign(at + i, at + i + kChunkBytes);
    }
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void give(const char* offer) {
    std::unique_ptr<ChunkCarrier> carrier;
    ASSERT_TRUE(kept_->carrier()(model_, &carrier).ok());
    meet(*carrier, offer);
    round(*carrier);
    EXPECT_EQ(model_.chunks, chunks_);
  }

  std::string directory_;
  std::unique_ptr<Kept> kept_;
  std::map<uint64_t, std::vector<std::byte>> chunks_;
};

TEST_F(KeptOverBreaks, what_was_lost_is_sent_again_and_nothing_else) {
  at_each_frame([this] { give(" returns 0"); });
}

TEST_F(KeptOverBreaks, who_was_asked_and_not_heard_is_asked_again) {
  first_ = 2;
  at_each_frame([this] {
    ASSERT_TRUE(make_secret(&model_.secret));
    for (const uint64_t chunk : {1, 5, 22, 26, 41}) model_.known.push_back(chunks_[kBase + chunk * kChunkBytes]);
    give(" returns 0\nknows");
    EXPECT_GE(model_.taken, 5u);
  });
}

TEST(Rounds, end_when_a_short_pause_can_carry_the_rest) {
  RoundJudge judge;
  EXPECT_FALSE(judge.enough(1u << 30, 500'000'000));
  EXPECT_FALSE(judge.enough(200u << 20, 100'000'000));
  EXPECT_TRUE(judge.enough(40u << 20, 20'000'000));
}

TEST(Rounds, end_when_another_one_would_not_help) {
  RoundJudge judge;
  EXPECT_FALSE(judge.enough(1u << 30, 500'000'000));
  EXPECT_FALSE(judge.enough(1u << 30, 500'000'000));
  EXPECT_TRUE(judge.enough(1000u << 20, 500'000'000));
}

TEST(Rounds, end_at_last) {
  RoundJudge judge;
  int rounds = 1;
  for (double bytes = 1e12; !judge.enough(uint64_t(bytes), 1'000'000'000); bytes *= 0.7) ++rounds;
  EXPECT_GT(rounds, 10);
  EXPECT_LT(rounds, 50);
}

}  // namespace
}  // namespace tide
