// What the keepers of one job keep together: each chunk once, and nothing of one keeper is lost or left by another's
// end.

#include "server/job_shelf.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "server/shelf.h"

namespace tide {
namespace {

using Bytes = std::vector<std::byte>;

Bytes chunk_of(uint64_t seed) {
  Bytes chunk(kChunkBytes);
  for (size_t i = 0; i + 8 <= chunk.size(); i += 8) {
    const uint64_t word = (seed * 1'000'003 + i) * 0x9e3779b97f4a7c15u;
    memcpy(chunk.data() + i, &word, 8);
  }
  return chunk;
}

// A keeper's shelf, and what lies there.
struct Keeper {
  std::unique_ptr<Shelf> shelf;
  std::vector<Shelf::PieceRef> pieces;

  void put(uint64_t seed) {
    const Bytes bytes = chunk_of(seed);
    const Outcome outcome = shelf->put(bytes.data(), uint32_t(bytes.size()), &pieces.emplace_back());
    ASSERT_TRUE(outcome.ok()) << outcome.message();
  }
  void put_all(uint64_t from, uint64_t count) {
    for (uint64_t seed = from; seed < from + count; ++seed) put(seed);
  }
  void expect(size_t piece, uint64_t seed) const {
    Bytes bytes(kChunkBytes);
    const Outcome outcome = shelf->read(*pieces[piece], bytes.data());
    ASSERT_TRUE(outcome.ok()) << outcome.message();
    EXPECT_TRUE(bytes == chunk_of(seed)) << "piece " << piece;
  }
  uint64_t all() const { return shelf->kept().in_memory + shelf->kept().on_disk; }
};

class JobShelfTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tide-job-shelf-test-XXXXXX";
    directory_ = mkdtemp(name);
    files_ = make();
  }
  void TearDown() override {
    files_.reset();
    std::filesystem::remove_all(directory_);
  }
  ShelfPlace place(uint64_t memory_chunks = 1000) const {
    return {.directory = directory_ + "/parked",
            .ledger = directory_ + "/ledger",
            .memory_bytes_max = memory_chunks * kChunkBytes};
  }
  std::shared_ptr<const JobShelfFiles> make() const {
    std::shared_ptr<const JobShelfFiles> files;
    const Outcome outcome = JobShelfFiles::make(place(), &files);
    EXPECT_TRUE(outcome.ok()) << outcome.message();
    return files;
  }
  Keeper keeper(uint64_t memory_chunks = 1000, std::shared_ptr<const JobShelfFiles> files = nullptr) const {
    std::unique_ptr<JobShelf> job;
    const Outcome joined = JobShelf::join(files == nullptr ? files_ : files, place(memory_chunks), &job);
    EXPECT_TRUE(joined.ok()) << joined.message();
    Keeper keeper{.shelf = std::make_unique<Shelf>(place(memory_chunks)), .pieces = {}};
    EXPECT_TRUE(keeper.shelf->start(std::move(job)).ok());
    return keeper;
  }
  static uint64_t allocated(int fd) {
    struct stat found = {};
    EXPECT_EQ(fstat(fd, &found), 0);
    return uint64_t(found.st_blocks) * 512;
  }
  // Besides what says what lies where: in chunks.
  uint64_t chunks_in_memory() const { return allocated(files_->memory()) / kChunkBytes; }
  uint64_t chunks_on_disk() const { return allocated(files_->disk()) / kChunkBytes; }

  // A process of its own that does this, and is there until it is killed; `ready` when it is done with it.
  static pid_t fork_keeper(const std::function<void()>& work, bool wait = true) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      if (wait) work();
      const char word = ::testing::Test::HasFailure() ? 'n' : 'y';
      if (write(ends[1], &word, 1) != 1) _exit(1);
      if (!wait) work();
      while (true) pause();
    }
    char word = 0;
    EXPECT_EQ(read(ends[0], &word, 1), 1);
    EXPECT_EQ(word, 'y');
    close(ends[0]), close(ends[1]);
    return child;
  }
  static void end(pid_t child) {
    kill(child, SIGKILL);
    EXPECT_EQ(waitpid(child, nullptr, 0), child);
  }

  std::string directory_;
  std::shared_ptr<const JobShelfFiles> files_;
};

TEST_F(JobShelfTest, equal_chunks_of_several_keepers_are_kept_once_in_memory_and_on_disk) {
  for (const uint64_t memory : {1000, 0}) {
    files_ = make();
    std::vector<Keeper> keepers;
    for (uint64_t i = 0; i < 4; ++i) {
      keepers.push_back(keeper(memory));
      keepers[i].put_all(0, 10);  // the weights
      keepers[i].put(100 + i);    // what differs
      keepers[i].put(3);          // equal to another one of its own
      EXPECT_EQ(memory != 0 ? chunks_in_memory() : chunks_on_disk(), 11 + i);
    }
    EXPECT_EQ(memory == 0 ? chunks_in_memory() : chunks_on_disk(), 0u);
    for (const Keeper& one : keepers) EXPECT_EQ(one.all(), 10 * kChunkBytes / 4 + kChunkBytes) << "its part";
    for (uint64_t i = 0; i < 4; ++i) {
      for (uint64_t piece = 0; piece < 10; ++piece) keepers[i].expect(piece, piece);
      keepers[i].expect(10, 100 + i);
      keepers[i].expect(11, 3);
    }
    keepers[1].pieces.clear();
    EXPECT_EQ(memory != 0 ? chunks_in_memory() : chunks_on_disk(), 13u) << "what it alone had";
    EXPECT_EQ(keepers[0].all(), 3 * (kChunkBytes / 3) + 7 * (kChunkBytes / 3) + kChunkBytes);
    for (const uint64_t i : {0, 2, 3}) keepers[i].expect(9, 9);
    for (Keeper& one : keepers) one.pieces.clear();
    EXPECT_EQ(chunks_in_memory() + chunks_on_disk(), 0u);
  }
}

TEST_F(JobShelfTest, the_limit_of_the_server_counts_what_is_really_kept) {
  Keeper one = keeper(6), two = keeper(6);
  one.put_all(0, 5), two.put_all(0, 5);
  EXPECT_EQ(one.shelf->kept().in_memory + two.shelf->kept().in_memory, 5 * kChunkBytes);
  ParkMemory other_job(6 * kChunkBytes, directory_ + "/ledger");
  ASSERT_TRUE(other_job.start().ok());
  EXPECT_TRUE(other_job.take(kChunkBytes));
  EXPECT_FALSE(other_job.take(1)) << "all six are taken";
  two.put(50);
  two.expect(5, 50);
  EXPECT_GE(two.shelf->kept().on_disk, kChunkBytes);
  one.put(50);
  EXPECT_EQ(chunks_on_disk(), 1u) << "on disk once, too";
  one.pieces.clear();
  EXPECT_FALSE(other_job.take(1)) << "the other keeper still has all of it";
  two.pieces.clear();
  EXPECT_TRUE(other_job.take(5 * kChunkBytes));
  two.put(7);
  EXPECT_GT(two.shelf->kept().on_disk, 0u);
}

// Both write it, and the second one takes the first one's.
TEST_F(JobShelfTest, keepers_that_put_the_same_at_once_have_it_once) {
  constexpr uint64_t kChunks = 12;
  std::vector<pid_t> children;
  for (uint64_t child = 0; child < 4; ++child) {
    children.push_back(fork_keeper(
        [&, child] {
          auto* const mine = new Keeper(keeper());
          for (uint64_t i = 0; i < kChunks; ++i) mine->put((i + child * 3) % kChunks);
        },
        false));
  }
  Keeper mine = keeper();
  mine.put_all(0, kChunks);
  const auto all_have_all = [&] { return mine.all() == kChunks * (kChunkBytes / 5); };
  for (const uint64_t until = now_ns() + 20'000'000'000; !all_have_all() && now_ns() < until;) sleep_us(10'000);
  EXPECT_EQ(mine.all(), kChunks * (kChunkBytes / 5));
  EXPECT_EQ(chunks_in_memory(), kChunks);
  for (const pid_t child : children) end(child);
  mine.shelf->job()->sweep();
  EXPECT_EQ(mine.all(), kChunks * kChunkBytes);
  for (uint64_t i = 0; i < kChunks; ++i) mine.expect(i, i);
}

TEST_F(JobShelfTest, a_keeper_that_is_killed_loses_its_own_and_nothing_of_others) {
  for (const uint64_t memory : {8, 0}) {
    files_ = make();
    Keeper mine = keeper(memory);
    mine.put_all(0, 3);
    const pid_t child = fork_keeper([&] {
      auto* const its = new Keeper(keeper(memory));
      its->put_all(0, 3);
      its->put_all(20, 5);
    });
    EXPECT_EQ(memory != 0 ? chunks_in_memory() : chunks_on_disk(), 8u);
    end(child);
    mine.shelf->job()->sweep();
    EXPECT_EQ(memory != 0 ? chunks_in_memory() : chunks_on_disk(), 3u);
    EXPECT_EQ(mine.all(), 3 * kChunkBytes);
    for (uint64_t i = 0; i < 3; ++i) mine.expect(i, i);
    mine.put_all(30, 5);
    EXPECT_EQ(mine.shelf->kept().in_memory, memory * kChunkBytes) << "the limit has its room back";
    for (uint64_t i = 0; i < 5; ++i) mine.expect(3 + i, 30 + i);
  }
}

// At any moment of what it does.
TEST_F(JobShelfTest, keepers_that_are_killed_while_they_come_and_go_leave_nothing) {
  Keeper mine = keeper(40);
  mine.put_all(0, 4);
  for (uint64_t round = 0; round < 25; ++round) {
    const pid_t child = fork_keeper(
        [&] {
          auto* const its = new Keeper(keeper(40));
          for (uint64_t i = 0;; ++i) {
            its->put(i % 12);
            if (i % 3 == 2) its->pieces.clear();
          }
        },
        false);
    sleep_us(2'000 + round * 1'700);
    end(child);
    if (round % 5 == 4) mine.shelf->job()->sweep();
  }
  mine.shelf->job()->sweep();
  EXPECT_EQ(chunks_in_memory(), 4u);
  EXPECT_EQ(mine.all(), 4 * kChunkBytes);
  for (uint64_t i = 0; i < 4; ++i) mine.expect(i, i);
  mine.pieces.clear();
  ParkMemory all(40 * kChunkBytes, directory_ + "/ledger");
  ASSERT_TRUE(all.start().ok());
  EXPECT_TRUE(all.take(40 * kChunkBytes)) << "no slot of the limit was lost";
}

TEST_F(JobShelfTest, a_keeper_that_is_stopped_holds_nobody_up_for_long) {
  Keeper mine = keeper();
  mine.put(0);
  const pid_t child = fork_keeper(
      [&] {
        auto* const its = new Keeper(keeper());
        const Bytes bytes = chunk_of(1);
        Shelf::PieceRef piece;
        while (true) {
          piece.reset();
          if (!its->shelf->put(bytes.data(), uint32_t(bytes.size()), &piece).ok()) _exit(1);
        }
      },
      false);
  uint64_t longest_ms = 0;
  for (uint64_t round = 1; round <= 20; ++round) {
    kill(child, SIGSTOP);
    const uint64_t begin = now_ns();
    for (uint64_t i = 0; i < 5; ++i) mine.put(10 * round + i);
    longest_ms = std::max(longest_ms, (now_ns() - begin) / 1'000'000);
    for (uint64_t i = 0; i < 5; ++i) mine.expect(mine.pieces.size() - 5 + i, 10 * round + i);
    mine.pieces.resize(1);
    kill(child, SIGCONT);
    sleep_us(1'000);
  }
  EXPECT_LT(longest_ms, 8'000u) << "it keeps for itself then";
  mine.expect(0, 0);
  end(child);
}

TEST_F(JobShelfTest, of_what_was_let_go_nothing_is_found_again) {
  Keeper mine = keeper(), other = keeper();
  mine.put_all(0, 4), other.put_all(2, 4);
  mine.pieces.clear(), other.pieces.clear();
  const Bytes zeros(kChunkBytes);
  uint64_t looked = 0;
  for (off_t at = lseek(files_->memory(), off_t{64} << 20, SEEK_DATA); at >= 0; looked += kChunkBytes) {
    Bytes found(kChunkBytes);
    ASSERT_EQ(pread(files_->memory(), found.data(), kChunkBytes, at), ssize_t(kChunkBytes));
    EXPECT_TRUE(found == zeros);
    at = lseek(files_->memory(), at + off_t(kChunkBytes), SEEK_DATA);
  }
  EXPECT_EQ(looked, 0u) << "the system has all of it back";
  mine.put(9);
  mine.expect(0, 9);
}

TEST_F(JobShelfTest, another_job_has_its_own) {
  const auto theirs = make();
  Keeper mine = keeper(), other = keeper(1000, theirs);
  mine.put_all(0, 3), other.put_all(0, 3);
  EXPECT_EQ(mine.all(), 3 * kChunkBytes);
  EXPECT_EQ(other.all(), 3 * kChunkBytes);
  EXPECT_EQ(allocated(theirs->memory()) / kChunkBytes, 3u);
  EXPECT_EQ(chunks_in_memory(), 3u);
}

TEST_F(JobShelfTest, what_changed_on_disk_is_noticed_by_each_who_has_it) {
  Keeper one = keeper(0), two = keeper(0);
  one.put_all(0, 2), two.put_all(0, 2);
  const char other = 5;
  ASSERT_EQ(pwrite(files_->disk(), &other, 1, 1000), 1);
  Bytes bytes(kChunkBytes);
  for (const Keeper* keeper : {&one, &two}) {
    EXPECT_NE(keeper->shelf->read(*keeper->pieces[0], bytes.data()).message().find("not what was written"),
              std::string::npos);
    keeper->expect(1, 1);
  }
}

TEST_F(JobShelfTest, who_finds_no_place_keeps_for_itself) {
  std::vector<std::unique_ptr<JobShelf>> members(JobShelf::kMembersMost);
  for (auto& member : members) ASSERT_TRUE(JobShelf::join(files_, place(), &member).ok());
  std::unique_ptr<JobShelf> one_more;
  EXPECT_FALSE(JobShelf::join(files_, place(), &one_more).ok());
  members[17].reset();
  members[3]->sweep();
  EXPECT_TRUE(JobShelf::join(files_, place(), &one_more).ok());
  int fds[4] = {open("/dev/null", O_RDWR | O_CLOEXEC), -1, -1, -1};
  EXPECT_EQ(JobShelfFiles::take(fds, 4), nullptr);
  EXPECT_EQ(fds[0], -1);
}

}  // namespace
}  // namespace tide
