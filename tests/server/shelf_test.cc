// What keepers keep: in memory up to the limit of the server, and on disk.

#include "server/shelf.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace tide {
namespace {

std::vector<std::byte> chunk_of(uint64_t seed, size_t bytes = kChunkBytes) {
  std::vector<std::byte> chunk(bytes);
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    const uint64_t word = (seed * 1'000'003 + i) * 0x9e3779b97f4a7c15u;
    memcpy(chunk.data() + i, &word, 8);
  }
  return chunk;
}

class ShelfTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tide-shelf-test-XXXXXX";
    directory_ = mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  ShelfPlace place(uint64_t memory_bytes) const {
    return {.directory = directory_ + "/parked", .ledger = directory_ + "/ledger", .memory_bytes_max = memory_bytes};
  }
  static Shelf::PieceRef put(Shelf& shelf, const std::vector<std::byte>& bytes) {
    Shelf::PieceRef piece;
    const Outcome outcome = shelf.put(bytes.data(), uint32_t(bytes.size()), &piece);
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    return piece;
  }
  static std::vector<std::byte> read(const Shelf& shelf, const Shelf::PieceRef& piece) {
    std::vector<std::byte> bytes(piece->bytes());
    const Outcome outcome = shelf.read(*piece, bytes.data());
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    return bytes;
  }

  std::string directory_;
};

TEST_F(ShelfTest, gives_back_what_was_put_there) {
  for (const uint64_t memory : {uint64_t{0}, 3 * kChunkBytes, 100 * kChunkBytes}) {
    Shelf shelf(place(memory));
    ASSERT_TRUE(shelf.start().ok());
    std::vector<std::vector<std::byte>> all;
    std::vector<Shelf::PieceRef> pieces;
    for (uint64_t i = 0; i < 8; ++i) all.push_back(chunk_of(i));
    for (const size_t bytes : {size_t{1}, size_t{5000}, size_t{1} << 20}) all.push_back(chunk_of(9, bytes));
    all.emplace_back(kChunkBytes, std::byte{7});
    for (const auto& bytes : all) pieces.push_back(put(shelf, bytes));
    for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(read(shelf, pieces[i]) == all[i]) << i;
    EXPECT_LE(shelf.kept().in_memory, memory);
    EXPECT_EQ(shelf.kept().on_disk == 0, memory == 100 * kChunkBytes);
  }
}

TEST_F(ShelfTest, keeps_equal_chunks_once_and_gives_room_back) {
  for (const uint64_t memory : {uint64_t{0}, 4 * kChunkBytes}) {
    Shelf shelf(place(memory));
    ASSERT_TRUE(shelf.start().ok());
    const auto taken = [&] { return shelf.kept().in_memory + shelf.kept().on_disk; };
    std::vector<Shelf::PieceRef> pieces;
    for (int i = 0; i < 20; ++i) pieces.push_back(put(shelf, chunk_of(1)));
    EXPECT_EQ(taken(), kChunkBytes);
    pieces.resize(1);
    EXPECT_EQ(taken(), kChunkBytes) << "one is left";
    pieces.clear();
    EXPECT_EQ(taken(), 0u);
    for (uint64_t i = 0; i < 50; ++i) EXPECT_TRUE(read(shelf, put(shelf, chunk_of(i))) == chunk_of(i));
    EXPECT_EQ(taken(), 0u);
    EXPECT_TRUE(read(shelf, put(shelf, chunk_of(1))) == chunk_of(1)) << "what was forgotten is not taken for known";
  }
}

TEST_F(ShelfTest, all_keepers_of_a_server_share_one_limit) {
  ParkMemory one(8 * kChunkBytes, directory_ + "/ledger");
  ASSERT_TRUE(one.start().ok());
  EXPECT_TRUE(one.take(3 * kChunkBytes));
  {
    ParkMemory two(8 * kChunkBytes, directory_ + "/ledger");
    ASSERT_TRUE(two.start().ok());
    EXPECT_TRUE(two.take(kChunkBytes / 2));
    EXPECT_TRUE(two.take(kChunkBytes / 2));
    EXPECT_TRUE(two.take(3 * kChunkBytes));
    EXPECT_TRUE(one.take(kChunkBytes));
    EXPECT_FALSE(one.take(1));
    EXPECT_FALSE(two.take(1));
    two.give_back(kChunkBytes);
    EXPECT_FALSE(one.take(1)) << "it is still that keeper's";
    EXPECT_TRUE(two.take(kChunkBytes));
  }
  EXPECT_TRUE(one.take(4 * kChunkBytes)) << "what a keeper had is free when it has ended";
  EXPECT_FALSE(one.take(1));
}

TEST_F(ShelfTest, a_keeper_that_is_killed_gives_its_memory_back) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    ParkMemory all(4 * kChunkBytes, directory_ + "/ledger");
    const char word = all.start().ok() && all.take(4 * kChunkBytes) ? 'y' : 'n';
    if (write(ends[1], &word, 1) == 1) pause();
    _exit(1);
  }
  char word = 0;
  ASSERT_EQ(::read(ends[0], &word, 1), 1);
  EXPECT_EQ(word, 'y');
  ParkMemory other(4 * kChunkBytes, directory_ + "/ledger");
  ASSERT_TRUE(other.start().ok());
  EXPECT_FALSE(other.take(1));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(other.take(4 * kChunkBytes));
  close(ends[0]), close(ends[1]);
}

TEST_F(ShelfTest, without_a_limit_a_quarter_of_the_machine_stays_available) {
  double total = 0, available = 0;
  std::ifstream file("/proc/meminfo");
  for (std::string name, unit; file >> name;) {
    double* const value = name == "MemTotal:" ? &total : name == "MemAvailable:" ? &available : nullptr;
    if (value != nullptr) file >> *value;
    std::getline(file, unit);
  }
  ASSERT_GT(total, 0.0);
  const double share = available / total;
  if (share > 0.2 && share < 0.3) GTEST_SKIP() << "others may change the answer at any moment";
  ParkMemory memory({}, "");
  ASSERT_TRUE(memory.start().ok());
  EXPECT_EQ(memory.take(kChunkBytes), share > 0.25);
}

TEST_F(ShelfTest, a_directory_that_cannot_be_written_is_a_clear_error) {
  ShelfPlace nowhere = place(0);
  nowhere.directory = "/proc/no-such-place";
  Shelf shelf(nowhere);
  ASSERT_TRUE(shelf.start().ok());
  Shelf::PieceRef piece;
  const Outcome outcome = shelf.put(chunk_of(1).data(), kChunkBytes, &piece);
  EXPECT_FALSE(outcome.ok());
  EXPECT_NE(outcome.message().find("/proc/no-such-place"), std::string::npos) << outcome.message();
}

}  // namespace
}  // namespace tide
