#include "interpose/command_log.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "calls.h"
#include "interpose/protection.h"
#include "interpose/seen_answers.h"
#include "transport/ring.h"

namespace tide {
namespace {

std::vector<std::byte> payload_for(uint64_t sequence) {
  return std::vector<std::byte>(sequence % 11 == 0 ? 900'000 : sequence * 37 % 3000, std::byte(sequence));
}

void add(CommandLog& log, uint64_t sequence) {
  const auto payload = payload_for(sequence);
  CommandHeader header;
  header.bytes = uint32_t(record_bytes(sizeof header, payload.size()));
  header.call = 1;
  header.sequence = sequence;
  header.payload_bytes = uint32_t(payload.size());
  ASSERT_TRUE(log.add(header, payload.data()));
}

// Reads all of it: commands come in order, whole, from behind `after` on. How many marks lay between.
int read(CommandLog& log, uint64_t after) {
  int marks = 0;
  log.rewind();
  CommandLog::Entry entry;
  while (log.look(&entry)) {
    if (entry.kind == CommandLog::Kind::kCommand) {
      EXPECT_EQ(entry.command->sequence, ++after);
      const auto expected = payload_for(after);
      EXPECT_EQ(entry.command->payload_bytes, expected.size());
      EXPECT_EQ(memcmp(entry.command + 1, expected.data(), expected.size()), 0);
    } else {
      ++marks;
    }
    log.pass();
  }
  EXPECT_EQ(after, log.end());
  return marks;
}

TEST(CommandLog, gives_back_what_was_added_and_forgets_what_is_safe) {
  CommandLog log(0);
  for (uint64_t sequence = 1; sequence <= 300; ++sequence) {
    if (sequence % 10 == 0) {
      ASSERT_TRUE(log.add(CommandLog::Kind::kStreamMark, 3, sequence - 1));
    }
    add(log, sequence);
  }
  EXPECT_EQ(read(log, 0), 30);
  const uint64_t bytes = log.bytes();
  for (const uint64_t safe : {1, 9, 10, 150, 150, 299}) {
    while (log.drop_to(safe, 7)) {
    }
    EXPECT_EQ(log.begin(), safe);
    EXPECT_EQ(read(log, safe), int(30 - safe / 10));
  }
  EXPECT_LT(log.bytes(), bytes / 4);
  while (log.drop_to(300, 1)) {
  }
  EXPECT_EQ(read(log, 300), 0);
  for (uint64_t sequence = 301; sequence <= 340; ++sequence) add(log, sequence);
  EXPECT_EQ(read(log, 300), 0);
}

// What was stored before the first entry counts as stored.
TEST(CommandLog, knows_the_signals_of_the_checkpoint) {
  CommandLog log(0);
  add(log, 1);
  ASSERT_TRUE(log.add(CommandLog::Kind::kSignal, 5, 70));
  add(log, 2);
  ASSERT_TRUE(log.add(CommandLog::Kind::kSignal, 5, 71));
  EXPECT_EQ(log.signal(5), 0u);
  log.drop_to(1, 100);
  EXPECT_EQ(log.signal(5), 0u) << "stored behind the checkpoint";
  log.drop_to(2, 100);
  EXPECT_EQ(log.signal(5), 70u);
  EXPECT_EQ(read(log, 2), 1);
}

AnswerDigest digest_of(const std::string& text, int32_t result = 0) {
  AnswerDigest digest;
  EXPECT_TRUE(digest.add(0, text.data(), text.size()));
  digest.set_result(result);
  return digest;
}

SeenAnswers::Verdict take(SeenAnswers& seen, uint64_t sequence, uint64_t offset, const std::string& text, bool data,
                          int32_t result = 0) {
  return seen.take({sequence, offset, text.data(), text.size(), data, !data, result});
}

TEST(SeenAnswers, are_known_again_however_they_are_cut) {
  using Verdict = SeenAnswers::Verdict;
  SeenAnswers seen;
  seen.remember(7, digest_of("what was said"), true);
  seen.remember(8, digest_of("fine", 3), true);
  seen.remember(9, digest_of("0.25 ms"), false);
  EXPECT_EQ(take(seen, 6, 0, "what was said", true), Verdict::kNew);
  EXPECT_EQ(take(seen, 7, 0, "what", true), Verdict::kRepeated);
  EXPECT_EQ(take(seen, 7, 4, " was said", true), Verdict::kRepeated);
  EXPECT_EQ(take(seen, 7, 0, "what was sxid", true), Verdict::kDiffers);
  EXPECT_EQ(take(seen, 8, 0, "fine", false, 3), Verdict::kRepeated);
  EXPECT_EQ(take(seen, 8, 0, "fine", false, 4), Verdict::kDiffers) << "another result";
  EXPECT_EQ(take(seen, 8, 0, "fin", false, 3), Verdict::kDiffers) << "shorter";
  EXPECT_EQ(take(seen, 9, 0, "0.31 ms", false), Verdict::kRepeated) << "a time";
}

TEST(SeenAnswers, begin_again_with_each_worker_and_end_with_a_checkpoint) {
  SeenAnswers seen;
  seen.remember(7, digest_of("what was said"), true);
  EXPECT_EQ(take(seen, 7, 0, "what", true), SeenAnswers::Verdict::kRepeated);
  seen.begin_again();  // the second worker, too, died
  EXPECT_EQ(take(seen, 7, 0, "what was said", true), SeenAnswers::Verdict::kRepeated);
  seen.drop_to(7);
  EXPECT_EQ(take(seen, 7, 0, "what was said", true), SeenAnswers::Verdict::kNew);
  EXPECT_EQ(seen.size(), 0u);
}

TEST(SeenText, is_printed_once) {
  SeenText text;
  EXPECT_EQ(text.take(1, 10, 100), 0u);
  EXPECT_EQ(text.take(2, 5, 200), 0u);
  text.drop_to(100);  // a checkpoint, at which 10 bytes had been said
  EXPECT_EQ(text.take(1, 10, 300), 0u);
  text.begin_again(100);
  EXPECT_EQ(text.take(1, 4, 400), 4u) << "cut in another way";
  EXPECT_EQ(text.take(1, 8, 500), 6u);
  EXPECT_EQ(text.take(2, 6, 600), 5u);
  EXPECT_EQ(text.take(1, 3, 700), 0u);
  text.begin_again(500);  // a checkpoint of that worker
  EXPECT_EQ(text.take(2, 6, 800), 6u);
  EXPECT_EQ(text.take(1, 4, 900), 3u);
}

TEST(Protection, knows_what_cannot_be_done_again) {
  EXPECT_EQ(Protection::reason_against(uint16_t(Call::tideLaunch)), Unprotected::kNo);
  EXPECT_EQ(Protection::reason_against(uint16_t(Call::tideMapHost)), Unprotected::kHostMemory);
  EXPECT_EQ(Protection::reason_against(uint16_t(Call::tideOpenEvent)), Unprotected::kSharing);
  EXPECT_EQ(Protection::reason_against(uint16_t(Call::tideEnd)), Unprotected::kRenewed);
}

TEST(Protection, takes_the_size_of_the_log_from_the_environment) {
  setenv("TIDE_PROTECT_LOG_MIB", "64", 1);
  EXPECT_EQ(Protection::wanted_log_bytes(), 64u << 20);
  setenv("TIDE_PROTECT_LOG_MIB", "1", 1);
  EXPECT_EQ(Protection::wanted_log_bytes(), 16u << 20) << "less would hold a few copies only";
  unsetenv("TIDE_PROTECT_LOG_MIB");
  EXPECT_EQ(Protection::wanted_log_bytes(), 256u << 20);
}

}  // namespace
}  // namespace tide
