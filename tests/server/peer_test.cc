// Device memory goes from worker to worker.

#include <algorithm>

#include "server/peer_wire.h"
#include "tests/server/client.h"
#include "transport/stream.h"

namespace tide {
namespace {

constexpr uint64_t kMapped = 64u << 20;

std::vector<std::byte> pattern(size_t bytes, unsigned seed) {
  std::vector<std::byte> values(bytes);
  for (size_t i = 0; i < bytes; ++i) values[i] = std::byte((i * 2654435761u + seed) >> 13);
  return values;
}

// A vGPU with a worker and a client of its own.
struct Side {
  explicit Side(uint32_t number) : vgpu(number), base(vgpu_range_base(number)) {}
  void start() {
    ASSERT_TRUE(client.open(*worker, test_session(vgpu, 1)));
    client.make_context();
    ControlMessage message;
    ASSERT_TRUE(worker->await(ControlType::kServing, &message));
    client.send(Call::tideMapMemory, command::MapMemory{base, kMapped});
  }
  template <class Answer>
  void take(uint64_t sequence, Answer* answer) {
    AnswerHeader header;
    std::vector<std::byte> payload;
    ASSERT_TRUE(client.receive(&header, &payload));
    ASSERT_EQ(AnswerKind(header.kind), AnswerKind::kData);
    ASSERT_EQ(header.sequence, sequence);
    ASSERT_EQ(payload.size(), sizeof *answer);
    memcpy(answer, payload.data(), sizeof *answer);
    ASSERT_TRUE(client.reach(kTestLegacy, sequence));
  }
  PeerAddress address() {
    PeerAddressAnswer answer;
    take(client.send(Call::tidePeerAddress, command::PeerAddress{0}, kTestLegacy), &answer);
    EXPECT_EQ(answer.ok, 1u) << answer.message;
    return answer.peer;
  }
  void write(uint64_t at, const std::vector<std::byte>& bytes) {
    constexpr size_t kPart = 512u << 10;
    for (size_t done = 0; done < bytes.size(); done += kPart)
      client.copy_in(base + at + done, bytes.data() + done, std::min(kPart, bytes.size() - done));
    ASSERT_EQ(client.copy_out(base + at, 1).size(), 1u);  // behind them: they are done
  }
  // Rows of `width` bytes from the other's memory to the same place of ours; *answer once end() is called.
  uint64_t begin(const PeerAddress& peer, const Side& from, uint64_t width, uint64_t height = 1, uint64_t to_pitch = 0,
                 uint64_t from_pitch = 0, uint64_t from_at = 0) {
    const command::Fetch command{base,
                                 to_pitch != 0 ? to_pitch : width,
                                 from.base + from_at,
                                 from_pitch != 0 ? from_pitch : width,
                                 width,
                                 height,
                                 sizeof peer};
    return client.send(Call::tideFetch, command, kTestLegacy, &peer, sizeof peer);
  }
  FetchAnswer end(uint64_t sequence) {
    FetchAnswer answer;
    take(sequence, &answer);
    return answer;
  }

  const uint32_t vgpu;
  const uint64_t base;
  std::unique_ptr<WorkerProcess> worker = std::make_unique<WorkerProcess>();
  TestClient client;
};

class PeerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(from_.start());
    ASSERT_NO_FATAL_FAILURE(to_.start());
    peer_ = from_.address();
  }
  FetchState fetch(uint64_t bytes, uint64_t from_at = 0) {
    return to_.end(to_.begin(peer_, from_, bytes, 1, 0, 0, from_at)).state;
  }

  Side from_{0}, to_{1};
  PeerAddress peer_;
};

TEST_F(PeerTest, bytes_of_any_number_arrive) {
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{4097}, kPeerPieceBytes, kPeerPieceBytes * kPeerSlots + 1,
                               kPeerPieceBytes * (3 * kPeerSlots) + 17}) {
    const auto values = pattern(bytes, unsigned(bytes));
    ASSERT_NO_FATAL_FAILURE(from_.write(0, values));
    ASSERT_NO_FATAL_FAILURE(to_.write(0, pattern(bytes + 64, 99)));
    ASSERT_EQ(fetch(bytes), FetchState::kDone);
    const auto found = to_.client.copy_out(to_.base, bytes + 64);
    EXPECT_EQ(memcmp(found.data(), values.data(), bytes), 0) << bytes;
    const auto beyond = pattern(bytes + 64, 99);
    EXPECT_EQ(memcmp(found.data() + bytes, beyond.data() + bytes, 64), 0) << "written beyond " << bytes;
  }
}

TEST_F(PeerTest, rows_with_gaps_arrive) {
  constexpr uint64_t kWidth = 3000, kHeight = 700, kTo = 3072, kFrom = 3333;
  const auto values = pattern(kFrom * kHeight, 3), before = pattern(kTo * kHeight, 4);
  ASSERT_NO_FATAL_FAILURE(from_.write(0, values));
  ASSERT_NO_FATAL_FAILURE(to_.write(0, before));
  ASSERT_EQ(to_.end(to_.begin(peer_, from_, kWidth, kHeight, kTo, kFrom)).state, FetchState::kDone);
  const auto found = to_.client.copy_out(to_.base, kTo * kHeight);
  for (uint64_t row = 0; row < kHeight; ++row) {
    ASSERT_EQ(memcmp(&found[row * kTo], &values[row * kFrom], kWidth), 0) << row;
    ASSERT_EQ(memcmp(&found[row * kTo + kWidth], &before[row * kTo + kWidth], kTo - kWidth), 0) << row;
  }
}

TEST_F(PeerTest, four_fetch_in_a_ring_in_both_directions_at_once) {
  constexpr uint64_t kBytes = (8u << 20) + 5;
  Side third(2), fourth(3);
  ASSERT_NO_FATAL_FAILURE(third.start());
  ASSERT_NO_FATAL_FAILURE(fourth.start());
  Side* const ring[] = {&from_, &to_, &third, &fourth};
  std::vector<PeerAddress> peers;
  for (Side* side : ring) peers.push_back(side->address());
  constexpr uint64_t kOwn = 48u << 20;  // what each gives away; what it gets lies at 0
  for (unsigned i = 0; i < 4; ++i) ASSERT_NO_FATAL_FAILURE(ring[i]->write(kOwn, pattern(kBytes, i)));
  uint64_t sequences[4][2] = {};
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned back = 0; back < 2; ++back) {
      const unsigned other = (i + (back != 0 ? 3 : 1)) % 4;
      sequences[i][back] = ring[i]->begin(peers[other], *ring[other], kBytes, 1, 0, 0, kOwn);
    }
  }
  for (unsigned i = 0; i < 4; ++i) {
    for (const uint64_t sequence : sequences[i]) EXPECT_EQ(ring[i]->end(sequence).state, FetchState::kDone);
    const auto found = ring[i]->client.copy_out(ring[i]->base, kBytes);
    EXPECT_EQ(memcmp(found.data(), pattern(kBytes, (i + 3) % 4).data(), kBytes), 0) << i;
  }
}

TEST_F(PeerTest, who_does_not_know_the_secret_gets_nothing) {
  ASSERT_NO_FATAL_FAILURE(from_.write(0, pattern(64, 1)));
  const PeerAddress right = peer_;
  for (const size_t wrong : {size_t{0}, size_t{kPeerSecretBytes - 1}}) {
    peer_ = right;
    peer_.secret[wrong] ^= 1;
    EXPECT_EQ(fetch(64), FetchState::kRefused);
  }
  EXPECT_EQ(to_.client.copy_out(to_.base, 1)[0], std::byte{0});
  peer_ = right;
  EXPECT_EQ(fetch(64), FetchState::kDone);
}

TEST_F(PeerTest, what_is_not_the_vgpus_is_refused) {
  EXPECT_EQ(fetch(64, kVgpuRangeBytes), FetchState::kRefused);
  EXPECT_EQ(fetch(64, uint64_t(0) - 64), FetchState::kRefused);
  EXPECT_EQ(fetch(64, kVgpuRangeBytes - 63), FetchState::kRefused);
  EXPECT_EQ(to_.end(to_.begin(peer_, from_, 64, 2, 64, ~uint64_t{0} - 128)).state, FetchState::kRefused);
  EXPECT_EQ(fetch(64), FetchState::kDone) << "and the connection is as good as before";
  EXPECT_EQ(to_.client.page().errors.load(), 0u);
  EXPECT_EQ(from_.client.page().errors.load(), 0u);
}

TEST_F(PeerTest, nonsense_is_answered_by_the_end) {
  std::unique_ptr<ByteStream> stream;
  ASSERT_TRUE(connect_stream(peer_.address, 5'000, &stream).ok());
  const PeerHello hello;  // no secret
  ASSERT_TRUE(stream->send(&hello, sizeof hello).ok());
  PeerVerdict verdict;
  ASSERT_TRUE(stream->receive(&verdict, sizeof verdict).ok());
  EXPECT_EQ(verdict.state, FetchState::kRefused);
  char more;
  EXPECT_FALSE(stream->receive(&more, 1, 5'000).ok());
  EXPECT_EQ(fetch(64), FetchState::kDone);
}

TEST_F(PeerTest, a_source_that_died_is_found_out) {
  ASSERT_EQ(fetch(64), FetchState::kDone);
  kill(from_.worker->pid(), SIGKILL);
  from_.worker->exit_status();
  const FetchState cut = fetch(8u << 20);
  EXPECT_TRUE(cut == FetchState::kGone || cut == FetchState::kUnreachable) << int(cut);
  EXPECT_EQ(fetch(64), FetchState::kUnreachable);
  EXPECT_EQ(to_.client.page().errors.load(), 0u) << "the client decides what that means";
  ASSERT_NO_FATAL_FAILURE(to_.write(0, pattern(64, 1)));
}

TEST_F(PeerTest, a_source_that_dies_in_between_is_found_out) {
  const uint64_t sequence = to_.begin(peer_, from_, kMapped);
  sleep_us(3'000);
  kill(from_.worker->pid(), SIGKILL);
  const FetchState state = to_.end(sequence).state;
  EXPECT_NE(state, FetchState::kNone);
  EXPECT_NE(state, FetchState::kRefused);
  ASSERT_NO_FATAL_FAILURE(to_.write(0, pattern(64, 1)));
}

TEST_F(PeerTest, a_fetcher_that_dies_in_between_leaves_the_source_whole) {
  to_.begin(peer_, from_, kMapped);
  sleep_us(3'000);
  kill(to_.worker->pid(), SIGKILL);
  Side third(2);
  ASSERT_NO_FATAL_FAILURE(third.start());
  ASSERT_NO_FATAL_FAILURE(from_.write(0, pattern(64, 5)));
  EXPECT_EQ(third.end(third.begin(peer_, from_, 64)).state, FetchState::kDone);
  EXPECT_EQ(third.client.copy_out(third.base, 64), pattern(64, 5));
  // What is freed is given back although a reader went away in the middle.
  from_.client.send(Call::tideUnmapMemory, command::UnmapMemory{from_.base, kMapped});
  const auto map = [&] {
    return from_.client.call(Call::tideMapMemory, command::MapMemory{from_.base, kMapped}, nullptr);
  };
  const uint64_t end = now_ns() + kTestTimeoutUs * 1000;
  CUresult result = map();
  while (result != CUDA_SUCCESS && now_ns() < end) sleep_us(10'000), result = map();
  EXPECT_EQ(result, CUDA_SUCCESS);
}

TEST_F(PeerTest, a_source_about_to_move_asks_to_come_again) {
  ControlMessage message;
  WorkerProcess destination;
  ControlMove move;
  ASSERT_NO_FATAL_FAILURE(from_.write(0, pattern(64, 6)));
  ASSERT_EQ(fetch(64), FetchState::kDone);
  send_control(destination.control(), ControlType::kReceive, test_session(0, 2));
  ASSERT_TRUE(destination.await(ControlType::kReceiving, &message));
  memcpy(move.stream_address, message.as<ControlText>()->text, sizeof move.stream_address);
  move.next_epoch = 2;
  memset(move.token, 0x5a, sizeof move.token);
  strcpy(move.endpoint, "unix=/elsewhere");
  send_control(from_.worker->control(), ControlType::kMove, move);
  ASSERT_TRUE(from_.worker->await(ControlType::kReady, &message));
  EXPECT_EQ(fetch(64), FetchState::kDone) << "it still runs";
  send_control(from_.worker->control(), ControlType::kPause, ControlPause{.alone = 1});
  ASSERT_TRUE(from_.worker->await(ControlType::kTransferred, &message));
  EXPECT_EQ(fetch(64), FetchState::kMoving) << "what is written now would not be seen there";
  send_control(from_.worker->control(), ControlType::kAbort, nullptr, 0);
  ASSERT_TRUE(from_.worker->await(ControlType::kMoveFailed, &message));
  EXPECT_EQ(fetch(64), FetchState::kDone) << "the move is off";
}

TEST_F(PeerTest, a_destination_moves_when_the_fetch_is_over) {
  ControlMessage message;
  WorkerProcess destination;
  ControlMove move;
  const auto values = pattern(kMapped, 8);
  ASSERT_NO_FATAL_FAILURE(from_.write(0, values));
  send_control(destination.control(), ControlType::kReceive, test_session(1, 2));
  ASSERT_TRUE(destination.await(ControlType::kReceiving, &message));
  memcpy(move.stream_address, message.as<ControlText>()->text, sizeof move.stream_address);
  move.next_epoch = 2;
  memset(move.token, 0x5a, sizeof move.token);
  strcpy(move.endpoint, "unix=/elsewhere");
  const uint64_t sequence = to_.begin(peer_, from_, kMapped);
  send_control(to_.worker->control(), ControlType::kMove, move);
  ASSERT_TRUE(to_.worker->await(ControlType::kReady, &message));
  send_control(to_.worker->control(), ControlType::kPause, ControlPause{.alone = 1});
  ASSERT_TRUE(to_.worker->await(ControlType::kTransferred, &message));
  EXPECT_EQ(to_.end(sequence).state, FetchState::kDone);
  send_control(to_.worker->control(), ControlType::kAbort, nullptr, 0);
  ASSERT_TRUE(to_.worker->await(ControlType::kMoveFailed, &message));
  EXPECT_EQ(memcmp(to_.client.copy_out(to_.base, kMapped).data(), values.data(), kMapped), 0);
}

}  // namespace
}  // namespace tide
